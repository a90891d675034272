//! Every golden case of the PyTorch reference, by every way that this build has to run a model.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use skipc::Error;
use skipc::driver::backends::{CpuBackend, CpuLevels};
use skipc::driver::pack;
use skipc::driver::pipeline::{self, Request};
use skipc::driver::trace::Trace;
use skipc::frontend::language::words::Word;
use skipc::frontend::layer::{Experts, Layer};
use skipc::frontend::lower::{Function, Skipping, lower};
use skipc::frontend::spec;
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::node::{Block, Layers, Node, Part, Unit};
use skipc::frontend::spec::skip_table::{Router, SkipTable};
use skipc::frontend::weights::Weights;
use skipc::verify::reference::{self, Outcome};
use skipc::verify::{self, Inputs, LadderError};

use skipc_artifact::image::HostLevel;
use skipc_artifact::target::{DType, Target};
use skipc_ir::interp::FlatBatch;
use skipc_runtime::decode::{self, Engine, EngineOptions, Recompute};
use skipc_runtime::{Choices, Device, Module, Options, Outputs, Session};
use skipc_testkit::golden::{Case, case, cases};

/// Largest distance of a logit from the reference, in f32 (the reference itself is up to 6e-5 from f64).
const TOLERANCE: f64 = 2e-4;

/// Tokens up to which the slow forms (f64 and f32 interpreter, kernel interpreter) all run.
const SHORT: usize = 200;

struct Loaded {
    model: Model,
    weights: Weights,
}

fn golden() -> Vec<Case> {
    let cases = cases(Path::new("tests/golden"));
    assert!(cases.len() >= 60, "only {} golden cases found", cases.len());
    cases
}

fn load(case: &Case) -> Loaded {
    let model = spec::load(&case.spec).unwrap_or_else(|found| panic!("{}: {found}", case.name));
    let weights =
        Weights::open(&case.weights, &model).unwrap_or_else(|found| panic!("{}: {found}", case.name));
    Loaded { model, weights }
}

fn fail(failure: Error) -> String {
    failure.diagnostics.to_string()
}

/// Room for every batch of the cases; code for this machine.
fn request() -> Request {
    Request { max_tokens: Some(1024), ..Request::here() }
}

/// The request without steps, for what scores.
fn scoring() -> Request {
    Request { steps: false, ..request() }
}

/// The request with this backend.
fn by(cpu_backend: CpuBackend) -> Request {
    Request { cpu_backend, ..request() }
}

/// The level of code that this machine takes, and for one of four cases the levels below it, too. What differs between them
/// is kernels, and `tests/conformance.rs` has all of these at all levels.
fn levels(idx: usize, cpu: CpuBackend) -> (CpuLevels, Vec<Option<HostLevel>>) {
    if cpu == CpuBackend::Llvm && idx.is_multiple_of(4) {
        (CpuLevels::All, skipc_runtime::cpu_levels().map(Some).collect())
    } else {
        (CpuLevels::Native, vec![None])
    }
}

/// A session of each level of code, by a description.
fn sessions(
    model: &skipc_runtime::Model,
    levels: &[Option<HostLevel>],
    options: Options,
) -> Vec<(String, Session)> {
    let session = |max_level: &Option<HostLevel>| {
        let options = Options { max_level: *max_level, ..options };
        let session = Session::new(model, Device::Cpu, options).unwrap();
        (session.describe(), session)
    };
    levels.iter().map(session).collect()
}

fn artifact(Loaded { model, weights }: &Loaded, request: Request) -> skipc_runtime::Model {
    let request = Request { verify_each: true, ..request };
    let compiled = pipeline::compile(model, &request, &mut Trace::silent()).map_err(fail).unwrap();
    let bytes = pack::to_bytes((model, weights), &request, compiled).map_err(fail).unwrap();
    skipc_runtime::Model::from_bytes(&bytes).unwrap()
}

