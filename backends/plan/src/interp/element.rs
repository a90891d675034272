//! Number domains in which kernels are interpreted.

use half::bf16;
use skipc_artifact::target::DType;
use skipc_ir::interp::{Gf61, Number, Ring32, Weights};

use super::{Fault, Mode, Outcome, States, StepInput, Tiling};
use crate::plan::Plan;

/// A number domain with what a store does to a number: in f32 it rounds to the parameter's type, elsewhere nothing does.
pub trait Element: Number {
    /// The number as an element of this type.
    fn stored_as(self, _dtype: DType) -> Self {
        self
    }

    /// [`run_plan_in`](super::run_plan_in) in this domain. The domains here have it as a method of their own, so that
    /// the interpreter's code is made in this crate, which is optimised in every profile.
    #[doc(hidden)]
    fn run_plan(
        plan: &Plan,
        weights: &dyn Weights<Self>,
        states: &mut States<Self>,
        batch: &StepInput,
        places: (Mode, Tiling),
    ) -> Result<Outcome<Self>, Fault> {
        super::function::run_plan(plan, weights, states, batch, places)
    }
}

/// The method that is the same in every domain.
macro_rules! run_plan {
    () => {
        fn run_plan(
            plan: &Plan,
            weights: &dyn Weights<Self>,
            states: &mut States<Self>,
            batch: &StepInput,
            places: (Mode, Tiling),
        ) -> Result<Outcome<Self>, Fault> {
            super::function::run_plan(plan, weights, states, batch, places)
        }
    };
}

impl Element for f32 {
    run_plan!();

    fn stored_as(self, dtype: DType) -> f32 {
        match dtype {
            DType::Bf16 => bf16::from_f32(self).to_f32(),
            DType::F32 | DType::U32 | DType::U8 => self,
        }
    }
}

impl Element for f64 {
    run_plan!();
}

impl Element for Ring32 {
    run_plan!();
}

impl Element for Gf61 {
    run_plan!();
}
