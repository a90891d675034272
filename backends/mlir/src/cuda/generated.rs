//! What each kind of kernel is written into.

use skipc_artifact::program::RowTile;
use skipc_llvm::Feature;

use crate::code::Code;

/// A kernel that was written, and how it is started.
pub(super) struct Generated {
    pub(super) code: Code,
    /// Which tile for which number of rows; none for a single block.
    pub(super) tiles: Vec<RowTile>,
    /// Threads of a block.
    pub(super) threads: u32,
    /// Bytes of dynamic shared memory.
    pub(super) shared_bytes: u32,
    /// Blocks that a multiprocessor should hold; bounds the registers.
    pub(super) min_blocks: u32,
    /// Blocks across that are a cluster; 1 where there are none.
    pub(super) cluster: u32,
    /// Registers that a block's warps come to hold, if they hand them to each other; else 0.
    pub(super) pool: u32,
    /// What it needs of the target.
    pub(super) features: Vec<Feature>,
    /// Which of several forms it has, with its tile, human-readable; empty if there is one only.
    pub(super) form: String,
    /// Whether its blocks walk over the tiles.
    pub(super) persistent: bool,
    /// Segments of rows that begin tiles of their own; 0 if rows are in none.
    pub(super) segments: u32,
}

impl Generated {
    /// Code with one form, which needs neither dynamic shared memory nor a feature.
    pub(super) fn new(code: Code, tiles: Vec<RowTile>, threads: u32) -> Generated {
        Generated {
            code,
            tiles,
            threads,
            shared_bytes: 0,
            min_blocks: 1,
            cluster: 1,
            pool: 0,
            features: Vec::new(),
            form: String::new(),
            persistent: false,
            segments: 0,
        }
    }
}
