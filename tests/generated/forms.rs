//! All forms of a subject, as the compiler makes them.

use skipc::driver::backends::CpuBackend;
use skipc::driver::pipeline;
use skipc::frontend::lower::{Function, KeyValues, Skipping, lower, lower_step};
use skipc::frontend::spec::model::Model;
use skipc::verify::steps::Piece;
use skipc_artifact::target::{DType, Target};
use skipc_ir::Graph;
use skipc_ir::Legal;
use skipc_plan::Plan;

use crate::run::{CodeForm, GraphForm, Masks, PlanForm};
use crate::subject::Subject;

/// The compiler, or one with a fault planted in it: each stage may be tampered with.
pub(crate) trait Compiler: Sync {
    /// The model that is lowered in this form.
    fn model(&self, model: &Model, _skipping: Skipping) -> Model {
        model.clone()
    }

    /// A lowered graph.
    fn lowered(&self, graph: Graph, _skipping: Skipping) -> Graph {
        graph
    }

    /// The graph after the passes.
    fn passed(&self, graph: Graph) -> Graph {
        graph
    }

    /// A plan, after it was verified.
    fn planned(&self, plan: Plan) -> Plan {
        plan
    }

    /// The decisions of a step, from which is known what waits behind it.
    fn decided(&self, gates: Masks) -> Masks {
        gates
    }

    /// What a batch is given in steps.
    fn pieces(&self, pieces: Vec<Piece>) -> Vec<Piece> {
        pieces
    }
}

/// The compiler as it is.
pub(crate) struct Honest;

impl Compiler for Honest {}

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Until {
    Graphs,
    Kernels,
    Code,
}

/// What a model is compiled to.
pub(crate) struct Forms {
    /// Layers over gathered rows; shows the scores.
    pub(crate) gathered: GraphForm,
    /// Layers over all rows.
    pub(crate) masked: GraphForm,
    /// The gathered form after the passes.
    pub(crate) passed: GraphForm,
    /// Fused kernels, and one kernel for each op.
    pub(crate) plans: Option<[PlanForm; 2]>,
    /// Why there are no plans.
    pub(crate) refused: Option<String>,
    /// The fused kernels, compiled.
    pub(crate) code: Option<CodeForm>,
}

/// Compiles a subject.
///
/// # Errors
/// If a stage fails that may not fail.
pub(crate) fn compile(
    compiler: &dyn Compiler,
    subject: &Subject,
    function: Function,
    until: Until,
) -> Result<Forms, String> {
    let gathered = lowered(compiler, subject, function, Skipping::Gathered)?;
    let masked = lowered(compiler, subject, function, Skipping::Masked)?;
    let (passed, legal) = passed(compiler, &gathered, &skipc_passes::default_pipeline())?;
    let mut forms = Forms {
        gathered: GraphForm::new(gathered).with_scores(),
        masked: GraphForm::new(masked),
        passed: GraphForm::new(passed).with_scores(),
        plans: None,
        refused: None,
        code: None,
    };
    if until == Until::Graphs {
        return Ok(forms);
    }
    let options = plan_options(subject);
    let plans = (skipc_plan::build(&legal, &options), skipc_plan::build_unfused(&legal, &options));
    let (Ok(fused), Ok(unfused)) = plans else {
        let error = plans.0.err().or(plans.1.err());
        forms.refused = error.map(|error| error.to_string());
        return Ok(forms);
    };
    let plan = |plan: Plan| -> Result<PlanForm, String> {
        skipc_plan::verify(&plan).map_err(|errors| format!("plan: {}", errors[0]))?;
        PlanForm::new(compiler.planned(plan), subject)
    };
    let plans = [plan(fused)?, plan(unfused)?];
    if until == Until::Code {
        forms.code = Some(plans[0].compile()?);
    }
    forms.plans = Some(plans);
    Ok(forms)
}

/// The model as it is lowered, verified.
pub(crate) fn lowered(
    compiler: &dyn Compiler,
    subject: &Subject,
    function: Function,
    skipping: Skipping,
) -> Result<Graph, String> {
    let model = compiler.model(&subject.model, skipping);
    let graph = lower(&model, skipping, function).map_err(|error| error.to_string())?;
    let graph = compiler.lowered(graph, skipping);
    skipc_ir::verify(&graph).map_err(|errors| format!("{skipping:?} graph: {}", errors[0]))?;
    Ok(graph)
}

/// The lowered function that goes on with sequences.
pub(crate) fn lowered_step(
    compiler: &dyn Compiler,
    subject: &Subject,
    key_values: KeyValues,
) -> Result<Graph, String> {
    let skipping = Skipping::Gathered;
    let model = compiler.model(&subject.model, skipping);
    let graph = lower_step(&model, skipping, key_values).map_err(|error| error.to_string())?;
    let graph = compiler.lowered(graph, skipping);
    skipc_ir::verify(&graph).map_err(|errors| format!("graph of steps, {key_values:?}: {}", errors[0]))?;
    Ok(graph)
}

/// A lowered graph after the passes, and what the gate before the planner makes of it.
pub(crate) fn passed(
    compiler: &dyn Compiler,
    gathered: &Graph,
    passes: &[String],
) -> Result<(Graph, Legal), String> {
    let options = skipc_passes::Options::default();
    let passed = skipc_passes::run(gathered.clone(), passes, &options, &mut |_, _| {})
        .map_err(|error| error.to_string())?;
    let passed = compiler.passed(passed);
    let legal = skipc_ir::legalize(passed.clone()).map_err(|errors| format!("not legal: {}", errors[0]))?;
    Ok((passed, legal))
}

/// How a subject is planned.
pub(crate) fn plan_options(subject: &Subject) -> skipc_plan::Options {
    let layout = skipc::driver::backends::layout(&Target::Cpu, CpuBackend::default(), DType::F32);
    let max_tokens = u32::try_from(subject.n_tokens().max(1)).unwrap_or(u32::MAX);
    pipeline::plan_options(&subject.model, (DType::F32, layout), max_tokens)
}
