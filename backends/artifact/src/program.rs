//! What the runtime runs on one target: constants, states, kernel entries, and functions over them.
//!
//! # Functions
//!
//! A function is a list of kernel runs over buffers, with an [`Interface`] that says what its caller gives and gets.
//! The functions of a program share its constants, its states and its kernels. `score` ([`SCORE`]) runs whole
//! sequences; a model whose decisions look at later tokens has `generate` ([`GENERATE`]), too, in which their causal
//! replacement decides.
//!
//! # Memory
//!
//! The buffers of a step lie in one arena. The host chooses a `bound`, a multiple of [`BOUND_UNIT`] not below the
//! number of tokens N, and a buffer of token rows has `bound` rows. One with the place `p` begins at
//! `p.fixed_offset + p.row_offset · bound`; the arena has `fixed_bytes + row_bytes · bound` bytes.
//! Rows past N (or past a set's count) hold anything finite or not; no kernel may let them reach a row that counts.
//!
//! States lie elsewhere: they are zero at first, and what a step leaves in one the next step finds there, whatever its
//! bound. Some are caches, whose rows the host chooses when it allocates the states, in pages of [`PAGE_ROWS`] tokens.
//! Their offsets depend on that number as those of the arena do on the bound; it is a multiple of [`BOUND_UNIT`], too.
//!
//! # Arguments
//!
//! Every kernel parameter is one pointer, in the order of the kernel's parameter list: to a buffer's first byte or to
//! a constant's. See [`crate::abi`] for how each target passes them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::interface::{Interface, Sizes};
use crate::target::{DType, Target};

/// The function that runs whole sequences.
pub const SCORE: &str = "score";

/// The function that a model generates with, if it is not [`SCORE`].
pub const GENERATE: &str = "generate";

/// The function that goes on with sequences whose earlier tokens are in the caches.
pub const STEP: &str = "step";

/// Tokens of a page of the caches.
pub const PAGE_ROWS: u32 = 16;

/// Most bytes an arena may have: 1 TiB, several times the memory of the largest machines this is for.
pub const MEMORY_LIMIT: u64 = 1 << 40;

/// Most bytes of all caches for one row of them: with as many rows as 32 bits count, the bytes still fit 63.
pub const STATE_ROW_LIMIT: u64 = 1 << 30;

/// The bound on tokens is a multiple of this, so that every buffer of token rows begins 256-byte aligned
/// (row offsets are multiples of 4 bytes).
pub const BOUND_UNIT: u32 = 64;

/// How many rows a buffer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowBound {
    /// As many as the bound on tokens.
    Tokens,
    /// This many.
    Fixed(u32),
    /// As many as the caches have.
    Cached,
}

/// The sizes that the host chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Tokens of a step, or the bound on them.
    pub tokens: u32,
    /// Rows of the caches.
    pub cached: u32,
}

impl RowBound {
    /// How many rows these are.
    pub fn rows(self, bounds: Bounds) -> u32 {
        match self {
            RowBound::Tokens => bounds.tokens,
            RowBound::Fixed(rows) => rows,
            RowBound::Cached => bounds.cached,
        }
    }
}

/// Bytes of a matrix.
fn matrix_bytes(rows: u32, cols: u32, dtype: DType) -> u64 {
    u64::from(rows) * u64::from(cols) * u64::from(dtype.size())
}

/// Where a buffer of the step begins: `fixed_offset + row_offset · bound` bytes into the arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArenaPlace {
    /// Bytes that do not depend on the bound.
    pub fixed_offset: u64,
    /// Bytes for each row of the bound.
    pub row_offset: u64,
}

impl ArenaPlace {
    /// Where that is under a bound.
    pub fn under(self, bound: u32) -> u64 {
        self.fixed_offset + self.row_offset * u64::from(bound)
    }
}

/// Which memory a buffer lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// The arena of a step: it holds nothing before the step. Buffers that are not live at the same time may overlap.
    Step(ArenaPlace),
    /// The state of this index in [`Program::states`], which outlives the step.
    State(u32),
}

/// A matrix `[rows, cols]`, row by row without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Buffer {
    /// What it holds, human-readable.
    pub name: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Its rows.
    pub rows: RowBound,
    /// Its columns.
    pub cols: u32,
    /// Where it lies.
    pub storage: Storage,
    /// First and last step that touch it; `None` if it is in use outside of the steps, too (inputs, results, states).
    pub live: Option<(u32, u32)>,
}

