//! What a value costs, as a function of how many rows execute.
//!
//! Costs are of the kernels that the planner makes, an op at a time. Ops that join the kernel of an operand (pointwise
//! ops, row scales, rotary embeddings, scatters) pay for what they add to it; gathers and narrow slices are views, which
//! pay for reading in another order than memory's; the rest are kernels, which pay for being started, too. Matmuls of
//! one operand share a kernel, whose cost stands apart ([`matmul_kernel`]) and is paid for once.
//!
//! Not seen by a cost of single ops: that a value which is used twice does not join, and that a view has to be copied
//! where attention reads it.

mod poly;
mod target;
mod work;

pub use poly::{Counts, Poly};
pub use target::{CPU, Target};
pub use work::Work;

use skipc_ir::elementwise::Cost;
use skipc_ir::{Dim, Op, Type};

/// Columns of a slice that is read in place, at most: what is done to it is a kernel of its own, which is charged to the
/// slice. A wider one is charged as the copy that attention needs.
const NARROW: u32 = 8;

/// What a kernel of matmuls costs beside its matmuls: to be started, and to read the rows of their operand.
pub fn matmul_kernel(target: &Target, operand: &Type) -> Poly {
    Poly::constant(target.launch) + rows(operand).scale(f64::from(operand.cols()) * target.price(Work::Move))
}

/// Whether an op is a matmul, which shares the kernel of other matmuls of its first operand.
pub(crate) fn is_matmul(op: &Op) -> bool {
    matches!(op, Op::Matmul {} | Op::RouterLogits {})
}

/// The time of one op on a target, in nanoseconds.
pub fn time(target: &Target, op: &Op, operands: &[&Type], result: &Type) -> Poly {
    let elements = rows(result).scale(f64::from(result.cols()));
    let cols = |idx: usize| operands.get(idx).map_or(0.0, |ty| f64::from(ty.cols()));
    let rows_of = |idx: usize| operands.get(idx).map_or_else(Poly::default, |ty| rows(ty));
    let work = |work: Work, amount: &Poly| amount.scale(target.price(work));
    let kernel = |work: Poly| Poly::constant(target.launch) + work;
    let arithmetic = Work::Function(Cost::Arithmetic);
    match op {
        // Given, made when the model is compiled, or shown by the kernel that decides.
        Op::Input { .. } | Op::Weight { .. } | Op::WeightStack { .. } | Op::Fill { .. } => Poly::default(),
        Op::Executed {} | Op::FillMask { .. } => Poly::default(),
        Op::WeightRows { .. }
        | Op::FoldGain {}
        | Op::FoldLinear {}
        | Op::FoldBias {}
        | Op::OffsetGain { .. } => Poly::default(),
        Op::Matmul {} => work(Work::Matmul, &elements.scale(cols(0))) + work(Work::Move, &elements),
        // Alone in its kernel, so that it pays for reading its operand, too.
        Op::GroupedMatmul {} => {
            let moved = elements.clone() + rows_of(0).scale(cols(0));
            kernel(work(Work::Matmul, &elements.scale(cols(0))) + work(Work::Move, &moved))
        }
        Op::Choose { .. } | Op::ChooseOrReplay { .. } => {
            kernel(work(Work::Choose, &rows_of(0).scale(cols(0))))
        }
        Op::HashChoice { .. } => kernel(work(Work::Embed, &elements)),
        // How many rows of its group a row looks at is not known here.
        Op::LimitChoices { .. } | Op::LimitChoicesAfter { .. } | Op::ShareChoices { .. } => {
            kernel(work(Work::Route, &elements))
        }
        Op::Partition { .. } => kernel(work(Work::Route, &rows_of(0))),
        Op::RouterLogits {} => work(Work::NarrowMatmul, &elements.scale(cols(0))),
        Op::RmsNorm { .. } => kernel(work(Work::RmsNorm, &elements)),
        Op::LayerNorm { .. } => kernel(work(Work::LayerNorm, &elements)),
        Op::InvRms { .. } => kernel(work(Work::InvRms, &rows(result).scale(cols(0)))),
        Op::Embed {} => kernel(work(Work::Embed, &elements)),
        // Part of a matmul: an element of each table.
        Op::Rope { .. } => work(Work::Lookup, &elements.scale(2.0)),
        // Each key that is seen costs a product with the query and one with its value; half are seen.
        Op::Attention { .. } => kernel(work(Work::Attention, &(elements * rows_of(1)))),
        // As many keys as the cache has room for: what one row sees of them is not known here.
        Op::CachedAttention { .. } => kernel(work(Work::Attention, &(elements * rows_of(1)))),
        // Each tap of a row reads an input, multiplies and adds.
        Op::Conv {} | Op::CachedConv {} => {
            let taps = elements.scale(cols(1));
            kernel(work(Work::Move, &taps) + work(arithmetic, &taps))
        }
        // Each row is read, and its mean written.
        Op::SequenceMean {} => kernel(work(Work::Move, &elements.scale(2.0))),
        Op::Unary(function) => work(Work::Function(function.cost()), &elements),
        Op::AddBias {} | Op::Widen {} | Op::ForceFirst { .. } | Op::ClassToken {} => {
            work(arithmetic, &elements)
        }
        Op::RepeatRow {} => kernel(work(Work::Move, &elements)),
        // One of the operands is read for it.
        Op::Binary(_) | Op::ScaleElements {} => work(Work::Move, &elements),
        Op::ScaleRows {} => work(arithmetic, &elements) + work(Work::Move, &rows(result)),
        Op::Slice { len, .. } if *len <= NARROW => kernel(Poly::default()),
        Op::Slice { .. } => kernel(work(Work::Move, &elements.scale(2.0))),
        Op::Gather {} => work(Work::Find, &elements),
        Op::Scatter {} => work(Work::Find, &rows_of(1).scale(f64::from(result.cols()))),
        Op::Route { .. }
        | Op::RouteRandom { .. }
        | Op::RouteTopK { .. }
        | Op::RouteTopKAmong { .. }
        | Op::LimitFirst { .. }
        | Op::LimitFirstAfter { .. }
        | Op::LimitBest { .. } => kernel(work(Work::Route, &rows_of(0))),
        // What it costs to look at every token once, of which the operand counts some.
        Op::Complement { .. } | Op::WithFirst { .. } => {
            kernel(work(Work::Route, &(rows_of(0) + rows(result))))
        }
        // Every token once, whichever sets it is in.
        Op::Within { .. } => kernel(work(Work::Route, &Poly::variable(Dim::Tokens))),
        Op::Pending { .. } => kernel(work(Work::Route, &rows_of(1))),
        Op::StoreRows {} => kernel(work(Work::Move, &rows_of(1).scale(cols(1)))),
        Op::AddRows {} => kernel(work(Work::Move, &rows_of(1).scale(cols(1)))),
        // No rule has one, so that only graphs that are cheaper elsewhere are compared: a kernel that moves its elements.
        Op::Training(_) => kernel(work(Work::Move, &elements)),
    }
}

fn rows(ty: &Type) -> Poly {
    match ty.rows() {
        Dim::Fixed(rows) => Poly::constant(f64::from(rows)),
        dim => Poly::variable(dim),
    }
}
