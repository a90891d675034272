//! Which choices of a row find a place at their expert: a thread for each row.

use skipc_artifact::program::RowTile;
use skipc_artifact::target::DType;

use skipc_plan::kernel::{KeepChoices, Kernel, Limit, NO_CHOICE, Slot, View};

use super::generated::Generated;
use super::pages::Pages;
use super::place;
use crate::code::{Bool, Code, F32, Float, GPtr, I8, I32, Int, Steps};
use crate::error::Error;

/// Threads of a block.
const THREADS: u32 = 128;

/// Generates a limit.
///
/// # Errors
/// [`Error::Malformed`].
pub(super) fn generate(kernel: &Kernel, limit: &Limit) -> Result<Generated, Error> {
    place::require_extent(kernel, &kernel.extent)?;
    if limit.group_size == Some(0) {
        return Err(Error::Malformed { what: "a group of no rows".to_owned() });
    }
    let out = View::dense(limit.out);
    for view in [limit.index, out].into_iter().chain(limit.ranks) {
        place::require(kernel, view.slot, DType::F32)?;
        place::require_view(kernel, view, limit.k)?;
    }
    let mut places = vec![limit.positions, limit.sequences];
    if let KeepChoices::Share { extent, positions, sequences, .. } = limit.keep {
        place::require_extent(kernel, &extent)?;
        places.extend([positions, sequences]);
    }
    if let KeepChoices::Left { before, pages, present, .. } = limit.keep {
        places.push(View::dense(pages));
        place::require(kernel, before, DType::F32)?;
        place::require_view(kernel, View::dense(before), limit.k)?;
        if let Some(present) = present {
            place::require(kernel, present, DType::U8)?;
            place::require_view(kernel, View::dense(present), 1)?;
        }
    }
    for view in places {
        place::require_u32(kernel, view.slot)?;
        place::require_view(kernel, view, 1)?;
    }
    let code = Code::new(place::n_params(kernel)?);
    write(&code, kernel, limit, out);
    Ok(Generated::new(code, vec![RowTile { from: 0, rows: THREADS, across: 1 }], THREADS))
}

fn write(code: &Code, kernel: &Kernel, limit: &Limit, out: View) {
    let rows = place::extent(code, &kernel.extent);
    let row = code.block_x() * THREADS + code.thread();
    code.return_if(row.ge(rows));
    let ctx = Ctx { code, kernel, limit };
    let own = ctx.group((limit.positions, limit.sequences), row);
    let (slots, (first, end)) = (ctx.slots(own), ctx.range(row, rows));
    code.each(Steps { from: 0, to: limit.k, step: 1 }, |place| {
        let choice = ctx.at(limit.index, row, place).load::<F32>();
        let rank = limit.ranks.map(|ranks| ctx.at(ranks, row, place).load::<F32>());
        let before = match limit.keep {
            KeepChoices::Left { before, pages, present, .. } => {
                ctx.earlier((before, pages, present), row, choice)
            }
            KeepChoices::Slots { .. } | KeepChoices::Share { .. } => {
                code.repeat(Steps { from: first, to: end, step: 1 }, code.int(0), |other, before| {
                    let is_same = ctx.is_in((limit.positions, limit.sequences), other, own);
                    let is_before = ctx.beats((other, row), (place, choice, rank));
                    before + (is_same & is_before).to_int()
                })
            }
        };
        let mut is_kept = before.lt(slots);
        if let KeepChoices::Slots { experts, .. } | KeepChoices::Left { experts, .. } = limit.keep {
            is_kept = is_kept | choice.ge(experts as f32);
        }
        ctx.at(out, row, place).store(is_kept.select(choice, NO_CHOICE as f32));
    });
}

/// Sequence and group.
type Group<'c> = (Int<'c>, Int<'c>);

struct Ctx<'c, 'k> {
    code: &'c Code,
    kernel: &'k Kernel,
    limit: &'k Limit,
}

