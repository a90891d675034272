//! Stacks: blocks that run several times, whose weights they use, and who decides about a repetition.
//!
//! The order in which blocks run and the weights that they use are two things: a block of a shared stack runs once in each
//! repetition, each time with the weights of the first.

use serde::Serialize;

use super::model::Model;
use super::node::{Block, Part, SubLayer};
use super::skip::{Decider, Skip};
use super::skip_table::SkipTable;
use crate::frontend::layer::{Experts, Layer};

/// Blocks in order, all of them several times.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stack {
    /// How many blocks a repetition has.
    pub blocks: usize,
    /// How many repetitions there are.
    pub repeat: usize,
    /// All repetitions use the weights of the first.
    pub share: bool,
    /// The decision over each repetition; empty if there is none.
    #[serde(serialize_with = "as_tables")]
    pub skips: Vec<Skip>,
}

/// Where a block runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRun {
    /// Its index in the order in which blocks run: what places in graphs, caches and random decisions are named for.
    pub run: usize,
    /// The index of its weights: what its tensors are named for.
    pub weights: usize,
}

/// Blocks that run one after the other, once.
#[derive(Clone, Debug)]
pub struct Repetition<'m> {
    /// Index of the stack.
    pub stack: usize,
    /// Index of the repetition in its stack.
    pub number: usize,
    /// It is the last one of its stack.
    pub is_last: bool,
    /// The decision over all of its blocks.
    pub skip: Option<&'m Skip>,
    /// The blocks, in order.
    pub blocks: Vec<(BlockRun, &'m Block)>,
}

impl Repetition<'_> {
    /// The name of the router that decides about it: one for each repetition, but one for all that are chosen at the entry.
    pub fn router(&self) -> String {
        match self.skip.and_then(Skip::decider) {
            Some(Decider::Depth { .. }) => format!("stacks.{}.router", self.stack),
            _ => format!("stacks.{}.routers.{}", self.stack, self.number),
        }
    }

    /// What it is called where decisions are shown.
    pub fn name(&self) -> String {
        format!("stacks.{}.repetition.{}", self.stack, self.number)
    }
}

impl Model {
    /// What runs, in order. Without stacks that share weights or decide all blocks are one repetition.
    pub fn repetitions(&self) -> Vec<Repetition<'_>> {
        let one = [Stack { blocks: self.blocks.len(), repeat: 1, share: false, skips: Vec::new() }];
        let stacks = if self.stacks.is_empty() { &one[..] } else { &self.stacks };
        let (mut found, mut run, mut weights) = (Vec::new(), 0, 0);
        for (idx, stack) in stacks.iter().enumerate() {
            let first = weights;
            for number in 0..stack.repeat {
                if stack.share {
                    weights = first;
                }
                let blocks = self.blocks.iter().skip(run).take(stack.blocks).enumerate();
                let blocks =
                    blocks.map(|(at, block)| (BlockRun { run: run + at, weights: weights + at }, block));
                // `stacks` may be of this function.
                let skip = self.stacks.get(idx).and_then(|stack| stack.skips.get(number));
                let (is_last, blocks) = (number + 1 == stack.repeat, blocks.collect());
                found.push(Repetition { stack: idx, number, is_last, skip, blocks });
                (run, weights) = (run + stack.blocks, weights + stack.blocks);
            }
        }
        found
    }

    /// The layers of experts with their names, in the order in which they run: each repetition for itself.
    pub fn expert_layers(&self) -> Vec<(String, Experts)> {
        let of_block = |(place, block): (BlockRun, &Block)| {
            let layer = |part| match part {
                Part::Layer(layers, idx, SubLayer { layer: Layer::Experts(experts), .. }) => {
                    Some((layers.name(place.run, idx), *experts))
                }
                Part::Layer(..) | Part::Route(..) => None,
            };
            block.parts().into_iter().filter_map(layer).collect::<Vec<_>>()
        };
        self.repetitions().into_iter().flat_map(|repetition| repetition.blocks).flat_map(of_block).collect()
    }

    /// The share of the tokens that each router is expected to execute, in the order of the routers: its density, and of a
    /// nested one no more than the router before it executes.
    pub fn shares(&self) -> Vec<f64> {
        let mut shares: Vec<f64> = Vec::new();
        for repetition in self.repetitions() {
            if let Some(skip) = repetition.skip {
                let is_nested = repetition.number > 0 && skip.either().is_some_and(|either| either.nested);
                let most = shares.last().copied().filter(|_| is_nested).unwrap_or(1.0);
                shares.push(skip.density.min(most));
            }
            shares.extend(
                repetition.blocks.iter().flat_map(|(_, block)| block.skips()).map(|skip| skip.density),
            );
        }
        shares
    }

    /// What each router decides about, with its settings, in the order of the routers.
    pub fn routers(&self) -> Vec<(String, &Skip)> {
        let mut found = Vec::new();
        for repetition in self.repetitions() {
            found.extend(repetition.skip.map(|skip| (repetition.name(), skip)));
            for (place, block) in repetition.blocks {
                found.extend(block.routes().map(|(unit, skip)| (unit.name(place.run), skip)));
            }
        }
        found
    }
}

fn as_tables<S: serde::Serializer>(skips: &[Skip], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(skips.iter().map(SkipTable::of))
}

#[cfg(test)]
mod tests {
    use crate::frontend::spec;

    #[test]
    fn runs_weights_and_shares_of_stacks() {
        let text = "[model]\nname = \"m\"\nvocab_size = 8\nd_model = 8\nmax_positions = 8\n[block.a]\nlayers = [{ kind = \"ffn\", d_ff = 8 }]\n[block.b]\nlayers = [{ kind = \"ffn\", d_ff = 8, skip = { router = \"random\", density = 0.9 } }]\n[[stack]]\nblocks = [\"b\"]\n[[stack]]\nblocks = [\"a\", \"a\"]\nrepeat = 3\nshare = true\nskip = { router = \"sigmoid\", density = [0.75, 0.9, 0.5], nested = true }\n[[stack]]\nblocks = [\"a\"]\nrepeat = 2\nskip = { router = \"depth\" }\n";
        let model = spec::model("m.toml", text).unwrap_or_else(|found| panic!("{found:?}"));
        let repetitions = model.repetitions();
        let weights = repetitions.iter().flat_map(|repetition| &repetition.blocks);
        let (run, weights): (Vec<usize>, Vec<usize>) =
            weights.map(|(place, _)| (place.run, place.weights)).unzip();
        assert_eq!(run, (0..9).collect::<Vec<_>>());
        assert_eq!(weights, [0, 1, 2, 1, 2, 1, 2, 3, 4]);
        assert_eq!(model.shares(), [0.9, 0.75, 0.75, 0.5, 1.0, 0.5]);
        let routers: Vec<String> =
            repetitions.iter().filter(|it| it.skip.is_some()).map(|it| it.router()).collect();
        assert_eq!(routers[..3], ["stacks.1.routers.0", "stacks.1.routers.1", "stacks.1.routers.2"]);
        assert_eq!(routers[3..], ["stacks.2.router", "stacks.2.router"]);
        assert_eq!(spec::model("m.toml", &model.to_string()).ok(), Some(model.clone()));
    }
}
