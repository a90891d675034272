//! What a step of decoding has to touch: weights of what executed, and caches of earlier tokens.

use skipc_artifact::interface::{Role, RouterPorts};
use skipc_artifact::program::{Arg, Program};
use skipc_plan::Plan;
use skipc_plan::kernel::Body;
use skipc_plan::traffic::{ByMemory, Counts, by_memory};
use skipc_runtime::Model as Artefact;

use crate::frontend::lower::Function;
use crate::verify::{self, LadderError};

/// The plan of an artefact's steps.
pub struct Touched {
    plan: Plan,
}

/// One step.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Its tokens.
    pub tokens: u32,
    /// Rows of logits that are wanted of it.
    pub logit_rows: u32,
    /// How many of its tokens each router executes, in model order.
    pub executed: &'a [u32],
    /// Of how many tokens it computes the keys and values that waited or may wait, by router; see
    /// [`StepOutputs`](skipc_runtime::decode::StepOutputs::computed).
    pub computed: &'a [u32],
    /// Tokens that each of its tokens sees, itself included, on average.
    pub seen: u32,
    /// How many of these executed, on average over routers, so that `kv = "active"` layers have their keys.
    pub kept: u32,
}

impl Touched {
    /// Of the program of an artefact.
    ///
    /// # Errors
    /// If it has no steps, or its plan cannot be read.
    pub fn new(artefact: &Artefact, program: &Program) -> Result<Touched, LadderError> {
        Ok(Touched { plan: verify::plan(artefact, Function::Step, program)? })
    }

    /// Bytes that a step reads and writes, as [`skipc_plan::traffic()`] counts them.
    pub fn bytes(&self, step: &Step<'_>) -> ByMemory {
        let interface = &self.plan.function.interface;
        let mut counts =
            Counts { tokens: step.tokens, cached: step.seen, kept: step.kept, ..Counts::default() };
        let single = [(Role::TokenCount, step.tokens), (Role::LogitCount, step.logit_rows)];
        let single = single.into_iter().filter_map(|(role, rows)| Some((interface.buffer(&role)?, rows)));
        counts.sets.extend(single);
        for (ports, rows) in interface.routers().iter().zip(step.executed) {
            if let RouterPorts::Routed { executed, .. } = ports {
                counts.sets.insert(*executed, *rows);
            }
        }
        for ran in &self.plan.function.steps {
            let Some((_, kernel)) = self.plan.kernels.get(ran.kernel as usize) else { continue };
            if let Body::Pending(pending) = &kernel.body
                && let Some(Arg::Buffer(count)) = ran.args.get(pending.count.0 as usize)
            {
                let rows = step.computed.get(pending.router as usize).copied().unwrap_or(0);
                counts.sets.insert(*count, rows);
            }
        }
        by_memory(&self.plan, &counts)
    }
}
