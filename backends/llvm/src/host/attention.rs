//! Attention. Query rows of one sequence, up to a panel of them, stand in the lanes of vectors, a column of the panel
//! each: scores are matmuls of keys with the panel, a running softmax goes down its columns, and a second matmul
//! mixes the values. Keys and values are read where they lie.
//!
//! Blocks of keys begin at the first key of the sequence, and a key that a row does not see changes none of its bits,
//! so that rows do not depend on those beside them. Such a key has the weight 0, so values must be finite; the layers
//! that make them see to that.

use inkwell::{FloatPredicate, IntPredicate};
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Attention, Kernel, View};

use super::code::{Code, Int, Lanes, Made, Ptr};
use super::fault::Fault;
use super::frame::{Frame, Row, Share};
use super::level::PANEL;
use super::matmul::{Factors, Matmul, Operands};

/// Rows of a tile: a panel.
pub(crate) const TILE_ROWS: u32 = PANEL;

/// Bytes of a row of a panel.
const PANEL_BYTES: u64 = PANEL as u64 * 4;

/// Keys of a block: its scores take half of a first-level cache.
const BLOCK_KEYS: u32 = 128;

/// Matrices in scratch memory, as offsets in bytes. Those of a panel have [`PANEL`] columns.
struct Scratch {
    /// A row for each column of the head: queries.
    queries: u64,
    /// A row for each key of a block: scores, then weights.
    scores: u64,
    /// A row for each column of the head: the mix so far.
    mix: u64,
    /// One row: the largest scores so far.
    largest: u64,
    /// One row: the sums of weights so far.
    totals: u64,
    /// One row, `u32`: the first key that each query does not see any more.
    seen: u64,
    /// One row, `u32`: the first key that each query sees, if there is a window.
    from: u64,
    /// Keys and values of a block as f32, if they are not stored so.
    keys: u64,
    values: u64,
    bytes: u64,
}

impl Scratch {
    fn new(kernel: &Kernel, attention: &Attention) -> Scratch {
        let (panel, width) = (u64::from(PANEL), u64::from(attention.width));
        let mut bytes = 0;
        let mut take = |elements: u64| {
            let at = bytes;
            bytes += (elements * 4).next_multiple_of(64);
            at
        };
        let queries = take(width * panel);
        let scores = take(u64::from(BLOCK_KEYS) * panel);
        let mix = take(width * panel);
        let [largest, totals, seen, from] = [panel; 4].map(&mut take);
        let copies = [attention.k, attention.v].map(|view| match is_f32(kernel, view) {
            true => 0,
            false => u64::from(BLOCK_KEYS) * width,
        });
        let [keys, values] = copies.map(&mut take);
        Scratch { queries, scores, mix, largest, totals, seen, from, keys, values, bytes }
    }
}

fn is_f32(kernel: &Kernel, view: View) -> bool {
    kernel.params.get(view.slot.0 as usize).is_some_and(|param| param.dtype == DType::F32)
}

/// Bytes of scratch memory that a call needs.
pub(crate) fn scratch_bytes(kernel: &Kernel, attention: &Attention) -> u64 {
    Scratch::new(kernel, attention).bytes
}

/// Emits the work on a range of query rows, which begins with a tile, and of heads.
pub(crate) fn emit<'c>(f: &Frame<'_, 'c>, attention: &Attention, share: Share<'c>) -> Made<()> {
    let Share { rows, across } = share;
    let Attention { heads, kv_heads, .. } = *attention;
    if kv_heads == 0 || heads % kv_heads != 0 {
        return Err(Fault::Malformed(format!("{kv_heads} key heads do not divide {heads} query heads")));
    }
    // Head by head, so that the tiles of a sequence find its keys and values of the head in the second-level cache.
    f.for_each(across.0, across.1, 1, |head| {
        f.for_each(rows.0, rows.1, TILE_ROWS, |first| {
            let end = f.min(f.plus(first, i64::from(TILE_ROWS))?, rows.1)?;
            f.repeat_while(
                &[first],
                |next| f.below(next[0], end),
                |next| {
                    let after = end_of_sequence(f, attention.q_seq, next[0], end)?;
                    let scratch = Scratch::new(f.kernel, attention);
                    let count = f.sub(after, next[0])?;
                    Tile::new(f, attention, &scratch, (next[0], count))?.head(head)?;
                    Ok(vec![after])
                },
            )?;
            Ok(())
        })
    })
}

