//! What a value costs, as a function of how many rows execute.
//!
//! Costs are of the kernels that the planner makes, an op at a time. Ops that join the kernel of an operand (pointwise
//! ops, row scales, rotary embeddings, scatters) pay for what they add to it; gathers and narrow slices are views, which
//! pay for reading in another order than memory's; the rest are kernels, which pay for being started, too. Products of
//! one operand share a kernel, whose cost stands apart ([`product_kernel`]) and is paid for once.
//!
//! Not seen by a cost of single ops: that a value which is used twice does not join, and that a view has to be copied
//! where attention reads it.

mod poly;
mod target;

pub use poly::{Counts, Poly};
pub use target::{CPU, Target};

use skipc_ir::elementwise::Cost;
use skipc_ir::{Dim, Op, Trait, Type};

/// Columns of a slice that is read in place, at most: what is done to it is a kernel of its own, which is charged to the
/// slice. A wider one is charged as the copy that attention needs.
const NARROW: u32 = 8;

/// What a kernel of products costs beside its products: to be started, and to read the rows of their operand.
pub fn product_kernel(target: &Target, operand: &Type) -> Poly {
    Poly::constant(target.launch) + rows(operand).scale(f64::from(operand.cols()) * target.element)
}

/// The time of one op on a target, in nanoseconds.
pub fn time(target: &Target, op: &Op, operands: &[&Type], result: &Type) -> Poly {
    if op.has(Trait::Constant) || op.has(Trait::Leaf) {
        return Poly::default();
    }
    let rows = rows(result);
    let elements = rows.scale(f64::from(result.cols()));
    let cols = |idx: usize| operands.get(idx).map_or(0.0, |ty| f64::from(ty.cols()));
    let kernel = |work: Poly| Poly::constant(target.launch) + work;
    let moved = |elements: &Poly, times: f64| elements.scale(times * target.element);
    match op {
        Op::Matmul {} => elements.scale(cols(0) * target.gemm_mac) + moved(&elements, 1.0),
        Op::RouterLogits {} => elements.scale(cols(0) * target.dot_mac),
        Op::RmsNorm { .. } => kernel(moved(&elements, 3.0)),
        Op::LayerNorm { .. } => kernel(moved(&elements, 4.0)),
        Op::InvRms { .. } => kernel(moved(&rows.scale(cols(0)), 1.0)),
        Op::InvStd { .. } => kernel(moved(&rows.scale(cols(0)), 2.0)),
        Op::Embed {} => kernel(moved(&elements, 2.0)),
        Op::Rope { .. } => moved(&elements, 1.0),
        Op::Attention { .. } => {
            let keys = operands.get(1).map_or_else(Poly::default, |keys| self::rows(keys));
            // Each key that is seen costs a product with the query and one with its value; half are seen.
            kernel((elements * keys).scale(target.attention_mac))
        }
        Op::Unary(function) => match function.cost() {
            Cost::Exponential => elements.scale(target.exp),
            Cost::Arithmetic => moved(&elements, 0.1),
        },
        Op::AddBias {} => moved(&elements, 0.1),
        Op::Binary(_) => moved(&elements, 1.0),
        Op::ScaleRows {} => moved(&elements, 0.1) + moved(&rows, 1.0),
        Op::Slice { len, .. } if *len <= NARROW => kernel(Poly::default()),
        Op::Slice { .. } => kernel(moved(&elements, 2.0)),
        Op::Gather {} => elements.scale(target.gathered),
        Op::Scatter {} => {
            let kept = operands.get(1).map_or_else(Poly::default, |kept| self::rows(kept));
            kept.scale(f64::from(result.cols()) * target.gathered)
        }
        op if op.has(Trait::OpensScope) => {
            kernel(moved(&operands.first().map_or_else(Poly::default, |of| self::rows(of)), 4.0))
        }
        // Decisions that are shown are part of the compaction.
        _ => Poly::default(),
    }
}

fn rows(ty: &Type) -> Poly {
    match ty.rows() {
        Dim::Fixed(rows) => Poly::constant(f64::from(rows)),
        dim => Poly::variable(dim),
    }
}
