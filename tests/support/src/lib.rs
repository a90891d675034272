//! Test tools: golden cases, random graphs, tolerances.

pub mod golden;
