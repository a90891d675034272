//! Test tools: golden cases, random graphs, tolerances.

pub mod approx;
pub mod check_pass;
pub mod conformance;
pub mod exact;
pub mod file_cases;
pub mod golden;
pub mod input_graph;
pub mod kernel_cases;
pub mod machine;
pub mod mutate;
pub mod random;
pub mod random_graph;
pub mod reference;
pub mod replay;
pub mod state_graphs;
pub mod tamper;
pub mod tolerance;