#[test]
fn the_interpreter_agrees_with_pytorch() {
    for case in golden() {
        let Loaded { model, weights } = load(&case);
        let graph = lower(&model, Skipping::Gathered, Function::Score)
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let batch = case.batch();
        let double = reference::run::<f64>(&graph, &weights, &batch, None).unwrap();
        case.check("interpreter, f64", &double.logits, &double.gates, TOLERANCE);
        case.check_overflow("interpreter, f64", &double.overflow);
        check_experts(&case, "interpreter, f64", &double.choices);
        let masked = lower(&model, Skipping::Masked, Function::Score).unwrap();
        let masked = reference::run::<f64>(&masked, &weights, &batch, None).unwrap();
        case.check("interpreter, f64, masked", &masked.logits, &masked.gates, TOLERANCE);
        case.check_overflow("interpreter, f64, masked", &masked.overflow);
        check_experts(&case, "interpreter, f64, masked", &masked.choices);
        if batch.tokens.len() <= SHORT {
            let single = reference::run::<f32>(&graph, &weights, &batch, None).unwrap();
            let logits: Vec<f64> = single.logits.iter().map(|logit| f64::from(*logit)).collect();
            case.check("interpreter, f32", &logits, &single.gates, TOLERANCE);
            check_experts(&case, "interpreter, f32", &single.choices);
            let replayed = reference::run::<f64>(&graph, &weights, &batch, Some(&case.scored.gates)).unwrap();
            let replayed = (replayed.logits, replayed.gates);
            assert!(
                replayed == (double.logits, double.gates),
                "{}: replaying the same decisions changes something",
                case.name
            );
        }
    }
}

/// Models with a replacement for a selection that looks ahead decide otherwise when they generate.
#[test]
fn the_interpreter_agrees_with_pytorch_when_it_generates() {
    let mut checked = 0;
    for case in golden() {
        let Loaded { model, weights } = load(&case);
        let graph = lower(&model, Skipping::Gathered, Function::Generate);
        assert_eq!(graph.is_ok(), model.can_generate(), "{}: {:?}", case.name, graph.err());
        let (Ok(graph), Some(generated)) = (graph, &case.generated) else { continue };
        let masked = lower(&model, Skipping::Masked, Function::Generate).unwrap();
        for (form, graph) in [("gathered", graph), ("masked", masked)] {
            let ran = reference::run::<f64>(&graph, &weights, &case.batch(), None).unwrap();
            let what = format!("{}, generating, {form}", case.name);
            generated.check(&what, &ran.logits, &ran.gates, TOLERANCE);
        }
        checked += 1;
    }
    assert!(checked >= 6, "only {checked} cases have another selection when they generate");
}

/// The cases cover what a spec can say: every router, with and without a scaled gate, a capacity in each order, keys of all and of active
/// tokens, decisions from both streams.
/// The graph of each case stands beside it as text, `lowered.sir`: that text, read back, gives what PyTorch does, and
/// lowering the spec gives that text. The example's cases share one model, so only the first of them has it.
#[test]
fn the_text_of_every_case_agrees_with_pytorch() {
    for case in golden().iter().filter(|case| !case.name.starts_with("kjv-12l-d25-")) {
        let Loaded { model, weights } = load(case);
        let lowered = lower(&model, Skipping::Gathered, Function::Score).unwrap().to_string();
        let path = case.dir.join("lowered.sir");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &lowered).unwrap();
        }
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; BLESS=1 writes it", path.display()));
        assert!(text == lowered, "{}: lowering gives another graph; BLESS=1 writes it", path.display());
        let graph = skipc_ir::text::parse(&text).unwrap_or_else(|errors| panic!("{}: {errors:?}", case.name));
        let double = reference::run::<f64>(&graph, &weights, &case.batch(), None).unwrap();
        case.check("text of the graph", &double.logits, &double.gates, TOLERANCE);
    }
}

