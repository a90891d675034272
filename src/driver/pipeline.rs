//! The walk from spec and weights to an artefact: the stages in order.

use std::collections::BTreeMap;

use serde::Serialize;
use skipc_artifact::bundle::{Bundle, BundleCode};
use skipc_artifact::check::SCRATCH_LIMIT;
use skipc_artifact::image::HostImage;
use skipc_artifact::object_image;
use skipc_artifact::program::Launch;
use skipc_artifact::section::ContentHash;
use skipc_artifact::target::{DType, Target};
use skipc_ir::{Graph, Legal, SetSym};
use skipc_plan::codegen::{Code, Codegen, CodegenError, Image};
use skipc_plan::kernel::WeightLayout;
use skipc_plan::{Linked, Plan};

use crate::cost::bucketing::{Bucketings, modelled};
use crate::diagnostic::Diagnostic;
use crate::driver::backends::{CpuBackend, CpuLevels};
use crate::driver::trace::Trace;
use crate::driver::{backends, constants};
use crate::error::{Error, ErrorKind};
use crate::frontend::lower::{Function, KeyValues, Skipping, lower, lower_step, pending_set, sets};
use crate::frontend::spec::model::Model;
use crate::frontend::weights::Weights;

/// Which form of a model is compiled. All compute the same, up to rounding; users get the first, and the others are
/// there to measure it against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Layers over gathered rows; gathers, scatters and pointwise ops join the kernels around them.
    #[default]
    Fused,
    /// Layers over gathered rows as the model has them: no other forms are searched, every op is a kernel of its own,
    /// gathers and scatters are copies.
    Unfused,
    /// Layers over all rows, of which those of the tokens that execute are kept; kernels joined as in the first. Forms
    /// are searched as there, but by the rules that leave every op its rows: others would find the gathered form.
    Masked,
}

impl Variant {
    /// All of them, in the order in which they are reported.
    pub const ALL: [Variant; 3] = [Variant::Fused, Variant::Unfused, Variant::Masked];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Fused => "fused",
            Variant::Unfused => "unfused",
            Variant::Masked => "masked",
        }
    }

    fn skipping(self) -> Skipping {
        match self {
            Variant::Fused | Variant::Unfused => Skipping::Gathered,
            Variant::Masked => Skipping::Masked,
        }
    }

    fn default_passes(self, function: Function, skip_runs: SkipRuns) -> Vec<String> {
        match self {
            Variant::Fused if (function, skip_runs) == (Function::Step, SkipRuns::Together) => {
                skipc_passes::step_pipeline()
            }
            Variant::Fused | Variant::Masked => skipc_passes::default_pipeline(),
            Variant::Unfused => skipc_passes::plain_pipeline(),
        }
    }
}

/// What the routers of layers that follow one another read in steps of generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SkipRuns {
    /// Each the tokens as they come to its layer.
    #[default]
    Apart,
    /// All of a run those that come to its first layer, in one matmul, and again those that a layer of it changes.
    Together,
}

impl SkipRuns {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            SkipRuns::Apart => "apart",
            SkipRuns::Together => "together",
        }
    }
}

/// What the user wants compiled.
pub struct Request {
    /// In which form.
    pub variant: Variant,
    /// Targets, each with the precision of its layers, in the order of the command line.
    pub targets: Vec<(Target, DType)>,
    /// Whether weights of matmuls for the host are kept in 8 bits, see [`WeightLayout::Levels`].
    pub in_8_bits: bool,
    /// What generates code for the host.
    pub cpu_backend: CpuBackend,
    /// For which processors.
    pub cpu_levels: CpuLevels,
    /// Whether a model that generates gets the function that goes on with sequences; without it, it runs whole prefixes.
    pub steps: bool,
    /// When steps compute the keys and values of tokens that skip; by default what is faster ([`key_values`]).
    pub key_values: Option<KeyValues>,
    /// What the routers of layers that follow one another read in steps.
    pub skip_runs: SkipRuns,
    /// Largest number of tokens of a step; by default as many as [`usual_step`](crate::frontend::stream::Stream::usual_step) says.
    pub max_tokens: Option<u32>,
    /// Passes instead of the default list.
    pub passes: Option<Vec<String>>,
    /// Verify after every pass.
    pub verify_each: bool,
    /// Stop the passes after this many edits.
    pub fuel: Option<u64>,
    /// Which form of each kernel runs for which number of rows.
    pub bucketings: Bucketings,
    /// The content of the tuning file that it was made from, if it was.
    pub tuning: Option<ContentHash>,
}

