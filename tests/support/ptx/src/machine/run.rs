//! What the machine runs.

use super::{Outcome, Trouble, Turn};
use crate::registers::{Mask, RegisterFault, Registers};

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
pub type RegisterFn = dyn Fn(&mut Registers, Mask) -> Result<(), RegisterFault> + Send + Sync;

/// See [`Run::Turn`].
pub type TurnFn = dyn Fn(&mut Turn<'_>) -> Result<Outcome, Trouble> + Send + Sync;
