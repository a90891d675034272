//! Running the forms of a model: graphs in any number domain, planned kernels, compiled code.

use std::collections::BTreeMap;

use skipc::driver::backends::{CpuBackend, CpuLevels};
use skipc_artifact::bundle::{Bundle, BundleCode};
use skipc_artifact::manifest::{Manifest, Promises};
use skipc_artifact::object_image;
use skipc_artifact::program::SCORE;
use skipc_artifact::section::ContentHash;
use skipc_artifact::target::Target;
use skipc_artifact::writer::Writer;
use skipc_ir::interp::{self, Datum, Env, FlatBatch, Routing};
use skipc_ir::{Domain, Graph, Op, Role, SetSym, Value};
use skipc_plan::Plan;
use skipc_plan::buckets::ByHeight;
use skipc_plan::codegen::Image;
use skipc_plan::interp as kernels;
use skipc_runtime::{Device, Model, Options, Session};

use crate::experts::Chosen;
use crate::subject::{Subject, Tensors};

/// Values of ports, by role.
pub(crate) type PortValues<N> = BTreeMap<Role, Datum<N>>;

/// Decisions of every router, in model order.
pub(crate) type Masks = Vec<Vec<bool>>;

/// What a form computes.
#[derive(Clone, Debug)]
pub(crate) struct Run<N> {
    /// `[n, vocab]`, row by row.
    pub(crate) logits: Vec<N>,
    /// What each router decided.
    pub(crate) gates: Masks,
    /// What each router wanted before its capacity, where graphs show it.
    pub(crate) wanted: Vec<Option<Vec<bool>>>,
    /// What each router compared, and ranked by, where a graph was asked for it.
    pub(crate) scores: Vec<[Option<Vec<N>>; 2]>,
    /// The logits that experts were chosen by, `[rows, choices]` for each choice, where a graph was asked for them.
    pub(crate) logits_of_experts: Vec<Vec<N>>,
}

/// A graph with the routers of its sets.
#[derive(Clone, Debug)]
pub(crate) struct GraphForm {
    pub(crate) graph: Graph,
    sets: BTreeMap<SetSym, usize>,
    /// How experts are chosen whose logits are results.
    pub(crate) chosen: Vec<Chosen>,
}

struct Forced<'a> {
    sets: &'a BTreeMap<SetSym, usize>,
    masks: Option<&'a Masks>,
}

impl Routing for Forced<'_> {
    fn forced(&self, set: SetSym, _: usize) -> Option<Vec<bool>> {
        self.masks?.get(*self.sets.get(&set)?).cloned()
    }
}

/// What a router compares (`idx` 0), and what its capacity ranks by (1).
fn scores_role(router: u32, idx: usize) -> Role {
    Role::Result { name: format!("scores {idx} of router {router}") }
}

/// What experts are chosen by.
fn experts_role(idx: usize) -> Role {
    Role::Result { name: format!("logits of choice {idx}") }
}

impl GraphForm {
    pub(crate) fn new(graph: Graph) -> GraphForm {
        let mut sets = BTreeMap::new();
        for (router, gate) in graph.decisions() {
            if let Some(set) = graph.operands(gate).first()
                && let Some(sym) = graph.op(*set).opens()
            {
                sets.entry(sym).or_insert(router as usize);
            }
        }
        GraphForm { graph, sets, chosen: Vec::new() }
    }

