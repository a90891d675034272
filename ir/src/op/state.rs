//! States: values that one step leaves for the next.
//!
//! An op that has [`Trait::UpdatesState`](crate::Trait::UpdatesState) uses its first operand up and makes the next
//! value of the state; every other op with a state among its operands looks at it only.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use skipc_artifact::program::PAGE_ROWS;

use super::args::{Args, TypeError};
use super::token_set::Group;
use crate::interp::{Datum, EvalError, Number};
use crate::ty::{Dim, Elem, SetSym, Type};

pub(super) fn infer_sum(args: Args<'_>) -> Result<Type, TypeError> {
    let (_, _, cols) = args.token_matrix(1)?;
    match args.ty(0).as_state() {
        Some((Elem::F32, [Dim::Fixed(1), Dim::Fixed(width)])) if *width == cols => Ok(args.ty(0).clone()),
        _ => Err(args.wrong(0, format!("a state of sums, state<f32[1, {cols}]>"))),
    }
}

pub(super) fn infer_store(args: Args<'_>) -> Result<Type, TypeError> {
    let Some((elem, dims @ [Dim::Cached, ..])) = args.ty(0).as_state() else {
        return Err(args.wrong(0, "a cache, state<real[m, columns]> or state<mask[m]>"));
    };
    let Some((row_elem, [rows, row_cols @ ..])) = args.ty(1).as_tensor() else {
        return Err(args.wrong(1, "rows of the cache"));
    };
    if (elem, &dims[1..]) != (row_elem, row_cols) || !rows.is_token_rows() {
        return Err(
            args.wrong(1, format!("rows of tokens as the cache has them, {elem}[…, {}]", args.ty(0).cols()))
        );
    }
    match *args.ty(2) {
        Type::Set { sym, of: Dim::Cached } => args.same_rows(2, *rows, Dim::Count(sym))?,
        _ => args.ints(2, *rows)?,
    }
    Ok(args.ty(0).clone())
}

/// Operands are the set that executes, positions, sequences, pages, what waits in each sequence, and a cache.
pub(super) fn infer_pending(args: Args<'_>, (set, router): (SetSym, u32)) -> Result<Type, TypeError> {
    let Type::Set { of, .. } = *args.ty(0) else { return Err(args.wrong(0, "a token set")) };
    args.ints(1, of)?;
    args.ints(2, of)?;
    infer_pages(args, 3)?;
    match args.ty(4).as_tensor() {
        Some((Elem::Int, &[Dim::Tokens, Dim::Fixed(cols)])) if router < cols.saturating_sub(1) => {}
        Some((Elem::Int, [Dim::Tokens, Dim::Fixed(_)])) => {
            return Err(args.bad_attr("router", "should be a column of `pending` before the last"));
        }
        _ => return Err(args.wrong(4, "what waits in each sequence, int[n, r + 1]")),
    }
    match args.ty(5).as_state() {
        Some((_, [Dim::Cached, ..])) => Ok(Type::Set { sym: set, of: Dim::Cached }),
        _ => Err(args.wrong(5, "a cache")),
    }
}

/// Operands 3 and 4 are what earlier tokens wanted, and the pages in which they lie.
pub(super) fn infer_before(args: Args<'_>) -> Result<(), TypeError> {
    if args.ty(3).as_state() != Some((Elem::Mask, &[Dim::Cached])) {
        return Err(args.wrong(3, "a cache of decisions, state<mask[m]>"));
    }
    infer_pages(args, 4)
}

/// Operand `idx` is a row of pages for each sequence.
pub(super) fn infer_pages(args: Args<'_>, idx: usize) -> Result<(), TypeError> {
    match args.ty(idx).as_tensor() {
        Some((Elem::Int, [Dim::Tokens, Dim::Fixed(_)])) => Ok(()),
        _ => Err(args.wrong(idx, "the pages of each sequence, int[n, p]")),
    }
}

/// How many rows earlier steps wanted of each group that this step goes on with. Operands are positions, sequences, what was
/// wanted before, and pages.
pub(super) fn taken<N: Number>(
    operands: &[&Datum<N>],
    n_tokens: usize,
    group_size: u32,
) -> Result<BTreeMap<Group, i64>, EvalError> {
    let (before, size) = (operands[2].mask()?, i64::from(group_size));
    let pages = Pages::new(operands[3], n_tokens, before.len())?;
    let mut taken = BTreeMap::new();
    for (row, (position, sequence)) in operands[0].ints()?.iter().zip(operands[1].ints()?).enumerate() {
        let group = (*sequence, position.div_euclid(size));
        // Rows of a group follow each other: what lies before the first is of earlier steps.
        if let Entry::Vacant(first) = taken.entry(group) {
            let earlier = group.1 * size..*position;
            let wanted = earlier.map(|position| Ok(i64::from(before[pages.key(row, *sequence, position)?])));
            first.insert(wanted.sum::<Result<i64, EvalError>>()?);
        }
    }
    Ok(taken)
}

