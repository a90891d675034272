//! What a value costs, as a function of how many rows execute.
//!
//! Costs are of the kernels that the planner makes, an op at a time. Ops that join the kernel of an operand (pointwise
//! ops, row scales, scatters) pay for what they add to it; gathers and narrow slices are views, which pay for reading
//! in another order than memory's; the rest are kernels, which pay for being started, too.
//!
//! Not seen by a cost of single ops: that the planner lets two matmuls of one width and operand share a kernel, and
//! that a view has to be copied where attention reads it. The first makes joins of equal widths look better than they
//! are, and is taken back by charging for wide slices.

mod poly;
mod target;

pub use poly::{Counts, Poly};
pub use target::{CPU, Target};

use skipc_ir::{Dim, Elem, Op, Trait, Type};

/// Columns of a slice that is read in place, at most; a wider one is charged as the copy that attention and epilogues
/// need.
const NARROW: u32 = 8;

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
    if op.has(Trait::Pointwise) && is_logits(result) {
        return kernel(moved(&elements, 2.0));
    }
    match op {
        Op::Matmul {} => kernel(elements.scale(cols(0) * target.gemm_mac) + moved(&elements, 1.0)),
        Op::RouterLogits {} => kernel(elements.scale(cols(0) * target.dot_mac)),
        Op::RmsNorm { .. } => kernel(moved(&elements, 3.0)),
        Op::LayerNorm { .. } => kernel(moved(&elements, 4.0)),
        Op::InvRms { .. } => kernel(moved(&rows.scale(cols(0)), 1.0)),
        Op::Embed {} => kernel(moved(&elements, 2.0)),
        Op::Rope { .. } => kernel(moved(&elements, 3.0)),
        Op::Attention { .. } => {
            let keys = operands.get(1).map_or_else(Poly::default, |keys| self::rows(keys));
            // Each key that is seen costs a product with the query and one with its value; half are seen.
            kernel((elements * keys).scale(target.attention_mac))
        }
        Op::Gelu {} | Op::Silu {} | Op::Sigmoid {} => elements.scale(target.exp),
        Op::AddBias {} | Op::Relu {} | Op::OneMinus {} | Op::Scale { .. } => moved(&elements, 0.25),
        Op::Add {} | Op::Sub {} | Op::Mul {} => moved(&elements, 1.0),
        Op::ScaleRows {} => moved(&elements, 0.25) + moved(&rows, 1.0),
        Op::Slice { len, .. } if *len <= NARROW => Poly::default(),
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

/// Router logits come from a kernel without an epilogue, so what is done to all of their columns is a kernel of its
/// own. What is done to one column of them is part of the map that makes the score.
fn is_logits(ty: &Type) -> bool {
    ty.cols() > 1 && ty.as_tensor().is_some_and(|(elem, _)| elem == Elem::F32)
}

fn rows(ty: &Type) -> Poly {
    match ty.rows() {
        Dim::Fixed(rows) => Poly::constant(f64::from(rows)),
        dim => Poly::variable(dim),
    }
}