impl Request {
    /// Code for the host in f32, with every default.
    pub fn host() -> Request {
        let targets = vec![(Target::Cpu, DType::F32)];
        Request {
            variant: Variant::default(),
            targets,
            in_8_bits: false,
            cpu_backend: CpuBackend::default(),
            cpu_levels: CpuLevels::default(),
            steps: true,
            key_values: None,
            skip_runs: SkipRuns::default(),
            max_tokens: None,
            passes: None,
            verify_each: false,
            fuel: None,
            bucketings: modelled(),
            tuning: None,
        }
    }

    /// As [`Request::host`], for this machine's processor alone: what runs where it is compiled needs no more.
    pub fn here() -> Request {
        Request { cpu_levels: CpuLevels::Native, ..Request::host() }
    }

    /// What generates code for the host, and for which processors.
    pub(crate) fn cpu(&self) -> (CpuBackend, CpuLevels) {
        (self.cpu_backend, self.cpu_levels)
    }
}

/// What a compile makes.
pub struct Compiled {
    /// The graphs, one for each function that the model needs; that which scores is the first.
    pub phases: Vec<Phase>,
    /// The plans of all functions put together, for each kind of target and precision in use.
    pub linked: Vec<LinkedOf>,
    /// Program and code for each target, in the order of the request.
    pub bundles: Vec<Bundle>,
    /// Files that stand between the model and people, such as a tokenizer.json, which the artefact takes along: their names
    /// and bytes. Nothing in a compile reads them.
    pub language: Vec<(&'static str, Vec<u8>)>,
}

/// A model's graphs and plans for one function.
pub struct Phase {
    /// The function.
    pub function: Function,
    /// The graph before the passes.
    pub lowered: Graph,
    /// The graph that kernels were planned from.
    pub legal: Legal,
    /// What the passes did.
    pub report: skipc_passes::Report,
    /// The plan for each kind of target and precision in use.
    pub plans: Vec<PlanOf>,
}

/// A plan and what it is for.
pub struct PlanOf {
    /// The kind of target: targets of one kind share their plans.
    pub kind: &'static str,
    /// The precision of its layers.
    pub dtype: DType,
    /// The plan.
    pub plan: Plan,
}

/// Plans put together, and what they are for.
pub struct LinkedOf {
    /// The kind of target.
    pub kind: &'static str,
    /// The precision of the layers.
    pub dtype: DType,
    /// The plans.
    pub linked: Linked,
}

impl Compiled {
    /// The plans that a target's program was made from.
    pub fn linked(&self, target: &Target, dtype: DType) -> Option<&Linked> {
        find_linked(&self.linked, target, dtype)
    }
}

pub(super) fn find_linked<'l>(linked: &'l [LinkedOf], target: &Target, dtype: DType) -> Option<&'l Linked> {
    linked.iter().find(|of| of.kind == target.kind() && of.dtype == dtype).map(|of| &of.linked)
}

impl Phase {
    /// The plan of this function for a target.
    pub fn plan(&self, target: &Target, dtype: DType) -> Option<&Plan> {
        find_plan(&self.plans, target, dtype)
    }
}

fn find_plan<'p>(plans: &'p [PlanOf], target: &Target, dtype: DType) -> Option<&'p Plan> {
    plans.iter().find(|of| of.kind == target.kind() && of.dtype == dtype).map(|of| &of.plan)
}

