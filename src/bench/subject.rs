//! One form of a model, compiled and ready to run on the host, or an artefact's on a GPU.

use std::path::Path;
use std::time::{Duration, Instant};

use skipc_artifact::interface::RouterPorts;
use skipc_artifact::program::Function;
use skipc_artifact::target::Target;
use skipc_passes::rewrite::cost::CPU;
use skipc_plan::Plan;
use skipc_runtime::{Batch, Device, Model as Artefact, Options, Outputs, Session};

use super::cost::Cost;
use crate::cost::PlanCost;
use crate::diagnostic::Diagnostic;
use crate::driver::pack;
use crate::driver::pipeline::{self, Request, Variant};
use crate::driver::trace::Trace;
use crate::error::{Error, ErrorKind};
use crate::frontend::lower;
use crate::frontend::spec::model::Model;
use crate::frontend::weights::Weights;
use crate::verify;

/// A form of a model that runs.
pub struct Subject {
    form: Variant,
    artefact: Artefact,
    plan: Plan,
    session: Session,
}

impl Subject {
    /// Compiles a model for the host, in the form that the request names.
    ///
    /// # Errors
    /// As a compile.
    pub fn compile(
        (model, weights): (&Model, &Weights),
        request: &Request,
        threads: usize,
        trace: &mut Trace,
    ) -> Result<Subject, Error> {
        let compiled = pipeline::compile(model, request, trace)?;
        let bytes = pack::to_bytes((model, weights), request, compiled)?;
        let artefact = Artefact::from_bytes(&bytes)?;
        Subject::load(artefact, request.variant, Device::Cpu, threads)
    }

    /// The code of an artefact, which is the form that users get.
    ///
    /// # Errors
    /// `bench::no_cpu_program` if it has no code for the host and shall run there; what the runtime says of a GPU.
    pub fn of_artefact(
        artefact: Artefact,
        path: &Path,
        device: Device,
        threads: usize,
    ) -> Result<Subject, Error> {
        let targets = artefact.targets();
        if device == Device::Cpu && !targets.contains(&Target::Cpu) {
            let has: Vec<String> = targets.iter().map(ToString::to_string).collect();
            let message = format!("{} has no program for `cpu`, only for {}", path.display(), has.join(", "));
            let help = "compile it with `--target cpu` as well; programs for CUDA are timed on a GPU by the harness in \
                        tests/device";
            let diagnostic = Diagnostic::new("bench::no_cpu_program", message).help(help);
            return Err(Error::new(ErrorKind::Unsupported, diagnostic));
        }
        Subject::load(artefact, Variant::Fused, device, threads)
    }

    fn load(artefact: Artefact, form: Variant, device: Device, threads: usize) -> Result<Subject, Error> {
        let options = Options { threads, ..Options::default() };
        let session = Session::new(&artefact, device, options)?;
        let plan = verify::plan(&artefact, lower::Function::Score, session.program()).map_err(|error| {
            Error::new(ErrorKind::Input, Diagnostic::new("bench::plan", error.to_string()))
        })?;
        Ok(Subject { form, artefact, plan, session })
    }

    /// Which form it is.
    pub fn form(&self) -> Variant {
        self.form
    }

    /// What the cost model says of it.
    pub fn predicted(&self) -> PlanCost {
        PlanCost::of(&self.plan, &CPU)
    }

    /// The artefact that it was loaded from.
    pub fn artefact(&self) -> &Artefact {
        &self.artefact
    }

    /// Kernels, buffers and steps.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the code runs on, human-readable.
    pub fn describe(&self) -> String {
        self.session.describe()
    }

    /// What the GPU that it runs on does at most; none if it runs on the host.
    ///
    /// # Errors
    /// What the driver says.
    pub fn gpu_peak(&self) -> Result<Option<skipc_runtime::cuda::Peak>, Error> {
        self.session.module().gpu_peak().map_err(Error::from)
    }

    /// The ports of its routers.
    pub fn routers(&self) -> Vec<RouterPorts> {
        self.function().interface.routers()
    }

    /// The program that runs.
    pub fn program(&self) -> &skipc_artifact::program::Program {
        self.session.program()
    }

    /// The function that runs.
    pub fn function(&self) -> &Function {
        self.session.function()
    }

    /// Runs a batch.
    ///
    /// # Errors
    /// What the runtime refuses.
    pub fn run(&mut self, batch: &Batch) -> Result<Outputs, Error> {
        self.session.run(batch).map_err(Error::from)
    }

    /// Keeps the calls of kernels from now on, or no longer.
    pub fn record_calls(&mut self, wanted: bool) {
        self.session.record_calls(wanted);
    }

    /// The calls of the last run.
    pub fn calls(&self) -> &[skipc_runtime::Call] {
        self.session.calls()
    }

    /// How long one run takes by the clock on the wall.
    ///
    /// # Errors
    /// As [`Subject::run`].
    pub fn time(&mut self, batch: &Batch) -> Result<Duration, Error> {
        let started = Instant::now();
        let outputs = self.run(batch)?;
        let time = started.elapsed();
        std::hint::black_box(outputs);
        Ok(time)
    }

    /// Kernels and bytes of a step in which each router executes so many tokens.
    pub(super) fn cost(&self, executed: &super::workload::Executed) -> Cost {
        Cost::of(&self.plan, executed)
    }
}