/// The options that golden cases have.
fn options_of_cases() -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for case in golden() {
        let Loaded { model, .. } = load(&case);
        seen.insert(format!("input {}", model.stream.input.word()));
        seen.insert(format!("class token {}", model.stream.has_class_token()));
        seen.extend(model.stream.pooled.map(|pooled| format!("pool {}", pooled.pool.word())));
        for layer in model.blocks.iter().flat_map(Block::layers) {
            seen.insert(format!("norms {}", layer.norms().word()));
            let layer = serde_json::to_value(layer.layer).expect("plain data");
            let kind = layer["kind"].as_str().expect("a kind").to_owned();
            for (key, value) in layer.as_object().expect("a table") {
                match value {
                    Value::String(word) => seen.insert(format!("{kind} {key} {word}")),
                    Value::Bool(_) | Value::Null => seen.insert(format!("{kind} {key} {value}")),
                    _ => seen.insert(format!("{kind} {key} said")),
                };
            }
            let (rotation, width) = (&layer["rotation"], &layer["head_dim"]);
            seen.insert(format!("{kind} turns all {}", rotation["dim"] == *width));
            seen.insert(format!("{kind} rope_scaling {}", rotation["rope"]["scaling"]["kind"]));
        }
        seen.extend(model.blocks.iter().map(|block| format!("layout {}", block.layout().word())));
        for stack in &model.stacks {
            let is_list = stack.skips.iter().any(|skip| skip.density != stack.skips[0].density);
            let kept = stack.skips.first().map(|skip| SkipTable::of(skip).kv.word());
            seen.insert(format!("stack share {}, skip {}", stack.share, !stack.skips.is_empty()));
            seen.insert(format!("stack densities differ {is_list}"));
            seen.insert(format!("stack keys {}", kept.unwrap_or("of blocks")));
        }
        for skip in model.skips() {
            let capacity = skip.capacity();
            let skip = SkipTable::of(skip);
            let router = skip.router.word();
            seen.insert(format!("{router} {}", skip.input.word()));
            seen.insert(format!("{router} keys {}", skip.kv.word()));
            seen.insert(format!("{router} gate {}", skip.gate.word()));
            seen.insert(format!("{router} decide {}", skip.decide.word()));
            seen.insert(format!("{router} nested {}", skip.nested));
            seen.insert(format!("{router} forced {}", skip.force_first > 0));
            seen.insert(format!("{router} steps {}", !skip.decider.is_empty()));
            seen.insert(format!("{router} channels {}", skip.channels));
            seen.insert(format!("{router} pool {}", skip.decider.is_pooled()));
            seen.insert(format!("{router} carry {}", skip.carry.word()));
            seen.insert(format!("{router} scope {}", skip.scope.word()));
            seen.insert(format!("{router} round {}", skip.round.word()));
            seen.insert(format!("generate {}", skip.generate.word()));
            seen.insert(format!("combine {}", skip.combine.word()));
            seen.insert(format!("gate {}", skip.gate.word()));
            if capacity.is_some() {
                seen.insert(format!("{router} capacity {} keys {}", skip.overflow.word(), skip.kv.word()));
            }
        }
    }
    seen
}

/// What cases say of layers of experts, of convolutions, of other branches and of hashes, each with what it stands beside.
fn options_of_kinds() -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for case in golden() {
        let Loaded { model, .. } = load(&case);
        for skip in model.skips().map(SkipTable::of).filter(|skip| skip.router == Router::Hash) {
            seen.insert(format!("hash seed {}", if skip.seed > 0 { "said" } else { "none" }));
            seen.insert(format!("hash combine {}", skip.combine.word()));
        }
        for part in model.blocks.iter().flat_map(Block::parts) {
            match part {
                Part::Route(..) => {}
                Part::Layer(Layers::Block, _, layer) => kind_options(&mut seen, "", &layer.layer),
                Part::Layer(_, _, layer) => kind_options(&mut seen, "otherwise ", &layer.layer),
            }
        }
        model.blocks.iter().for_each(|block| branch_options(&mut seen, Unit::Block, &block.body));
    }
    seen
}