/// The rows of the cache that may not wait longer for the layers of this router.
pub(super) fn pending<N: Number>(
    operands: &[&Datum<N>],
    n_tokens: usize,
    router: usize,
) -> Result<Datum<N>, EvalError> {
    let of = operands[5].n_rows();
    let (executed, pages) = (operands[0].set()?.0, Pages::new(operands[3], n_tokens, of)?);
    let (positions, sequences) = (operands[1].ints()?, operands[2].ints()?);
    let waiting = operands[4].ints()?;
    let n_cols = waiting.len().checked_div(n_tokens).unwrap_or(0);
    let (mut rows, mut first_row) = (Vec::new(), 0);
    for of_sequence in sequences.chunk_by(|a, b| a == b) {
        let end_row = first_row + of_sequence.len();
        let (sequence, end) = (of_sequence[0], positions[end_row - 1] + 1);
        let waits = waiting.get(sequence as usize * n_cols..).and_then(|row| row.get(..n_cols));
        let waits = waits.ok_or(EvalError::Kind("a row of what waits for each sequence"))?;
        let (first, most) = (waits[router], waits[n_cols - 1]);
        let executes = executed.iter().any(|row| (first_row..end_row).contains(row));
        if executes || end - first > most {
            for position in first..end {
                rows.push(pages.key(end_row - 1, sequence, position)?);
            }
        }
        first_row = end_row;
    }
    Ok(Datum::Set { rows, of })
}

/// Where the tokens of sequences lie in a cache.
pub(super) struct Pages<'a> {
    pages: &'a [i64],
    /// Pages that a sequence can have.
    of_sequence: usize,
    n_cached: usize,
}

impl<'a> Pages<'a> {
    /// Pages of a cache of `n_cached` rows: a row for each of the `n_tokens` rows of the step, of which those of its
    /// sequences count.
    pub(super) fn new<N: Number>(
        pages: &'a Datum<N>,
        n_tokens: usize,
        n_cached: usize,
    ) -> Result<Pages<'a>, EvalError> {
        let pages = pages.ints()?;
        Ok(Pages { pages, of_sequence: pages.len().checked_div(n_tokens).unwrap_or(0), n_cached })
    }

    /// The row of the cache that holds a token at which `row` of the step looks.
    pub(super) fn key(&self, row: usize, sequence: i64, position: i64) -> Result<usize, EvalError> {
        let (page, within) = (position / i64::from(PAGE_ROWS), position % i64::from(PAGE_ROWS));
        let page = usize::try_from(page).ok().filter(|page| *page < self.of_sequence);
        let page = page.and_then(|page| self.pages.get(sequence as usize * self.of_sequence + page));
        let place = page.map_or(-1, |page| page * i64::from(PAGE_ROWS) + within);
        row_of_cache((row, place), self.n_cached)
    }
}

pub(super) fn add_rows<N: Number>(sum: &Datum<N>, x: &Datum<N>) -> Result<Datum<N>, EvalError> {
    let ((cols, sum), (_, x)) = (sum.real()?, x.real()?);
    let mut data = sum.to_vec();
    for row in x.chunks_exact(cols) {
        data.iter_mut().zip(row).for_each(|(sum, x)| *sum = sum.add(*x));
    }
    Ok(Datum::Real { cols, data })
}

pub(super) fn store_rows<N: Number>(
    cache: &Datum<N>,
    rows: &Datum<N>,
    places: &Datum<N>,
) -> Result<Datum<N>, EvalError> {
    let n_rows = cache.n_rows();
    let mut cache = cache.clone();
    let places = match places {
        Datum::Set { rows, .. } => &rows.iter().map(|row| *row as i64).collect::<Vec<_>>(),
        places => places.ints()?,
    };
    for (row, place) in places.iter().enumerate() {
        let at = row_of_cache((row, *place), n_rows)?;
        match (&mut cache, rows) {
            (Datum::Real { cols, data }, Datum::Real { data: rows, .. }) => {
                data[at * *cols..][..*cols].copy_from_slice(&rows[row * *cols..][..*cols]);
            }
            (Datum::Mask(cache), Datum::Mask(rows)) => cache[at] = rows[row],
            (Datum::Ints(cache), Datum::Ints(rows)) => cache[at] = rows[row],
            _ => return Err(EvalError::Kind("rows as the cache has them")),
        }
    }
    Ok(cache)
}

/// The row of a cache of `n_rows` rows that `row` of a step names.
fn row_of_cache((row, place): (usize, i64), n_rows: usize) -> Result<usize, EvalError> {
    let within = usize::try_from(place).ok().filter(|place| *place < n_rows);
    within.ok_or(EvalError::NoPlace { row, place, n_rows })
}
