//! What instructions do: one file a family, each with its table of forms.

mod async_copy;
mod barrier;
mod bulk;
mod flow;
mod matrix;
mod mbarrier;
mod memory;
mod scalar;
mod wgmma;

use crate::decode::Form;
use crate::machine::{Outcome, Trouble, Turn};
use crate::registers::{Mask, Registers, Unset};

/// What the machine does for an instruction.
pub enum Run {
    /// A function of the warp's registers alone, for the lanes of a mask.
    Registers(Box<RegisterFn>),
    /// Works on memory, barriers, or other warps.
    Turn(Box<TurnFn>),
    /// Goes to an instruction, under the guard.
    Branch(usize),
    /// Ends the lanes.
    Exit,
}

/// See [`Run::Registers`].
pub type RegisterFn = dyn Fn(&mut Registers, Mask) -> Result<(), Unset> + Send + Sync;

/// See [`Run::Turn`].
pub type TurnFn = dyn Fn(&mut Turn<'_>) -> Result<Outcome, Trouble> + Send + Sync;

/// A row for each form that the machine knows.
pub fn forms() -> impl Iterator<Item = &'static Form> {
    let families: [&'static [Form]; 9] = [
        scalar::FORMS,
        flow::FORMS,
        memory::FORMS,
        barrier::FORMS,
        async_copy::FORMS,
        mbarrier::FORMS,
        bulk::FORMS,
        matrix::FORMS,
        wgmma::FORMS,
    ];
    families.into_iter().flatten()
}
