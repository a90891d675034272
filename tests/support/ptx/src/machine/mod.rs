//! The machine: grids, clusters, blocks, warps; memory and what is wrong with the use of it.

mod barrier;
mod block;
mod clock;
mod cluster;
mod counters;
pub mod decode;
mod fault;
mod launch;
mod mbarrier;
mod memory;
mod order;
mod program;
mod rng;
mod run;
mod shadow;
mod shared;
mod special;
mod turn;
mod warp;
mod wgmma;

pub(crate) use block::{SharedOperand, WARP_GROUP};
pub(crate) use clock::{AccessKind, Stamp, View};
pub(crate) use cluster::Pending;
pub use counters::Counters;
pub use fault::{Fault, FaultKind, Finding};
pub use launch::{Arg, Launch, run};
pub(crate) use mbarrier::{MAX_COUNT, Mbarrier};
pub use memory::{Buffer, Memory};
pub use order::{Order, Scope};
pub use program::{LoadError, Program};
pub use run::{RegisterFn, Run, TurnFn};
pub(crate) use shared::WINDOW as SHARED_WINDOW;
pub use special::is_special;
pub(crate) use turn::Pointee;
pub use turn::{Change, LaneBytes, Space, Turn};
pub use warp::Wait;
pub(crate) use warp::{Copying, Warp};
pub(crate) use wgmma::{ROWS, Tile, multiply};

use crate::registers::{RegisterFault, Unset};

/// What an instruction has to say to the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Go on with the next instruction.
    Next,
    /// Wait until another warp or an event says that it is over: for an mbarrier, then execute the instruction again;
    /// for others, go on with the next.
    Wait(Wait),
}

/// Why an instruction could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// A register without a value.
    Unset(Unset),
    /// Another fault of an instruction that works on registers alone.
    Register(RegisterFault),
    /// Something else.
    Found(Finding),
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

impl From<Finding> for Trouble {
    fn from(finding: Finding) -> Self {
        Self::Found(finding)
    }
}
