//! Test tools: golden cases, random graphs, tolerances.

pub mod conformance;
pub mod golden;
pub mod kernel_cases;
pub mod reference;
pub mod replay;
pub mod tolerance;