/// The first row after `first` that is of another sequence, or `end`.
pub(crate) fn end_of_sequence<'c>(
    f: &Frame<'_, 'c>,
    sequences: View,
    first: Int<'c>,
    end: Int<'c>,
) -> Made<Int<'c>> {
    let sequence = f.load_index(sequences, first)?;
    let last = f.plus(end, -1)?;
    let found = f.repeat_while(
        &[f.plus(first, 1)?],
        |next| {
            // The row at `end` need not exist.
            let other = f.load_index(sequences, f.min(next[0], last)?)?;
            f.and(f.equal(other, sequence)?, f.below(next[0], end)?)
        },
        |next| Ok(vec![f.plus(next[0], 1)?]),
    )?;
    Ok(found[0])
}

/// Query rows of one sequence.
struct Tile<'t, 'a, 'c> {
    f: &'t Frame<'a, 'c>,
    attention: &'t Attention,
    scratch: &'t Scratch,
    /// The first row, and how many.
    rows: (Int<'c>, Int<'c>),
    /// The first key of the sequence.
    first_key: Int<'c>,
    /// The first key that no row sees, and the first of the block in which the earliest key in sight lies.
    n_keys: Int<'c>,
    first_block: Int<'c>,
}

/// Some of the keys, from `first` of those of the sequence on.
#[derive(Clone, Copy)]
struct KeyBlock<'c> {
    first: Int<'c>,
    count: Int<'c>,
}