/// What other branches of this node are combined by, where they stand.
fn branch_options(seen: &mut BTreeSet<String>, unit: Unit, node: &Node) {
    match node {
        Node::Sequence(nodes) | Node::Parallel(nodes) => {
            nodes.iter().enumerate().for_each(|(idx, node)| branch_options(seen, Unit::Layer(idx), node));
        }
        Node::Residual(_) => {}
        Node::Route(route) => {
            if route.otherwise.is_some() {
                let skip = SkipTable::of(&route.skip);
                let place = if unit == Unit::Block { "block" } else { "layer" };
                seen.insert(format!("otherwise of a {place}"));
                seen.insert(format!("otherwise {} gate {}", skip.combine.word(), skip.gate.word()));
                seen.insert(format!("otherwise {} keys {}", skip.combine.word(), skip.kv.word()));
            }
            branch_options(seen, unit, &route.executed);
        }
    }
}

fn kind_options(seen: &mut BTreeSet<String>, place: &str, layer: &Layer) {
    match layer {
        Layer::Attention(_) => _ = seen.insert(format!("{place}attention")),
        Layer::Ffn(_) => _ = seen.insert(format!("{place}ffn")),
        Layer::Linear(_) => _ = seen.insert(format!("{place}linear")),
        Layer::Conv(conv) => {
            seen.insert(format!("{place}conv"));
            seen.insert(format!("conv bias {}", conv.bias));
            seen.insert(format!("conv activation {}", conv.activation.word()));
            seen.insert(format!("conv one tap {}", conv.kernel == 1));
        }
        Layer::Experts(experts) => experts_options(seen, experts),
    }
}

fn experts_options(seen: &mut BTreeSet<String>, experts: &Experts) {
    let taken = match experts.top_k {
        1 => "one",
        k if k == experts.choices() => "all",
        _ => "some",
    };
    let limited = if experts.group_size > 0 { "groups" } else { "no groups" };
    let overflow = if experts.group_size > 0 { experts.overflow.word() } else { "none" };
    let said = [
        format!("choose {} in {limited}", experts.choose.word()),
        format!("{} score {}", experts.choose.word(), experts.score.word()),
        format!("{} select_bias {}", experts.choose.word(), experts.select_bias),
        format!("{} router_bias {}", experts.choose.word(), experts.router_bias),
        format!("top_k {taken}"),
        format!("overflow {overflow}"),
        format!("normalise {}", experts.normalise),
        format!("routed_scale {}", experts.routed_scale != 1.0),
        format!("zero {}", experts.zero > 0),
        format!("copy {}", experts.copy > 0),
        format!("shared {}, gate {}", experts.shared_d_ff > 0, experts.shared_gate),
        format!("bias {}", experts.bias),
        format!("activation {}", experts.activation.word()),
    ];
    seen.extend(said.into_iter().map(|said| format!("experts {said}")));
}

#[test]
fn every_option_of_experts_convolutions_branches_and_hashes_has_a_case() {
    let seen = options_of_kinds();
    let each = |kind: &str, said: &[&str]| -> Vec<String> {
        said.iter().map(|said| format!("{kind} {said}")).collect()
    };
    let wanted = [
        each("hash", &["seed said", "seed none", "combine either"]),
        each("otherwise", &["attention", "ffn", "linear", "conv", "of a block", "of a layer"]),
        each(
            "otherwise either",
            &["gate binary", "gate scaled", "gate scaled_last", "keys all", "keys active"],
        ),
        each("otherwise sum", &["gate scaled", "gate raw", "keys all"]),
        each("conv", &["bias true", "bias false", "one tap true", "one tap false"]),
        each("conv activation", &["none", "relu", "relu2", "gelu", "gelu_erf", "silu", "tanh"]),
        each("experts choose", &["token in groups", "token in no groups", "hash in no groups"]),
        each("experts choose", &["expert in groups", "expert in no groups"]),
        each("experts token", &["score softmax", "score sigmoid", "select_bias true", "router_bias true"]),
        each("experts expert", &["score softmax", "score sigmoid", "select_bias true"]),
        each("experts", &["top_k one", "top_k some", "top_k all", "zero true", "copy true"]),
        each("experts overflow", &["none", "position", "choice", "score"]),
        each("experts", &["normalise true", "normalise false", "routed_scale true", "bias true"]),
        each("experts shared", &["true, gate true", "true, gate false", "false, gate false"]),
        each("experts activation", &["gelu", "gelu_erf", "relu", "relu2", "swiglu", "geglu"]),
    ]
    .concat();
    let missing: Vec<String> = wanted.into_iter().filter(|option| !seen.contains(option)).collect();
    assert!(missing.is_empty(), "no golden case has {missing:?}");
}

