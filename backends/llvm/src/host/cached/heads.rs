//! Some query heads of one key head, for one query row: scores of a block of keys, their weights, the mix of values.

use inkwell::{FloatPredicate, IntPredicate};
use skipc_artifact::target::DType;
use skipc_plan::kernel::{CachedAttention, Slot};

use super::super::code::{Int, Lanes, Made, widths};
use super::super::frame::{Frame, Row};
use super::{Keys, MOST_BLOCK_KEYS, MOST_KEYS_AT_ONCE, Scratch, block_keys, together};

/// Bytes of a cache line.
const LINE: usize = 64;

/// How queries and keys are multiplied, with so many lanes of a vector for sums.
#[derive(Clone, Copy)]
enum Factors {
    /// As f32.
    Single(u32),
    /// As bf16, two products at once.
    Dots(u32),
}

impl Factors {
    /// Columns that a vector takes.
    fn cols(self) -> u32 {
        match self {
            Factors::Single(lanes) => lanes,
            Factors::Dots(lanes) => 2 * lanes,
        }
    }
}

/// Heads that are worked on together, and what they work on.
pub(super) struct Heads<'t, 'a, 'c> {
    f: &'t Frame<'a, 'c>,
    attention: &'t CachedAttention,
    scratch: &'t Scratch,
    keys: Keys<'c>,
    /// How many heads there are.
    n: u32,
    /// The first of them.
    first: Int<'c>,
    /// The first column of their keys and values.
    kv_col: Int<'c>,
    q: Row<'c>,
    out: Row<'c>,
}

