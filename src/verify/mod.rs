//! The equivalence ladder: one artefact's model in every form that there is, on the same inputs.
//!
//! | rung | numbers | must agree |
//! | --- | --- | --- |
//! | masked graph | f64, ring, field | it is the oracle |
//! | gathered graph, graph after the passes, planned kernels | f64 | to 1e-9 of the logits' root mean square |
//! | the same | integers mod 2³², GF(2⁶¹ − 1) | exactly |
//! | planned kernels, code of each target that this machine can run | f32 | to 2e-4 of the logits' root mean square |
//! | the same | bf16 | to 16 units of roundoff of the logits' size, root mean square |
//! | code in steps, in every cut of [`steps::CUTS`] | f32, bf16 | as whole sequences |
//! | kernels in steps, in each of these cuts | integers mod 2³² and GF(2⁶¹ − 1) in turn | exactly |
//!
//! All forms get the same tensors: the oracle the original ones, kernels the constants that were made from them. Nothing is
//! made back from constants.
//!
//! The oracle is lowered anew from the spec in the artefact, with every layer computed for every token. Decisions are
//! forced to given densities and counts, and left free; free decisions of another form are replayed in the oracle, so
//! that values are always compared under the same decisions. A free decision that the oracle would take otherwise is a
//! difference, unless its score stands within rounding of the border: those are counted apart as near ties.

mod cases;
mod compare;
mod experts;
mod forms;
mod known_answer;
mod oracle;
mod reduce;
pub mod reference;
pub mod steps;

use serde::Serialize;
use skipc_artifact::bundle;
use skipc_artifact::image::HostLevel;
use skipc_artifact::program::{self, PAGE_ROWS, Program};
use skipc_artifact::section::SectionKind;
use skipc_artifact::target::{DType, Target};
use skipc_ir::interp::{FlatBatch, Gf61, Number, Ring32};
use skipc_ir::{Domain, Graph, text};
use skipc_plan::interp::{Constants, Element};
use skipc_plan::{Linked, Plan};
use skipc_runtime::distance::Bound;
use skipc_runtime::{Choices, Device, Model, Options, Session, cuda};

use crate::diagnostic::Diagnostic;
use crate::error::Error;
use crate::frontend::lower::{Function, Skipping, lower};
use crate::frontend::spec;
use crate::frontend::weights::Weights;
use crate::verify::reference::Converted;

pub use cases::drawn_batch;
pub use forms::run_plan;
pub use known_answer::known_answers;
pub use reduce::Reduced;

use cases::Cases;
use forms::Runner;
use oracle::{Oracle, Verdict};
use steps::Cut;

/// What to run.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The tokens. Exact domains and f64 see the beginnings of its first sequences.
    pub batch: &'a FlatBatch,
    /// Decisions to force instead of the ladder's own, one mask `[n]` a router.
    pub routing: Option<&'a [Vec<bool>]>,
    /// Threads of the host for the artefact's code; none if that is not to run.
    pub threads: Option<usize>,
    /// As [`Options::max_level`].
    pub max_level: Option<HostLevel>,
    /// The tensors that the artefact's constants were made from.
    pub weights: &'a Weights,
    /// Hears what is compared next.
    pub progress: &'a dyn Fn(&str),
}

/// One form of the model on one case.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which of the model's functions.
    #[serde(rename = "purpose")]
    pub function: &'static str,
    /// What ran, such as `passes`, `kernels` or `cpu`.
    pub form: String,
    /// In which numbers: `f64`, `f32`, `bf16`, `ring32` or `gf61`.
    pub numbers: &'static str,
    /// Which decisions, such as `none`, `target`, `tile+1` (forced) or `free`.
    pub case: String,
    /// Decisions compared: of routers, and of tokens among experts.
    pub decisions: usize,
    /// Decisions that differ from the oracle's; only free ones can.
    pub flips: usize,
    /// Of these, how many had a score within rounding of the border.
    pub near_ties: usize,
    /// Largest distance of a logit from the oracle's under the same decisions; infinite where exact numbers differ.
    pub max_error: f64,
    /// Root mean square distance, relative to the oracle's logits.
    pub relative_rms: f64,
    /// Whether it is within bounds.
    pub ok: bool,
}

