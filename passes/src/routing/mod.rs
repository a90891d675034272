//! Passes about token sets.

pub(crate) mod collapse_runs;
pub(crate) mod merge_routes;