/// Compiles a model for all targets of the request. It takes no weights: what depends on them is made while the artefact
/// is written ([`crate::driver::pack`]).
///
/// # Errors
/// What is wrong with the request or the model, or a fault of the compiler, each of its kind.
pub fn compile(model: &Model, request: &Request, trace: &mut Trace) -> Result<Compiled, Error> {
    trace.stage("model", "model", "toml", || model.to_string()).map_err(dump_error)?;
    let mut compiled =
        Compiled { phases: Vec::new(), linked: Vec::new(), bundles: Vec::new(), language: Vec::new() };
    let functions =
        Function::of(model).into_iter().filter(|function| request.steps || *function != Function::Step);
    for function in functions {
        let key_values = request.key_values.unwrap_or_else(|| key_values(model, &request.targets));
        let lowered = lower_model(model, request.variant, (function, key_values), trace)?;
        let (legal, report) = run_passes(lowered.clone(), (model, function), request, trace)?;
        let mut plans: Vec<PlanOf> = Vec::new();
        for (target, dtype) in &request.targets {
            if find_plan(&plans, target, *dtype).is_none() {
                let plan = plan(&legal, model, (target, *dtype), request, trace)?;
                plans.push(PlanOf { kind: target.kind(), dtype: *dtype, plan });
            }
        }
        compiled.phases.push(Phase { function, lowered, legal, report, plans });
    }
    for (target, dtype) in &request.targets {
        if compiled.linked(target, *dtype).is_none() {
            let plans = compiled.phases.iter();
            let plans = plans.filter_map(|of| Some((of.function.name(), of.plan(target, *dtype)?)));
            let linked = skipc_plan::link(plans).map_err(|error| Error::internal("plan::broken", &error))?;
            compiled.linked.push(LinkedOf { kind: target.kind(), dtype: *dtype, linked });
        }
        if let Some(linked) = find_linked(&compiled.linked, target, *dtype) {
            compiled.bundles.push(generate(linked, target, (request, trace))?);
        }
    }
    trace.end();
    Ok(compiled)
}

/// Types a model without compiling it: its graph before the passes.
///
/// # Errors
/// If the graph does not type: a fault of the compiler.
pub fn check(model: &Model) -> Result<Graph, Error> {
    lower_model(model, Variant::default(), SCORE, &mut Trace::silent())
}

/// A model's graph after the passes, as it scores.
///
/// # Errors
/// As [`compile`].
pub fn optimised(model: &Model, request: &Request) -> Result<Graph, Error> {
    let mut trace = Trace::silent();
    let lowered = lower_model(model, request.variant, SCORE, &mut trace)?;
    Ok(run_passes(lowered, (model, Function::Score), request, &mut trace)?.0.graph().clone())
}

/// What scores, which has no steps.
const SCORE: (Function, KeyValues) = (Function::Score, KeyValues::Eager);

/// When steps compute the keys and values of tokens that skip, if nobody says: lazily on the CPU for models that skip at
/// least [`LAZY_FROM`] of their routed layers' tokens; on CUDA, where it has not been measured, eagerly.
pub fn key_values(model: &Model, targets: &[(Target, DType)]) -> KeyValues {
    let shares = model.shares();
    let (n_routers, skipped) = (shares.len() as f64, shares.iter().map(|share| 1.0 - share).sum::<f64>());
    let is_host = targets.iter().all(|(target, _)| *target == Target::Cpu);
    if is_host && skipped >= LAZY_FROM * n_routers && n_routers > 0.0 {
        KeyValues::Lazy
    } else {
        KeyValues::Eager
    }
}

/// Share of tokens skipped, from which on keys and values are computed lazily.
const LAZY_FROM: f64 = 0.5;

fn lower_model(
    model: &Model,
    variant: Variant,
    (function, key_values): (Function, KeyValues),
    trace: &mut Trace,
) -> Result<Graph, Error> {
    trace.begin("lower");
    let graph = match function {
        Function::Step => lower_step(model, variant.skipping(), key_values),
        Function::Score | Function::Generate => lower(model, variant.skipping(), function),
    };
    let graph = graph.map_err(|error| Error::internal("lower::broken", &error))?;
    trace.stage("graph", "lowered", "sir", || graph.to_string()).map_err(dump_error)?;
    Ok(graph)
}

fn run_passes(
    graph: Graph,
    (model, function): (&Model, Function),
    request: &Request,
    trace: &mut Trace,
) -> Result<(Legal, skipc_passes::Report), Error> {
    trace.begin("passes");
    let (names, options) = passes((model, function), request);
    let mut dumped = Ok(());
    let ran = skipc_passes::run_reported(graph, &names, &options, &mut |pass, graph| {
        if dumped.is_ok() {
            dumped = trace.stage(pass, pass, "sir", || graph.to_string());
        }
    });
    dumped.map_err(dump_error)?;
    let (graph, report) = ran.map_err(|error| match error {
        skipc_passes::Error::UnknownPass { .. } => Error::new(
            ErrorKind::Request,
            Diagnostic::new("passes::unknown", error.to_string()).help("see `skipc passes`"),
        ),
        _ => Error::internal("passes::broken", &error),
    })?;
    let legal = skipc_ir::legalize(graph).map_err(|errors| {
        let mut diagnostics = crate::diagnostic::Diagnostics::default();
        errors.iter().for_each(|error| diagnostics.push(Diagnostic::new(error.code(), error.to_string())));
        Error { kind: ErrorKind::Unsupported, diagnostics }
    })?;
    trace.stage("legal", "legal", "sir", || legal.graph().to_string()).map_err(dump_error)?;
    Ok((legal, report))
}