/// What was compared, and what could not be.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// All comparisons.
    pub rows: Vec<Row>,
    /// Forms that this machine cannot run, with the reason.
    pub skipped: Vec<String>,
    /// The first mismatch on as little input as still shows it.
    pub reduced: Option<Reduced>,
}

impl Report {
    /// Whether there were comparisons, and all are within bounds.
    pub fn ok(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.ok)
    }
}

/// Why the ladder could not be climbed at all.
#[derive(Debug, thiserror::Error)]
pub enum LadderError {
    /// The artefact is damaged, or the runtime refuses it.
    #[error(transparent)]
    Runtime(#[from] skipc_runtime::Error),
    /// A stage in the artefact cannot be read back or evaluated.
    #[error("{stage}: {message}")]
    Stage {
        /// Which.
        stage: String,
        /// Why.
        message: String,
    },
    /// The reference itself computes no numbers. The weights are at fault.
    #[error("logits of {what} are not finite in f32, though every weight is")]
    NotFinite {
        /// Of which computation.
        what: String,
    },
    /// No token, so nothing to compare.
    #[error("there is no token to compare forms on")]
    Nothing,
}

impl LadderError {
    fn stage(stage: impl Into<String>, message: &impl ToString) -> LadderError {
        LadderError::Stage { stage: stage.into(), message: message.to_string() }
    }
}

impl From<LadderError> for Error {
    fn from(error: LadderError) -> Error {
        match error {
            LadderError::Runtime(error) => error.into(),
            LadderError::Stage { .. } => Diagnostic::new("verify::stage", error.to_string()).into(),
            LadderError::NotFinite { .. } => Diagnostic::new("weights::overflow", error.to_string())
                .help("look for a gain or a matrix of enormous size in the weights")
                .into(),
            LadderError::Nothing => Diagnostic::new("verify::nothing_compared", error.to_string())
                .help("give `--tokens` or `--rows` with at least one token")
                .into(),
        }
    }
}

/// Runs all forms of the artefact's model.
///
/// # Errors
/// If the artefact cannot be read; differences are rows of the report.
pub fn climb(model: &Model, inputs: &Inputs<'_>) -> Result<Report, LadderError> {
    if inputs.batch.is_empty() {
        return Err(LadderError::Nothing);
    }
    let mut report = Report::default();
    let targets = model.targets();
    let programs = targets.iter().map(|target| bundle::read_program(model.artifact(), target));
    let programs: Vec<Program> = programs.collect::<Result<_, _>>().map_err(skipc_runtime::Error::from)?;
    for function in [Function::Score, Function::Generate] {
        let has = |program: &&Program| program.function(function.name()).is_some();
        if let Some(first) = programs.iter().find(has) {
            Phase::read(model, function, first)?.climb(&programs, inputs, &mut report)?;
        }
    }
    Ok(report)
}

/// The function that scores of the artefact's first program: all have the same inputs.
///
/// # Errors
/// `verify::empty` where there is none.
pub fn scoring(model: &Model) -> Result<program::Function, Error> {
    let empty = |message| Error::from(Diagnostic::new("verify::empty", message));
    let target = model.targets().into_iter().next().ok_or_else(|| empty("the artefact has no program"))?;
    let mut program = bundle::read_program(model.artifact(), &target)?;
    program.functions.remove(program::SCORE).ok_or_else(|| empty("the artefact has no function that scores"))
}

/// The forms of one function of the model.
struct Phase<'a> {
    model: &'a Model,
    function: Function,
    oracle: Oracle,
    lowered: Graph,
    legal: Graph,
    /// The graphs of the function that does the same in steps, if there is one: before and after the passes.
    in_steps: Option<[Graph; 2]>,
    /// What steps are sized for.
    sizes: steps::Sizes,
    /// Share of executed tokens that the spec wants of each router.
    densities: Vec<f64>,
}