impl<'t, 'a, 'c> Tile<'t, 'a, 'c> {
    /// The tile; code that counts the keys which each row sees.
    fn new(
        f: &'t Frame<'a, 'c>,
        attention: &'t Attention,
        scratch: &'t Scratch,
        rows: (Int<'c>, Int<'c>),
    ) -> Made<Tile<'t, 'a, 'c>> {
        let all_keys = f.extent(attention.kv_extent)?;
        let start = f.shl(f.load_index(attention.q_seq, rows.0)?, 32)?;
        let first_key = first_key(f, (attention.k_pos, attention.k_seq), all_keys, IntPredicate::ULT, start)?;
        let seen = f.scratch_at(scratch.seen)?;
        // Columns without a row see nothing.
        f.for_each(f.int(0), f.int(i64::from(PANEL)), 1, |idx| {
            f.store_word(f.element(seen, idx, 4)?, f.int(0))
        })?;
        let n_keys = f.fold(f.int(0), rows.1, 1, &[f.int(0)], |idx, most| {
            let position = f.load_index(attention.q_pos, f.add(rows.0, idx)?)?;
            let last = f.plus(position, i64::from(attention.scoring.ahead.unwrap_or(0)))?;
            let place = f.or(start, last)?;
            let end = first_key_after(f, (attention.k_pos, attention.k_seq), all_keys, place)?;
            let count = f.sub(end, first_key)?;
            f.store_word(f.element(seen, idx, 4)?, count)?;
            Ok(vec![f.max(most[0], count)?])
        })?[0];
        let tile = Tile { f, attention, scratch, rows, first_key, n_keys, first_block: f.int(0) };
        match attention.scoring.window {
            Some(window) => tile.with_window((all_keys, start), window),
            None => Ok(tile),
        }
    }

    /// The tile, and code that finds the first key which each row sees.
    fn with_window(self, (all_keys, start): (Int<'c>, Int<'c>), window: u32) -> Made<Tile<'t, 'a, 'c>> {
        let (f, attention, rows) = (self.f, self.attention, self.rows);
        let from = f.scratch_at(self.scratch.from)?;
        let earliest = f.fold(f.int(0), rows.1, 1, &[self.n_keys], |idx, earliest| {
            let end = f.plus(f.load_index(attention.q_pos, f.add(rows.0, idx)?)?, 1)?;
            let place = f.or(start, f.less(end, window)?)?;
            let first = first_key(f, (attention.k_pos, attention.k_seq), all_keys, IntPredicate::ULT, place)?;
            let first = f.sub(first, self.first_key)?;
            f.store_word(f.element(from, idx, 4)?, first)?;
            Ok(vec![f.min(earliest[0], first)?])
        })?[0];
        // Blocks lie where they would without a window, so that rows do not depend on those beside them.
        let first_block = f.times(f.div(earliest, BLOCK_KEYS)?, u64::from(BLOCK_KEYS))?;
        Ok(Tile { first_block, ..self })
    }

    /// All work on one query head.
    fn head(&self, head: Int<'c>) -> Made<()> {
        let f = self.f;
        let Attention { heads, kv_heads, width, .. } = *self.attention;
        let col = f.times(head, u64::from(width))?;
        let kv_col = f.times(f.div(head, heads / kv_heads)?, u64::from(width))?;
        self.pack_queries(col)?;
        self.reset()?;
        f.for_each(self.first_block, self.n_keys, BLOCK_KEYS, |first| {
            let count = f.min(f.sub(self.n_keys, first)?, f.int(i64::from(BLOCK_KEYS)))?;
            let block = KeyBlock { first, count };
            self.scores(kv_col, block)?;
            self.for_vectors(|at| self.weigh(block, at))?;
            self.mix(kv_col, block)
        })?;
        self.finish(col)
    }

    /// Writes the queries of a head, a row for each of its columns.
    fn pack_queries(&self, col: Int<'c>) -> Made<()> {
        let f = self.f;
        let panel = f.scratch_at(self.scratch.queries)?;
        f.for_each(f.int(0), self.rows.1, 1, |idx| {
            let q = f.row(self.attention.q, f.add(self.rows.0, idx)?)?;
            f.for_each(f.int(0), f.int(i64::from(self.attention.width)), 1, |within| {
                let element = f.load(q, f.add(col, within)?, 1)?;
                f.store(panel_row(f, panel, within)?, idx, element)
            })
        })
    }

    fn reset(&self) -> Made<()> {
        let f = self.f;
        let [largest, totals] = [self.scratch.largest, self.scratch.totals];
        self.for_vectors(|at| {
            f.store(self.row_at(largest)?, at, f.real(f32::NEG_INFINITY, f.level.lanes))?;
            f.store(self.row_at(totals)?, at, f.real(0.0, f.level.lanes))?;
            self.for_mix(|row| f.store(row, at, f.real(0.0, f.level.lanes)))
        })
    }

    /// `k · q` of all keys of the block and all queries.
    fn scores(&self, kv_col: Int<'c>, block: KeyBlock<'c>) -> Made<()> {
        let f = self.f;
        let keys = self.block_rows(self.attention.k, self.scratch.keys, kv_col, block)?;
        let matmul = Matmul {
            factors: Factors::Single,
            a_row: keys.stride * 4,
            a_step: 4,
            b_step: PANEL_BYTES,
            c_row: PANEL_BYTES,
            adds: false,
        };
        let (b, c) = (f.scratch_at(self.scratch.queries)?, f.scratch_at(self.scratch.scores)?);
        f.for_each(f.int(0), block.count, f.level.tile_rows, |key| {
            let rows = f.min(f.sub(block.count, key)?, f.int(i64::from(f.level.tile_rows)))?;
            let a = f.offset(keys.first, f.times(key, keys.stride * 4)?)?;
            let c = panel_row(f, c, key)?.address;
            let steps = f.int(i64::from(self.attention.width));
            matmul.call(f, Operands { rows, cols: self.rows.1, steps, a, b, scales: None, c })
        })
    }

    /// Turns scores of a vector of queries into weights, 0 where a query does not see the key.
    fn weigh(&self, block: KeyBlock<'c>, at: Int<'c>) -> Made<()> {
        let f = self.f;
        let lanes = f.level.lanes;
        let scores = f.scratch_at(self.scratch.scores)?;
        let scale = self.cap(block, at)?;
        let seen = self.seen_in(block, at)?;
        let lowest = f.real(f32::NEG_INFINITY, lanes);
        let raw = f.fold(f.int(0), block.count, 1, &[lowest], |key, largest| {
            let score = f.load(panel_row(f, scores, key)?, at, lanes)?;
            let visible = f.fselect(self.sees(seen, key)?, score, lowest)?;
            Ok(vec![f.at_least(visible, largest[0])?])
        })?[0];
        let (largest, totals) = (self.row_at(self.scratch.largest)?, self.row_at(self.scratch.totals)?);
        let before = f.load(largest, at, lanes)?;
        let now = f.at_least(f.fmul(raw, scale)?, before)?;
        f.store(largest, at, now)?;

        let nothing = f.real(0.0, lanes);
        let sum = f.fold(f.int(0), block.count, 1, &[nothing], |key, sum| {
            let row = panel_row(f, scores, key)?;
            let argument = f.fsub(f.fmul(f.load(row, at, lanes)?, scale)?, now)?;
            let weight = f.fselect(self.sees(seen, key)?, f.exp_below_zero(argument)?, nothing)?;
            f.store(row, at, weight)?;
            Ok(vec![f.fadd(sum[0], weight)?])
        })?[0];

        // Not by the exponential alone: before the first key in sight, both are infinite.
        let is_same = f.fis(FloatPredicate::OEQ, before, now)?;
        let shrink = f.exp_below_zero(f.fsub(before, now)?)?;
        let shrink = f.fselect(is_same, f.real(1.0, lanes), shrink)?;
        f.store(totals, at, f.fadd(f.fmul(f.load(totals, at, lanes)?, shrink)?, sum)?)?;
        self.for_mix(|row| f.store(row, at, f.fmul(f.load(row, at, lanes)?, shrink)?))
    }

    /// What scores are still to be multiplied with; under a cap they are made anew before.
    fn cap(&self, block: KeyBlock<'c>, at: Int<'c>) -> Made<Lanes<'c>> {
        let (f, lanes) = (self.f, self.f.level.lanes);
        let Attention { scoring, width, .. } = *self.attention;
        if scoring.cap.is_none() {
            return Ok(f.real(scoring.scale(width) as f32, lanes));
        }
        let scores = f.scratch_at(self.scratch.scores)?;
        f.for_each(f.int(0), block.count, 1, |key| {
            let row = panel_row(f, scores, key)?;
            f.store(row, at, f.score(scoring, width, f.load(row, at, lanes)?)?)
        })?;
        Ok(f.real(1.0, lanes))
    }

    /// Adds the block's values by weight.
    fn mix(&self, kv_col: Int<'c>, block: KeyBlock<'c>) -> Made<()> {
        let f = self.f;
        let values = self.block_rows(self.attention.v, self.scratch.values, kv_col, block)?;
        let matmul = Matmul {
            factors: Factors::Single,
            a_row: 4,
            a_step: values.stride * 4,
            b_step: PANEL_BYTES,
            c_row: PANEL_BYTES,
            adds: true,
        };
        let (b, c) = (f.scratch_at(self.scratch.scores)?, f.scratch_at(self.scratch.mix)?);
        let width = f.int(i64::from(self.attention.width));
        f.for_each(f.int(0), width, f.level.tile_rows, |col| {
            let rows = f.min(f.sub(width, col)?, f.int(i64::from(f.level.tile_rows)))?;
            let a = f.element(values.first, col, 4)?;
            let c = panel_row(f, c, col)?.address;
            matmul.call(f, Operands { rows, cols: self.rows.1, steps: block.count, a, b, scales: None, c })
        })
    }

    /// Writes the results of a head: the mix over the total, or zeros where there was no key.
    fn finish(&self, col: Int<'c>) -> Made<()> {
        let f = self.f;
        let lanes = f.level.lanes;
        let (mix, totals) = (f.scratch_at(self.scratch.mix)?, self.row_at(self.scratch.totals)?);
        self.for_vectors(|at| {
            let total = f.load(totals, at, lanes)?;
            let is_blind = f.fis(FloatPredicate::OEQ, total, f.real(0.0, lanes))?;
            let total = f.fselect(is_blind, f.real(1.0, lanes), total)?;
            self.for_mix(|row| f.store(row, at, f.fdiv(f.load(row, at, lanes)?, total)?))
        })?;
        f.for_each(f.int(0), self.rows.1, 1, |idx| {
            let out = f.dense_row(self.attention.out, f.add(self.rows.0, idx)?)?;
            f.for_each(f.int(0), f.int(i64::from(self.attention.width)), 1, |within| {
                f.store(out, f.add(col, within)?, f.load(panel_row(f, mix, within)?, idx, 1)?)
            })
        })
    }

    /// Runs `body` for each vector of columns that has a row.
    fn for_vectors(&self, body: impl FnOnce(Int<'c>) -> Made<()>) -> Made<()> {
        self.f.for_each(self.f.int(0), self.rows.1, self.f.level.lanes, body)
    }

    /// Runs `body` for each row of the mix.
    fn for_mix(&self, body: impl FnOnce(Row<'c>) -> Made<()>) -> Made<()> {
        let f = self.f;
        let mix = f.scratch_at(self.scratch.mix)?;
        f.for_each(f.int(0), f.int(i64::from(self.attention.width)), 1, |col| body(panel_row(f, mix, col)?))
    }

    fn row_at(&self, byte: u64) -> Made<Row<'c>> {
        Ok(Row { address: self.f.scratch_at(byte)?, dtype: DType::F32 })
    }

    /// Which keys of the block a vector of queries sees.
    fn seen_in(&self, block: KeyBlock<'c>, at: Int<'c>) -> Made<Seen<'c>> {
        let f = self.f;
        let first = f.splat_word(block.first)?;
        let in_block = |row: u64| -> Made<Lanes<'c>> {
            let key = f.bits(f.load(self.row_at(row)?, at, f.level.lanes)?)?;
            Ok(f.builder.build_int_sub(key, first, "")?)
        };
        let from = self.attention.scoring.window.map(|_| in_block(self.scratch.from)).transpose()?;
        Ok(Seen { from, end: in_block(self.scratch.seen)? })
    }

    /// Which queries see a key of the block.
    fn sees(&self, seen: Seen<'c>, key: Int<'c>) -> Made<Lanes<'c>> {
        let f = self.f;
        let key = f.splat_word(key)?;
        let is_before = f.builder.build_int_compare(IntPredicate::SLT, key, seen.end, "")?;
        let Some(from) = seen.from else { return Ok(is_before) };
        let is_after = f.builder.build_int_compare(IntPredicate::SGE, key, from, "")?;
        Ok(f.builder.build_and(is_before, is_after, "")?)
    }

    /// One head of the keys or values of a block, as f32.
    fn block_rows(&self, view: View, copy: u64, col: Int<'c>, block: KeyBlock<'c>) -> Made<HeadRows<'c>> {
        let f = self.f;
        let param = f.param(view.slot)?;
        let first_row = f.add(self.first_key, block.first)?;
        let first = f.row(view, first_row)?;
        let first = f.element(first.address, col, param.dtype.size())?;
        if param.dtype == DType::F32 {
            return Ok(HeadRows { first, stride: u64::from(param.cols) });
        }
        let (to, width) = (f.scratch_at(copy)?, u64::from(self.attention.width));
        let distance = u64::from(param.cols) * u64::from(param.dtype.size());
        f.for_each(f.int(0), block.count, 1, |key| {
            let from = Row { address: f.offset(first, f.times(key, distance)?)?, dtype: param.dtype };
            let to = Row { address: f.offset(to, f.times(key, width * 4)?)?, dtype: DType::F32 };
            f.copy_row(from, to, self.attention.width)
        })?;
        Ok(HeadRows { first: to, stride: width })
    }
}

