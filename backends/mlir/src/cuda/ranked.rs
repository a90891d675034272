//! The first rows of each segment by their rank, without sorting: the mask of a set.
//!
//! A warp takes a segment. A score becomes a whole number with the same order; the largest number that at least as many
//! candidates reach as there are places is found bit by bit, 32 times over the segment. A row is kept if it lies above,
//! or on it while places are left. Ranked by position, all rows lie on it.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Candidates, Keep, Kernel, RankOrder, Ranked, Rounding, Segment, Slot, View};

use super::compact::{THREADS, require_column};
use super::pages::Pages;
use super::place;
use crate::code::{Bool, Code, GPtr, I8, I32, Int, Operand, Steps};
use crate::error::Error;

/// Checks parameters and numbers.
///
/// # Errors
/// [`Error::Malformed`].
pub(super) fn check(kernel: &Kernel, ranked: &Ranked) -> Result<(), Error> {
    let mut columns: Vec<(View, DType)> = ranked.sequences.iter().map(|view| (*view, DType::U32)).collect();
    match ranked.segment {
        Segment::Sequence => {}
        Segment::Group { size: 0, .. } => {
            return Err(Error::Malformed { what: "a group of no rows".to_owned() });
        }
        Segment::Group { positions, .. } => columns.push((positions, DType::U32)),
    }
    if let RankOrder::Score(scores) = ranked.order {
        columns.push((scores, DType::F32));
    }
    for (view, dtype) in columns {
        place::require(kernel, view.slot, dtype)?;
        place::require_view(kernel, view, 1)?;
    }
    if let Keep::Left { before, pages, .. } = ranked.keep {
        place::require_u32(kernel, pages)?;
        place::require(kernel, before, DType::U8)?;
        require_column(kernel, before)?;
        if !matches!(ranked.segment, Segment::Group { .. }) || ranked.sequences.is_none() {
            return Err(Error::Malformed { what: "what is left of no group".to_owned() });
        }
    }
    if let Candidates::Masked(mask) = ranked.among {
        place::require(kernel, mask, DType::U8)?;
        require_column(kernel, mask)?;
    }
    Ok(())
}

/// Writes the mask of `rows` rows. All threads of the block take part; they have to meet before one reads the mask.
pub(super) fn write(code: &Code, kernel: &Kernel, ranked: &Ranked, rows: Int<'_>, mask: u32) {
    let ctx = Ctx { code, kernel, ranked, lane: code.thread() % 32 };
    let warp = code.thread() / 32;
    code.each(Steps { from: warp * 32, to: rows, step: THREADS }, |base| {
        let row = base + ctx.lane;
        let inside = row.lt(rows);
        let row_read = inside.select(row, 0u32);
        let before = ctx.segment((row_read - 1).max(0));
        let begins = (row.eq(0) | ctx.is_other(row_read, before)) & inside;
        let begins = code.ballot(begins);
        // All lanes see the same bits, and so walk together.
        code.repeat(Steps { from: 0, to: begins.count_ones(), step: 1 }, begins, |_, begins| {
            let first = base + lowest(begins);
            let end = ctx.end(first, rows);
            ctx.segment_mask((first, end), code.param(mask));
            begins & (begins - 1)
        });
    });
}