impl<'a> Phase<'a> {
    fn read(model: &'a Model, function: Function, program: &Program) -> Result<Phase<'a>, LadderError> {
        let spec = spec::model("spec.toml", stage_text(model, "spec.toml", SectionKind::Spec)?)
            .map_err(|error| LadderError::stage("spec.toml", &error))?;
        let masked = lower(&spec, Skipping::Masked, function)
            .map_err(|error| LadderError::stage("the masked graph", &error))?;
        let densities: Vec<f64> = spec.skips().map(|skip| skip.density).collect();
        let compiled = program.function(function.name());
        if Some(densities.len()) != compiled.map(|compiled| compiled.interface.routers().len()) {
            let message = "the spec has another number of routers than the program".to_owned();
            return Err(LadderError::stage("spec.toml", &message));
        }
        // Steps decide as what generates does, which is another function only where scoring looks ahead.
        let is_causal = function == Function::Generate || spec.is_causal();
        let in_steps = match program.function(program::STEP) {
            Some(_) if is_causal => {
                let at = |stage| graph(model, &graph_section(Function::Step, stage));
                Some([at("lowered")?, at("legal")?])
            }
            _ => None,
        };
        Ok(Phase {
            in_steps,
            sizes: steps::Sizes {
                room: steps::Room {
                    pages: spec.stream.max_positions.div_ceil(PAGE_ROWS as usize),
                    tokens: compiled.map_or(0, |compiled| compiled.max_tokens as usize),
                },
                routers: densities.len(),
            },
            model,
            function,
            oracle: Oracle::new(masked).map_err(|error| LadderError::stage("the masked graph", &error))?,
            lowered: graph(model, &graph_section(function, "lowered"))?,
            legal: graph(model, &graph_section(function, "legal"))?,
            densities,
        })
    }

    fn climb(
        &self,
        programs: &[Program],
        inputs: &Inputs<'_>,
        report: &mut Report,
    ) -> Result<(), LadderError> {
        let mut seen: Vec<DType> = Vec::new();
        for program in programs {
            let bytes =
                bundle::read_constants(self.model.artifact(), program).map_err(skipc_runtime::Error::from)?;
            let plan = plan(self.model, self.function, program)?;
            let routers = plan.function.interface.routers();
            let step_plan = match &self.in_steps {
                Some(_) => Some(self::plan(self.model, Function::Step, program)?),
                None => None,
            };
            if seen.is_empty() {
                let short = inputs.shortened();
                let cases = Cases::new(&short.as_inputs(inputs), &routers, &self.densities, forms::TILE_ROWS);
                let plans = (&plan, step_plan.as_ref());
                self.exact::<f64>("f64", compare::F64, plans, inputs, (&cases, report))?;
                self.exact::<Ring32>("ring32", Bound::Exact, plans, inputs, (&cases, report))?;
                self.exact::<Gf61>("gf61", Bound::Exact, plans, inputs, (&cases, report))?;
                // Longer sequences take their time, so that exact domains take turns.
                self.in_cuts::<Ring32>("ring32", 0, step_plan.as_ref(), inputs, report)?;
                self.in_cuts::<Gf61>("gf61", 1, step_plan.as_ref(), inputs, report)?;
            }
            let tile_rows = cases::tile_rows(program).unwrap_or(forms::TILE_ROWS);
            let cases = Cases::new(inputs, &routers, &self.densities, tile_rows);
            let (mut runners, mut in_steps) = (Vec::new(), Vec::new());
            let bound = Bound::of(program.dtype);
            if !seen.contains(&program.dtype) {
                seen.push(program.dtype);
                runners.push(forms::kernels(&plan, bytes, bound));
            }
            let session = match inputs.threads {
                Some(threads) => self.session(program, threads, inputs.max_level)?,
                None => Err(format!("{}: its code, as it was asked", program.target)),
            };
            match session {
                Ok(session) => {
                    let module = session.module().clone();
                    runners.push(forms::code(session, bound));
                    if self.in_steps.is_some() {
                        let form = |cut| steps::code(module.clone(), bound, (cut, self.sizes));
                        in_steps.extend(steps::CUTS.map(form));
                    }
                }
                Err(reason) => report.skipped.push(reason),
            }
            let weights = Converted::new(inputs.weights);
            self.compare((runners, in_steps), &weights, inputs.progress, &cases, report)?;
        }
        Ok(())
    }

    /// Graphs and kernels in one number domain.
    fn exact<N: Element>(
        &self,
        numbers: &'static str,
        bound: Bound,
        (plan, step_plan): (&Plan, Option<&Plan>),
        inputs: &Inputs<'_>,
        (cases, report): (&Cases, &mut Report),
    ) -> Result<(), LadderError> {
        let weights = Converted::<N>::new(inputs.weights);
        let constants_of =
            |plan| Constants::of(plan, &weights).map_err(|fault| LadderError::stage("kernels", &fault));
        let constants = constants_of(plan)?;
        let of_steps = step_plan.map(constants_of).transpose()?;
        let runners = vec![
            forms::graph::<N>("gathered", numbers, &self.lowered, &weights, bound),
            forms::graph::<N>("passes", numbers, &self.legal, &weights, bound),
            forms::kernels_in::<N>(numbers, plan, &constants, bound),
        ];
        let mut in_steps = Vec::new();
        if let (Some([lowered, legal]), Some((plan, constants))) =
            (&self.in_steps, step_plan.zip(of_steps.as_ref()))
        {
            let (of, one, some) =
                ((numbers, bound), (Cut::Together(1), self.sizes), (Cut::InTurn(3), self.sizes));
            in_steps = vec![
                steps::graph("gathered", of, one, lowered, &weights),
                steps::kernels_in::<N>(of, some, plan, constants),
                steps::graph("passes", of, some, legal, &weights),
                steps::kernels_in::<N>(of, one, plan, constants),
            ];
        }
        self.compare((runners, in_steps), &weights, inputs.progress, cases, report)
    }

    /// Kernels of steps in one exact domain, in every other cut from this one on.
    fn in_cuts<N: Element>(
        &self,
        numbers: &'static str,
        first: usize,
        step_plan: Option<&Plan>,
        inputs: &Inputs<'_>,
        report: &mut Report,
    ) -> Result<(), LadderError> {
        let Some(plan) = step_plan else { return Ok(()) };
        let weights = Converted::<N>::new(inputs.weights);
        let constants =
            Constants::of(plan, &weights).map_err(|fault| LadderError::stage("kernels", &fault))?;
        let cuts = steps::CUTS.into_iter().skip(first).step_by(2);
        let of = (numbers, Bound::Exact);
        let in_steps = cuts.map(|cut| steps::kernels_in::<N>(of, (cut, self.sizes), plan, &constants));
        let few = inputs.for_cuts();
        let cases = Cases::free(&few.as_inputs(inputs));
        self.compare((Vec::new(), in_steps.collect()), &weights, inputs.progress, &cases, report)
    }

    /// Compares each form with the oracle on each case. Forms in steps take forced decisions in turn, each case one of them;
    /// free decisions all.
    fn compare<N: Domain>(
        &self,
        (mut runners, mut in_steps): (Vec<Runner<'_, N>>, Vec<Runner<'_, N>>),
        weights: &Converted<'_, N>,
        progress: &dyn Fn(&str),
        cases: &Cases,
        report: &mut Report,
    ) -> Result<(), LadderError> {
        for (turn, case) in cases.list.iter().enumerate() {
            let forced = case.masks.as_deref();
            let n_forms = in_steps.len().max(1);
            let takes = |form: usize| forced.is_none() || form == turn % n_forms;
            let in_steps =
                in_steps.iter_mut().enumerate().filter(|(form, _)| takes(*form)).map(|(_, form)| form);
            let wanted = match forced {
                // Choices of experts are free, and each form's own.
                Some(masks) if !self.oracle.has_experts() => {
                    Some(self.oracle.run::<N>(weights, &cases.batch, (Some(masks), None))?)
                }
                _ => None,
            };
            // Forms that decide alike are compared with one run of the oracle.
            let mut last: Option<(Decided, Verdict<N>)> = None;
            for runner in runners.iter_mut().chain(in_steps) {
                let (function, Runner { form, numbers, .. }) = (self.function, &*runner);
                progress(&format!(
                    "{} compared; {function}: {form}, {numbers}, {}",
                    report.rows.len(),
                    case.name
                ));
                let got = runner.run(&cases.batch, forced)?;
                let replayed = match (&wanted, &last) {
                    (Some(wanted), _) if forced == Some(&got.gates) => wanted,
                    (_, Some((decided, replayed))) if decided.is_of(&got) => replayed,
                    _ => {
                        let replayed = self.oracle.under(weights, &cases.batch, &got)?;
                        &last.insert((Decided::of(&got), replayed)).1
                    }
                };
                if !N::EXACT && !all_finite(&replayed.logits) {
                    let what = format!("the reference, decisions `{}`,", case.name);
                    return Err(LadderError::NotFinite { what });
                }
                let found =
                    compare::compare(&self.oracle, replayed, &got, forced, &cases.batch, runner.bound);
                if !found.ok && report.reduced.is_none() {
                    progress("looking for the shortest input that differs");
                    let oracle = |batch: &FlatBatch, got: &reference::Outcome<N>| {
                        self.oracle.under(weights, batch, got)
                    };
                    report.reduced = reduce::reduce(&self.oracle, &oracle, runner, &cases.batch, forced);
                }
                report.rows.push(Row {
                    function: self.function.name(),
                    form: runner.form.clone(),
                    numbers: runner.numbers,
                    case: case.name.clone(),
                    decisions: found.decisions,
                    flips: found.flips,
                    near_ties: found.near_ties,
                    max_error: found.max_error,
                    relative_rms: found.relative_rms,
                    ok: found.ok,
                });
            }
        }
        Ok(())
    }

    /// The program on this machine, or why there is none.
    fn session(
        &self,
        program: &Program,
        threads: usize,
        max_level: Option<HostLevel>,
    ) -> Result<Result<Session, String>, LadderError> {
        let device = match &program.target {
            Target::Cpu => Device::Cpu,
            Target::Cuda(_) => match cuda::Gpu::open(0) {
                Ok(_) => Device::Cuda(0),
                Err(error) => return Ok(Err(format!("{}: {error}", program.target))),
            },
        };
        let options = Options { threads, checked: true, max_level };
        let mut session = Session::new(self.model, device, options)?;
        if session.program().target != program.target {
            return Ok(Err(format!("{}: this GPU takes {}", program.target, session.program().target)));
        }
        session.choose(self.function.name())?;
        Ok(Ok(session))
    }
}

/// All that a form decided, by which the oracle is asked.
struct Decided {
    gates: Vec<Vec<bool>>,
    choices: Vec<Choices>,
}

impl Decided {
    fn of<N>(outcome: &reference::Outcome<N>) -> Decided {
        Decided { gates: outcome.gates.clone(), choices: outcome.choices.clone() }
    }

