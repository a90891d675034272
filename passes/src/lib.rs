//! Passes: from a graph to a graph that means the same and costs less.
//!
//! A pass is a function that looks at a verified graph and returns edits as values, [`Patch`]es. It changes nothing
//! itself. The manager ([`run`]) applies the edits, asks the pass again until it has none left, verifies after each
//! round, counts, and stops when the fuel is spent; so a wrong compile is found by halving the fuel.
//!
//! Every pass keeps the values of all outputs bit for bit in every number domain of the interpreter, whatever the
//! routers decide, but for `saturate`, which keeps them in the domains that do not round and may round differently in
//! others.
//!
//! # Order
//!
//! [`default_pipeline`] is the list that the compiler runs:
//!
//! 1. `merge_routes` before `cse`, which never touches routes: users of two sets have different types until the sets are one;
//! 2. `cse` shares what the merged sets made equal;
//! 3. `canonicalize` after it, because its patterns ask for one and the same value, not for an equal one;
//! 4. `saturate` looks for cheaper forms in each block, where what is simple already is not searched anew;
//! 5. `cse` again: what became of two blocks, or was simplified, may be equal to something else now;
//! 6. `dce` last, over what nobody used to begin with.
//!
//! [`plain_pipeline`] is the same without `saturate`, [`step_pipeline`] with `collapse_runs` behind it, which takes the routers out of the
//! blocks that `saturate` looks at.
//!
//! # Reading order
//!
//! [`patch`], [`manager`], [`table`], then a file for each pass, and [`rewrite`] for `saturate`.

mod canonicalize;
mod cse;
mod dce;
mod legalize;
pub mod manager;
mod numbering;
mod options;
pub mod patch;
pub mod rewrite;
mod routing;
pub mod table;

pub use manager::{CODES, Error, PassReport, Report, run, run_reported};
pub use options::Options;
pub use patch::{Applied, Operand, Patch};
pub use table::{PassInfo, TABLE, default_pipeline, plain_pipeline, step_pipeline};