    /// The graph with what its routers compare and rank by, and what experts are chosen by, as further results.
    pub(crate) fn with_scores(&self) -> GraphForm {
        let mut form = self.clone();
        for (router, gate) in self.graph.decisions() {
            let operand = |value: Value, idx: usize| self.graph.operands(value).get(idx).copied();
            let Some(mut set) = operand(gate, 0) else { continue };
            if let Op::LimitBest { .. } = self.graph.op(set)
                && let Some(ranks) = operand(set, 1)
            {
                form.graph.set_result(scores_role(router, 1), ranks);
            }
            if let Op::LimitBest { .. } | Op::LimitFirst { .. } = self.graph.op(set)
                && let Some(wanted) = operand(set, 0)
            {
                set = wanted;
            }
            // A nested one decides about all tokens, of which those count that may execute.
            if let Op::Within { .. } = self.graph.op(set)
                && let Some(free) = operand(set, 0)
            {
                set = free;
            }
            if let Op::Route { .. } | Op::RouteTopK { .. } | Op::RouteTopKAmong { .. } = self.graph.op(set)
                && let Some(scores) = operand(set, 0)
            {
                form.graph.set_result(scores_role(router, 0), scores);
            }
        }
        for (idx, (chosen, logits)) in Chosen::all(&self.graph).into_iter().enumerate() {
            form.graph.set_result(experts_role(idx), logits);
            form.chosen.push(chosen);
        }
        form
    }

    /// Evaluates it.
    pub(crate) fn run<N: Domain>(
        &self,
        weights: &dyn interp::Weights<N>,
        batch: &FlatBatch,
        masks: Option<&Masks>,
    ) -> Result<Run<N>, String> {
        let (run, _) = self.run_on(weights, batch, BTreeMap::new(), masks)?;
        Ok(run)
    }

    /// Evaluates it with what it is given beside the tokens, its states among it. What it leaves of them comes back.
    pub(crate) fn run_on<N: Domain>(
        &self,
        weights: &dyn interp::Weights<N>,
        batch: &FlatBatch,
        tensors: PortValues<N>,
        masks: Option<&Masks>,
    ) -> Result<(Run<N>, PortValues<N>), String> {
        let routing = Forced { sets: &self.sets, masks };
        let env = Env { batch, tensors, weights, routing: &routing };
        let results = skipc_ir::run(&self.graph, &env).map_err(|error| error.to_string())?;
        let (states, mut results): (PortValues<N>, PortValues<N>) =
            results.into_iter().partition(|(role, _)| role.state_name().is_some());
        let mut run = Run::of(Vec::new(), Vec::new());
        let real = |datum: Option<Datum<N>>| match datum {
            Some(Datum::Real { data, .. }) => Some(data),
            _ => None,
        };
        let mask = |datum: Option<Datum<N>>| match datum {
            Some(Datum::Mask(mask)) => Some(mask),
            _ => None,
        };
        run.logits = real(results.remove(&Role::Logits)).ok_or("the graph has no logits")?;
        for (router, _) in self.graph.decisions() {
            let gate = mask(results.remove(&Role::Decision { router }));
            run.gates.push(gate.ok_or_else(|| format!("router {router} has no decisions"))?);
            run.wanted.push(mask(results.remove(&Role::Wanted { router })));
            run.scores.push([0, 1].map(|idx| real(results.remove(&scores_role(router, idx)))));
        }
        for idx in 0..self.chosen.len() {
            run.logits_of_experts.extend(real(results.remove(&experts_role(idx))));
        }
        // Which choices tokens got follows from the logits of experts, and the logits from them.
        results.retain(|role, _| !matches!(role, Role::Choices { .. }));
        match results.keys().next() {
            Some(role) => Err(format!("unexpected result `{role}`")),
            None => Ok((run, states)),
        }
    }
}

fn words(ints: &[i64]) -> Vec<u32> {
    ints.iter().map(|int| *int as u32).collect()
}

fn kernel_batch(batch: &FlatBatch, masks: Option<&Masks>) -> kernels::StepInput {
    kernels::StepInput {
        tokens: words(&batch.tokens),
        positions: words(&batch.positions),
        sequences: words(&batch.sequences),
        forced: masks.cloned(),
        rows: batch.rows.iter().map(|number| f64::from(*number)).collect(),
        ..kernels::StepInput::default()
    }
}

/// A plan with the bytes of its constants.
#[derive(Clone, Debug)]
pub(crate) struct PlanForm {
    pub(crate) plan: Plan,
    constants: Vec<Vec<u8>>,
    laid_out: Vec<u8>,
}

