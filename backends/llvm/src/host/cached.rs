//! Attention over a cache, one query row and head after the other: the rows of the keys in sight are listed once, then come
//! scores of all of them, their softmax, and the mix of values. Sums have one order, whatever the other rows are.

use inkwell::FloatPredicate;
use skipc_artifact::program::PAGE_ROWS;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{CachedAttention, Kernel, Rows, Slot, View};

use super::code::{Code, Columns, Int, Lanes, Made, Ptr};
use super::fault::Fault;
use super::frame::{Frame, Row, Share};

/// Rows of a tile.
pub(crate) const TILE_ROWS: u32 = 1;

/// The most rows for which threads share out heads: each call lists the keys of its rows, which calls for rows of their own do
/// once instead of once a head.
pub(crate) const FEW_ROWS: u32 = 3;

/// Keys whose scores are taken at once: their sums do not wait for each other.
const KEYS_AT_ONCE: u32 = 4;

/// Vectors of a value row that are mixed at once.
const VECTORS_AT_ONCE: u32 = 8;

/// Keys that a query can see.
fn most_keys(kernel: &Kernel, attention: &CachedAttention) -> u64 {
    let pages = kernel.params.get(attention.pages.0 as usize).map_or(0, |param| param.cols);
    u64::from(pages) * u64::from(PAGE_ROWS)
}

/// Bytes of scratch memory that a call needs: a score and a row number for each key.
pub(crate) fn scratch_bytes(kernel: &Kernel, attention: &CachedAttention) -> u64 {
    most_keys(kernel, attention) * 8
}

/// Emits the work on a range of query rows and of heads.
pub(crate) fn emit<'c>(f: &Frame<'_, 'c>, attention: &CachedAttention, share: Share<'c>) -> Made<()> {
    let Share { rows, across } = share;
    let CachedAttention { heads, kv_heads, width, q, out, .. } = *attention;
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(Fault::Malformed(format!("{kv_heads} key heads do not divide {heads} query heads")));
    }
    f.for_each(rows.0, rows.1, 1, |row| {
        let keys = Keys::list(f, attention, row)?;
        let (q, out) = (f.row(q, row)?, f.dense_row(out, row)?);
        f.for_each(across.0, across.1, 1, |head| {
            let col = f.times(head, u64::from(width))?;
            let kv_col = f.times(f.div(head, heads / kv_heads)?, u64::from(width))?;
            let [q, out] = [q, out].map(|row| from_column(f, row, col));
            Head { f, attention, keys, kv_col, q: q?, out: out? }.run()
        })
    })
}

fn from_column<'c>(f: &Frame<'_, 'c>, row: Row<'c>, col: Int<'c>) -> Made<Row<'c>> {
    Ok(Row { address: f.element(row.address, col, row.dtype.size())?, ..row })
}

/// The keys in sight of a query, as rows of the cache.
#[derive(Clone, Copy)]
struct Keys<'c> {
    /// A word for each.
    list: Ptr<'c>,
    count: Int<'c>,
}

impl<'c> Keys<'c> {
    /// Code that lists those of a query row.
    fn list(f: &Frame<'_, 'c>, attention: &CachedAttention, row: Int<'c>) -> Made<Keys<'c>> {
        let CachedAttention { q_pos, q_seq, pages, present, .. } = *attention;
        let list = f.scratch_at(most_keys(f.kernel, attention) * 4)?;
        let pages = Pages::of(f, pages, f.load_index(q_seq, row)?)?;
        let present = present.map(|present| f.pointer(present, DType::U8)).transpose()?;
        let end = f.plus(f.load_index(q_pos, row)?, 1)?;
        let count = f.fold(f.int(0), end, 1, &[f.int(0)], |position, count| {
            let key = pages.key(f, position)?;
            f.store_word(f.element(list, count[0], 4)?, key)?;
            let one = match present {
                Some(present) => f.as_index(f.load_flag(f.offset(present, key)?)?)?,
                None => f.int(1),
            };
            Ok(vec![f.add(count[0], one)?])
        })?;
        Ok(Keys { list, count: count[0] })
    }
}

/// The pages of one sequence.
#[derive(Clone, Copy)]
pub(crate) struct Pages<'c>(Ptr<'c>);

