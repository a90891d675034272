//! Softmax attention in one pass over the keys.
//!
//! A block takes a tile of query rows and one head. Because key rows are ordered by sequence and
//! position, what a query sees is one range of key rows ([`ranges`]); the block walks over the union
//! of its rows' ranges in tiles of keys, keeps the largest score and the sum so far for each row, and
//! rescales what it has when the largest score grows. Scores, exponentials and sums are f32.
//!
//! bf16 operands go to the tensor cores ([`mma`]), f32 operands to multiply-adds ([`simt`]).

mod mma;
mod ranges;
mod simt;
mod tiles;

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Access, Attention, Kernel, View};

use super::{Generated, place};
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
    let Attention { heads, kv_heads, width, .. } = *attention;
    if width == 0 || kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(Error::Malformed { what: format!("{heads} heads over {kv_heads} of {width} columns") });
    }
    if width > MAX_WIDTH {
        return Err(Error::Unsupported { what: format!("heads of {width} columns; at most {MAX_WIDTH}") });
    }
    let cols = |heads: u32| {
        heads
            .checked_mul(width)
            .ok_or_else(|| Error::Malformed { what: format!("{heads} heads of {width} columns") })
    };
    let q = place::require_view(kernel, attention.q, cols(heads)?)?;
    place::require_real(q)?;
    let out = place::param(kernel, attention.out)?;
    if out.cols < cols(heads)? {
        return Err(Error::Malformed { what: format!("`{}` has too few columns", out.name) });
    }
    let operands = [("queries", attention.q), ("keys", attention.k), ("values", attention.v)];
    for (what, view) in operands {
        place::require_dense(view, what)?;
        place::require(kernel, view.slot, q.dtype)?;
        if place::param(kernel, view.slot)?.access != Access::Read {
            return Err(Error::Malformed { what: format!("the {what} of attention are written") });
        }
    }
    place::require(kernel, attention.out, q.dtype)?;
    for view in [attention.k, attention.v] {
        place::require_view(kernel, view, cols(kv_heads)?)?;
    }
    for view in [attention.q_pos, attention.q_seq, attention.k_pos, attention.k_seq] {
        require_indices(kernel, view)?;
    }
    Ok(())
}

fn require_indices(kernel: &Kernel, view: View) -> Result<(), Error> {
    place::require_u32(kernel, view.slot)?;
    place::require_view(kernel, view, 1).map(|_| ())
}
