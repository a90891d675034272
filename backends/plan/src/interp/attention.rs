//! Softmax attention over the keys that a query sees.

use std::ops::{Range, RangeInclusive};

use skipc_ir::Scoring;
use skipc_ir::interp::functions::{self, Heads};

use super::element::Element;
use super::fault::Fault;
use super::memory::Frame;
use crate::kernel::{Attention, CachedAttention, Rows, View};

pub(super) fn run<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    attention: &Attention,
    tiles: &[Range<u32>],
) -> Result<(), Fault> {
    let Attention { heads, kv_heads, width, q, k, v, .. } = *attention;
    let shape = Shape::of((heads, kv_heads, width), &[q, k, v])?;
    if tiles.is_empty() {
        return Ok(());
    }
    let keys = Keys::load(frame, attention, &shape)?;
    let mut scores = Vec::new();
    for tile in tiles {
        for row in tile.clone() {
            let query = frame.load(attention.q, row, shape.q_cols)?;
            let at = (frame.load_index(attention.q_seq, row)?, frame.load_index(attention.q_pos, row)?);
            let mut out = Vec::with_capacity(query.len());
            functions::attend(
                (shape.heads, attention.scoring),
                &query,
                (&keys.k, &keys.v),
                keys.seen(at, attention.scoring),
                (&mut scores, &mut out),
            );
            frame.store_dense(attention.out, row, &out)?;
        }
    }
    Ok(())
}

/// The keys that a query sees are loaded one by one, by the pages of its sequence.
pub(super) fn run_cached<N: Element>(
    frame: &mut Frame<'_, '_, '_, N>,
    attention: &CachedAttention,
    tiles: &[Range<u32>],
) -> Result<(), Fault> {
    let CachedAttention { heads, kv_heads, width, scoring, q, q_pos, q_seq, k, v, pages, present, out } =
        *attention;
    let shape = Shape::of((heads, kv_heads, width), &[q])?;
    let mut scores = Vec::new();
    for row in tiles.iter().cloned().flatten() {
        let (sequence, last) = (frame.load_index(q_seq, row)?, frame.load_index(q_pos, row)?);
        let (mut keys, mut values, mut n_keys) = (Vec::new(), Vec::new(), 0);
        for position in positions(scoring, last) {
            let key = frame.cached(pages, sequence, position)?;
            if present.map_or(Ok(1), |present| frame.load_u8(present, key))? == 0 {
                continue;
            }
            keys.extend(frame.load_reals(k, key, 0, shape.kv_cols)?);
            values.extend(frame.load_reals(v, key, 0, shape.kv_cols)?);
            n_keys += 1;
        }
        let query = frame.load(q, row, shape.q_cols)?;
        let mut mixed = Vec::with_capacity(query.len());
        functions::attend(
            (shape.heads, scoring),
            &query,
            (&keys, &values),
            0..n_keys,
            (&mut scores, &mut mixed),
        );
        frame.store_dense(out, row, &mixed)?;
    }
    Ok(())
}

/// The positions that a query at this one sees.
fn positions(scoring: Scoring, position: u32) -> RangeInclusive<u32> {
    let positions = scoring.positions(position.into());
    *positions.start() as u32..=*positions.end() as u32
}

struct Shape {
    heads: Heads,
    q_cols: u32,
    kv_cols: u32,
}

impl Shape {
    fn of((heads, kv_heads, width): (u32, u32, u32), views: &[View]) -> Result<Shape, Fault> {
        if kv_heads == 0 || width == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(Fault::Malformed(format!(
                "{heads} heads of width {width} over {kv_heads} key heads"
            )));
        }
        let too_wide = || Fault::Malformed(format!("{heads} heads of width {width}"));
        for view in views {
            if view.rows != Rows::Dense {
                return Err(Fault::Malformed("queries, keys and values of attention are dense".to_owned()));
            }
        }
        Ok(Shape {
            heads: Heads { heads: heads as usize, kv_heads: kv_heads as usize, width: width as usize },
            q_cols: heads.checked_mul(width).ok_or_else(too_wide)?,
            kv_cols: kv_heads.checked_mul(width).ok_or_else(too_wide)?,
        })
    }
}

struct Keys<N> {
    /// `[keys, kv_heads · width]`, row by row.
    k: Vec<N>,
    v: Vec<N>,
    /// (sequence, position) of each, ascending.
    at: Vec<(u32, u32)>,
}

impl<N: Element> Keys<N> {
    fn load(frame: &Frame<'_, '_, '_, N>, attention: &Attention, shape: &Shape) -> Result<Keys<N>, Fault> {
        let n_keys = frame.extent(attention.kv_extent)?;
        let rows = |view: View| -> Result<Vec<N>, Fault> {
            let mut rows = Vec::with_capacity(n_keys as usize * shape.kv_cols as usize);
            for row in 0..n_keys {
                rows.extend(frame.load(view, row, shape.kv_cols)?);
            }
            Ok(rows)
        };
        let mut at: Vec<(u32, u32)> = Vec::with_capacity(n_keys as usize);
        for row in 0..n_keys {
            let next = (frame.load_index(attention.k_seq, row)?, frame.load_index(attention.k_pos, row)?);
            if at.last().is_some_and(|last| *last > next) {
                return Err(Fault::KeyOrder { row });
            }
            at.push(next);
        }
        Ok(Keys { k: rows(attention.k)?, v: rows(attention.v)?, at })
    }

    /// Keys of the same sequence that are not later than what the query sees ahead, and in the window.
    fn seen(&self, (seq, pos): (u32, u32), scoring: Scoring) -> Range<usize> {
        let positions = positions(scoring, pos);
        let bound = |pos: &u32| (seq, *pos);
        self.at.partition_point(|key| *key < bound(positions.start()))
            ..self.at.partition_point(|key| *key <= bound(positions.end()))
    }
}