    fn is_of<N>(&self, outcome: &reference::Outcome<N>) -> bool {
        self.gates == outcome.gates && self.choices == outcome.choices
    }
}

/// Whether all logits are numbers of f32.
fn all_finite<N: Number>(logits: &[N]) -> bool {
    logits.iter().all(|logit| (logit.to_f64() as f32).is_finite())
}

/// The section of a function's graph at a stage, such as `ir/score/legal.sir`.
pub fn graph_section(function: Function, stage: &str) -> String {
    format!("ir/{function}/{stage}.sir")
}

/// The section of the plans for a kind of target and a precision, such as `plan/cpu-f32.json`.
pub fn plan_section(kind: &str, dtype: DType) -> String {
    format!("plan/{kind}-{dtype}.json")
}

fn stage_text<'a>(model: &'a Model, name: &str, kind: SectionKind) -> Result<&'a str, LadderError> {
    let bytes = model.artifact().section(name, kind).map_err(skipc_runtime::Error::from)?;
    std::str::from_utf8(bytes).map_err(|error| LadderError::stage(name, &error))
}

fn graph(model: &Model, name: &str) -> Result<Graph, LadderError> {
    text::parse(stage_text(model, name, SectionKind::Ir)?).map_err(|errors| {
        let first = errors.first().map(ToString::to_string).unwrap_or_default();
        LadderError::stage(name, &first)
    })
}

/// The plan that a function of a program of an artefact was made from, checked.
///
/// # Errors
/// If it cannot be read, or contradicts itself.
pub(crate) fn plan(model: &Model, function: Function, program: &Program) -> Result<Plan, LadderError> {
    let (kind, dtype) = (program.target.kind(), program.dtype);
    let name = plan_section(kind, dtype);
    let linked: Linked = serde_json::from_str(stage_text(model, &name, SectionKind::Plan)?)
        .map_err(|error| LadderError::stage(&name, &error))?;
    let missing = || LadderError::stage(&name, &format!("it has no function `{function}`"));
    let plan = linked.plan(function.name()).ok_or_else(missing)?;
    skipc_plan::verify(&plan).map_err(|errors| {
        let first = errors.first().map(ToString::to_string).unwrap_or_default();
        LadderError::stage(&name, &first)
    })?;
    Ok(plan)
}
