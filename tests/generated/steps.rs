//! A model in steps: sequences cut into pieces that find in caches what those before them left, against whole sequences.

use std::collections::BTreeMap;

use skipc::frontend::lower::{Function, KeyValues, Skipping};
use skipc::frontend::spec::model::Model;
use skipc::verify::steps::{Cut, Piece, Room, Waiting, pieces};
use skipc_artifact::interface::Role;
use skipc_artifact::program::{PAGE_ROWS, STEP};
use skipc_ir::interp::{Datum, FlatBatch, Gf61, Ring32};
use skipc_plan::interp::{Element, Mode, States, Tiling};
use skipc_runtime::{Device, Module, Options};

use crate::check::{Case, Checked, Checker, Domain};
use crate::forms::{Compiler, Until, lowered, lowered_step, passed, plan_options};
use crate::run::{ExactWeights, GraphForm, Masks, PlanForm, Run};

/// One model in so many also runs in steps.
const EVERY: u64 = 4;

/// How kernels are run.
const HOW: (Mode, Tiling) = (Mode::Arena, Tiling { rows: 3, reversed: true });

/// The cuts; each subject has one of them beside single tokens. They are an odd number, so that each comes up with keys and
/// values that wait and with ones that do not.
const CUTS: [Cut; 9] = [
    Cut::Together(2),
    Cut::InTurn(1),
    Cut::InTurn(3),
    Cut::Interleaved(2),
    Cut::Together(7),
    Cut::Together(16),
    Cut::InTurn(17),
    Cut::Interleaved(16),
    Cut::Together(64),
];

/// A batch in pieces.
struct Pieces<'a> {
    compiler: &'a dyn Compiler,
    n_routers: usize,
    list: Vec<Piece>,
    /// Rows of the caches.
    n_rows: u32,
    /// Pages that a sequence can have.
    n_pages: usize,
    n_tokens: usize,
}

impl<'a> Pieces<'a> {
    fn new(compiler: &'a dyn Compiler, model: &Model, batch: &FlatBatch, cut: Cut) -> Self {
        let n_pages = model.stream.max_positions.div_ceil(PAGE_ROWS as usize);
        let (list, n_rows) = pieces(batch, cut, Room { pages: n_pages, tokens: usize::MAX });
        let n_routers = model.skips().count();
        Self { compiler, n_routers, list: compiler.pieces(list), n_rows, n_pages, n_tokens: batch.len() }
    }

    /// Runs each piece and puts the rows together, under these decisions if there are some.
    fn run<N: skipc_ir::Domain>(
        &self,
        masks: Option<&Masks>,
        mut step: impl FnMut(&Piece, Option<&Masks>) -> Result<Run<N>, String>,
    ) -> Result<Run<N>, String> {
        let mut whole = Run::of(Vec::new(), Vec::new());
        let mut waiting = Waiting::new(self.n_routers);
        for mut piece in self.list.iter().cloned() {
            piece.cached.pending = waiting.table(&piece);
            let of_piece = |mask: &Vec<bool>| piece.rows.iter().map(|row| mask[*row]).collect();
            let own: Option<Masks> = masks.map(|masks| masks.iter().map(of_piece).collect());
            let got = step(&piece, own.as_ref())?;
            waiting.advance(&piece, &self.compiler.decided(got.gates.clone()));
            let (n, cols) = (piece.rows.len(), got.logits.len() / piece.rows.len().max(1));
            if got.logits.len() != n * cols || got.gates.iter().any(|gate| gate.len() != n) {
                return Err(format!("a step of {n} tokens gives {} logits", got.logits.len()));
            }
            whole.logits.resize(self.n_tokens * cols, N::ZERO);
            whole.gates.resize(got.gates.len(), vec![false; self.n_tokens]);
            for (idx, row) in piece.rows.iter().enumerate() {
                whole.logits[row * cols..][..cols].copy_from_slice(&got.logits[idx * cols..][..cols]);
                whole.gates.iter_mut().zip(&got.gates).for_each(|(mask, gate)| mask[*row] = gate[idx]);
            }
        }
        Ok(whole)
    }
}

