//! What a step of decoding has to read: weights of what executed, and keys and values in sight.

use skipc_artifact::interface::{Role, RouterPorts};
use skipc_artifact::program::STEP;
use skipc_artifact::section::SectionKind;
use skipc_plan::kernel::Body;
use skipc_plan::traffic::{Counts, traffic};
use skipc_plan::{Linked, Plan};
use skipc_runtime::{Model, Module};

use crate::Failed;

/// The plan of the steps of an artefact.
pub(crate) struct StepBytes {
    plan: Plan,
}

impl StepBytes {
    /// The plan of the program that a module runs.
    pub(crate) fn of(model: &Model, module: &Module) -> Result<StepBytes, Failed> {
        let program = module.program();
        let section = skipc::verify::plan_section(program.target.kind(), program.dtype);
        let linked: Linked = serde_json::from_slice(model.artifact().section(&section, SectionKind::Plan)?)?;
        Ok(StepBytes { plan: linked.plan(STEP).ok_or("the artefact has no steps")? })
    }

    /// Bytes that each kernel of a step of one token of each slot reads under these decisions, `[routers][slots]`, if each slot
    /// then has so many tokens.
    pub(crate) fn read(&self, gates: &[Vec<u8>], slots: u32, tokens: u32) -> Vec<u64> {
        let interface = &self.plan.function.interface;
        let mut counts = Counts { tokens: slots, ..Counts::default() };
        counts.sets.extend(interface.buffer(&Role::TokenCount).map(|buffer| (buffer, slots)));
        for (ports, gates) in interface.routers().iter().zip(gates) {
            if let RouterPorts::Routed { executed, .. } = ports {
                counts.sets.insert(*executed, gates.iter().filter(|gate| **gate != 0).count() as u32);
            }
        }
        let of_steps = traffic(&self.plan, &counts);
        let steps = self.plan.function.steps.iter().zip(of_steps);
        let bytes = steps.map(|(step, moved)| match &self.plan.kernels[step.kernel as usize].1.body {
            // One row of keys is counted for each query; each sees all of its slot.
            Body::CachedAttention(_) => moved.read * u64::from(tokens),
            _ => moved.read,
        });
        bytes.collect()
    }
}
