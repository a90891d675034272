//! What a plan costs, as a function of how many tokens execute: multiply-adds, bytes, kernels and time.
//!
//! The numbers are of the kernels as planned, after fusion; those by which forms are chosen
//! ([`skipc_passes::rewrite::cost`]) are of single ops and anticipate it. Both take the same measured constants. On the
//! CPU a matmul of few rows is as fast for each row as one of many (weights lie ready), so that no count is off a
//! grid; what few rows cannot hide is the time to read the weights, which is the floor of a matmul.
//!
//! On a GPU a kernel takes as long as its bytes or its arithmetic, and a matmul as long as its waves of whole tiles: a
//! count off the grid of tiles costs what the next one on it does. Those rates are published ones
//! ([`crate::cost::bucketing::machine::Gpu`]), not measured by us.

pub mod bucketing;

mod break_even;
mod report;
pub mod sass;
mod sets;
mod step;
#[cfg(test)]
mod tests;

use skipc_artifact::program::{Launch, Step};
use skipc_ir::SetSym;
use skipc_passes::rewrite::cost::{CPU, Counts, Poly, Target};
use skipc_plan::Plan;

use crate::cost::bucketing::machine::{Gpu, Machine};
pub use break_even::break_even;
pub use report::{AtDensity, Layer, Report, part, report};
use sets::Sets;
pub use step::StepCost;

fn steps(plan: &Plan, target: &Target, launches: &[Launch]) -> Vec<(String, StepCost)> {
    let sets = Sets::of(plan);
    let of = |step: &Step| {
        let mut cost = StepCost::of(plan, step, &sets, target);
        let idx = step.kernel as usize;
        cost.launched = plan
            .kernels
            .get(idx)
            .zip(launches.get(idx))
            .map(|((_, kernel), launch)| (kernel.clone(), launch.tiles().to_vec()));
        (step.origin.clone(), cost)
    };
    plan.function.steps.iter().map(of).collect()
}

/// So many tokens, of which every router executes the same share.
#[derive(Clone, Copy, Debug)]
pub struct Even {
    /// Tokens of the step.
    pub tokens: f64,
    /// Their share in every set.
    pub density: f64,
}

impl Counts for Even {
    fn tokens(&self) -> f64 {
        self.tokens
    }

    fn rows(&self, _: SetSym) -> f64 {
        self.tokens * self.density
    }
}

/// The cost of every step of a plan.
#[derive(Clone, Debug)]
pub struct PlanCost {
    /// Where in the model each step comes from, and what it costs; in the order of the steps.
    pub steps: Vec<(String, StepCost)>,
    machine: Machine,
}

impl PlanCost {
    /// The cost of a plan on the host.
    pub fn of(plan: &Plan, target: &Target) -> PlanCost {
        PlanCost { steps: steps(plan, target, &[]), machine: Machine::Host(*target) }
    }

    /// The cost of a plan on a GPU, with the launches of its kernels.
    pub fn on_gpu(plan: &Plan, gpu: &Gpu, launches: &[Launch]) -> PlanCost {
        PlanCost { steps: steps(plan, &CPU, launches), machine: Machine::Gpu(*gpu) }
    }

    /// Nanoseconds of a step.
    pub fn step_time(&self, step: &StepCost, counts: &dyn Counts) -> f64 {
        let rows = step.rows.at(counts);
        if rows <= 0.0 {
            // The host calls nobody; a GPU has to start the kernel to find that out.
            return if let Machine::Gpu(gpu) = &self.machine { gpu.launch } else { 0.0 };
        }
        match (&self.machine, &step.launched) {
            (Machine::Host(target), _) => target.launch + step.work.at(counts).max(step.floor),
            (Machine::Gpu(gpu), Some((kernel, tiles))) => {
                let moved = (step.bytes.at(counts), step.macs.at(counts));
                gpu.kernel(kernel, tiles, rows.ceil() as u32, moved)
            }
            (Machine::Gpu(gpu), None) => gpu.launch,
        }
    }

    /// Nanoseconds of all steps.
    pub fn time(&self, counts: &dyn Counts) -> f64 {
        self.steps.iter().map(|(_, step)| self.step_time(step, counts)).sum()
    }

    /// The sum of one figure over steps.
    pub fn sum<'s>(
        steps: impl IntoIterator<Item = &'s StepCost>,
        figure: impl Fn(&StepCost) -> &Poly,
    ) -> Poly {
        steps.into_iter().fold(Poly::default(), |sum, step| sum + figure(step).clone())
    }
}