/// The passes that run over the graph of a model's function, in order, and how.
pub fn passes(
    (model, function): (&Model, Function),
    request: &Request,
) -> (Vec<String>, skipc_passes::Options) {
    let default = || request.variant.default_passes(function, request.skip_runs);
    let names = request.passes.clone().unwrap_or_else(default);
    let options = skipc_passes::Options {
        verify_each: request.verify_each,
        fuel: request.fuel,
        keep_rows: request.variant == Variant::Masked,
        densities: densities(model),
    };
    (names, options)
}

/// The share of the tokens in each set that lowering makes.
fn densities(model: &Model) -> BTreeMap<SetSym, f64> {
    let shares = model.shares();
    let n_routers = shares.len() as u32;
    let of = |(router, share): (u32, f64)| sets(n_routers, router).map(|set| (set, share));
    let executed = (0..).zip(shares).flat_map(of);
    // Each token's keys and values are computed once, so in the mean as many in a step as it has tokens.
    let pending = (0..n_routers).map(|router| (pending_set(n_routers, router), 1.0));
    executed.chain(pending).collect()
}

/// How a model is planned, in this precision, with this layout of weights, for steps of at most so many tokens.
pub fn plan_options(
    model: &Model,
    (dtype, layout): (DType, WeightLayout),
    max_tokens: u32,
) -> skipc_plan::Options {
    let size = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    skipc_plan::Options {
        dtype,
        layout,
        max_tokens,
        max_positions: size(model.stream.max_positions),
        vocab_size: size(model.stream.vocab_size),
        head: model.stream.output(),
        class_token: model.stream.has_class_token(),
        logits: size(model.stream.n_logits()),
    }
}

fn plan(
    legal: &Legal,
    model: &Model,
    (target, dtype): (&Target, DType),
    request: &Request,
    trace: &mut Trace,
) -> Result<Plan, Error> {
    let name = format!("{}-{dtype}", target.kind());
    trace.begin(&format!("plan {name}"));
    let layout = match target {
        Target::Cpu if request.in_8_bits => WeightLayout::Levels,
        _ => backends::layout(target, request.cpu_backend, dtype),
    };
    let usual = || u32::try_from(model.stream.usual_step()).unwrap_or(u32::MAX);
    let options = plan_options(model, (dtype, layout), request.max_tokens.unwrap_or_else(usual));
    let build = match request.variant {
        Variant::Fused | Variant::Masked => skipc_plan::build,
        Variant::Unfused => skipc_plan::build_unfused,
    };
    let plan = build(legal, &options).map_err(|error| {
        // Sizes that are asked for are the caller's, all else is the model's.
        let kind = match error {
            skipc_plan::PlanError::Option { .. } => ErrorKind::Request,
            _ => ErrorKind::Unsupported,
        };
        Error::new(kind, Diagnostic::new("plan::refused", error.to_string()))
    })?;
    skipc_plan::verify(&plan).map_err(|errors| Error::internal("plan::broken", &errors[0]))?;
    trace.stage("plan", &format!("plan-{name}"), "txt", || plan.to_string()).map_err(dump_error)?;
    Ok(plan)
}

/// The plan of a model that scores, for a target and precision. It needs no weights.
///
/// # Errors
/// As [`compile`].
pub fn planned(model: &Model, (target, dtype): (&Target, DType), request: &Request) -> Result<Plan, Error> {
    let mut trace = Trace::silent();
    let lowered = lower_model(model, request.variant, SCORE, &mut trace)?;
    let (legal, _) = run_passes(lowered, (model, Function::Score), request, &mut trace)?;
    plan(&legal, model, (target, dtype), request, &mut trace)
}

/// How the kernels of a plan are started on a target. It takes no weights, but the generator of the target.
///
/// # Errors
/// As [`compile`].
pub fn launches(plan: &Plan, target: &Target, request: &Request) -> Result<Vec<Launch>, Error> {
    let backend = backends::for_target(target, request.cpu(), (request.bucketings)(target))?;
    let kernels: Vec<_> = plan.kernels.iter().map(|(symbol, kernel)| (symbol.clone(), kernel)).collect();
    Ok(backend.compile(&kernels).map_err(|error| codegen_failure(&error))?.launches)
}

