//! What has to hold between runs of related models and batches, whatever the numbers are.

use skipc::frontend::lower::Function;
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::node::{Block, Layout, Unit};
use skipc::frontend::spec::skip::{BranchScale, Branches, Combine, Decider, Either, Kv, Scope, Skip};
use skipc::frontend::spec::skip_table::{Router, SkipTable};
use skipc::frontend::stream::Head;
use skipc_ir::interp::{Number, Ring32};
use skipc_plan::interp::{Mode, Tiling};
use skipc_testkit::random::Rng;

use crate::check::{Case, Checked, Checker};
use crate::choices::has_branches;
use crate::forms::{Forms, Until, compile};
use crate::model::{map_layers, map_skips};
use crate::rules::{RouterOf, constants, routers};
use crate::run::{ExactWeights, Masks, Run};
use crate::subject::Subject;

/// Twins of a model are planned for one subject in so many.
const PLAN_TWINS_EVERY: u64 = 4;

/// What gives the same for a model and a related one. Where numbers round, the passes may choose another form for each.
const STEADY: [Engine; 3] = [Engine::Gathered, Engine::ExactPassed, Engine::ExactKernels];

/// What the forms gave for the batch itself, by form and case.
type Originals = Vec<((Engine, &'static str), Run<f64>)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    /// The gathered graph in f64.
    Gathered,
    /// The graph after the passes, where nothing rounds.
    ExactPassed,
    /// Its kernels, where nothing rounds.
    ExactKernels,
    /// The same in f32.
    Kernels,
    /// Compiled.
    Code,
}

/// A batch made from another one.
struct Transformed {
    check: &'static str,
    sequences: Vec<Vec<i64>>,
    /// For each of its rows the row of the batch that it was made from.
    rows: Vec<usize>,
    /// Whether routers decide as before.
    keeps_decisions: bool,
}

/// Runs a form; `None` if there is none of this kind.
fn run(
    engine: Engine,
    forms: &mut Forms,
    subject: &Subject,
    masks: Option<&Masks>,
) -> Option<Result<Run<f64>, String>> {
    let batch = subject.batch();
    match engine {
        Engine::Gathered => Some(forms.gathered.run(&subject.tensors, &batch, masks)),
        Engine::ExactPassed => Some(forms.passed.run::<Ring32>(&subject.tensors, &batch, masks).map(exact)),
        Engine::ExactKernels => forms.plans.as_ref().map(|[fused, _]| {
            fused.run_in::<Ring32>(&subject.tensors, &batch, masks, (Mode::Arena, Tiling::of(7))).map(exact)
        }),
        Engine::Kernels => {
            forms.plans.as_ref().map(|[fused, _]| fused.run(&batch, masks, (Mode::Arena, Tiling::of(7))))
        }
        Engine::Code => forms.code.as_mut().map(|code| code.run(subject, masks)),
    }
}

/// Elements of the ring as f64, which holds each of them.
fn exact(run: Run<Ring32>) -> Run<f64> {
    let logits = run.logits.into_iter().map(Number::to_f64).collect();
    Run { wanted: run.wanted, ..Run::shown(logits, run.gates) }
}

/// Skips that are the same for every token keep; others become this router's, without capacity and scale, and with what they
/// make of both branches.
fn with_router(model: &Model, router: Router) -> impl FnMut(&Skip) -> Option<Skip> {
    let mut constants = in_order_of_map(model, constants(&routers(model))).into_iter();
    move |skip| {
        let table = SkipTable::of(skip);
        let twin = SkipTable { kv: table.kv, combine: table.combine, ..SkipTable::of_router(router) };
        Some(constants.next().flatten().map_or_else(|| twin.skip(), |_| *skip))
    }
}

/// The skip with the decider of another one, which says of a depth in which repetition it is.
fn with_decider_of(of: &Skip, skip: Skip) -> Skip {
    match (of.combine, skip.combine) {
        (Combine::Either(Either { decider, .. }), Combine::Either(either)) => {
            Skip { density: of.density, combine: Combine::Either(Either { decider, ..either }) }
        }
        _ => skip,
    }
}

/// What is known of routers in model order, in the order of [`map_skips`]: those of blocks first, then those of stacks.
fn in_order_of_map<T>(model: &Model, of_routers: Vec<T>) -> Vec<T> {
    let (mut of_blocks, mut of_stacks) = (Vec::new(), Vec::new());
    let mut rest = of_routers.into_iter();
    for repetition in model.repetitions() {
        of_stacks.extend(repetition.skip.and_then(|_| rest.next()));
        for (_, block) in repetition.blocks {
            of_blocks.extend(rest.by_ref().take(block.skips().count()));
        }
    }
    of_blocks.extend(of_stacks);
    of_blocks
}

/// The model whose stacks decide nothing: they are repeated as they are. `None` where a repetition is not only that, or no stack
/// decides.
fn repeated(model: &Model) -> Option<Model> {
    let is_plain = |skip: &Skip| {
        let table = SkipTable::of(skip);
        table.router == Router::Always && table.combine == Branches::Either && table.kv != Kv::First
    };
    let mut of_stacks = model.stacks.iter().flat_map(|stack| &stack.skips).peekable();
    of_stacks.peek()?;
    of_stacks.all(is_plain).then(|| {
        let mut plain = model.clone();
        plain.stacks.iter_mut().for_each(|stack| stack.skips.clear());
        plain
    })
}

/// Whether it selects among all sequences of a batch together.
fn selects_from_batch(skip: &Skip) -> bool {
    matches!(skip.decider(), Some(Decider::TopK { scope: Scope::Batch, .. }))
}

/// Whether a decision for a whole sequence says how much a branch counts, not only whether it runs.
fn weighs_by_sequence(skip: &Skip) -> bool {
    skip.is_pooled() && (skip.either().is_none() || SkipTable::of(skip).gate != BranchScale::One)
}

/// The parts of a model that are skipped as a whole, as (block, layer or all of it).
fn units(model: &Model) -> Vec<(usize, Option<usize>)> {
    let blocks = model.blocks.iter().enumerate();
    blocks
        .flat_map(|(idx, block)| match block.skip_of(Unit::Block) {
            Some(_) => vec![(idx, None)],
            None => (0..block.body.n_layers()).map(|layer| (idx, Some(layer))).collect(),
        })
        .collect()
}

/// The model up to this unit, without it.
fn before(model: &Model, (block, layer): (usize, Option<usize>)) -> Model {
    let mut blocks: Vec<Block> = model.blocks[..block].to_vec();
    if let Some(layer) = layer.filter(|layer| *layer > 0) {
        let cut = &model.blocks[block];
        blocks.push(Block { body: map_layers(&cut.body, |layers| layers.truncate(layer)), ..cut.clone() });
    }
    Model { blocks, ..model.clone() }
}

impl Checker<'_> {
    pub(crate) fn metamorphic(
        &mut self,
        function: Function,
        forms: &mut Forms,
        cases: &[Case],
    ) -> Result<(), String> {
        let model = &self.subject.model;
        let all_constant = routers(model).iter().all(|router| router.constant().is_some());
        // What skipped rows keep is known of one branch alone, and of blocks that run once.
        let keeps_rows = !has_branches(model) && model.stacks.is_empty();
        if !all_constant {
            // Each compiles twins of the model, which costs more than to run them.
            match self.subject.seed.is_multiple_of(2) {
                true => self.extremes(function, forms, cases)?,
                false if keeps_rows => self.skipped_rows(function, cases)?,
                false => {}
            }
        }
        let mut rng = Rng::new(self.subject.seed ^ 0xbadc);
        let mut originals = Vec::new();
        for transformed in self.transformed(function, &mut rng) {
            self.transform(function, forms, cases, (&transformed, &mut originals))?;
        }
        Ok(())
    }

    /// All execute = the dense model; none = the model without what is skipped, or with the other branch of it alone. Where both
    /// branches run, or one is added to the stream, all execute = the same without a decision.
    fn extremes(&mut self, function: Function, forms: &mut Forms, cases: &[Case]) -> Result<(), String> {
        let subject = self.subject;
        let until = match self.until {
            Until::Graphs => Until::Graphs,
            _ if subject.seed.is_multiple_of(PLAN_TWINS_EVERY) => Until::Kernels,
            _ => Until::Graphs,
        };
        let is_scaled = subject.model.skips().any(|skip| SkipTable::of(skip).gate != BranchScale::One);
        let unscaled = |skip: &Skip| {
            let plain = SkipTable { gate: BranchScale::One, gate_factor: 1.0, ..SkipTable::of(skip) };
            Some(with_decider_of(skip, plain.skip()))
        };
        let binary = subject.with_model(map_skips(&subject.model, &mut { unscaled }));
        let mut unscaled = match is_scaled {
            true => Some(compile(self.compiler, &binary, function, until)?),
            false => None,
        };
        for (check, case, router) in [
            ("all execute = dense", "all", Router::Always),
            ("none executes = identity", "none", Router::Never),
        ] {
            // Of what does not execute, only another branch has a scale.
            let counts = is_scaled && (router == Router::Always || has_branches(&subject.model));
            let of = if counts { &binary.model } else { &subject.model };
            let constant = map_skips(of, &mut with_router(of, router));
            let dense = repeated(&constant).filter(|_| router == Router::Always);
            let twin = subject.with_model(dense.unwrap_or(constant));
            let mut twin_forms = compile(self.compiler, &twin, function, until)?;
            let masks = cases.iter().find(|known| known.name == case).and_then(|case| case.masks.as_ref());
            for engine in STEADY {
                let Some(wanted) = run(engine, &mut twin_forms, &twin, None) else { continue };
                let forms = match &mut unscaled {
                    Some(unscaled) if counts => unscaled,
                    _ => &mut *forms,
                };
                let Some(got) = run(engine, forms, subject, masks) else { continue };
                let check = format!("{check} ({engine:?})");
                self.tally.compared(&check);
                self.same_rows(&check, &got?.logits, &wanted?.logits);
            }
        }
        Ok(())
    }

    /// The stream behind a skip holds the bytes of the stream before it, wherever a token was skipped: the model up to
    /// there and the model up to just before agree on these tokens.
    fn skipped_rows(&mut self, function: Function, cases: &[Case]) -> Result<(), String> {
        let model = &self.subject.model;
        if model.stream.head == Head::Pooled {
            // Rows that were skipped are scored together with others.
            return Ok(());
        }
        let units = units(model);
        let hard: Vec<usize> = (0..units.len())
            .filter(|idx| {
                let (block, layer) = units[*idx];
                let skip = model.blocks[block].skip_of(layer.map_or(Unit::Block, Unit::Layer));
                skip.is_some_and(|skip| RouterOf { skip, block: 0, outer: None }.constant().is_none())
            })
            .collect();
        let mut rng = Rng::new(self.subject.seed ^ 0xcafe);
        let Some(idx) = rng.pick(&hard) else { return Ok(()) };
        let until = match self.until {
            Until::Graphs => Until::Graphs,
            _ if self.subject.seed % PLAN_TWINS_EVERY == 1 => Until::Kernels,
            _ => Until::Graphs,
        };
        let without = self.subject.with_model(before(model, units[idx]));
        let with = match units.get(idx + 1) {
            Some(next) => self.subject.with_model(before(model, *next)),
            None => self.subject.clone(),
        };
        let mut without_forms = compile(self.compiler, &without, function, until)?;
        let mut with_forms = compile(self.compiler, &with, function, until)?;
        let masks = cases.iter().find(|known| known.name == "random").and_then(|case| case.masks.clone());
        let Some(mut masks) = masks else { return Ok(()) };
        masks.truncate(with.model.skips().count());
        let Some(gate) = masks.last().cloned() else { return Ok(()) };
        let vocab = model.stream.n_logits();
        let is_parallel = model.blocks.iter().any(|block| block.layout() != Layout::Sequence);
        for engine in STEADY {
            let Some(after) = run(engine, &mut with_forms, &with, Some(&masks)) else { continue };
            let before = masks[..masks.len() - 1].to_vec();
            let Some(before) = run(engine, &mut without_forms, &without, Some(&before)) else { continue };
            let (after, before) = (after?, before?);
            let check = format!("skipped rows keep their bytes ({engine:?})");
            self.tally.compared(&check);
            for row in (0..gate.len()).filter(|row| !gate[*row]) {
                let row = row * vocab..(row + 1) * vocab;
                // Changes of parallel layers are added: one that is nothing makes 0 of -0.
                let added = |rows: &[f64]| rows.iter().map(|number| number + 0.0).collect::<Vec<f64>>();
                let (after, before) = (&after.logits[row.clone()], &before.logits[row]);
                match is_parallel {
                    true => self.same_rows(&check, &added(after), &added(before)),
                    false => self.same_rows(&check, after, before),
                }
            }
        }
        Ok(())
    }

    /// Batches on which rows have to come out as before.
    fn transformed(&self, function: Function, rng: &mut Rng) -> Vec<Transformed> {
        let sequences = &self.subject.sequences;
        let mut starts = vec![0];
        for sequence in sequences {
            starts.push(starts[starts.len() - 1] + sequence.len());
        }
        let rows = |idx: usize, len: usize| starts[idx]..starts[idx] + len;
        let mut made = Vec::new();
        if sequences.len() > 1 {
            let turn = 1 + rng.below(sequences.len() - 1);
            let order: Vec<usize> = (0..sequences.len()).map(|idx| (idx + turn) % sequences.len()).collect();
            made.push(Transformed {
                check: "permuted sequences permute results",
                sequences: order.iter().map(|idx| sequences[*idx].clone()).collect(),
                rows: order.iter().flat_map(|idx| rows(*idx, sequences[*idx].len())).collect(),
                keeps_decisions: !self.subject.model.skips().any(Skip::depends_on_batch),
            });
            let kept = rng.below(sequences.len());
            let alone = sequences.iter().enumerate();
            made.push(Transformed {
                check: "a row does not depend on other sequences",
                sequences: alone
                    .map(|(idx, tokens)| if idx == kept { tokens.clone() } else { Vec::new() })
                    .collect(),
                rows: rows(kept, sequences[kept].len()).collect(),
                keeps_decisions: !self.subject.model.skips().any(selects_from_batch),
            });
        }
        // What experts choose, or who finds a place, depends on later tokens whatever routers are told, as do scores of whole
        // sequences and what full attention gives.
        let model = &self.subject.model;
        if model.looks_ahead() || model.skips().any(weighs_by_sequence) {
            return made;
        }
        let is_causal = function == Function::Generate && !model.keeps_prompts() || model.is_causal();
        let lengths: Vec<usize> = sequences.iter().map(|tokens| rng.below(tokens.len() + 1)).collect();
        made.push(Transformed {
            check: "a row does not depend on later tokens",
            sequences: sequences.iter().zip(&lengths).map(|(tokens, len)| tokens[..*len].to_vec()).collect(),
            rows: lengths.iter().enumerate().flat_map(|(idx, len)| rows(idx, *len)).collect(),
            keeps_decisions: is_causal,
        });
        made
    }

    fn transform(
        &mut self,
        function: Function,
        forms: &mut Forms,
        cases: &[Case],
        (transformed, originals): (&Transformed, &mut Originals),
    ) -> Result<(), String> {
        let subject = self.subject.with_sequences(transformed.sequences.clone());
        let vocab = self.subject.model.stream.n_logits();
        for case in cases.iter().filter(|case| ["free", "random"].contains(&case.name)) {
            if case.masks.is_none() && !transformed.keeps_decisions {
                continue;
            }
            let pick = |masks: &Masks| -> Masks {
                masks.iter().map(|mask| transformed.rows.iter().map(|row| mask[*row]).collect()).collect()
            };
            let masks = case.masks.as_ref().map(pick);
            for engine in [Engine::Gathered, Engine::Kernels] {
                let key = (engine, case.name);
                if !originals.iter().any(|(known, _)| *known == key) {
                    let Some(original) = run(engine, forms, self.subject, case.masks.as_ref()) else {
                        continue;
                    };
                    originals.push((key, original?));
                }
                let Some((_, wanted)) = originals.iter().find(|(known, _)| *known == key) else { continue };
                let Some(got) = run(engine, forms, &subject, masks.as_ref()) else { continue };
                let got = got?;
                let logits = transformed
                    .rows
                    .iter()
                    .flat_map(|row| wanted.logits[row * vocab..][..vocab].iter().copied());
                let wanted = Run { logits: logits.collect(), gates: pick(&wanted.gates), ..wanted.clone() };
                self.same(&format!("{} ({engine:?}, {})", transformed.check, case.name), &got, &wanted);
            }
            // Another number of rows may be summed in another order: code is held to its bound, decisions forced.
            let Some(masks) = masks else { continue };
            let Some(got) = run(Engine::Code, forms, &subject, Some(&masks)) else { continue };
            let new = subject.batch();
            let mut checked = Checked { function, batch: &new, form: &forms.passed, runs: Vec::new() };
            let weights = ExactWeights(&self.subject.tensors);
            self.within(
                &format!("{} (Code)", transformed.check),
                &got?,
                Some(&masks),
                &mut checked,
                &weights,
            )?;
        }
        Ok(())
    }
}