#[test]
fn every_option_has_a_case() {
    let seen = options_of_cases();
    let hard = ["gumbel", "sigmoid", "topk", "random", "hash", "always"];
    let learned = ["gumbel", "sigmoid", "topk", "highway"];
    let both = |what: &[&str], kinds: &[&str]| -> Vec<String> {
        what.iter().flat_map(|what| kinds.iter().map(move |kind| format!("{kind} {what}"))).collect()
    };
    let wanted = [
        both(&["keys all", "keys active", "gate binary"], &hard[..5]),
        both(&["gate scaled"], &hard[..5]),
        both(&["capacity position keys all", "capacity position keys active"], &hard),
        both(&["capacity score keys all", "capacity score keys active"], &hard),
        both(&["normed", "raw", "decide here"], &learned),
        both(&["decide entry"], &learned),
        both(&["steps true"], &["gumbel", "topk"]),
        both(&["forced true"], &["gumbel", "sigmoid", "topk", "random", "hash", "never"]),
        both(&["channels true"], &["sigmoid", "topk", "highway"]),
        both(&["pool true"], &["sigmoid", "gumbel", "highway"]),
        both(&["carry own", "carry coupled"], &["highway"]),
        both(&["scope sequence", "scope batch", "round up", "round down"], &["topk"]),
        both(&["nested true"], &["sigmoid", "topk", "random", "hash"]),
        both(&["keys active", "keys first", "gate scaled", "normed", "steps true"], &["depth"]),
        both(&["share true, skip true", "share true, skip false", "share false, skip true"], &["stack"]),
        both(&["keys all", "keys active", "keys first", "densities differ true"], &["stack"]),
        both(&["threshold", "predictor"], &["generate"]),
        both(&["either", "sum", "add"], &["combine"]),
        both(&["binary", "scaled", "scaled_last", "raw"], &["gate"]),
        both(&["keys active"], &["never"]),
        both(&["bias false", "bias true"], &["linear", "ffn"]),
        both(&["bias none", "bias qkv", "bias all"], &["attention"]),
        both(&["qk_norm none", "qk_norm head", "qk_norm full"], &["attention"]),
        both(&["scale null", "scale said", "softcap said", "window said"], &["attention"]),
        both(&["rotation null", "turns all true", "turns all false"], &["attention"]),
        both(&["rope_scaling null", "rope_scaling \"linear\"", "rope_scaling \"llama3\""], &["attention"]),
        both(&["mask causal", "mask full"], &["attention"]),
        both(&["first", "mean", "last"], &["pool"]),
        both(&["tokens", "patches"], &["input"]),
        both(&["token true"], &["class"]),
        both(&["pre", "post", "both"], &["norms"]),
        both(&["sequence", "parallel", "parallel_one_norm"], &["layout"]),
        both(&["activation gelu", "activation gelu_erf", "activation silu"], &["ffn"]),
        both(&["activation swiglu", "activation geglu", "activation relu", "activation relu2"], &["ffn"]),
    ]
    .concat();
    let missing: Vec<String> = wanted.into_iter().filter(|option| !seen.contains(option)).collect();
    assert!(missing.is_empty(), "no golden case has {missing:?}");
}