impl PlanForm {
    pub(crate) fn new(plan: Plan, subject: &Subject) -> Result<PlanForm, String> {
        let laid_out = skipc::driver::constants::lay_out(&plan.constants, &subject.weights())
            .map_err(|error| error.to_string())?;
        let places = plan.constants.iter().map(|constant| &constant.constant);
        let constants = places
            .map(|place| laid_out[place.offset as usize..(place.offset + place.bytes()) as usize].to_vec())
            .collect();
        Ok(PlanForm { plan, constants, laid_out })
    }

    /// Runs the kernels on the host, in f32.
    pub(crate) fn run(
        &self,
        batch: &FlatBatch,
        masks: Option<&Masks>,
        how: (kernels::Mode, kernels::Tiling),
    ) -> Result<Run<f64>, String> {
        let batch = kernel_batch(batch, masks);
        let outcome = kernels::run_function(
            &self.plan.kernels,
            &self.plan.function,
            &self.constants,
            &mut kernels::States::default(),
            &batch,
            how,
        )
        .map_err(|fault| fault.to_string())?;
        let gates: Masks = outcome.gates.iter().map(|gate| gate.mask.clone()).collect();
        for (gate, mask) in outcome.gates.iter().zip(&gates) {
            let executed = mask.iter().filter(|executes| **executes).count();
            if gate.count as usize != executed {
                return Err(format!("a gate counts {} of {executed} executed tokens", gate.count));
            }
        }
        Ok(Run::of_f32(&outcome.logits, gates))
    }

    /// Runs the kernels in another number domain, with constants made anew from the weights.
    pub(crate) fn run_in<N: kernels::Element>(
        &self,
        weights: &dyn interp::Weights<N>,
        batch: &FlatBatch,
        masks: Option<&Masks>,
        how: (kernels::Mode, kernels::Tiling),
    ) -> Result<Run<N>, String> {
        let constants = self.constants_in(weights)?;
        self.run_on(&constants, &mut kernels::States::default(), &kernel_batch(batch, masks), how)
    }

    /// The constants in another number domain.
    pub(crate) fn constants_in<N: kernels::Element>(
        &self,
        weights: &dyn interp::Weights<N>,
    ) -> Result<kernels::Constants<N>, String> {
        kernels::Constants::of(&self.plan, weights).map_err(|fault| fault.to_string())
    }

    /// The same on states that earlier steps left.
    pub(crate) fn run_on<N: kernels::Element>(
        &self,
        constants: &kernels::Constants<N>,
        states: &mut kernels::States<N>,
        input: &kernels::StepInput,
        how: (kernels::Mode, kernels::Tiling),
    ) -> Result<Run<N>, String> {
        let outcome = kernels::run_plan_in(&self.plan, constants, states, input, how)
            .map_err(|fault| fault.to_string())?;
        let gates: Masks = outcome.gates.into_iter().map(|gate| gate.mask).collect();
        Ok(Run::shown(outcome.logits, gates))
    }

    /// Compiles the kernels for this machine.
    pub(crate) fn compile(&self) -> Result<CodeForm, String> {
        CodeForm::load(&self.artefact(SCORE)?).map_err(|error| error.to_string())
    }

    /// An artefact for this machine with the plan as its one function, of this name.
    pub(crate) fn artefact(&self, name: &str) -> Result<Vec<u8>, String> {
        let backend = skipc::driver::backends::for_target(
            &Target::Cpu,
            (CpuBackend::default(), CpuLevels::Native),
            Box::new(ByHeight),
        )
        .map_err(|_| "no backend for the CPU".to_owned())?;
        let linked = skipc_plan::link([(name, &self.plan)]).map_err(|error| error.to_string())?;
        let named: Vec<_> = linked.kernels.iter().map(|(symbol, kernel)| (symbol.clone(), kernel)).collect();
        let code = backend.compile(&named).map_err(|error| error.to_string())?;
        let program = linked.program(&Target::Cpu, &code.launches);
        let mut images = Vec::new();
        for image in &code.images {
            let Image::HostObject { level, object } = image else {
                return Err("code for another machine".to_owned());
            };
            images.push(object_image::link(object, *level).map_err(|error| error.to_string())?);
        }
        let bundle = Bundle { program, code: BundleCode::Host(images) };
        let mut writer = Writer::new(manifest());
        bundle.write(&mut writer, self.laid_out.as_slice()).map_err(|error| error.to_string())?;
        writer.to_bytes().map_err(|error| error.to_string())
    }
}

