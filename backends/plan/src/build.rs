//! From a legal graph to a plan.

use skipc_ir::Legal;

use crate::error::PlanError;
use crate::lower;
use crate::plan::{Options, Plan};

/// Plans kernels, buffers and steps. Pointwise ops and scatters join the kernels that make their operands.
///
/// # Errors
/// If an option is out of range, or there is no kernel for what the graph asks for.
pub fn build(legal: &Legal, options: &Options) -> Result<Plan, PlanError> {
    lower::lower(legal.graph(), options, true)
}

/// As [`build`], but every op but views is a kernel of its own: to measure fused kernels against, and to compare
/// their numbers with.
///
/// # Errors
/// As [`build`].
pub fn build_unfused(legal: &Legal, options: &Options) -> Result<Plan, PlanError> {
    lower::lower(legal.graph(), options, false)
}