impl Buffer {
    /// Its size in bytes.
    pub fn bytes(&self, bounds: Bounds) -> u64 {
        matrix_bytes(self.rows.rows(bounds), self.cols, self.dtype)
    }

    /// Its place in the arena; `None` for a state.
    pub fn place(&self) -> Option<ArenaPlace> {
        match self.storage {
            Storage::Step(place) => Some(place),
            Storage::State(_) => None,
        }
    }

    /// Its bytes in the arena; `None` for a state.
    pub fn arena_span(&self, bounds: Bounds) -> Option<Range<usize>> {
        let begin = self.place()?.under(bounds.tokens);
        Some(begin as usize..(begin + self.bytes(bounds)) as usize)
    }
}

/// A matrix `[rows, cols]` that outlives a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Its name, by which functions share it.
    pub name: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Its rows; they do not depend on tokens.
    pub rows: RowBound,
    /// Its columns.
    pub cols: u32,
    /// Where it begins in the memory of the states, under the number of rows of the caches.
    pub place: ArenaPlace,
}

impl State {
    /// Its size in bytes, with caches of so many rows.
    pub fn bytes(&self, cached: u32) -> u64 {
        matrix_bytes(self.rows.rows(Bounds { tokens: 0, cached }), self.cols, self.dtype)
    }

    /// Its bytes in the memory of the states, with caches of so many rows.
    pub fn span(&self, cached: u32) -> Range<usize> {
        let begin = self.place.under(cached);
        begin as usize..(begin + self.bytes(cached)) as usize
    }
}

/// A constant `[rows, cols]` (a vector has one row), as the kernels want it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {
    /// What it holds, human-readable: the weight's name, or how it was made.
    pub name: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Its rows.
    pub rows: u32,
    /// Its columns.
    pub cols: u32,
    /// Where it begins in the target's constants, a multiple of 256.
    pub offset: u64,
}

impl Constant {
    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        matrix_bytes(self.rows, self.cols, self.dtype)
    }
}

/// What a kernel parameter points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arg {
    /// A buffer, by its index.
    Buffer(u32),
    /// A constant, by its index.
    Constant(u32),
}

/// How many rows a kernel works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// This many.
    Fixed(u32),
    /// As many as the u32 says to which parameter `count` points, at most the bound on tokens and `at_most`.
    /// Known to the device only, while it runs.
    Counted {
        /// Index of the parameter.
        count: u32,
        /// Upper bound from the compile.
        at_most: u32,
    },
}

impl Extent {
    /// How many rows it can be under a bound on tokens.
    pub fn at_most(self, bound: u32) -> u32 {
        match self {
            Extent::Fixed(rows) => rows,
            Extent::Counted { at_most, .. } => at_most.min(bound),
        }
    }
}

/// How a kernel is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Launch {
    /// Called by threads of the host, each with a range of row tiles. Tiles are independent of each other.
    Host {
        /// Rows of a tile; 0 if the kernel is one indivisible task.
        tile_rows: u32,
        /// Tiles for few rows, if it has others then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        few_rows: Option<FewRows>,
        /// Bytes of scratch memory that each call needs, 64-byte aligned.
        scratch_bytes: u64,
        /// Which form the kernel takes for which number of rows, if it has several.
        tiles: Vec<RowTile>,
    },
    /// A grid of blocks, at least as many as there are tiles for any count; blocks past the tiles of the count return at
    /// once. Persistent blocks are as many, but no more than the device has multiprocessors. See [`Launch::grid`].
    Cuda {
        /// Which tile for which number of rows: ascending, the first from 0 on. None for a kernel of one block.
        tiles: Vec<RowTile>,
        /// Threads of a block.
        threads: u32,
        /// Bytes of dynamic shared memory.
        shared_bytes: u32,
        /// Registers of a thread, from ptxas.
        registers: u32,
        /// Bytes of static shared memory, from ptxas.
        static_shared_bytes: u32,
        /// Whether blocks walk over the tiles that there are, so that any number of them makes all.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        persistent: bool,
        /// Segments of rows, of which each begins tiles of its own; 0 if rows are in none. Where they end is known to the device
        /// only: see [`segment_tiles`].
        #[serde(default, skip_serializing_if = "is_none")]
        segments: u32,
    },
}

fn is_none(segments: &u32) -> bool {
    *segments == 0
}