fn manifest() -> Manifest {
    Manifest {
        model: "generated".to_owned(),
        compiler: env!("CARGO_PKG_VERSION").to_owned(),
        llvm: None,
        ptxas: None,
        flags: Vec::new(),
        spec_hash: ContentHash::of(b""),
        weights_hash: ContentHash::of(b""),
        targets: vec![Target::Cpu.to_string()],
        promises: Promises { device_resident: true, causal: true },
    }
}

impl<N> Run<N> {
    /// With nothing said of any router.
    pub(crate) fn of(logits: Vec<N>, gates: Masks) -> Run<N> {
        Run { logits, gates, wanted: Vec::new(), scores: Vec::new(), logits_of_experts: Vec::new() }
    }

    /// Of a form that shows no more than results and decisions.
    pub(crate) fn shown(logits: Vec<N>, gates: Masks) -> Run<N> {
        let n_gates = gates.len();
        let scores = (0..n_gates).map(|_| [None, None]).collect();
        Run { wanted: vec![None; n_gates], scores, ..Run::of(logits, gates) }
    }
}

impl Run<f64> {
    fn of_f32(logits: &[f32], gates: Masks) -> Run<f64> {
        Run::shown(logits.iter().map(|logit| f64::from(*logit)).collect(), gates)
    }
}

/// Compiled code, loaded twice: for one thread and for two.
pub(crate) struct CodeForm {
    sessions: [Session; 2],
}

impl CodeForm {
    fn load(artifact: &[u8]) -> Result<CodeForm, skipc_runtime::Error> {
        let model = Model::from_bytes(artifact)?;
        let session = |threads| {
            let options = Options { threads, checked: true, ..Options::default() };
            Session::new(&model, Device::Cpu, options)
        };
        Ok(CodeForm { sessions: [session(1)?, session(2)?] })
    }

    /// Runs the code with one thread and with two, which have to agree to the bit.
    pub(crate) fn run(&mut self, subject: &Subject, masks: Option<&Masks>) -> Result<Run<f64>, String> {
        let bits = |mask: &Vec<bool>| mask.iter().map(|bit| u8::from(*bit)).collect();
        let FlatBatch { tokens, rows, .. } = subject.batch();
        let batch = skipc_runtime::Batch {
            tokens: words(&tokens),
            rows,
            lengths: subject.sequences.iter().map(|sequence| sequence.len() as u32).collect(),
            routing: masks.map(|masks| masks.iter().map(bits).collect()),
            experts: None,
        };
        let mut outputs = Vec::new();
        for session in &mut self.sessions {
            outputs.push(session.run(&batch).map_err(|error| error.to_string())?);
        }
        let bits = |outputs: &skipc_runtime::Outputs| -> Vec<u32> {
            outputs.logits.iter().map(|logit| logit.to_bits()).collect()
        };
        if bits(&outputs[0]) != bits(&outputs[1]) || outputs[0].gates != outputs[1].gates {
            return Err("one thread and two give other bits".to_owned());
        }
        let gates = outputs[0].gates.iter().map(|gate| gate.iter().map(|bit| *bit != 0).collect()).collect();
        Ok(Run::of_f32(&outputs[0].logits, gates))
    }
}

/// Weights in the domain that bounds rounding: they are f32, so they have no error.
pub(crate) struct ExactWeights<'a>(pub(crate) &'a Tensors);

impl interp::Weights<crate::bounded::Bounded> for ExactWeights<'_> {
    fn weight(&self, name: &str) -> Option<Vec<crate::bounded::Bounded>> {
        let values = self.0.get(name)?;
        Some(values.iter().map(|value| crate::bounded::Bounded::exact(f64::from(*value))).collect())
    }
}
