//! What the decisions of a trace look like: who agrees with whom, how long skips last, and what a capacity would lose; each
//! beside decisions that are drawn at random with the same densities.

pub mod html;

use serde::Serialize;
use skipc_runtime::Trace;
use skipc_runtime::trace::{Decider, Recipe};

use crate::error::Error;

/// Group sizes of the advice on capacities.
const GROUP_SIZES: [usize; 7] = [16, 32, 64, 128, 256, 512, 1024];

/// Capacity factors of the advice.
const FACTORS: [f64; 5] = [1.0, 1.1, 1.25, 1.5, 2.0];

/// Skips that last longer count as this long.
const LONGEST: usize = 16;

/// Seed of the random decisions.
const SEED: u64 = 1;

/// Figures of a trace, and of random decisions of the same densities.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Of the trace.
    pub trace: Statistics,
    /// Of the random decisions.
    pub random: Statistics,
}

/// Figures of one set of decisions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Statistics {
    /// Share of the tokens that each router executes.
    pub densities: Vec<f64>,
    /// How many tokens so many routers execute, from none on.
    pub depths: Vec<usize>,
    /// For each pair of routers the share of tokens about which they decide alike.
    pub agreement: Vec<Vec<f64>>,
    /// How many runs of so many routers one after the other skip a token, from runs of one on; the last are all longer ones.
    /// What a step can decide at once.
    pub layer_runs: Vec<usize>,
    /// The same along a sequence: how many tokens one after the other skip a router. What waits when keys and values are lazy.
    pub token_runs: Vec<usize>,
    /// What capacities would lose.
    pub capacities: Vec<Capacity>,
}

/// What a group size and a factor would do to these decisions, all routers together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Capacity {
    /// Tokens of a group.
    pub group_size: usize,
    /// Slots are this times the density, rounded up.
    pub factor: f64,
    /// Share of the groups in which more tokens want to execute than there are slots.
    pub overflows: f64,
    /// Share of the tokens that want to execute and get no slot.
    pub lost: f64,
    /// Slots for each token: what a kernel with padded groups would compute.
    pub slots: f64,
}

impl Comparison {
    /// Compares a trace with random decisions.
    ///
    /// # Errors
    /// A trace of more tokens than can be drawn.
    pub fn of(trace: &Trace) -> Result<Comparison, Error> {
        let statistics = Statistics::of(&trace.gates, &trace.lengths);
        let decider = |density: &f64| match *density {
            density if density <= 0.0 => Decider::Constant(false),
            density if density >= 1.0 => Decider::Constant(true),
            _ => Decider::Free,
        };
        let deciders: Vec<Decider> = statistics.densities.iter().map(decider).collect();
        let of_free =
            statistics.densities.iter().zip(&deciders).filter(|(_, it)| matches!(it, Decider::Free));
        let recipe =
            Recipe { densities: of_free.map(|(density, _)| *density).collect(), skew: 0.0, seed: SEED };
        let from = (trace.provenance.model.as_str(), trace.provenance.spec_hash);
        let random = Trace::generated(from, &deciders, trace.lengths.clone(), recipe)?;
        Ok(Comparison { random: Statistics::of(&random.gates, &random.lengths), trace: statistics })
    }
}

impl Statistics {
    fn of(gates: &[Vec<u8>], lengths: &[u32]) -> Statistics {
        let n = gates.first().map_or(0, Vec::len);
        let share = |count: usize| count as f64 / n.max(1) as f64;
        let count = |gate: &Vec<u8>| gate.iter().filter(|bit| **bit != 0).count();
        let alike = |a: &Vec<u8>, b: &Vec<u8>| share(a.iter().zip(b).filter(|(a, b)| a == b).count());
        let mut depths = vec![0; gates.len() + 1];
        for token in 0..n {
            depths[gates.iter().filter(|gate| gate[token] != 0).count()] += 1;
        }
        let mut layer_runs = vec![0; LONGEST];
        for token in 0..n {
            runs(gates.iter().map(|gate| gate[token] == 0), &mut layer_runs);
        }
        let mut token_runs = vec![0; LONGEST];
        for gate in gates {
            for sequence in sequences(gate, lengths) {
                runs(sequence.iter().map(|bit| *bit == 0), &mut token_runs);
            }
        }
        let sizes =
            GROUP_SIZES.into_iter().filter(|size| lengths.iter().any(|length| *length as usize >= *size));
        let capacities = sizes
            .flat_map(|group_size| FACTORS.into_iter().map(move |factor| (group_size, factor)))
            .map(|(group_size, factor)| Capacity::of(gates, lengths, group_size, factor));
        Statistics {
            densities: gates.iter().map(|gate| share(count(gate))).collect(),
            depths,
            agreement: gates.iter().map(|a| gates.iter().map(|b| alike(a, b)).collect()).collect(),
            layer_runs,
            token_runs,
            capacities: capacities.collect(),
        }
    }
}

