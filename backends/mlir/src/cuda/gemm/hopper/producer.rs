//! The warp group that copies slices of the operands to shared memory.

use skipc_plan::kernel::{SWIZZLE_TERMS, Sum};

use super::super::super::place;
use super::super::parts::PartTiles;
use super::super::tile::Corner;
use super::tile::{ROWS, ROWS_AT_ONCE, STAGES};
use super::{BLOCK, INNER, Matmul, PIECE, Stage, WARP_GROUP};
use crate::code::{BF16, Bool, Code, GPtr, I8, Int, ROW_BYTES, SPtr, Steps};

/// Arrivals by which a stage is full: one for each warp, and one of the thread that announces bulk copies, if any.
pub(super) const ARRIVALS: u32 = WARP_GROUP / 32 + 1;

/// Slices that are under way behind the one that is handed over. The consumers wait for the matmul before the last one
/// they began, so that two stages have to be theirs.
const LAG: u32 = STAGES - 2;

/// Threads beside each other in a row of a slice.
const ACROSS: u32 = INNER / PIECE;

/// Rows of a slice that all threads copy at once.
const AT_ONCE: u32 = WARP_GROUP / ACROSS;
const _: () = assert!(AT_ONCE == ROWS_AT_ONCE && AT_ONCE == 2 * BLOCK);

/// What a thread copies of the rows of an operand: where its piece of each row begins, and whether there is such a row.
/// What is not there is not read, whatever its address.
type Rows<'c> = Vec<(GPtr<'c>, Bool<'c>)>;