impl<'t, 'a, 'c> Heads<'t, 'a, 'c> {
    pub(super) fn new(
        f: &'t Frame<'a, 'c>,
        attention: &'t CachedAttention,
        scratch: &'t Scratch,
        (group, keys): (Int<'c>, Keys<'c>),
        (q, out): (Row<'c>, Row<'c>),
    ) -> Made<Heads<'t, 'a, 'c>> {
        let CachedAttention { heads, kv_heads, width, .. } = *attention;
        let n = together(attention);
        let first = f.times(group, u64::from(n))?;
        let col = f.times(first, u64::from(width))?;
        let kv_col = f.times(f.div(first, heads / kv_heads)?, u64::from(width))?;
        let [q, out] = [q, out].map(|row| f.at_column(row, col));
        Ok(Heads { f, attention, scratch, keys, n, first, kv_col, q: q?, out: out? })
    }

    /// Before the first key.
    pub(super) fn reset(&self) -> Made<()> {
        let f = self.f;
        for head in 0..self.n {
            f.store(self.largest(head)?, f.int(0), f.real(f32::NEG_INFINITY, 1))?;
            f.store(self.totals(head)?, f.int(0), f.real(0.0, 1))?;
            let mix = self.mix_row(head)?;
            f.for_columns(f.columns(self.attention.width), f.level.lanes, |col, lanes| {
                f.store(mix, col, f.real(0.0, lanes))
            })?;
        }
        Ok(())
    }

    /// Adds the block of keys from this one on.
    pub(super) fn block(&self, first: Int<'c>) -> Made<()> {
        let f = self.f;
        let count = f.min(f.sub(self.keys.count, first)?, f.int(i64::from(block_keys(&f.level))))?;
        self.scores(first, count)?;
        let shrinks = (0..self.n).map(|head| self.weigh(head, count)).collect::<Made<Vec<_>>>()?;
        self.mix((first, count), &shrinks)
    }

    /// Writes the mix over the sum of the weights, or zeros where there was no key.
    pub(super) fn finish(&self) -> Made<()> {
        let f = self.f;
        for head in 0..self.n {
            let total = f.load(self.totals(head)?, f.int(0), 1)?;
            let is_blind = f.fis(FloatPredicate::OEQ, total, f.real(0.0, 1))?;
            let total = f.fselect(is_blind, f.real(1.0, 1), total)?;
            let (mix, out) = (self.mix_row(head)?, self.of_head(self.out, head)?);
            f.for_columns(f.columns(self.attention.width), f.level.lanes, |col, lanes| {
                f.store(out, col, f.fdiv(f.load(mix, col, lanes)?, f.splat(total, lanes)?)?)
            })?;
        }
        Ok(())
    }

    /// Keys whose scores are taken at once: their sums for all heads fill a vector.
    fn keys_at_once(&self) -> u32 {
        (self.f.level.lanes / self.n).clamp(1, MOST_KEYS_AT_ONCE)
    }

    /// Writes the scores of the keys of a block, and for some behind them that nobody looks at.
    fn scores(&self, first: Int<'c>, count: Int<'c>) -> Made<()> {
        let (f, n_keys) = (self.f, self.keys_at_once());
        let queries = (0..self.n).map(|head| self.of_head(self.q, head)).collect::<Made<Vec<_>>>()?;
        let (scoring, width) = (self.attention.scoring, self.attention.width);
        f.for_each(f.int(0), count, n_keys, |key| {
            let keys = (0..n_keys)
                .map(|idx| self.row_of(self.attention.k, f.add(first, f.plus(key, i64::from(idx))?)?));
            for idx in 0..n_keys {
                self.fetch_ahead(self.attention.k, f.add(first, f.plus(key, i64::from(idx))?)?)?;
            }
            let products = self.products(&queries, &keys.collect::<Made<Vec<_>>>()?)?;
            let scores = f.score(scoring, width, products)?;
            for head in 0..self.n {
                let of_head: Vec<u32> = (head * n_keys..(head + 1) * n_keys).collect();
                f.store(self.scores_row(head)?, key, f.shuffle(scores, &of_head)?)?;
            }
            Ok(())
        })
    }

    /// The products of each query with each key, those of a query side by side.
    fn products(&self, queries: &[Row<'c>], keys: &[Row<'c>]) -> Made<Lanes<'c>> {
        let (f, width) = (self.f, self.attention.width);
        let are_pairs = queries.iter().chain(keys).all(|row| row.dtype == DType::Bf16);
        let dots = (f.level.has_dots && are_pairs).then_some(Factors::Dots(f.level.lanes));
        let (mut total, mut col) = (None, 0);
        for factors in dots.into_iter().chain(widths(f.level.lanes).map(Factors::Single)) {
            let end = width - (width - col) % factors.cols();
            if end == col {
                continue;
            }
            let sums = f.sums_of(self.vectors_of_products(queries, keys, (col, end, factors))?)?;
            total = Some(match total {
                Some(total) => f.fadd(total, sums)?,
                None => sums,
            });
            col = end;
        }
        Ok(total.unwrap_or_else(|| f.real(0.0, (queries.len() * keys.len()) as u32)))
    }

    /// The same over some columns, each the sum of the lanes of a vector.
    fn vectors_of_products(
        &self,
        queries: &[Row<'c>],
        keys: &[Row<'c>],
        (first, end, factors): (u32, u32, Factors),
    ) -> Made<Vec<Lanes<'c>>> {
        let f = self.f;
        let (Factors::Single(lanes) | Factors::Dots(lanes)) = factors;
        let mut sums = vec![f.real(0.0, lanes); queries.len() * keys.len()];
        for col in (first..end).step_by(factors.cols() as usize) {
            let at = |row: &Row<'c>| match factors {
                Factors::Single(_) => f.load(*row, f.int(i64::from(col)), lanes),
                // As words, each of two neighbours.
                Factors::Dots(_) => {
                    f.load(Row { dtype: DType::F32, ..*row }, f.int(i64::from(col / 2)), lanes)
                }
            };
            let queries = queries.iter().map(at).collect::<Made<Vec<_>>>()?;
            for (idx, key) in keys.iter().enumerate() {
                let key = at(key)?;
                for (head, query) in queries.iter().enumerate() {
                    let sum = &mut sums[head * keys.len() + idx];
                    *sum = match factors {
                        Factors::Single(_) => f.mul_add(*query, key, *sum)?,
                        Factors::Dots(_) => f.dot_pairs(*query, key, *sum)?,
                    };
                }
            }
        }
        Ok(sums)
    }

    /// Turns the scores of a block into their exponentials over the largest so far; gives what earlier ones have to be
    /// multiplied with.
    fn weigh(&self, head: u32, count: Int<'c>) -> Made<Lanes<'c>> {
        let (f, lanes) = (self.f, self.f.level.lanes);
        let row = self.scores_row(head)?;
        let (lowest, nothing) = (f.real(f32::NEG_INFINITY, lanes), f.real(0.0, lanes));
        let count = f.splat_word(count)?;
        let mut vectors = Vec::new();
        for first in (0..block_keys(&f.level)).step_by(lanes as usize) {
            let keys: Vec<u32> = (first..first + lanes).collect();
            let is_there = f.builder.build_int_compare(IntPredicate::ULT, f.words(&keys), count, "")?;
            let at = f.int(i64::from(first));
            vectors.push((at, is_there, f.fselect(is_there, f.load(row, at, lanes)?, lowest)?));
        }
        let raw = vectors.iter().try_fold(lowest, |largest, (_, _, score)| f.at_least(*score, largest))?;
        let before = f.load(self.largest(head)?, f.int(0), 1)?;
        let now = f.at_least(f.largest_lane(raw)?, before)?;
        f.store(self.largest(head)?, f.int(0), now)?;

        let (mut sum, splat) = (nothing, f.splat(now, lanes)?);
        for (at, is_there, score) in vectors {
            let weight = f.fselect(is_there, f.exp_below_zero(f.fsub(score, splat)?)?, nothing)?;
            f.store(row, at, weight)?;
            sum = f.fadd(sum, weight)?;
        }
        // Not by the exponential alone: before the first key, both are infinite.
        let is_same = f.fis(FloatPredicate::OEQ, before, now)?;
        let shrink = f.fselect(is_same, f.real(1.0, 1), f.exp_below_zero(f.fsub(before, now)?)?)?;
        let total = f.fmul(f.load(self.totals(head)?, f.int(0), 1)?, shrink)?;
        f.store(self.totals(head)?, f.int(0), f.fadd(total, f.sum_lanes(sum)?)?)?;
        Ok(shrink)
    }

    /// Adds the values of a block by weight.
    fn mix(&self, block: (Int<'c>, Int<'c>), shrinks: &[Lanes<'c>]) -> Made<()> {
        let (level, mut col) = (&self.f.level, 0);
        // Half of the vector registers hold sums.
        let at_once = (if level.lanes == 16 { 16 } else { 8 } / self.n).max(1);
        for lanes in widths(level.lanes) {
            let mut left = (self.attention.width - col) / lanes;
            while left > 0 {
                let n = left.min(at_once);
                self.mix_columns(block, shrinks, (col, n, lanes))?;
                (col, left) = (col + n * lanes, left - n);
            }
        }
        Ok(())
    }

    /// The same for some vectors of columns.
    fn mix_columns(
        &self,
        (first, count): (Int<'c>, Int<'c>),
        shrinks: &[Lanes<'c>],
        (col, n, lanes): (u32, u32, u32),
    ) -> Made<()> {
        let f = self.f;
        let cols: Vec<Int<'c>> = (0..n).map(|idx| f.int(i64::from(col + idx * lanes))).collect();
        let mut before = Vec::new();
        for (head, shrink) in (0..).zip(shrinks) {
            let (mix, shrink) = (self.mix_row(head)?, f.splat(*shrink, lanes)?);
            for col in &cols {
                before.push(f.fmul(f.load(mix, *col, lanes)?, shrink)?);
            }
        }
        let sums = f.fold(f.int(0), count, 1, &before, |key, sums| {
            let key_of_all = f.add(first, key)?;
            let row = self.row_of(self.attention.v, key_of_all)?;
            if col == 0 {
                self.fetch_ahead(self.attention.v, key_of_all)?;
            }
            let values = cols.iter().map(|col| f.load(row, *col, lanes)).collect::<Made<Vec<_>>>()?;
            let mut next = Vec::with_capacity(sums.len());
            for (head, sums) in (0..).zip(sums.chunks(values.len())) {
                let weight = f.splat(f.load(self.scores_row(head)?, key, 1)?, lanes)?;
                for (value, sum) in values.iter().zip(sums) {
                    next.push(f.mul_add(weight, *value, *sum)?);
                }
            }
            Ok(next)
        })?;
        for (head, sums) in (0..).zip(sums.chunks(cols.len())) {
            let mix = self.mix_row(head)?;
            sums.iter().zip(&cols).try_for_each(|(sum, col)| f.store(mix, *col, *sum))?;
        }
        Ok(())
    }

    /// The columns of these heads in the row of a key or value.
    fn row_of(&self, slot: Slot, key: Int<'c>) -> Made<Row<'c>> {
        let f = self.f;
        let row = f.load_word(f.element(self.keys.list, key, 4)?)?;
        f.at_column(f.dense_row(slot, row)?, self.kv_col)
    }

    /// Asks for what the next block has in the place of this key: its rows lie too far apart for the processor to see a run.
    fn fetch_ahead(&self, slot: Slot, key: Int<'c>) -> Made<()> {
        let f = self.f;
        let row = self.row_of(slot, f.plus(key, i64::from(block_keys(&f.level)))?)?;
        let bytes = u64::from(self.attention.width) * u64::from(row.dtype.size());
        let mut lines = (0..bytes).step_by(LINE);
        lines.try_for_each(|byte| f.prefetch(f.offset(row.address, f.int(byte as i64))?))
    }

    /// A row of queries or results from the columns of a head on.
    fn of_head(&self, row: Row<'c>, head: u32) -> Made<Row<'c>> {
        self.f.at_column(row, self.f.int(i64::from(head) * i64::from(self.attention.width)))
    }

    fn scores_row(&self, head: u32) -> Made<Row<'c>> {
        let address = self.f.scratch_at(self.scratch.scores + u64::from(head * MOST_BLOCK_KEYS) * 4)?;
        Ok(Row { address, dtype: DType::F32 })
    }

    fn mix_row(&self, head: u32) -> Made<Row<'c>> {
        self.of_heads(self.scratch.mix, head, self.attention.width)
    }

    fn largest(&self, head: u32) -> Made<Row<'c>> {
        self.of_heads(self.scratch.largest, head, 1)
    }

    fn totals(&self, head: u32) -> Made<Row<'c>> {
        self.of_heads(self.scratch.totals, head, 1)
    }

    /// The row of a head of a matrix in scratch memory that has one for each.
    fn of_heads(&self, matrix: u64, head: u32, cols: u32) -> Made<Row<'c>> {
        let f = self.f;
        let row = f.plus(self.first, i64::from(head))?;
        let address = f.offset(f.scratch_at(matrix)?, f.times(row, u64::from(cols) * 4)?)?;
        Ok(Row { address, dtype: DType::F32 })
    }
}
