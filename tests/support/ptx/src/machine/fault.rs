//! What the machine finds.

use std::fmt;

/// What kind of fault a kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultKind {
    /// An address outside of every buffer, or of the space that the instruction names.
    OutOfBounds,
    /// An address that is no multiple of what the instruction asks for.
    Misaligned,
    /// A store to a buffer that is only to be read.
    ReadOnly,
    /// A register is read that was never written.
    UninitialisedRegister,
    /// Shared memory is read that was never written.
    UninitialisedShared,
    /// Two accesses, one of them a write, that nothing orders.
    Race,
    /// As `Race`, between blocks that no barrier joins.
    RaceBetweenBlocks,
    /// `ld.global.nc` of memory that the kernel writes.
    NonCoherentLoad,
    /// An asynchronous copy or matrix operation is not known to be complete.
    MissingWait,
    /// Written through the generic proxy, used through the async proxy, without `fence.proxy.async` between.
    MissingProxyFence,
    /// An mbarrier is used by the async proxy or another thread without a fence behind its initialisation.
    MissingMbarrierFence,
    /// A register that an asynchronous matrix operation still owns is touched.
    RegisterInFlight,
    /// Registers of a matrix operation were written after the last `wgmma.fence`.
    MissingWgmmaFence,
    /// Threads that have to execute an instruction together do not.
    Divergence,
    /// Every thread waits and nothing will wake any.
    Deadlock,
    /// A thread goes on and on.
    Livelock,
    /// A matrix descriptor that is malformed or points outside of shared memory.
    Descriptor,
    /// A tensor map, or its use, is against the rules.
    TensorMap,
    /// A barrier is used against its rules.
    Barrier,
    /// The kernel cannot be started like that.
    Launch,
    /// An operand has a value that the ISA leaves undefined.
    Operand,
}

impl FaultKind {
    /// A short name, as in a report.
    pub fn name(self) -> &'static str {
        match self {
            Self::OutOfBounds => "out of bounds",
            Self::Misaligned => "misaligned",
            Self::ReadOnly => "write to read-only memory",
            Self::UninitialisedRegister => "uninitialised register",
            Self::UninitialisedShared => "uninitialised shared memory",
            Self::Race => "race",
            Self::RaceBetweenBlocks => "race between blocks",
            Self::NonCoherentLoad => "non-coherent load of what is written",
            Self::MissingWait => "missing wait",
            Self::MissingProxyFence => "missing proxy fence",
            Self::MissingMbarrierFence => "missing fence after mbarrier.init",
            Self::RegisterInFlight => "register in flight",
            Self::MissingWgmmaFence => "missing wgmma.fence",
            Self::Divergence => "divergence",
            Self::Deadlock => "deadlock",
            Self::Livelock => "no end",
            Self::Descriptor => "matrix descriptor",
            Self::TensorMap => "tensor map",
            Self::Barrier => "barrier misuse",
            Self::Launch => "launch",
            Self::Operand => "undefined operand",
        }
    }
}

/// What is wrong with a kernel, where, and how to see it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// The kernel.
    pub kernel: String,
    /// Line of the instruction in the PTX text; 0 if the fault is of no one instruction.
    pub line: u32,
    /// The instruction.
    pub text: String,
    /// The block.
    pub block: [u32; 3],
    /// The lowest thread of the block that shows it.
    pub thread: u32,
    /// What happened, with the other place if there are two.
    pub what: String,
    /// Seed of the schedule, which shows it again.
    pub seed: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, kernel, line, text, block: [x, y, z], thread, what, seed } = self;
        writeln!(f, "{}: {what}", kind.name())?;
        if *line > 0 {
            writeln!(f, "  at line {line} of {kernel}: {text}")?;
        } else {
            writeln!(f, "  in {kernel}")?;
        }
        write!(f, "  block ({x}, {y}, {z}), thread {thread}; schedule {seed}")
    }
}

/// A fault before its place is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind.
    pub kind: FaultKind,
    /// The lowest lane that shows it.
    pub lane: u32,
    /// What happened.
    pub what: String,
}

impl Finding {
    /// A finding of the lowest lane of a mask.
    pub(crate) fn new(kind: FaultKind, lanes: u32, what: impl Into<String>) -> Self {
        Self { kind, lane: lanes.trailing_zeros().min(31), what: what.into() }
    }
}
