//! The processors that code is made for.

use skipc_artifact::image::HostLevel;
use skipc_plan::kernel::PANEL_COLS;

/// What code for one level of instructions may use, and the register tile of its matmuls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level {
    /// The level.
    pub(crate) host: HostLevel,
    /// Numbers of f32 in a vector register.
    pub(crate) lanes: u32,
    /// Rows of a register tile. With [`TILE_VECTORS`] they fill the vector registers but for those that hold the
    /// operands.
    pub(crate) tile_rows: u32,
    /// The same where sums of blocks are held, too, see [`Factors::Levels`](super::matmul::Factors::Levels): sums and what a
    /// step takes of the right operand fill the registers, and the sums of all blocks wait in memory.
    pub(crate) block_tile_rows: u32,
    /// Whether a product and a sum are one instruction.
    pub(crate) fuses: bool,
    /// Whether two products of bf16 and a sum are one instruction.
    pub(crate) has_dots: bool,
    /// LLVM's names of the instructions, exactly those that [`HostLevel`] promises.
    pub(crate) features: &'static str,
}

/// Vectors side by side in a whole register tile.
pub(crate) const TILE_VECTORS: u32 = 2;

/// Columns of a panel: a register tile of the widest vectors. Levels with narrower ones take it in parts.
pub(crate) const PANEL: u32 = PANEL_COLS;

impl Level {
    /// All of them, lowest first.
    pub(crate) const ALL: [Level; 4] = [
        // 8 of 16 registers hold sums, since a product needs one of its own before it is added.
        Level {
            host: HostLevel::Baseline,
            lanes: 4,
            tile_rows: 4,
            block_tile_rows: 2,
            fuses: false,
            has_dots: false,
            features: "",
        },
        Level {
            host: HostLevel::Avx2,
            lanes: 8,
            tile_rows: 6,
            block_tile_rows: 2,
            fuses: true,
            has_dots: false,
            features: "+avx2,+fma,+f16c,+bmi,+bmi2",
        },
        Level {
            host: HostLevel::Avx512,
            lanes: 16,
            tile_rows: 14,
            block_tile_rows: 8,
            fuses: true,
            has_dots: false,
            features: "+avx2,+fma,+f16c,+bmi,+bmi2,+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl",
        },
        Level {
            host: HostLevel::Avx512Bf16,
            lanes: 16,
            tile_rows: 14,
            block_tile_rows: 8,
            fuses: true,
            has_dots: true,
            features: "+avx2,+fma,+f16c,+bmi,+bmi2,+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl,+avx512bf16",
        },
    ];

    /// The highest level at most this one that has no dot products of bf16.
    pub(crate) fn without_dots(self) -> Level {
        Level::ALL.into_iter().rev().find(|level| !level.has_dots && level.host <= self.host).unwrap_or(self)
    }
}
