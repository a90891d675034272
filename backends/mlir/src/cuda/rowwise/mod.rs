//! Work in which a row of the result depends on one row of each operand.
//!
//! Element-wise kinds ([`elementwise`]) give each thread a group of neighbouring columns. Kinds that
//! reduce over a row ([`reduce`]) give each row a warp; a lane takes every 32nd group, so the order
//! of a row's sum depends on its length alone. Rows that are stored in a cache ([`store`]) are moved piece by piece.

pub(super) mod elementwise;
mod reduce;
mod store;

pub(super) use store::{StoreRows, store_rows};

use skipc_plan::kernel::{Kernel, Rowwise};

use super::generated::Generated;
use super::{choose, limit};
use crate::error::Error;

/// Threads of a block.
const THREADS: u32 = 256;

/// Generates row-wise work.
///
/// # Errors
/// [`Error::Malformed`] and [`Error::Unsupported`].
pub(super) fn generate(kernel: &Kernel, rowwise: &Rowwise) -> Result<Generated, Error> {
    super::place::require_extent(kernel, &kernel.extent)?;
    match rowwise {
        Rowwise::Map { cols, program } => elementwise::map(kernel, *cols, program),
        Rowwise::Embed { cols, ids, n_ids, table, out } => {
            let embed =
                elementwise::Embed { cols: *cols, ids: *ids, n_ids: *n_ids, table: *table, out: *out };
            elementwise::embed(kernel, embed)
        }
        Rowwise::Rope { heads, width, turned, x, positions, cos, sin, out } => {
            let rope = elementwise::Rope {
                heads: *heads,
                half: turned.unwrap_or(*width) / 2,
                passed: width - turned.unwrap_or(*width),
                x: *x,
                positions: *positions,
                tables: [*cos, *sin],
                out: *out,
            };
            elementwise::rope(kernel, rope)
        }
        Rowwise::Norm { kind, eps, cols, groups, x, gain, out } => {
            let norm = reduce::Norm {
                kind: *kind,
                eps: eps.into_inner() as f32,
                cols: cols / (*groups).max(1),
                groups: *groups,
                x: *x,
                gain: *gain,
                out: *out,
            };
            reduce::norm(kernel, norm)
        }
        Rowwise::Choose { n, choice, logits, bias, replay, out } => {
            let (n, choice, logits, bias, replay, out) = (*n, *choice, *logits, *bias, *replay, *out);
            choose::choose(kernel, &choose::Choose { n, choice, logits, bias, replay, out })
        }
        Rowwise::Limit(of_choices) => limit::generate(kernel, of_choices),
        Rowwise::RowScale { eps, cols, x, out } => {
            let scale = reduce::RowScale { eps: eps.into_inner() as f32, cols: *cols, x: *x, out: *out };
            reduce::row_scale(kernel, scale)
        }
    }
}