impl Matmul<'_> {
    /// Fills a stage for each slice of each tile of this block.
    pub(super) fn produce<'c>(&self, code: &'c Code, rows: Int<'c>) {
        let issued = self.each_tile(code, rows, code.int(0), |corner, issued| {
            let left = self.left(code, corner);
            self.parts.of_tile(code, corner.col_tile, &|part, first| {
                let starts = self.starts(code, part, first);
                code.repeat(Steps { from: 0, to: self.turns(), step: 1 }, issued, |slice, issued| {
                    let stage = Stage { matmul: self, number: issued };
                    stage.empty(code).wait_phase(stage.round() ^ 1);
                    code.when(code.thread().eq(0), || self.announce(code, part, (first, slice), stage));
                    let inside = match self.gemm.k.is_multiple_of(INNER) {
                        true => code.truth(true),
                        false => (slice * INNER + self.column(code)).lt(self.gemm.k),
                    };
                    let along: Rows<'c> =
                        left.iter().map(|(row, is)| (row.at::<BF16>(slice * INNER), *is)).collect();
                    self.copy(code, &along, inside, stage.left(code));
                    if !part.is_swizzled() {
                        let right = self.right(code, part, first, slice, &starts);
                        self.copy(code, &right, inside, stage.right(code));
                    }
                    code.copy_commit();
                    code.copy_wait(LAG);
                    self.hand_over(code, issued, LAG);
                    issued + 1
                })
            })
        });
        for left in (0..LAG).rev() {
            code.copy_wait(left);
            self.hand_over(code, issued - 1, left);
        }
    }

    /// Says that the slice before the last `behind` ones is there, if there is one. Each thread has waited for its copies.
    fn hand_over<'c>(&self, code: &'c Code, last: Int<'c>, behind: u32) {
        code.when(last.ge(behind), || {
            code.fence_async_proxy();
            code.sync_warp();
            let stage = Stage { matmul: self, number: last - behind };
            code.when((code.thread() % 32).eq(0), || stage.full(code).arrive());
        });
    }

    /// Arrives for the copies that are made in bulk: none, or the weights of a slice from the part's column `first` on.
    ///
    /// What a last tile lacks is copied from the first outputs, so that a slice always has the same bytes; nobody stores
    /// those sums.
    fn announce<'c>(
        &self,
        code: &'c Code,
        part: &PartTiles<'_>,
        (first, slice): (Int<'c>, Int<'c>),
        stage: Stage<'_, 'c>,
    ) {
        let full = stage.full(code);
        if !part.is_swizzled() {
            return full.arrive();
        }
        full.arrive_expecting(part.width() * ROW_BYTES);
        let outputs = (code.int(part.n()) - first).min(part.cols);
        for (sum, Sum { weight, row, .. }) in (0_u32..).zip(part.sums()) {
            let to = stage.right(code).at::<I8>(sum * part.cols * ROW_BYTES);
            let before = slice.to_long() * u64::from(self.kernel.param(*weight).cols);
            let all = code.param(weight.0).far::<BF16>(before);
            let from = all.far::<BF16>((first + *row).to_long() * u64::from(SWIZZLE_TERMS));
            if part.is_whole() {
                to.copy_run(from, code.int(part.cols * ROW_BYTES), full);
                continue;
            }
            to.copy_run(from, outputs * ROW_BYTES, full);
            code.when(outputs.lt(part.cols), || {
                let rest = (code.int(part.cols) - outputs) * ROW_BYTES;
                to.at::<I8>(outputs * ROW_BYTES).copy_run(all, rest, full);
            });
        }
    }

    /// Row of this thread among those copied at once.
    fn row<'c>(&self, code: &'c Code) -> Int<'c> {
        code.thread() / ACROSS
    }

    /// First element of this thread's piece in a row of a slice.
    fn column<'c>(&self, code: &'c Code) -> Int<'c> {
        code.thread() % ACROSS * PIECE
    }

    /// Copies rows of a slice, [`AT_ONCE`] at a time. Rows beyond those are a multiple of eight further, so that the
    /// swizzle is the same.
    fn copy<'c>(&self, code: &'c Code, rows: &Rows<'c>, inside: Bool<'c>, to: SPtr<'c>) {
        let row = self.row(code);
        let piece = (code.thread() % ACROSS) ^ (row & 7);
        let to = to.at::<I8>(row * ROW_BYTES + piece * 16);
        for (pass, (from, present)) in (0_u32..).zip(rows) {
            to.at::<I8>(pass * AT_ONCE * ROW_BYTES).copy_async(*from, 16, inside & *present);
        }
    }

    /// The rows of a tile's left operand.
    fn left<'c>(&self, code: &'c Code, corner: Corner<'c>) -> Rows<'c> {
        let (view, param) = (self.gemm.a, self.kernel.param(self.gemm.a.slot));
        let row = |pass: u32| {
            let wanted = corner.row + self.row(code) + pass * AT_ONCE;
            let present = wanted.lt(corner.rows);
            let physical = place::physical(code, view.rows, present.select(wanted, corner.row));
            (place::row_start(code, param, view, physical).at::<BF16>(self.column(code)), present)
        };
        (0..ROWS / AT_ONCE).map(row).collect()
    }

    /// Where the weight of each sum begins for this thread's row, from the part's column `first` on.
    fn starts<'c>(&self, code: &'c Code, part: &PartTiles<'_>, first: Int<'c>) -> Vec<GPtr<'c>> {
        let start = |sum: &Sum| {
            let row = (first + self.row(code) + sum.row).to_long();
            let element = row * u64::from(self.gemm.k) + self.column(code).to_long();
            code.param(sum.weight.0).far::<BF16>(element)
        };
        part.sums().iter().map(start).collect()
    }

    /// Rows of weights, one for each column of a tile. The upper threads of a pass have a block of columns, the lower ones
    /// the next.
    fn right<'c>(
        &self,
        code: &'c Code,
        part: &PartTiles<'_>,
        first: Int<'c>,
        slice: Int<'c>,
        starts: &[GPtr<'c>],
    ) -> Rows<'c> {
        let is_upper = self.row(code).lt(BLOCK);
        let col = first + self.row(code);
        // Of a block of columns, counted among those of all sums. The thread's own row is in `starts`.
        let rows_of = |block: u32, before: u32| {
            let (sum, within) = (block * BLOCK / part.cols, block * BLOCK % part.cols);
            let within = within.cast_signed() - before.cast_signed();
            let start = starts.get(sum as usize).copied();
            let present = match start {
                Some(_) if !part.is_whole() => (col + within).lt(part.n()),
                _ => code.truth(start.is_some()),
            };
            let along = i64::from(within) * i64::from(self.gemm.k);
            // The constant stands last, where it becomes part of the instruction.
            let start = start.unwrap_or(starts[0]).at::<BF16>(slice * INNER).far::<BF16>(along);
            (sum, start, present)
        };
        let row = |pass: u32| {
            let (upper, lower) = (rows_of(2 * pass, 0), rows_of(2 * pass + 1, BLOCK));
            if upper.0 == lower.0 {
                return (upper.1, upper.2);
            }
            (is_upper.select(upper.1, lower.1), is_upper.select(upper.2, lower.2))
        };
        (0..part.width().div_ceil(AT_ONCE)).map(row).collect()
    }
}