/// Index of the lowest bit that is set; 32 if none is.
fn lowest(bits: Int<'_>) -> Int<'_> {
    ((bits & (bits.code().int(0) - bits)) - 1).count_ones()
}

struct Ctx<'c, 'k> {
    code: &'c Code,
    kernel: &'k Kernel,
    ranked: &'k Ranked,
    lane: Int<'c>,
}

impl<'c> Ctx<'c, '_> {
    /// Where the element of a one-column view lies.
    fn at(&self, view: View, row: Int<'c>) -> GPtr<'c> {
        place::element(self.code, self.kernel.param(view.slot), view, row, 0u32)
    }

    /// Sequence and group of a row.
    fn segment(&self, row: Int<'c>) -> (Int<'c>, Int<'c>) {
        let group = match self.ranked.segment {
            Segment::Sequence => self.code.int(0),
            Segment::Group { positions, size } => self.at(positions, row).load::<I32>() / size,
        };
        (self.sequence(row), group)
    }

    fn sequence(&self, row: Int<'c>) -> Int<'c> {
        self.ranked.sequences.map_or(self.code.int(0), |view| self.at(view, row).load::<I32>())
    }

    fn is_other(&self, row: Int<'c>, (sequence, group): (Int<'c>, Int<'c>)) -> Bool<'c> {
        let (of_sequence, of_group) = self.segment(row);
        of_sequence.ne(sequence) | of_group.ne(group)
    }

    /// The first row behind the segment that begins at `first`.
    fn end(&self, first: Int<'c>, rows: Int<'c>) -> Int<'c> {
        let code = self.code;
        let own = self.segment(first);
        let (end, _) = code.walk(
            (first + 1, code.int(0)),
            |(_, found)| found.eq(0),
            |(at, _)| {
                let row = at + self.lane;
                let is_row = row.lt(rows);
                let behind = !is_row | self.is_other(is_row.select(row, first), own);
                let behind = code.ballot(behind);
                (at + lowest(behind), behind)
            },
        );
        end
    }

    fn segment_mask(&self, (first, end): (Int<'c>, Int<'c>), mask: GPtr<'c>) {
        let code = self.code;
        let (threshold, places) = self.limits((first, end));
        let below = (code.int(1) << self.lane) - 1;
        code.repeat(Steps { from: first, to: end, step: 32 }, code.int(0), |base, taken| {
            let row = base + self.lane;
            let inside = row.lt(end);
            let row_read = inside.select(row, first);
            let takes_part = self.takes_part(row_read) & inside;
            let key = self.key(row_read);
            let on = key.eq(threshold) & takes_part;
            let all_on = code.ballot(on);
            let has_place = (taken + (all_on & below).count_ones()).lt(places);
            let kept = (threshold.below(key) & takes_part) | (on & has_place);
            code.when(inside, || mask.at::<I8>(row).store(kept.to_int().to_byte()));
            taken + all_on.count_ones()
        });
    }

    /// The threshold, and how many rows on it are kept.
    fn limits(&self, (first, end): (Int<'c>, Int<'c>)) -> (Int<'c>, Int<'c>) {
        let code = self.code;
        let kept = match self.ranked.keep {
            // No segment has more rows.
            Keep::Slots(slots) => code.int(slots.min(i32::MAX.cast_unsigned())),
            Keep::Left { slots, before, pages } => self.left(first, (slots, before, pages)),
            Keep::Share(share) => top_k(code, (share.into_inner(), Rounding::Up), end - first),
            Keep::ShareDown(share) => top_k(code, (share.into_inner(), Rounding::Down), end - first),
        };
        if self.ranked.order == RankOrder::Position {
            return (code.int(0), kept);
        }
        let start = (code.int(0), code.int(1 << 31));
        let (threshold, _) = code.repeat(Steps { from: 0, to: 32, step: 1 }, start, |_, (threshold, bit)| {
            let higher = threshold | bit;
            let reach = self.count((first, end), |key| !key.below(higher));
            (reach.ge(kept).select(higher, threshold), bit >> 1)
        });
        // With fewer candidates than places the threshold is 0, on which no score lies.
        (threshold, kept - self.count((first, end), |key| threshold.below(key)))
    }

    /// The slots that earlier steps have left of the group whose first row this is.
    fn left(&self, first: Int<'c>, (slots, before, pages): (u32, Slot, Slot)) -> Int<'c> {
        let code = self.code;
        let slots = slots.min(i32::MAX.cast_unsigned());
        let Segment::Group { positions, size } = self.ranked.segment else { return code.int(slots) };
        let end = self.at(positions, first).load::<I32>();
        let steps = Steps { from: end - end % size, to: end, step: 32 };
        let pages = Pages::of(code, self.kernel, pages, self.sequence(first));
        let of_lane = code.repeat(steps, code.int(0), |base, count| {
            let position = base + self.lane;
            let inside = position.lt(end);
            let key = pages.key(inside.select(position, base));
            let was_wanted = code.param(before.0).at::<I8>(key).load::<I8>().to_int().ne(0);
            count + (was_wanted & inside).to_int()
        });
        let taken = code.reduce(of_lane, 32, |a, b| a + b);
        taken.lt(slots).select(code.int(slots) - taken, 0u32)
    }

    /// How many candidates of the segment have such a key.
    fn count(&self, (first, end): (Int<'c>, Int<'c>), is_such: impl Fn(Int<'c>) -> Bool<'c>) -> Int<'c> {
        let code = self.code;
        let of_lane = code.repeat(Steps { from: first, to: end, step: 32 }, code.int(0), |base, count| {
            let row = base + self.lane;
            let inside = row.lt(end);
            let row = inside.select(row, first);
            let counts = is_such(self.key(row)) & self.takes_part(row) & inside;
            count + counts.to_int()
        });
        code.reduce(of_lane, 32, |a, b| a + b)
    }

    fn takes_part(&self, row: Int<'c>) -> Bool<'c> {
        match self.ranked.among {
            Candidates::All => self.code.int(0).eq(0),
            Candidates::Masked(mask) => self.code.param(mask.0).at::<I8>(row).load::<I8>().to_int().ne(0),
        }
    }

    /// A number without sign that orders rows as their scores do; above 0 for every score, 0 if rows rank by position.
    fn key(&self, row: Int<'c>) -> Int<'c> {
        const INFINITY: u32 = f32::INFINITY.to_bits();
        const LOWEST: u32 = f32::NEG_INFINITY.to_bits();
        let RankOrder::Score(scores) = self.ranked.order else { return self.code.int(0) };
        let bits = self.at(scores, row).load::<I32>();
        let magnitude = bits & 0x7FFF_FFFF_u32;
        // Both zeros become one, and what is not a number the lowest.
        let bits = magnitude.eq(0).select(0u32, bits);
        let bits = magnitude.gt(INFINITY).select(LOWEST, bits);
        // Negative numbers grow downwards: all their bits are turned round, of others the sign alone.
        let turned = (self.code.int(0) - (bits >> 31)) | 0x8000_0000_u32;
        bits ^ turned
    }
}

/// `skipc_ir::top_k`; a share is at most 1, so that the product fits.
fn top_k<'c>(code: &'c Code, (share, round): (f64, Rounding), rows: Int<'c>) -> Int<'c> {
    let product = Operand::val(share, code) * rows.to_double();
    let whole = product.to_int();
    match round {
        Rounding::Up => (whole + whole.to_double().lt(product).to_int()).max(1),
        Rounding::Down => whole.max(1),
    }
}
