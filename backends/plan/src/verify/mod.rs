//! The verifier of plans. It collects everything it finds.
//!
//! Checked of kernels, each by itself:
//! - slots are parameters; types and columns fit the use; every parameter is used exactly as it is declared;
//! - pointwise programs use earlier results only, and sums only in a matmul that has them;
//! - views lie within their columns; row lists and counts are `u32` of one column; attention reads dense rows;
//! - what is read and written is read only where the same tile writes it.
//!
//! Checked of steps, in their order:
//! - kernels and arguments are there, as many as parameters, of their type and columns, with enough rows;
//! - constants are only read; what the caller gives is not written;
//! - every row that is read has been written, by the host or a step, over the same rows: a buffer written for the rows
//!   of one set is not read for those of another, and a row list goes with the count and the source of its own set; rows at the
//!   places of a set and of its complement are all rows, those of one of them are none that could be read;
//! - no two parameters overlap in memory.
//!
//! Checked of the whole:
//! - symbols are unique names and kernels differ; constants and buffers are aligned and within bounds, in 64 bits;
//! - lifetimes are those of the steps; buffers that live at the same time do not overlap, under any bound;
//! - the ports have the types and shapes that their roles promise, states lie where states do, and results are written.
//!
//! Not checked: whether the steps compute the model (the kernel interpreter against the graph interpreter), whether
//! a target can run the kernels (its code generator), whether ids and positions are in range (the host).

mod along;
mod kernel;
mod loops;
mod memory;
mod program;
mod steps;

use std::collections::BTreeSet;

use skipc_artifact::check;

use crate::error::{At, Fault, PlanError, VerifyError};
use crate::kernel::Kernel;
use crate::plan::Plan;

/// Checks a plan.
///
/// # Errors
/// All that is wrong with it, each a [`PlanError::Verify`].
pub fn verify(plan: &Plan) -> Result<(), Vec<PlanError>> {
    let mut errors = Errors::default();
    kernels(plan, &mut errors);
    memory::constants(plan, &mut errors);
    memory::states(plan, &mut errors);
    memory::buffers(plan, &mut errors);
    interface(plan, &mut errors);
    steps::steps(plan, &mut errors);
    if errors.0.is_empty() { Ok(()) } else { Err(errors.0) }
}

/// What is wrong with a kernel by itself.
pub fn verify_kernel(kernel: &Kernel) -> Vec<Fault> {
    kernel::check(kernel).faults
}

#[derive(Default)]
struct Errors(Vec<PlanError>);

impl Errors {
    fn push(&mut self, at: At, fault: Fault) {
        self.0.push(PlanError::Verify(Box::new(VerifyError { at, fault })));
    }
}

fn kernels(plan: &Plan, errors: &mut Errors) {
    let mut symbols = BTreeSet::new();
    let mut known = BTreeSet::new();
    for (symbol, kernel) in &plan.kernels {
        let at = At::Kernel { symbol: symbol.clone() };
        let is_name = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
        if symbol.is_empty() || !symbol.chars().all(is_name) {
            errors.push(at.clone(), Fault::Symbol);
        }
        if !symbols.insert(symbol) || !known.insert(kernel) {
            errors.push(at.clone(), Fault::Twice);
        }
        kernel::check(kernel).faults.into_iter().for_each(|fault| errors.push(at.clone(), fault));
    }
}

/// The ports, and that each step has a source.
fn interface(plan: &Plan, errors: &mut Errors) {
    if let Err(reason) = check::interface(&plan.function, &plan.states) {
        errors.push(At::Plan, Fault::Interface { reason });
    }
    if plan.sources.len() != plan.function.steps.len() {
        let (idx, len) = (plan.function.steps.len(), plan.sources.len());
        errors.push(At::Plan, Fault::Range { what: "source of step", idx, len });
    }
}