#[test]
fn host_code_agrees_with_pytorch() {
    for (idx, case) in golden().iter().enumerate() {
        let loaded = load(case);
        for cpu_backend in CpuBackend::built() {
            let (cpu_levels, levels) = levels(idx, cpu_backend);
            let model = artifact(&loaded, Request { cpu_backend, cpu_levels, ..scoring() });
            check_host_code(case, &model, &levels);
        }
    }
}

/// What a session takes of a case.
fn batch_of(case: &Case) -> skipc_runtime::Batch {
    let lengths = case.tokens.iter().map(|row| row.len() as u32).collect();
    if !case.patches.is_empty() {
        return skipc_runtime::Batch::of_rows(case.patches.clone(), lengths);
    }
    let tokens = case.tokens.iter().flatten().map(|token| *token as u32).collect();
    skipc_runtime::Batch { tokens, lengths, ..Default::default() }
}

fn check_host_code(case: &Case, model: &skipc_runtime::Model, levels: &[Option<HostLevel>]) {
    let batch = batch_of(case);
    let checked = Options { threads: 2, checked: true, ..Options::default() };
    let alone = sessions(model, levels, Options { threads: 1, ..Options::default() });
    for ((what, mut session), (_, mut alone)) in sessions(model, levels, checked).into_iter().zip(alone) {
        let outputs = session.run_with_choices(&batch).unwrap();
        let (logits, gates) = plain(&outputs);
        case.check(&what, &logits, &gates, TOLERANCE);
        let overflow: Vec<usize> = outputs.overflow.iter().map(|count| *count as usize).collect();
        case.check_overflow(&what, &overflow);
        check_experts(case, &what, &outputs.choices);
        for (gate, count) in gates.iter().zip(&outputs.counts) {
            assert_eq!(gate.iter().filter(|executes| **executes).count(), *count as usize, "{}", case.name);
        }
        let again = alone.run_with_choices(&batch).unwrap();
        assert_eq!(again, outputs, "{}: one thread and two give different bits", case.name);
        if !outputs.choices.is_empty() {
            let batch = skipc_runtime::Batch { experts: Some(outputs.choices.clone()), ..batch.clone() };
            let replayed = session.run_with_choices(&batch).unwrap();
            assert_eq!(replayed.choices, outputs.choices, "{}, {what}: replayed choices", case.name);
            assert!(replayed.logits == outputs.logits, "{}, {what}: a replay differs", case.name);
        }
        if let Some(generated) = &case.generated {
            decode::prepare(&mut session, model).unwrap();
            let outputs = session.run(&batch).unwrap();
            let (logits, gates) = plain(&outputs);
            generated.check(&format!("{}, {what}, generating", case.name), &logits, &gates, TOLERANCE);
        }
    }
}

fn check_experts(case: &Case, form: &str, choices: &[Choices]) {
    let layers: Vec<(u32, &[u8])> = choices.iter().map(|layer| (layer.of, &layer.taken[..])).collect();
    case.check_experts(form, &layers);
}

/// Logits and decisions of a run as the oracle has them.
fn plain(outputs: &Outputs) -> (Vec<f64>, Vec<Vec<bool>>) {
    let logits = outputs.logits.iter().map(|logit| f64::from(*logit)).collect();
    (logits, outputs.gates.iter().map(|gate| gate.iter().map(|bit| *bit == 1).collect()).collect())
}