/// Tiles of so many rows that lie one below the other where `rows` rows are in `segments` segments, wherever those end: a tile for each
/// row if that is fewer, else one for each full tile of all rows and one for each segment. Some of them may hold no rows.
pub fn segment_tiles(rows: u32, tile_rows: u32, segments: u32) -> u32 {
    rows.min((rows / tile_rows.max(1)).saturating_add(segments))
}

/// Tiles of a kernel of the host that lie side by side (of columns, of heads), each with all rows: so threads share out the
/// weights, where rows are too few to be shared out. The kernel reads the count where it runs and does the same. Sums have
/// the same order, however tiles are put together into calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewRows {
    /// The most rows for which it has them.
    pub at_most: u32,
    /// How many there are.
    pub tiles: u32,
}

/// The tile that a kernel takes from a number of rows on. The kernel reads the count where it runs and chooses there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowTile {
    /// The fewest rows for which it is taken.
    pub from: u32,
    /// Its rows.
    pub rows: u32,
    /// Tiles side by side (of columns, of heads).
    pub across: u32,
}

impl Launch {
    /// Which tile or form for which number of rows.
    pub fn tiles(&self) -> &[RowTile] {
        match self {
            Launch::Host { tiles, .. } | Launch::Cuda { tiles, .. } => tiles,
        }
    }

    /// Tiles of an extent of so many rows on the host; 1 for a kernel that is one task, 0 for one on CUDA.
    pub fn host_tiles(&self, rows: u32) -> u32 {
        match self {
            Launch::Host { tile_rows: 0, .. } => 1,
            Launch::Host { few_rows: Some(few), .. } if (1..=few.at_most).contains(&rows) => few.tiles,
            Launch::Host { tile_rows, .. } => rows.div_ceil(*tile_rows),
            Launch::Cuda { .. } => 0,
        }
    }

    /// Blocks of the grid for an extent of at most so many rows on a device of so many multiprocessors: along the rows,
    /// and side by side; those of a kernel that chooses among tiles, and persistent ones, are numbered in one row. `None`
    /// if there is nothing to start on CUDA: no rows, or a kernel for the host.
    pub fn grid(&self, rows: u32, processors: u32) -> Option<[u32; 2]> {
        let Launch::Cuda { tiles, persistent, segments, .. } = self else { return None };
        if rows == 0 {
            return None;
        }
        let along = |tile: &RowTile, rows: u32| match segments {
            0 => rows.div_ceil(tile.rows.max(1)),
            segments => segment_tiles(rows, tile.rows, *segments),
        };
        let [along, across] = match tiles.as_slice() {
            [] => [1, 1],
            [tile] => [along(tile, rows), tile.across],
            tiles => {
                // The most rows for which each is taken.
                let ends = tiles.iter().skip(1).map(|next| next.from.saturating_sub(1)).chain([u32::MAX]);
                let reached = tiles.iter().zip(ends).filter(|(tile, _)| tile.from <= rows);
                let blocks =
                    reached.map(|(tile, end)| along(tile, rows.min(end)).saturating_mul(tile.across));
                [blocks.max().unwrap_or(1), 1]
            }
        };
        let is_one_row = *persistent || across == 1;
        let blocks = along.saturating_mul(across);
        let most = if *persistent { processors } else { u32::MAX };
        Some(if is_one_row { [blocks.min(most), 1] } else { [along, across] })
    }
}

/// One kernel's way in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its symbol in the code.
    pub symbol: String,
    /// How many pointers it takes.
    pub n_params: u32,
    /// Which of them it writes to, by index; it may read any.
    pub writes: Vec<u32>,
    /// How many rows it works on.
    pub extent: Extent,
    /// How it is started.
    pub launch: Launch,
}

/// One kernel run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Index of the kernel.
    pub kernel: u32,
    /// What its parameters point to, in order.
    pub args: Vec<Arg>,
    /// Where the work comes from in the model, such as `blocks.3.layers.0`.
    pub origin: String,
}

/// What the logits of a function are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// Scores over the ids that it takes.
    Tokens,
    /// Rows of its stream.
    Rows,
    /// Scores of a sequence: each of its rows has some, and those of one count.
    Pooled(Pool),
}

/// What of a sequence is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// The mean of its rows, which each of them has.
    Mean,
    /// Its first row.
    First,
    /// Its last row.
    Last,
}