impl Checker<'_> {
    /// The function that goes on with sequences gives what whole sequences give, whatever the cut.
    pub(crate) fn steps(&mut self) -> Result<(), String> {
        let batch = self.subject.batch();
        if !self.subject.seed.is_multiple_of(EVERY) || batch.is_empty() {
            return Ok(());
        }
        let decides = match self.subject.model.is_causal() {
            true => Function::Score,
            false => Function::Generate,
        };
        let whole = lowered(self.compiler, self.subject, decides, Skipping::Gathered)?;
        let whole = GraphForm::new(whole).with_scores();
        let key_values = match (self.subject.seed / EVERY).is_multiple_of(2) {
            true => KeyValues::Lazy,
            false => KeyValues::Eager,
        };
        let step = lowered_step(self.compiler, self.subject, key_values)?;
        // Routers of a run together, where keys and values wait; in every other one of these models.
        let passes = match key_values {
            KeyValues::Lazy if (self.subject.seed / EVERY).is_multiple_of(4) => skipc_passes::step_pipeline(),
            _ => skipc_passes::default_pipeline(),
        };
        let (after, legal) = passed(self.compiler, &step, &passes)?;
        let cases = self.cases();
        let case = |name| cases.iter().find(|case| case.name == name);
        let cut = CUTS[(self.subject.seed / EVERY) as usize % CUTS.len()];
        // The first piece is the prompt, of which decisions are kept.
        let cuts = match self.subject.model.keeps_prompts() {
            true => [Cut::Together(usize::MAX); 2],
            false => [Cut::Together(1), cut],
        };
        let [single, several] = cuts.map(|cut| Pieces::new(self.compiler, &self.subject.model, &batch, cut));
        if let Some(free) = case("free") {
            self.graph_in_steps::<Ring32>("steps", (&GraphForm::new(step), &whole), &single, free)?;
        }
        if let Some(random) = case("random") {
            let after = GraphForm::new(after);
            self.graph_in_steps::<Gf61>("steps after the passes", (&after, &whole), &several, random)?;
        }
        if self.until < Until::Kernels {
            return Ok(());
        }
        let plan =
            skipc_plan::build(&legal, &plan_options(self.subject)).map_err(|error| error.to_string())?;
        skipc_plan::verify(&plan).map_err(|errors| format!("plan of steps: {}", errors[0]))?;
        let plan = PlanForm::new(self.compiler.planned(plan), self.subject)?;
        for case in cases.iter().filter(|case| case.in_all_forms) {
            self.kernels_in_steps::<Ring32>((&plan, &whole), &several, case)?;
        }
        if self.until < Until::Code {
            return Ok(());
        }
        let mut of_whole = Checked { function: decides, batch: &batch, form: &whole, runs: Vec::new() };
        let model =
            skipc_runtime::Model::from_bytes(&plan.artefact(STEP)?).map_err(|error| error.to_string())?;
        for case in cases.iter().filter(|case| case.in_all_forms) {
            let masks = case.masks.as_ref();
            let got = run_code(&model, &several, masks)?;
            let check = format!("code in steps within bound ({})", case.name);
            self.within(&check, &got, masks, &mut of_whole, &ExactWeights(&self.subject.tensors))?;
        }
        Ok(())
    }

    fn graph_in_steps<N: Domain>(
        &mut self,
        name: &str,
        (form, whole): (&GraphForm, &GraphForm),
        pieces: &Pieces<'_>,
        case: &Case,
    ) -> Result<(), String> {
        let (weights, masks) = (&self.subject.tensors, case.masks.as_ref());
        let zeros = form.graph.signature().states.into_iter();
        let mut states: BTreeMap<Role, Datum<N>> = zeros
            .filter_map(|port| Some((port.role, Datum::zeros(&port.ty, pieces.n_rows as usize)?)))
            .collect();
        let got = pieces.run(masks, |piece, own| {
            let mut tensors = std::mem::take(&mut states);
            tensors.extend(piece.tensors(pieces.n_pages));
            let (run, left) = form.run_on(weights, &piece.batch, tensors, own)?;
            states = left;
            Ok(run)
        })?;
        let wanted = whole.run::<N>(weights, &self.subject.batch(), masks)?;
        self.same(&format!("{name} = gathered, {} ({})", N::NAME, case.name), &got, &wanted);
        Ok(())
    }

    fn kernels_in_steps<N: Domain + Element>(
        &mut self,
        (plan, whole): (&PlanForm, &GraphForm),
        pieces: &Pieces<'_>,
        case: &Case,
    ) -> Result<(), String> {
        let (weights, masks) = (&self.subject.tensors, case.masks.as_ref());
        let mut states = States::<N>::with_cache(pieces.n_rows);
        let constants = plan.constants_in(weights)?;
        let got = pieces.run(masks, |piece, own| {
            let input = piece.kernel_batch(own.map(Vec::as_slice));
            plan.run_on(&constants, &mut states, &input, HOW)
                .map_err(|fault| format!("kernels in steps: {fault}"))
        })?;
        let wanted = whole.run::<N>(weights, &self.subject.batch(), masks)?;
        self.same(&format!("kernels in steps = gathered, {} ({})", N::NAME, case.name), &got, &wanted);
        Ok(())
    }
}

