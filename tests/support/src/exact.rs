//! Which cases leave no choice of bits: no operation rounds, so that every order of a sum gives the same.
//!
//! Sums are exact where all terms are whole numbers and the sum of their magnitudes is one that f32 still counts by
//! ones; so are sums, differences and products of whole numbers up to there. Numbers that are only moved or compared need
//! not be whole. A store may round: one rounding of an exactly known number has one result. Functions that hardware
//! approximates, norms and attention are never exact here, whatever their operands; nor is `relu`, of which nobody says
//! what zero it makes of −0.

use skipc_artifact::program::Extent;
use skipc_plan::kernel::{Along, Body, Gemm, Grouped, Kernel, Rows, Rowwise, Slot, Sum, Update, View};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Unary};

use crate::tolerance::decode;

/// Up to here f32 holds every whole number.
const LARGEST: f64 = (1_u32 << 24) as f64;

/// What is known about numbers that no operation has rounded.
#[derive(Clone, Copy)]
enum Known {
    /// Nothing else: such numbers may be moved.
    Unrounded,
    /// They are whole and no larger than this, which is at most [`LARGEST`].
    Whole(f64),
}

/// Whether a kernel over these operands has one possible result, to the bit.
///
/// # Panics
/// If kernel and operands do not fit each other: cases are made by this crate.
pub fn is_exact(kernel: &Kernel, operands: &[Vec<u8>]) -> bool {
    let mut operands = Operands { kernel, bytes: operands, n_rows: 0 };
    operands.n_rows = match kernel.extent {
        Extent::Fixed(rows) => rows as usize,
        Extent::Counted { count, .. } => operands.all(Slot(count))[0] as usize,
    };
    match &kernel.body {
        Body::Gemm(gemm) | Body::Grouped(Grouped { gemm, .. }) => operands.matmul(gemm),
        Body::Rowwise(Rowwise::Map { cols, program }) => operands.program(program, *cols, &[]),
        // They choose among numbers, or rows, that they leave as they are.
        Body::Rowwise(Rowwise::Embed { .. } | Rowwise::Limit(_))
        | Body::Compact(_)
        | Body::Pending(_)
        | Body::Update(Update::StoreRows { .. }) => true,
        Body::Partition(_) => true,
        Body::Rowwise(
            Rowwise::Norm { .. } | Rowwise::RowScale { .. } | Rowwise::Choose { .. } | Rowwise::Rope { .. },
        )
        | Body::Along(Along::Mean { .. } | Along::Conv(_))
        | Body::Attention(_)
        | Body::CachedAttention(_)
        | Body::Loops(_)
        | Body::WeightGradient(_)
        | Body::Update(Update::AddRows { .. }) => false,
    }
}

struct Operands<'a> {
    kernel: &'a Kernel,
    bytes: &'a [Vec<u8>],
    n_rows: usize,
}

impl Operands<'_> {
    fn all(&self, slot: Slot) -> Vec<f64> {
        decode(self.kernel.param(slot).dtype, &self.bytes[slot.0 as usize])
    }

    fn matmul(&self, gemm: &Gemm) -> bool {
        gemm.parts.iter().all(|part| {
            let sums: Option<Vec<Known>> =
                part.sums.iter().map(|sum| self.sums(gemm.a, gemm.k, *sum)).collect();
            sums.is_some_and(|sums| self.program(&part.epilogue, part.n, &sums))
        })
    }

    /// Sums over products of rows of `a` with rows of a weight.
    fn sums(&self, a: View, k: u32, sum: Sum) -> Option<Known> {
        let (a, weight) = (known(&self.view(a, k)), known(&self.all(sum.weight)));
        let scales = sum.scales.map_or(Known::Whole(1.0), |scales| known(&self.all(scales)));
        match (a, weight, scales) {
            (Known::Whole(a), Known::Whole(weight), Known::Whole(scales)) => {
                whole(a * weight * scales * f64::from(k))
            }
            _ => None,
        }
    }

    /// The elements of a view that the kernel reads.
    fn view(&self, view: View, cols: u32) -> Vec<f64> {
        let stride = self.kernel.param(view.slot).cols as usize;
        let numbers = self.all(view.slot);
        let rows: Vec<usize> = match view.rows {
            Rows::Dense => (0..self.n_rows).collect(),
            Rows::Listed(list) => self.all(list).iter().take(self.n_rows).map(|row| *row as usize).collect(),
        };
        let first = |row: usize| row * stride + view.col as usize;
        rows.into_iter().flat_map(|row| &numbers[first(row)..first(row) + cols as usize]).copied().collect()
    }

    /// Whether no instruction rounds.
    fn program(&self, program: &Pointwise, cols: u32, sums: &[Known]) -> bool {
        let mut regs: Vec<Known> = Vec::new();
        for inst in &program.code {
            let reg = match *inst {
                Inst::Acc(sum) | Inst::AccRotated { sum, .. } => Some(sums[sum as usize]),
                Inst::LoadAt { table, .. } => Some(known(&self.all(table))),
                Inst::Load(view) => Some(known(&self.view(view, cols))),
                Inst::LoadRow(view) => Some(known(&self.view(view, 1))),
                Inst::LoadCol(slot) => Some(known(&self.all(slot)[..cols as usize])),
                Inst::Unary(unary, x) => apply_unary(unary, regs[x.0 as usize]),
                Inst::Binary(binary, a, b) => apply_binary(binary, regs[a.0 as usize], regs[b.0 as usize]),
            };
            match reg {
                Some(reg) => regs.push(reg),
                None => return false,
            }
        }
        true
    }
}

fn known(numbers: &[f64]) -> Known {
    let largest = numbers.iter().fold(0.0_f64, |largest, number| largest.max(number.abs()));
    let are_whole = numbers.iter().all(|number| number.fract() == 0.0);
    if are_whole { whole(largest).unwrap_or(Known::Unrounded) } else { Known::Unrounded }
}

fn whole(at_most: f64) -> Option<Known> {
    (at_most <= LARGEST).then_some(Known::Whole(at_most))
}

fn apply_unary(unary: Unary, x: Known) -> Option<Known> {
    match (unary, x) {
        (Unary::OneMinus, Known::Whole(x)) => whole(x + 1.0),
        (Unary::Scale(by), Known::Whole(x)) if by.0.fract() == 0.0 => whole(x * by.0.abs()),
        (Unary::OneMinus | Unary::Scale(_), _) => None,
        (
            Unary::Gelu
            | Unary::Relu
            | Unary::Relu2
            | Unary::Silu
            | Unary::Sigmoid
            | Unary::GeluErf
            | Unary::Tanh,
            _,
        ) => None,
    }
}

fn apply_binary(binary: Binary, a: Known, b: Known) -> Option<Known> {
    match (a, b) {
        (Known::Whole(a), Known::Whole(b)) => whole(match binary {
            Binary::Add | Binary::Sub => a + b,
            Binary::Mul => a * b,
        }),
        _ => None,
    }
}