impl<'c> Ctx<'c, '_> {
    fn at(&self, view: View, row: Int<'c>, col: Int<'c>) -> GPtr<'c> {
        place::element(self.code, self.kernel.param(view.slot), view, row, col)
    }

    fn group(&self, (positions, sequences): (View, View), row: Int<'c>) -> Group<'c> {
        let number = |view| self.at(view, row, self.code.int(0)).load::<I32>();
        let group = match self.limit.group_size {
            None => self.code.int(0),
            Some(size) => number(positions) / size,
        };
        (number(sequences), group)
    }

    /// How many tokens of the row's group before it have a choice, by what lies in a cache.
    fn earlier(
        &self,
        (cache, pages, present): (Slot, Slot, Option<Slot>),
        row: Int<'c>,
        choice: Float<'c>,
    ) -> Int<'c> {
        let (code, kernel) = (self.code, self.kernel);
        let index = |view| self.at(view, row, code.int(0)).load::<I32>();
        let (position, sequence) = (index(self.limit.positions), index(self.limit.sequences));
        let from = position - position % self.limit.group_size.unwrap_or(1);
        let pages = Pages::of(code, kernel, pages, sequence);
        code.repeat(Steps { from, to: position, step: 1 }, code.int(0), |position, count| {
            let key = pages.key(position);
            let steps = Steps { from: 0, to: self.limit.k, step: 1 };
            let has = code.repeat(steps, code.truth(false), |place, has| {
                let other = self.at(View::dense(cache), key, place).load::<F32>();
                has | (other.ge(choice) & choice.ge(other))
            });
            let counts = match present {
                None => has,
                Some(present) => {
                    let flag = place::row_start(code, kernel.param(present), View::dense(present), key);
                    has & flag.load::<I8>().to_int().ne(0)
                }
            };
            count + counts.to_int()
        })
    }

    fn is_in(&self, places: (View, View), row: Int<'c>, own: Group<'c>) -> Bool<'c> {
        let (sequence, group) = self.group(places, row);
        sequence.eq(own.0) & group.eq(own.1)
    }

    /// How many choices an expert keeps of a group.
    fn slots(&self, own: Group<'c>) -> Int<'c> {
        let code = self.code;
        match self.limit.keep {
            // No group has more rows.
            KeepChoices::Slots { slots, .. } | KeepChoices::Left { slots, .. } => {
                code.int(slots.min(i32::MAX.cast_unsigned()))
            }
            KeepChoices::Share { top_k, extent, positions, sequences } => {
                let n_tokens = place::extent(code, &extent);
                let steps = Steps { from: 0, to: n_tokens, step: 1 };
                let tokens = code.repeat(steps, code.int(0), |token, count| {
                    count + self.is_in((positions, sequences), token, own).to_int()
                });
                ((tokens * top_k + (self.limit.k - 1)) / self.limit.k).max(1)
            }
        }
    }

    /// The rows that may be in the row's group: no two of a group are farther apart than it has positions. Those behind count
    /// only where choices rank by more than their place.
    fn range(&self, row: Int<'c>, rows: Int<'c>) -> (Int<'c>, Int<'c>) {
        let Some(size) = self.limit.group_size.map(|size| size.min(1 << 30)) else {
            return (self.code.int(0), rows);
        };
        let end = match self.limit.ranks {
            None => row,
            Some(_) => (row + size).min(rows),
        };
        ((row - (size - 1)).max(0), end)
    }

    /// Whether the other row has the same choice, and comes first.
    fn beats(
        &self,
        (other, row): (Int<'c>, Int<'c>),
        (place, choice, rank): (Int<'c>, Float<'c>, Option<Float<'c>>),
    ) -> Bool<'c> {
        let limit = self.limit;
        let is_earlier = other.lt(row);
        let at = |place: Int<'c>| {
            let found = self.at(limit.index, other, place).load::<F32>();
            let is_same = found.ge(choice) & choice.ge(found);
            let is_first = match (limit.ranks, rank) {
                (Some(ranks), Some(rank)) => {
                    let of_other = self.at(ranks, other, place).load::<F32>();
                    of_other.gt(rank) | (of_other.ge(rank) & is_earlier)
                }
                _ => is_earlier,
            };
            is_same & is_first
        };
        if let KeepChoices::Share { .. } = limit.keep {
            return at(place);
        }
        let steps = Steps { from: 0, to: limit.k, step: 1 };
        self.code.repeat(steps, self.code.truth(false), |place, found| found | at(place))
    }
}
