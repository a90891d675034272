//! Kernels and bytes of a step, by block of the model.

use std::collections::BTreeMap;

use serde::Serialize;
use skipc_artifact::interface::RouterPorts;
use skipc_plan::Plan;
use skipc_plan::traffic::{Counts, traffic};

use super::workload::Executed;

/// What a step costs beside time. Bytes are those of [`skipc_plan::traffic()`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Kernel runs.
    pub kernels: usize,
    /// Bytes read and written.
    pub bytes: u64,
    /// The same for each block of the model; what belongs to none (embedding, head) is in the sums only.
    pub blocks: Vec<BlockCost>,
}

/// What one block costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockCost {
    /// Index of the block.
    pub block: usize,
    /// Whether a router decides which tokens run it, or one of its layers.
    pub skipped: bool,
    /// Kernel runs.
    pub kernels: usize,
    /// Bytes read and written.
    pub bytes: u64,
}

impl Cost {
    pub(super) fn of(plan: &Plan, executed: &Executed) -> Cost {
        let mut counts = Counts { tokens: executed.tokens, ..Counts::default() };
        for (ports, rows) in plan.function.interface.routers().iter().zip(&executed.routers) {
            if let RouterPorts::Routed { executed, .. } = ports {
                counts.sets.insert(*executed, *rows);
            }
        }
        let mut blocks: BTreeMap<usize, BlockCost> = BTreeMap::new();
        let mut cost = Cost::default();
        for (step, moved) in plan.function.steps.iter().zip(traffic(plan, &counts)) {
            cost.kernels += 1;
            cost.bytes += moved.bytes();
            let Some((block, part)) = block_of(&step.origin) else { continue };
            let empty = BlockCost { block, skipped: false, kernels: 0, bytes: 0 };
            let of_block = blocks.entry(block).or_insert(empty);
            of_block.kernels += 1;
            of_block.bytes += moved.bytes();
            of_block.skipped |= part.starts_with("router") || part.starts_with("layer_routers");
        }
        cost.blocks = blocks.into_values().collect();
        cost
    }

    /// Mean number of kernels and of bytes of the blocks that tokens can skip; of all blocks if there is none.
    pub fn mean_block(&self) -> Option<(f64, f64)> {
        let skipped: Vec<&BlockCost> = self.blocks.iter().filter(|block| block.skipped).collect();
        let chosen = if skipped.is_empty() { self.blocks.iter().collect() } else { skipped };
        let n = chosen.len() as f64;
        let kernels: usize = chosen.iter().map(|block| block.kernels).sum();
        let bytes: u64 = chosen.iter().map(|block| block.bytes).sum();
        (!chosen.is_empty()).then_some((kernels as f64 / n, bytes as f64 / n))
    }
}

/// The block of an origin such as `blocks.3.layers.0`, and what follows it.
fn block_of(origin: &str) -> Option<(usize, &str)> {
    let (block, part) = origin.strip_prefix("blocks.")?.split_once('.')?;
    Some((block.parse().ok()?, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_name_their_block() {
        assert_eq!(block_of("blocks.11.layers.0"), Some((11, "layers.0")));
        assert_eq!(block_of("blocks.3.router"), Some((3, "router")));
        for origin in ["head", "embed", "blocks.x.router", ""] {
            assert_eq!(block_of(origin), None);
        }
    }

    #[test]
    fn the_mean_is_that_of_blocks_that_are_skipped() {
        let block = |block, skipped, kernels, bytes| BlockCost { block, skipped, kernels, bytes };
        let blocks = vec![block(0, false, 9, 900), block(1, true, 4, 100), block(2, true, 5, 300)];
        let mut cost = Cost { kernels: 20, bytes: 2000, blocks };
        assert_eq!(cost.mean_block(), Some((4.5, 200.0)));
        cost.blocks.truncate(1);
        assert_eq!(cost.mean_block(), Some((9.0, 900.0)));
        assert_eq!(Cost::default().mean_block(), None);
    }
}
