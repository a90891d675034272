//! The functions of training as a program for the host.

use skipc_artifact::manifest::{Manifest, Promises};
use skipc_artifact::section::ContentHash;
use skipc_artifact::target::{DType, Target};
use skipc_artifact::writer::Writer;
use skipc_ir::Graph;
use skipc_runtime::{Device, Model as Artifact, Module, Options};

use super::backends::{self, CpuBackend, CpuLevels};
use super::pipeline;
use super::trace::{Trace, unheard};
use super::{constants, pack};
use crate::cost::bucketing::modelled;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::error::{Error, ErrorKind};
use crate::frontend::spec::model::Model;
use crate::frontend::weights::Weights;

/// On what functions of training run.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// What generates the code.
    pub backend: CpuBackend,
    /// What rows are computed in; what trains, its gradient and its moments are f32.
    pub dtype: DType,
    /// Threads; no number depends on it.
    pub threads: usize,
    /// Most tokens of a call.
    pub max_tokens: usize,
}

/// Compiles graphs by their names into one program, and loads it. `weights` has the tensors that do not train, and may have
/// others.
///
/// # Errors
/// An op that no backend has a kernel of, by its name; a fault of the compiler.
pub fn load(
    model: &Model,
    functions: &[(&str, &Graph)],
    weights: &Weights,
    host: Host,
) -> Result<Module, Error> {
    let mut plans = Vec::new();
    for (name, graph) in functions {
        plans.push((*name, plan(model, graph, host)?));
    }
    let linked = skipc_plan::link(plans.iter().map(|(name, plan)| (*name, plan)));
    let linked = linked.map_err(|error| Error::internal("plan::broken", &error))?;
    let backend =
        backends::for_target(&Target::Cpu, (host.backend, CpuLevels::Native), modelled()(&Target::Cpu))?;
    let bundle = pipeline::bundle(&linked, &Target::Cpu, backend.as_ref(), &mut Trace::silent())?;
    let mut writer = Writer::new(Manifest {
        model: model.name.clone(),
        compiler: env!("CARGO_PKG_VERSION").to_owned(),
        llvm: backends::llvm_version().filter(|_| host.backend == CpuBackend::Llvm),
        ptxas: None,
        flags: Vec::new(),
        spec_hash: ContentHash::of(model.to_string().as_bytes()),
        weights_hash: weights.content_hash(),
        targets: vec![Target::Cpu.to_string()],
        promises: Promises { device_resident: true, causal: model.is_causal() },
    });
    let content = constants::content(linked.constants.clone(), weights, unheard());
    bundle.write(&mut writer, content).map_err(|error| pack::broken(&error))?;
    let bytes = writer.to_bytes().map_err(|error| Error::of_writer("the program".as_ref(), error))?;
    let artifact = Artifact::from_bytes(&bytes).map_err(|error| pack::broken(&error))?;
    let options = Options { threads: host.threads, ..Options::default() };
    Module::load(&artifact, Device::Cpu, options).map_err(|error| pack::broken(&error))
}

fn plan(model: &Model, graph: &Graph, host: Host) -> Result<skipc_plan::Plan, Error> {
    let legal = skipc_ir::legalize(graph.clone()).map_err(|errors| {
        let mut diagnostics = Diagnostics::default();
        for error in &errors {
            let help = "train by `--target interpreter`; what comes out compiles for every target";
            diagnostics.push(Diagnostic::new(error.code(), error.to_string()).help(help));
        }
        Error { kind: ErrorKind::Unsupported, diagnostics }
    })?;
    let layout = backends::layout(&Target::Cpu, host.backend, host.dtype);
    let max_tokens = u32::try_from(host.max_tokens).unwrap_or(u32::MAX);
    let options = pipeline::plan_options(model, (host.dtype, layout), max_tokens);
    let plan = skipc_plan::build(&legal, &options).map_err(|error| {
        let help = "train by `--target interpreter`; what comes out compiles for every target";
        let diagnostic = Diagnostic::new("plan::refused", error.to_string()).help(help);
        Error::new(ErrorKind::Unsupported, diagnostic)
    })?;
    skipc_plan::verify(&plan).map_err(|errors| Error::internal("plan::broken", &errors[0]))?;
    Ok(plan)
}
