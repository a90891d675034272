//! Passes about token sets.

pub(crate) mod merge_routes;