/// One function: its interface, its buffers, and the kernel runs that compute it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// Largest number of tokens of a step.
    pub max_tokens: u32,
    /// Largest length of a sequence.
    pub max_positions: u32,
    /// Token ids are below this; 0 for a function that takes none.
    pub vocab_size: u32,
    /// What the logits are.
    pub head: Head,
    /// Each sequence begins with a row of no meaning, in whose place the class token stands.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub class_token: bool,
    /// Some router ranks the tokens of all sequences of a batch, so that a batch is not cut into steps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ranks_batch: bool,
    /// Columns of the logits.
    pub logits: u32,
    /// Arena bytes that do not depend on the bound.
    pub fixed_bytes: u64,
    /// Arena bytes for each row of the bound.
    pub row_bytes: u64,
    /// All buffers.
    pub buffers: Vec<Buffer>,
    /// The kernel runs, in order; each sees all that earlier ones wrote.
    pub steps: Vec<Step>,
    /// What the caller gives and gets.
    pub interface: Interface,
}

impl Function {
    /// What the shapes of its ports depend on.
    pub fn sizes(&self) -> Sizes {
        Sizes { logits: self.logits, max_positions: self.max_positions }
    }

    /// The kernels that its steps run, by index.
    pub fn kernels(&self) -> BTreeSet<u32> {
        self.steps.iter().map(|step| step.kernel).collect()
    }
}

/// All that the runtime needs to run a model on one target, but the code and the constants' bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// What the code was made for.
    pub target: Target,
    /// Precision of the layers.
    pub dtype: DType,
    /// Constants, in the order of [`Arg::Constant`].
    pub constants: Vec<Constant>,
    /// Bytes of all constants together.
    pub constant_bytes: u64,
    /// States, in the order of [`Storage::State`].
    pub states: Vec<State>,
    /// Bytes of the states that do not depend on the rows of the caches.
    pub state_fixed_bytes: u64,
    /// Bytes of the states for each row of the caches.
    pub state_row_bytes: u64,
    /// Kernels, in the order of [`Step::kernel`].
    pub entries: Vec<Entry>,
    /// Functions by name.
    pub functions: BTreeMap<String, Function>,
}

impl Program {
    /// Bytes of all states together, with caches of so many rows.
    pub fn state_bytes(&self, cached: u32) -> u64 {
        self.state_fixed_bytes + self.state_row_bytes * u64::from(cached)
    }

    /// The function of this name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(tiles: &[(u32, u32)], segments: u32) -> Launch {
        let tiles =
            tiles.iter().map(|(from, rows)| RowTile { from: *from, rows: *rows, across: 3 }).collect();
        let (threads, shared_bytes, registers, static_shared_bytes) = (128, 0, 32, 0);
        Launch::Cuda {
            tiles,
            threads,
            shared_bytes,
            registers,
            static_shared_bytes,
            persistent: false,
            segments,
        }
    }

    #[test]
    fn a_grid_has_the_tiles_of_every_segment() {
        let grid = |tiles: &[(u32, u32)], segments, rows| launch(tiles, segments).grid(rows, 132);
        assert_eq!(grid(&[(0, 16)], 0, 100), Some([7, 3]));
        // Six full tiles, and one for each of eight segments.
        assert_eq!(grid(&[(0, 16)], 8, 100), Some([14, 3]));
        assert_eq!(grid(&[(0, 16)], 8, 5), Some([5, 3]), "a tile for each row");
        assert_eq!(grid(&[(0, 16)], 8, 0), None);
        // 47 rows in tiles of 16 are 2 + 8 of them, 100 in tiles of 64 are 1 + 8.
        assert_eq!(grid(&[(0, 16), (48, 64)], 8, 100), Some([30, 1]));
        assert_eq!(grid(&[(0, 16)], u32::MAX, 100), Some([100, 3]));
    }

    /// However 12 rows are split among four segments.
    #[test]
    fn segments_have_no_more_tiles_than_there_are() {
        let (rows, segments) = (12, 4);
        for tile_rows in [1, 2, 4, 16] {
            let mut most = 0;
            for ends in 0..13u32.pow(3) {
                let mut ends = [ends % 13, ends / 13 % 13, ends / 169, rows];
                ends.sort_unstable();
                let begins = [0, ends[0], ends[1], ends[2]];
                let of = |(begin, end): (&u32, &u32)| (end - begin).div_ceil(tile_rows);
                most = begins.iter().zip(&ends).map(of).sum::<u32>().max(most);
            }
            let tiles = segment_tiles(rows, tile_rows, segments);
            assert!(most <= tiles && tiles < most + segments, "{most} of {tiles} tiles of {tile_rows}");
        }
    }
}