impl Capacity {
    fn of(gates: &[Vec<u8>], lengths: &[u32], group_size: usize, factor: f64) -> Capacity {
        let (mut groups, mut over, mut wanted, mut lost, mut slots_in_all, mut tokens) = (0, 0, 0, 0, 0, 0);
        for gate in gates {
            let executed = gate.iter().filter(|bit| **bit != 0).count();
            let density = executed as f64 / gate.len().max(1) as f64;
            if executed == 0 || executed == gate.len() {
                // Nobody decides here, and a capacity has nothing to limit.
                continue;
            }
            let slots = (group_size as f64 * density * factor).ceil() as usize;
            for group in sequences(gate, lengths).flat_map(|sequence| sequence.chunks(group_size)) {
                let count = group.iter().filter(|bit| **bit != 0).count();
                groups += 1;
                over += usize::from(count > slots);
                wanted += count;
                lost += count.saturating_sub(slots);
                slots_in_all += slots.min(group.len());
                tokens += group.len();
            }
        }
        let share = |part: usize, of: usize| part as f64 / of.max(1) as f64;
        Capacity {
            group_size,
            factor,
            overflows: share(over, groups),
            lost: share(lost, wanted),
            slots: share(slots_in_all, tokens),
        }
    }
}

/// The decisions about each sequence.
fn sequences<'g>(gate: &'g [u8], lengths: &'g [u32]) -> impl Iterator<Item = &'g [u8]> {
    let mut from = 0;
    lengths.iter().map(move |length| {
        let begin = from;
        from += *length as usize;
        gate.get(begin..from).unwrap_or_default()
    })
}

/// Counts runs of `true` by their length.
fn runs(skipped: impl Iterator<Item = bool>, found: &mut [usize]) {
    let mut length = 0usize;
    for skips in skipped.chain([false]) {
        if skips {
            length += 1;
        } else if length > 0 {
            found[length.min(found.len()) - 1] += 1;
            length = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_decisions() {
        let gates = vec![vec![1, 0, 0, 1, 0, 0], vec![1, 1, 0, 0, 0, 0], vec![0; 6]];
        let found = Statistics::of(&gates, &[4, 2]);
        assert_eq!(found.densities, [2.0 / 6.0, 2.0 / 6.0, 0.0]);
        assert_eq!(found.depths, [3, 2, 1, 0]);
        assert_eq!(found.agreement[0][1], 4.0 / 6.0);
        assert_eq!(found.agreement[1][0], found.agreement[0][1]);
        // By token: skipped by 1, by 1 and 1, by 3, by 2, by 3, by 3.
        assert_eq!(found.layer_runs[..3], [3, 1, 3]);
        // By router: 2 and 2, 2 and 2, 4 and 2.
        assert_eq!(found.token_runs[..4], [0, 5, 0, 1]);
    }

    #[test]
    fn capacities_lose_what_has_no_slot() {
        let gates = vec![vec![1, 1, 0, 0, 1, 0, 0, 0]];
        let capacity = Capacity::of(&gates, &[8], 4, 1.0);
        // Three of eight, so two slots of four: the first group has two, the second one.
        assert_eq!((capacity.overflows, capacity.lost, capacity.slots), (0.0, 0.0, 0.5));
        let gates = vec![vec![1, 1, 1, 0, 0, 0, 0, 0]];
        let capacity = Capacity::of(&gates, &[8], 4, 1.0);
        assert_eq!((capacity.overflows, capacity.lost), (0.5, 1.0 / 3.0));
        assert_eq!(Capacity::of(&gates, &[8], 4, 1.5).lost, 0.0);
    }

    #[test]
    fn random_decisions_have_the_densities_of_the_trace() {
        let recipe = Recipe { densities: vec![0.25, 0.5], skew: 2.0, seed: 3 };
        let deciders = [Decider::Free, Decider::Constant(true), Decider::Free];
        let hash = skipc_artifact::section::ContentHash::of(b"spec");
        let trace =
            Trace::generated(("tiny", hash), &deciders, vec![128, 128], recipe).expect("a sound recipe");
        let found = Comparison::of(&trace).expect("it can be drawn");
        assert_eq!(found.trace.densities, found.random.densities);
        // A skewed trace agrees more than chance.
        assert!(found.trace.agreement[0][2] > found.random.agreement[0][2] + 0.05);
    }
}
