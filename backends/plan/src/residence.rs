//! Whether a step of a plan runs without the host.

use std::collections::BTreeSet;

use skipc_artifact::interface::Direction;
use skipc_artifact::program::{Arg, Extent};

use crate::kernel::Access;
use crate::plan::Plan;

impl Plan {
    /// Where the steps come from that would wait for the host: those which work on as many rows as a count says that is
    /// neither an input of the whole nor written by a step before. Somebody would have to bring it in between.
    pub fn host_waits(&self) -> Vec<&str> {
        let given = self
            .function
            .interface
            .buffers(Direction::In)
            .chain(self.function.interface.buffers(Direction::Kept));
        let mut known: BTreeSet<u32> = given.map(|(_, idx)| idx).collect();
        let mut waits = Vec::new();
        for step in &self.function.steps {
            let Some((_, kernel)) = self.kernels.get(step.kernel as usize) else { continue };
            if let Extent::Counted { count, .. } = kernel.extent {
                let is_known = match step.args.get(count as usize) {
                    Some(Arg::Buffer(idx)) => known.contains(idx),
                    Some(Arg::Constant(_)) => true,
                    None => false,
                };
                if !is_known {
                    waits.push(step.origin.as_str());
                }
            }
            for (param, arg) in kernel.params.iter().zip(&step.args) {
                if let (Access::Write | Access::ReadWrite, Arg::Buffer(idx)) = (param.access, arg) {
                    known.insert(*idx);
                }
            }
        }
        waits
    }
}