/// Plans a model that scores for one precision, with the bytes of its constants but no code: what the kernel interpreter
/// runs.
///
/// # Errors
/// As [`compile`].
pub fn plan_only(
    model: &Model,
    weights: &Weights,
    dtype: DType,
    request: &Request,
) -> Result<(Plan, Vec<u8>), Error> {
    let mut trace = Trace::silent();
    let lowered = lower_model(model, request.variant, SCORE, &mut trace)?;
    let (legal, _) = run_passes(lowered, (model, Function::Score), request, &mut trace)?;
    let plan = plan(&legal, model, (&Target::Cpu, dtype), request, &mut trace)?;
    let linked = skipc_plan::link([(Function::Score.name(), &plan)]);
    let linked = linked.map_err(|error| Error::internal("plan::broken", &error))?;
    let constants = constants::lay_out(&linked.constants, weights)?;
    Ok((plan, constants))
}

fn generate(
    linked: &Linked,
    target: &Target,
    (request, trace): (&Request, &mut Trace),
) -> Result<Bundle, Error> {
    trace.begin(&format!("generate {target}"));
    let backend = backends::for_target(target, request.cpu(), (request.bucketings)(target))?;
    bundle(linked, target, backend.as_ref(), trace)
}

/// The program of a target, with its code.
pub(super) fn bundle(
    linked: &Linked,
    target: &Target,
    backend: &dyn Codegen,
    trace: &mut Trace,
) -> Result<Bundle, Error> {
    let kernels: Vec<_> = linked.kernels.iter().map(|(symbol, kernel)| (symbol.clone(), kernel)).collect();
    let code = backend.compile(&kernels).map_err(|error| codegen_failure(&error))?;
    kernels.iter().zip(&code.launches).try_for_each(|((symbol, _), launch)| check_scratch(symbol, launch))?;
    for (stage, text) in &code.stages {
        trace.stage(stage, &format!("{stage}-{target}"), stage, || text.clone()).map_err(dump_error)?;
    }
    let program = linked.program(target, &code.launches);
    Ok(Bundle { program, code: link(code)? })
}

/// What a call of a kernel needs for itself grows with the tokens of a step.
fn check_scratch(symbol: &str, launch: &Launch) -> Result<(), Error> {
    match launch {
        Launch::Host { scratch_bytes, .. } if *scratch_bytes > SCRATCH_LIMIT => {
            let message = format!(
                "a call of `{symbol}` takes {scratch_bytes} bytes for itself, and {SCRATCH_LIMIT} are possible"
            );
            let help = "a smaller `--max-tokens` takes less";
            Err(Error::new(ErrorKind::Request, Diagnostic::new("plan::refused", message).help(help)))
        }
        Launch::Host { .. } | Launch::Cuda { .. } => Ok(()),
    }
}

fn link(code: Code) -> Result<BundleCode, Error> {
    let mut host: Vec<HostImage> = Vec::new();
    let (mut ptx, mut cubin) = (None, None);
    for image in code.images {
        match image {
            Image::HostObject { level, object } => {
                let image = object_image::link(&object, level);
                host.push(image.map_err(|error| Error::internal("link::object", &error))?);
            }
            Image::Ptx(text) => ptx = Some(text),
            Image::Cubin(bytes) => cubin = Some(bytes),
        }
    }
    match ptx {
        Some(ptx) => Ok(BundleCode::Cuda { ptx, cubin }),
        None if !host.is_empty() => Ok(BundleCode::Host(host)),
        None => Err(Error::internal("link::nothing", &"the backend made no code")),
    }
}

fn codegen_failure(error: &CodegenError) -> Error {
    match error {
        CodegenError::Unsupported { .. } => {
            Error::new(ErrorKind::Unsupported, Diagnostic::new("target::unsupported", error.to_string()))
        }
        CodegenError::Tool { .. } => {
            Error::new(ErrorKind::Unsupported, Diagnostic::new("target::tool", error.to_string()))
        }
        CodegenError::Internal { .. } => Error::internal("codegen::internal", error),
    }
}

fn dump_error(error: std::io::Error) -> Error {
    Diagnostic::new("io::dump", format!("--dump-to: {error}")).into()
}