/// Runs compiled code with one thread and with two, which have to agree to the bit.
fn run_code(
    model: &skipc_runtime::Model,
    pieces: &Pieces<'_>,
    masks: Option<&Masks>,
) -> Result<Run<f64>, String> {
    let mut runs = Vec::new();
    for threads in [1, 2] {
        let options = Options { threads, checked: true, ..Options::default() };
        let module = Module::load(model, Device::Cpu, options).map_err(|error| error.to_string())?;
        let mut state = module.state_with_cache(pieces.n_rows).map_err(|error| error.to_string())?;
        let all = 0..state.cached_rows();
        state.forget_cached(all).map_err(|error| error.to_string())?;
        let interface = module.function(STEP).map_err(|error| error.to_string())?.interface.clone();
        let n_routers = interface.routers().len() as u32;
        let mut roles = vec![Role::Logits];
        roles.extend((0..n_routers).map(|router| Role::Decision { router }));
        runs.push(pieces.run(masks, |piece, own| {
            let mut inputs = piece.bytes();
            for (router, mask) in (0..).zip(own.into_iter().flatten()) {
                inputs.push((Role::Forced { router }, mask.iter().map(|bit| u8::from(*bit)).collect()));
            }
            inputs.retain(|(role, _)| interface.buffer(role).is_some());
            let results = state.call(STEP, piece.rows.len() as u32, &inputs, &roles);
            let mut results = results.map_err(|error| format!("code in steps: {error}"))?.into_iter();
            let logits = results.next().unwrap_or_default();
            let number = |word: &[u8; 4]| f64::from(f32::from_le_bytes(*word));
            let logits: Vec<f64> = logits.as_chunks().0.iter().map(number).collect();
            let gates: Masks = results.map(|gate| gate.iter().map(|bit| *bit != 0).collect()).collect();
            Ok(Run::shown(logits, gates))
        })?);
    }
    let bits = |run: &Run<f64>| run.logits.iter().map(|logit| logit.to_bits()).collect::<Vec<u64>>();
    if bits(&runs[0]) != bits(&runs[1]) || runs[0].gates != runs[1].gates {
        return Err("steps with one thread and with two give other bits".to_owned());
    }
    runs.pop().ok_or_else(|| "nothing ran".to_owned())
}