/// The keys of a block that queries see: from the first, if there is a window, to before the end.
#[derive(Clone, Copy)]
struct Seen<'c> {
    from: Option<Lanes<'c>>,
    end: Lanes<'c>,
}

/// Rows of one head of a key or value matrix, in f32.
struct HeadRows<'c> {
    first: Ptr<'c>,
    /// Elements from row to row.
    stride: u64,
}

/// A row of a matrix with [`PANEL`] columns.
fn panel_row<'c>(code: &Code<'c>, base: Ptr<'c>, row: Int<'c>) -> Made<Row<'c>> {
    let address = code.offset(base, code.times(row, PANEL_BYTES)?)?;
    Ok(Row { address, dtype: DType::F32 })
}

/// The first key that this place in the batch does not see.
pub(crate) fn first_key_after<'c>(
    f: &Frame<'_, 'c>,
    places: (View, View),
    n_keys: Int<'c>,
    place: Int<'c>,
) -> Made<Int<'c>> {
    first_key(f, places, n_keys, IntPredicate::ULE, place)
}

/// The first key row whose (sequence, position) does not compare so with `place`; keys are in that order.
pub(crate) fn first_key<'c>(
    f: &Frame<'_, 'c>,
    (positions, sequences): (View, View),
    n_keys: Int<'c>,
    comparison: IntPredicate,
    place: Int<'c>,
) -> Made<Int<'c>> {
    let found = f.repeat_while(
        &[f.int(0), n_keys],
        |range| f.is(IntPredicate::NE, range[1], f.int(0)),
        |range| {
            let (first, count) = (range[0], range[1]);
            let half = f.shr(count, 1)?;
            let middle = f.add(first, half)?;
            let sequence = f.shl(f.load_index(sequences, middle)?, 32)?;
            let key = f.or(sequence, f.load_index(positions, middle)?)?;
            let is_before = f.is(comparison, key, place)?;
            let rest = f.plus(f.sub(count, half)?, -1)?;
            Ok(vec![f.select(is_before, f.plus(middle, 1)?, first)?, f.select(is_before, rest, half)?])
        },
    )?;
    Ok(found[0])
}
