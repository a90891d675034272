//! Softmax attention over the keys that a query sees.

use std::ops::Range;

use super::fault::Fault;
use super::gemm::dot;
use super::memory::Frame;
use crate::kernel::{Attention, Rows, View};

pub(super) fn run(
    frame: &mut Frame<'_, '_, '_>,
    attention: &Attention,
    tiles: &[Range<u32>],
) -> Result<(), Fault> {
    let shape = Shape::of(attention)?;
    if tiles.is_empty() {
        return Ok(());
    }
    let keys = Keys::load(frame, attention, &shape)?;
    for tile in tiles {
        for row in tile.clone() {
            let query = frame.load(attention.q, row, shape.q_cols)?;
            let at = (frame.load_index(attention.q_seq, row)?, frame.load_index(attention.q_pos, row)?);
            let seen = keys.seen(at);
            let out = attend(&shape, &query, &keys, seen);
            frame.store_dense(attention.out, row, &out)?;
        }
    }
    Ok(())
}

struct Shape {
    heads: usize,
    group: usize,
    width: usize,
    q_cols: u32,
    kv_cols: u32,
    scale: f32,
}

impl Shape {
    fn of(attention: &Attention) -> Result<Shape, Fault> {
        let Attention { heads, kv_heads, width, .. } = *attention;
        if kv_heads == 0 || width == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(Fault::Malformed(format!(
                "{heads} heads of width {width} over {kv_heads} key heads"
            )));
        }
        let too_wide = || Fault::Malformed(format!("{heads} heads of width {width}"));
        for view in [attention.q, attention.k, attention.v] {
            if view.rows != Rows::Dense {
                return Err(Fault::Malformed("queries, keys and values of attention are dense".to_owned()));
            }
        }
        Ok(Shape {
            heads: heads as usize,
            group: (heads / kv_heads) as usize,
            width: width as usize,
            q_cols: heads.checked_mul(width).ok_or_else(too_wide)?,
            kv_cols: kv_heads.checked_mul(width).ok_or_else(too_wide)?,
            scale: (1.0 / f64::from(width).sqrt()) as f32,
        })
    }
}

struct Keys {
    k: Vec<Vec<f32>>,
    v: Vec<Vec<f32>>,
    /// (sequence, position) of each, ascending.
    at: Vec<(u32, u32)>,
}

impl Keys {
    fn load(frame: &Frame<'_, '_, '_>, attention: &Attention, shape: &Shape) -> Result<Keys, Fault> {
        let n_keys = frame.extent(attention.kv_extent)?;
        let rows = |view: View| -> Result<Vec<Vec<f32>>, Fault> {
            (0..n_keys).map(|row| frame.load(view, row, shape.kv_cols)).collect()
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

    /// Keys of the same sequence that are not later.
    fn seen(&self, (seq, pos): (u32, u32)) -> Range<usize> {
        self.at.partition_point(|key| key.0 < seq)..self.at.partition_point(|key| *key <= (seq, pos))
    }
}

fn attend(shape: &Shape, query: &[f32], keys: &Keys, seen: Range<usize>) -> Vec<f32> {
    let mut out = Vec::with_capacity(query.len());
    for head in 0..shape.heads {
        let query = &query[head * shape.width..(head + 1) * shape.width];
        let begin = head / shape.group * shape.width;
        let head_cols = begin..begin + shape.width;
        let scores: Vec<f32> = keys.k[seen.clone()]
            .iter()
            .map(|key| dot(query, &key[head_cols.clone()]) * shape.scale)
            .collect();
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = scores.iter().map(|score| libm::expf(score - max)).collect();
        let total = weights.iter().copied().map(f64::from).sum::<f64>() as f32;
        for col in head_cols {
            let values = keys.v[seen.clone()].iter().map(|value| f64::from(value[col]));
            let mix =
                values.zip(&weights).map(|(value, weight)| value * f64::from(*weight)).sum::<f64>() as f32;
            out.push(if weights.is_empty() { 0.0 } else { mix / total });
        }
    }
    out
}