/// Continuations from caches and of whole prefixes are those of PyTorch. Backends take turns: what they compile is compared with
/// each other on every case, below and above.
#[test]
fn greedy_continuations_agree_with_pytorch() {
    let chosen = |case: &Case| case.greedy.len() <= 32 || case.name == "kjv-12l-d25-demo";
    let cases: Vec<Case> = golden().into_iter().filter(chosen).collect();
    for (case, cpu) in cases.iter().zip(CpuBackend::built().into_iter().cycle()) {
        let loaded = load(case);
        if !loaded.model.can_generate() {
            assert!(case.greedy.is_empty(), "{}: a continuation of a model that cannot generate", case.name);
            continue;
        }
        let model = artifact(&loaded, by(cpu));
        let module = Module::load(&model, Device::Cpu, Options::default()).unwrap();
        let prompt: Vec<u32> = case.tokens[0].iter().map(|token| *token as u32).collect();
        let whole = Recompute::new(Session::of_module(&module).unwrap(), &model, 1);
        let mut decoders = vec![decode::of_slots(&module, &model, 1).unwrap()];
        match loaded.model.keeps_prompts() {
            // Of a sequence that is run again, nothing says where its prompt ended.
            true => assert!(whole.is_err(), "{}", case.name),
            false => decoders.push(Box::new(whole.unwrap())),
        }
        for decoder in decoders {
            let mut engine = Engine::on(decoder, EngineOptions::default()).unwrap();
            let new =
                engine.complete(decode::Request::greedy(prompt.clone(), case.greedy.len() as u32)).unwrap();
            let new: Vec<i64> = new.tokens.into_iter().map(i64::from).collect();
            assert_eq!(new, case.greedy, "{}, by {}", case.name, cpu.name());
        }
    }
}

/// Forced to none, all and a quarter of the tokens, and free, all forms agree with each other. Backends take turns: the code
/// of each is compared with PyTorch on every case above, and the other forms do not depend on it.
#[test]
fn all_forms_agree_under_any_decisions() {
    let short: Vec<Case> = golden().into_iter().filter(|case| case.n_tokens() <= SHORT).collect();
    for (case, cpu) in short.iter().zip(CpuBackend::built().into_iter().cycle()) {
        let loaded = load(case);
        let (batch, weights, heard) = (case.batch(), &loaded.weights, Cell::new(0));
        let progress: &dyn Fn(&str) = &|_| heard.set(heard.get() + 1);
        let inputs =
            Inputs { batch: &batch, routing: None, threads: Some(1), max_level: None, weights, progress };
        let report = verify::climb(&artifact(&loaded, by(cpu)), &inputs).unwrap();
        for row in &report.rows {
            assert!(row.ok, "{}, by {}: {row:?}", case.name, cpu.name());
        }
        assert!(report.rows.len() >= 12, "{}: {} comparisons", case.name, report.rows.len());
        assert_eq!(heard.get(), report.rows.len(), "{}: progress", case.name);
    }
}

/// A batch under every decision, by code on two threads.
fn on_two_threads<'a>(batch: &'a FlatBatch, weights: &'a Weights) -> Inputs<'a> {
    Inputs { batch, routing: None, threads: Some(2), max_level: None, weights, progress: &|_| {} }
}

/// Empty sequences, single tokens and tile edges side by side in one batch.
#[test]
fn ragged_batches_agree() {
    let loaded = load(&case(Path::new("tests/golden/kjv-12l-d25")));
    let weights = &loaded.weights;
    let models: Vec<_> = CpuBackend::built().into_iter().map(|cpu| artifact(&loaded, by(cpu))).collect();
    let text: Vec<i64> = case(Path::new("tests/golden/kjv-12l-d25")).tokens.concat();
    for model in &models {
        // Nothing to compare is no agreement, but it runs.
        let batch = FlatBatch::default();
        assert!(matches!(verify::climb(model, &on_two_threads(&batch, weights)), Err(LadderError::Nothing)));
        let mut session = Session::new(model, Device::Cpu, Options::default()).unwrap();
        let empty = skipc_runtime::Batch { lengths: vec![0], ..Default::default() };
        assert!(session.run(&empty).unwrap().logits.is_empty());
    }
    for lengths in [&[1usize][..], &[0, 1, 0, 2, 15, 16, 17], &[63, 64, 65]] {
        let mut rest = text.as_slice();
        let rows: Vec<&[i64]> = lengths
            .iter()
            .map(|length| {
                let (row, after) = rest.split_at(*length);
                rest = after;
                row
            })
            .collect();
        for model in &models {
            let batch = FlatBatch::from_sequences(rows.clone());
            let report = verify::climb(model, &on_two_threads(&batch, weights)).unwrap();
            assert!(report.ok(), "{lengths:?}: {report:?}");
        }
    }
}

