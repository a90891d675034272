//! A thousand greedy tokens in exact numbers: by steps from caches what the whole sequence gives, to the last bit. The model has
//! the form of the example, its blocks and its positions, with narrower layers, as the interpreters take their time; the
//! example itself goes through in f32.

use skipc::driver::pack;
use skipc::driver::pipeline::{self, Request, SkipRuns};
use skipc::driver::trace::Trace;
use skipc::frontend::lower::{Function, KeyValues, Skipping, lower};
use skipc::frontend::spec;
use skipc::frontend::weights::Weights;
use skipc::verify::plan_section;
use skipc::verify::reference::{self, Converted};
use skipc_artifact::pending;
use skipc_artifact::program::PAGE_ROWS;
use skipc_artifact::section::SectionKind;
use skipc_artifact::target::{DType, Target};
use skipc_ir::interp::{FlatBatch, Gf61, Ring32};
use skipc_plan::interp::{Cached, Constants, Element, Mode, States, StepInput, Tiling, run_plan_in};
use skipc_plan::{Linked, Plan};
use skipc_runtime::Model;

const SPEC: &str = r#"
[model]
name = "narrow"
vocab_size = 32
d_model = 12
max_positions = 1024
norm = "rmsnorm"
norm_eps = 1e-5
positions = "rope"
rope_theta = 10000.0
tie_embeddings = true

[block.dense]
layers = [
  { kind = "attention", heads = 2, kv_heads = 1, head_dim = 4 },
  { kind = "ffn", d_ff = 16, activation = "swiglu" },
]

[block.sparse]
skip = { router = "gumbel", density = 0.25, kv = "all" }
layers = [
  { kind = "attention", heads = 2, kv_heads = 1, head_dim = 4 },
  { kind = "ffn", d_ff = 16, activation = "swiglu" },
]

[[stack]]
blocks = ["dense", "sparse", "sparse", "sparse"]
repeat = 3
"#;

/// Tokens that are given, and all that there are in the end.
const PROMPT: usize = 23;
const LENGTH: usize = 1024;

/// Tokens of a sequence that may wait.
const MOST_PENDING: u32 = 40;

struct Narrow {
    model: spec::model::Model,
    weights: Weights,
    plan: Plan,
    vocab_size: usize,
}

impl Narrow {
    fn new((key_values, skip_runs): (KeyValues, SkipRuns)) -> Narrow {
        let model = spec::model("narrow.toml", SPEC).expect("a spec");
        let weights = Weights::drawn(&model, 5).expect("weights");
        let targets = vec![(Target::Cpu, DType::F32)];
        let request = Request { targets, key_values: Some(key_values), skip_runs, ..Request::here() };
        let compiled = pipeline::compile(&model, &request, &mut Trace::silent()).expect("it compiles");
        let bytes = pack::to_bytes((&model, &weights), &request, compiled).expect("an artefact");
        let artefact = Model::from_bytes(&bytes).expect("it loads");
        let plans = artefact.artifact().section(&plan_section("cpu", DType::F32), SectionKind::Plan);
        let linked: Linked = serde_json::from_slice(plans.expect("plans")).expect("plans");
        let plan = linked.plan(Function::Step.name()).expect("a plan of steps");
        let vocab_size = model.stream.vocab_size;
        Narrow { model, weights, plan, vocab_size }
    }

    /// The greedy continuation from caches: all tokens, with the logits and the decisions of each.
    fn continued<N: Element>(&self) -> (Vec<u32>, Vec<N>, Vec<Vec<bool>>) {
        let weights = Converted::<N>::new(&self.weights);
        let constants = Constants::of(&self.plan, &weights).expect("constants");
        let n_routers = self.model.skips().count();
        let mut states = States::with_cache(LENGTH as u32);
        let mut first = vec![0; n_routers];
        let mut tokens: Vec<u32> = (0..PROMPT as u32).map(|at| at * 7 % 32).collect();
        let (mut logits, mut gates, mut done) = (Vec::new(), vec![Vec::new(); n_routers], 0);
        while done < LENGTH {
            let new = done as u32..tokens.len() as u32;
            let rows = new.len() as u32;
            let input = StepInput {
                tokens: tokens[done..].to_vec(),
                positions: new.clone().collect(),
                sequences: vec![0; rows as usize],
                cached: Some(Cached {
                    requests: vec![0; rows as usize],
                    places: new.collect(),
                    pages: (0..LENGTH as u32 / PAGE_ROWS).collect(),
                    pending: first.iter().copied().chain([MOST_PENDING]).collect(),
                    logit_rows: (0..rows).collect(),
                    ..Cached::default()
                }),
                ..StepInput::default()
            };
            let places = (Mode::Arena, Tiling::of(7));
            let step = run_plan_in::<N>(&self.plan, &constants, &mut states, &input, places).expect("a step");
            done = tokens.len();
            pending::advance(&mut first, MOST_PENDING, done as u32, |router| {
                step.gates[router].mask.contains(&true)
            });
            gates.iter_mut().zip(step.gates).for_each(|(all, gate)| all.extend(gate.mask));
            tokens.push(likeliest(&step.logits[step.logits.len() - self.vocab_size..]));
            logits.extend(step.logits);
        }
        tokens.truncate(LENGTH);
        (tokens, logits, gates)
    }
}

/// The token of the largest logit, as the domain orders its numbers, the first of equal ones.
fn likeliest<N: Element>(logits: &[N]) -> u32 {
    let logits = (0..).zip(logits).map(|(token, logit)| (token, logit.to_f64()));
    let best = logits.reduce(|best, other| if other.1 > best.1 { other } else { best });
    best.map_or(0, |(token, _)| token)
}

fn is_that_of_the_whole<N: Element>(form: (KeyValues, SkipRuns)) {
    let narrow = Narrow::new(form);
    let (tokens, logits, gates) = narrow.continued::<N>();
    let graph = lower(&narrow.model, Skipping::Gathered, Function::Score).expect("a graph");
    let whole: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
    let batch = FlatBatch::from_sequences([whole.as_slice()]);
    let weights = Converted::<N>::new(&narrow.weights);
    let whole = reference::run::<N>(&graph, &weights, &batch, None).expect("logits");
    assert!(whole.gates == gates, "{form:?}: decisions");
    assert!(gates.iter().all(|gate| gate.contains(&true) && gate.contains(&false)), "nothing was decided");
    assert_eq!(logits.len(), LENGTH * narrow.vocab_size);
    let differs = logits.iter().zip(&whole.logits).position(|(step, whole)| step != whole);
    assert_eq!(differs, None, "{form:?}: a logit");
    let rows = whole.logits.chunks(narrow.vocab_size).map(likeliest);
    assert!(rows.skip(PROMPT - 1).zip(&tokens[PROMPT..]).all(|(best, token)| best == *token));
    let distinct: std::collections::BTreeSet<u32> = tokens[PROMPT..].iter().copied().collect();
    assert!(distinct.len() > 4, "{distinct:?}");
}

#[test]
fn a_thousand_greedy_tokens_are_exactly_those_of_the_whole_sequence() {
    is_that_of_the_whole::<Gf61>((KeyValues::Eager, SkipRuns::Apart));
    is_that_of_the_whole::<Ring32>((KeyValues::Lazy, SkipRuns::Together));
}
