//! Number domains in which kernels are interpreted.

use skipc_ir::Domain;
use skipc_ir::interp::{Gf61, Ring32, Weights};

use super::{Constants, Fault, Mode, Outcome, States, StepInput, Tiling};
use crate::plan::Plan;
use crate::stored::Stored;

/// A number domain in which plans run.
pub trait Element: Stored + Domain {
    /// [`run_plan_in`](super::run_plan_in) in this domain. The domains here have it as a method of their own, so that
    /// the interpreter's code is made in this crate, which is optimised in every profile.
    #[doc(hidden)]
    fn run_plan(
        plan: &Plan,
        constants: &Constants<Self>,
        states: &mut States<Self>,
        batch: &StepInput,
        places: (Mode, Tiling),
    ) -> Result<Outcome<Self>, Fault> {
        super::function::run_plan(plan, constants, states, batch, places)
    }

    /// [`Constants::of`] in this domain, for the same reason.
    #[doc(hidden)]
    fn make_constants(plan: &Plan, weights: &dyn Weights<Self>) -> Result<Constants<Self>, Fault> {
        super::function::make_constants(plan, weights)
    }
}

/// The methods that are the same in every domain.
macro_rules! in_this_crate {
    () => {
        fn run_plan(
            plan: &Plan,
            constants: &Constants<Self>,
            states: &mut States<Self>,
            batch: &StepInput,
            places: (Mode, Tiling),
        ) -> Result<Outcome<Self>, Fault> {
            super::function::run_plan(plan, constants, states, batch, places)
        }

        fn make_constants(plan: &Plan, weights: &dyn Weights<Self>) -> Result<Constants<Self>, Fault> {
            super::function::make_constants(plan, weights)
        }
    };
}

impl Element for f32 {
    in_this_crate!();
}

impl Element for f64 {
    in_this_crate!();
}

impl Element for Ring32 {
    in_this_crate!();
}

impl Element for Gf61 {
    in_this_crate!();
}
