//! The form that would have been chosen if every row executed, and from which density on it is cheaper.

use egg::Id;
use skipc_ir::{F64, SetSym};

use super::cost::{Counts, Target};
use super::extract::{self, Problem};
use super::language::Node;
use super::region::Region;
use super::saturate::Saturated;
use super::{MAX_STEPS, PriceList, TOKENS};

/// Halvings of the interval that has the break-even in it: to 1 of 10,000.
const HALVINGS: u32 = 14;

/// Densities that are looked at before.
const STEPS: u32 = 20;

/// The form that is cheapest where every row executes, if it is another than the chosen one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerUp {
    /// Its modelled time at the densities that the chosen form was chosen for, in nanoseconds.
    pub ns: u64,
    /// The modelled times of the chosen form and of this one where every row executes.
    pub ns_at_one: [u64; 2],
    /// From which density of all of the region's sets on it is no dearer than the chosen form.
    pub break_even: F64,
}

/// Counts where all sets have one density.
struct Even(f64);

impl Counts for Even {
    fn tokens(&self) -> f64 {
        TOKENS
    }

    fn rows(&self, _: SetSym) -> f64 {
        self.0 * TOKENS
    }
}

/// Looks for the runner-up of the form that has these nodes. A region without sets has none.
pub(super) fn runner_up(
    source: &Region,
    saturated: &Saturated,
    (own, own_counts): (&[Node], &dyn Counts),
    target: &Target,
) -> Option<RunnerUp> {
    if source.densities.is_empty() {
        return None;
    }
    let egraph = &saturated.egraph;
    let roots: Vec<Id> = source.roots.iter().map(|root| saturated.classes[*root]).collect();
    let problem = Problem::new(egraph, &roots, &PriceList { egraph, target, counts: &Even(1.0) });
    let found = problem.search(problem.greedy(), MAX_STEPS)?;
    let other = problem.nodes(&found.choice)?;
    let cost =
        |nodes: &[Node], counts: &dyn Counts| extract::cost_of(nodes, &PriceList { egraph, target, counts });
    let at = |density: f64| [cost(own, &Even(density)), cost(&other, &Even(density))];
    let is_cheaper = |density: f64| {
        let [own, other] = at(density);
        other <= own
    };
    let at_one = at(1.0);
    if other.iter().all(|node| own.contains(node)) || at_one[1] >= at_one[0] {
        return None;
    }
    let density = |step: u32| f64::from(step) / f64::from(STEPS);
    let below = (0..STEPS).rev().find(|step| !is_cheaper(density(*step)));
    let break_even = below.map_or(0.0, |below| {
        let (mut low, mut high) = (density(below), density(below + 1));
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            if is_cheaper(middle) { high = middle } else { low = middle }
        }
        high
    });
    Some(RunnerUp {
        ns: cost(&other, own_counts) / 1000,
        ns_at_one: at_one.map(|cost| cost / 1000),
        break_even: F64::from(break_even),
    })
}