#[test]
fn planned_kernels_in_f32_agree_with_pytorch() {
    for case in golden() {
        let Loaded { model, weights } = load(&case);
        let (plan, constants) =
            pipeline::plan_only(&model, &weights, DType::F32, &request()).map_err(fail).unwrap();
        let Outcome { logits, gates, choices, .. } =
            verify::run_plan(&plan, &constants, &case.batch(), None).unwrap();
        case.check("planned kernels, f32", &logits, &gates, TOLERANCE);
        check_experts(&case, "planned kernels, f32", &choices);
    }
}

/// Host code in bf16, where a backend has it, keeps the same bound as the interpreter. Weights in 8 bits are
/// known to a step of a 127th of the largest of 32: three times as far, so that results are allowed to be twice as far off.
#[test]
fn host_code_in_bf16_and_8_bits_keeps_its_bound() {
    for (idx, case) in golden().iter().filter(|case| case.n_tokens() <= SHORT).enumerate() {
        let loaded = load(case);
        let routing = case.scored.gates.iter().map(|gate| gate.iter().map(|bit| u8::from(*bit)).collect());
        let batch = skipc_runtime::Batch { routing: Some(routing.collect()), ..batch_of(case) };
        let of_llvm = || CpuBackend::built().into_iter().filter(|cpu| *cpu == CpuBackend::Llvm);
        // One of eight in 8 bits, too: what differs is matmuls, which every case has.
        let in_8_bits = idx.is_multiple_of(8).then_some((true, 6.0));
        let variants = [(false, 3.0)].into_iter().chain(in_8_bits);
        for ((in_8_bits, allowed), cpu_backend) in variants.flat_map(|of| of_llvm().map(move |cpu| (of, cpu)))
        {
            let targets = vec![(Target::Cpu, DType::Bf16)];
            let (cpu_levels, levels) = levels(idx, cpu_backend);
            let model =
                artifact(&loaded, Request { targets, in_8_bits, cpu_backend, cpu_levels, ..scoring() });
            let options = Options { threads: 2, checked: true, ..Options::default() };
            for (level, mut session) in sessions(&model, &levels, options) {
                let outputs = session.run(&batch).unwrap();
                let (rmse, bound) = (case.rmse(&plain(&outputs).0), allowed * case.figures.bf16_rmse);
                assert!(
                    rmse <= bound,
                    "{}: logits in bf16 (8 bits: {in_8_bits}) by {level} are {rmse:.3e} from the reference, allowed {bound:.3e}",
                    case.name
                );
            }
        }
    }
}

/// Planned kernels in bf16 are as near to f64 as the rules for whole models ask, and flip no more than rounding may.
#[test]
fn planned_kernels_in_bf16_keep_their_bound() {
    for case in golden().iter().filter(|case| case.n_tokens() <= SHORT) {
        let Loaded { model, weights } = load(case);
        let request = request();
        let (plan, constants) =
            pipeline::plan_only(&model, &weights, DType::Bf16, &request).map_err(fail).unwrap();
        let Outcome { logits, .. } =
            verify::run_plan(&plan, &constants, &case.batch(), Some(&case.scored.gates)).unwrap();
        let (rmse, bound) = (case.rmse(&logits), 3.0 * case.figures.bf16_rmse);
        assert!(
            rmse <= bound,
            "{}: bf16 logits are {rmse:.3e} from the reference, allowed {bound:.3e}",
            case.name
        );
    }
}
