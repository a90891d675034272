//! Softmax attention in one pass over the keys.
//!
//! A block takes a tile of query rows and one head. Because key rows are ordered by sequence and
//! position, what a query sees is one range of key rows ([`ranges`]); the block walks over the union
//! of its rows' ranges in tiles of keys, keeps the largest score and the sum so far for each row, and
//! rescales what it has when the largest score grows. Scores, exponentials and sums are f32.
//!
//! bf16 operands go to the tensor cores ([`mma`]), f32 operands to multiply-adds ([`simt`]). Over a cache there are few
//! queries and many keys, which lie in pages: see [`cached`].

pub(super) mod cached;
mod mma;
pub(super) mod ranges;
mod simt;
mod tiles;

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Access, Attention, Kernel, Param, Slot, View};

use super::generated::Generated;
use super::place;
use crate::error::Error;

/// Columns of a head at most: a row of results is kept in registers.
const MAX_WIDTH: u32 = 256;

/// Stands for a score below all others and still a number: the difference of two is 0, not NaN.
const LOWEST: f32 = -1.0e30;

/// Generates attention.
///
/// # Errors
/// [`Error::Malformed`] and [`Error::Unsupported`].
pub(super) fn generate(kernel: &Kernel, attention: &Attention) -> Result<Generated, Error> {
    check(kernel, attention)?;
    match place::param(kernel, attention.q.slot)?.dtype {
        DType::Bf16 => mma::generate(kernel, attention),
        _ => simt::generate(kernel, attention),
    }
}

fn check(kernel: &Kernel, attention: &Attention) -> Result<(), Error> {
    place::require_extent(kernel, &kernel.extent)?;
    place::require_extent(kernel, &attention.kv_extent)?;
    let [q_cols, kv_cols] = columns((attention.heads, attention.kv_heads), attention.width)?;
    let q = require_queries(kernel, (attention.q, attention.out), q_cols)?;
    place::require_dense(attention.q, "queries")?;
    for (what, view) in [("keys", attention.k), ("values", attention.v)] {
        place::require_dense(view, what)?;
        require_keys(kernel, (what, view), (q.dtype, kv_cols))?;
    }
    for view in [attention.q_pos, attention.q_seq, attention.k_pos, attention.k_seq] {
        require_indices(kernel, view)?;
    }
    Ok(())
}

/// Columns of the queries, and of the keys and values.
fn columns((heads, kv_heads): (u32, u32), width: u32) -> Result<[u32; 2], Error> {
    if width == 0 || kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(Error::Malformed { what: format!("{heads} heads over {kv_heads} of {width} columns") });
    }
    if width > MAX_WIDTH {
        return Err(Error::Unsupported { what: format!("heads of {width} columns; at most {MAX_WIDTH}") });
    }
    match (heads.checked_mul(width), kv_heads.checked_mul(width)) {
        (Some(q), Some(kv)) => Ok([q, kv]),
        _ => Err(Error::Malformed { what: format!("{heads} heads of {width} columns") }),
    }
}

/// Checks queries and the result, which are of one type; yields the parameter of the queries.
fn require_queries(kernel: &Kernel, (q, out): (View, Slot), cols: u32) -> Result<&Param, Error> {
    let q_param = place::require_view(kernel, q, cols)?;
    place::require_real(q_param)?;
    place::require(kernel, out, q_param.dtype)?;
    place::require_view(kernel, View::dense(out), cols)?;
    require_read(kernel, ("queries", q))?;
    Ok(q_param)
}

/// Checks keys or values.
fn require_keys(
    kernel: &Kernel,
    (what, view): (&str, View),
    (dtype, cols): (DType, u32),
) -> Result<(), Error> {
    place::require(kernel, view.slot, dtype)?;
    place::require_view(kernel, view, cols)?;
    require_read(kernel, (what, view))
}

fn require_read(kernel: &Kernel, (what, view): (&str, View)) -> Result<(), Error> {
    if place::param(kernel, view.slot)?.access == Access::Read {
        return Ok(());
    }
    Err(Error::Malformed { what: format!("the {what} of attention are written") })
}

fn require_indices(kernel: &Kernel, view: View) -> Result<(), Error> {
    place::require_u32(kernel, view.slot)?;
    place::require_view(kernel, view, 1).map(|_| ())
}