impl<'c> Pages<'c> {
    pub(crate) fn of(f: &Frame<'_, 'c>, table: Slot, sequence: Int<'c>) -> Made<Pages<'c>> {
        f.pointer(table, DType::U32)?;
        f.row_address(dense(table), sequence).map(Pages)
    }

    /// The row of the cache that holds the token at a position.
    pub(crate) fn key(self, f: &Frame<'_, 'c>, position: Int<'c>) -> Made<Int<'c>> {
        let page = f.load_word(f.element(self.0, f.shr(position, PAGE_ROWS.ilog2().into())?, 4)?)?;
        let within = f.and(position, f.int(i64::from(PAGE_ROWS) - 1))?;
        f.add(f.times(page, PAGE_ROWS.into())?, within)
    }
}

/// One head of a query row.
struct Head<'t, 'a, 'c> {
    f: &'t Frame<'a, 'c>,
    attention: &'t CachedAttention,
    keys: Keys<'c>,
    /// The first column of its keys and values.
    kv_col: Int<'c>,
    q: Row<'c>,
    out: Row<'c>,
}

impl<'c> Head<'_, '_, 'c> {
    fn run(&self) -> Made<()> {
        let f = self.f;
        let whole = f.and(self.keys.count, f.int(-i64::from(KEYS_AT_ONCE)))?;
        let lowest = f.real(f32::NEG_INFINITY, 1);
        let largest = f.fold(f.int(0), whole, KEYS_AT_ONCE, &[lowest], |key, largest| {
            self.scores(key, KEYS_AT_ONCE, largest[0])
        })?;
        let largest =
            f.fold(whole, self.keys.count, 1, &largest, |key, largest| self.scores(key, 1, largest[0]))?;
        let total = self.weights(largest[0])?;
        let is_blind = f.fis(FloatPredicate::OEQ, total, f.real(0.0, 1))?;
        self.mix(f.fselect(is_blind, f.real(1.0, 1), total)?)
    }

    /// The columns of this head in the row of a key.
    fn row_of(&self, slot: Slot, key: Int<'c>) -> Made<Row<'c>> {
        let f = self.f;
        let row = f.load_word(f.element(self.keys.list, key, 4)?)?;
        from_column(f, f.dense_row(slot, row)?, self.kv_col)
    }

    /// Where scores stand, and later weights.
    fn scores_row(&self) -> Made<Row<'c>> {
        Ok(Row { address: self.f.scratch_at(0)?, dtype: DType::F32 })
    }

    /// Writes `q · k / √width` of so many keys; gives the largest so far.
    fn scores(&self, first: Int<'c>, n_keys: u32, mut largest: Lanes<'c>) -> Made<Vec<Lanes<'c>>> {
        let f = self.f;
        let keys = (0..n_keys).map(|idx| f.plus(first, i64::from(idx))).collect::<Made<Vec<_>>>()?;
        let rows = keys.iter().map(|key| self.row_of(self.attention.k, *key)).collect::<Made<Vec<_>>>()?;
        let columns = f.columns(self.attention.width);
        let products = f.sum_columns(columns, rows.len(), |col, lanes| {
            let q = f.load(self.q, col, lanes)?;
            rows.iter().map(|row| f.fmul(q, f.load(*row, col, lanes)?)).collect()
        })?;
        let scale = f.real((1.0 / f64::from(self.attention.width).sqrt()) as f32, 1);
        for (key, product) in keys.into_iter().zip(products) {
            let score = f.fmul(product, scale)?;
            f.store(self.scores_row()?, key, score)?;
            largest = f.at_least(score, largest)?;
        }
        Ok(vec![largest])
    }

    /// Turns scores into their exponentials over the largest; gives their sum.
    fn weights(&self, largest: Lanes<'c>) -> Made<Lanes<'c>> {
        let f = self.f;
        let columns = Columns { count: self.keys.count, exact: None, unit: 1 };
        let total = f.sum_columns(columns, 1, |key, lanes| {
            let score = f.load(self.scores_row()?, key, lanes)?;
            let weight = f.exp_below_zero(f.fsub(score, f.splat(largest, lanes)?)?)?;
            f.store(self.scores_row()?, key, weight)?;
            Ok(vec![weight])
        })?;
        Ok(total[0])
    }

    /// Writes the values' sum by weight over the weights' sum.
    fn mix(&self, total: Lanes<'c>) -> Made<()> {
        let mut col = 0;
        for lanes in [self.f.level.lanes, 4, 1] {
            let mut left = (self.attention.width - col) / lanes;
            while left > 0 {
                let n = left.min(VECTORS_AT_ONCE);
                self.mix_columns(total, col, (n, lanes))?;
                (col, left) = (col + n * lanes, left - n);
            }
        }
        Ok(())
    }

    fn mix_columns(&self, total: Lanes<'c>, first: u32, (n, lanes): (u32, u32)) -> Made<()> {
        let f: &Code<'c> = self.f;
        let cols: Vec<Int<'c>> = (0..n).map(|idx| f.int(i64::from(first + idx * lanes))).collect();
        let nothing = vec![f.real(0.0, lanes); n as usize];
        let sums = f.fold(f.int(0), self.keys.count, 1, &nothing, |key, sums| {
            let weight = f.splat(f.load(self.scores_row()?, key, 1)?, lanes)?;
            let row = self.row_of(self.attention.v, key)?;
            sums.iter()
                .zip(&cols)
                .map(|(sum, col)| f.mul_add(weight, f.load(row, *col, lanes)?, *sum))
                .collect()
        })?;
        let total = f.splat(total, lanes)?;
        sums.into_iter().zip(cols).try_for_each(|(sum, col)| f.store(self.out, col, f.fdiv(sum, total)?))
    }
}

fn dense(slot: Slot) -> View {
    View { slot, rows: Rows::Dense, col: 0 }
}
