//! The machine: grids, clusters, blocks, warps; memory and what is wrong with the use of it.

use crate::registers::{RegisterFault, Unset};

/// What an instruction has to say to the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Go on.
    Next,
}

/// Why an instruction could not be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Trouble {
    /// A register without a value.
    Unset(Unset),
    /// Another fault of an instruction that works on registers alone.
    Register(RegisterFault),
}

impl From<RegisterFault> for Trouble {
    fn from(fault: RegisterFault) -> Self {
        match fault {
            RegisterFault::Unset(unset) => Self::Unset(unset),
            other => Self::Register(other),
        }
    }
}

impl From<Unset> for Trouble {
    fn from(unset: Unset) -> Self {
        Self::Unset(unset)
    }
}

/// An instruction's view of the machine.
pub struct Turn<'m> {
    /// Registers of the warp.
    pub registers: &'m mut crate::registers::Registers,
    /// Lanes that execute.
    pub mask: crate::registers::Mask,
}

/// Whether the machine has this special register (PTX ISA section 10).
pub fn is_special(name: &str) -> bool {
    matches!(name, "%tid.x")
}
