//! What a kernel should compute, element by element in f64 with error bounds: the second opinion that the kernel
//! interpreter and every backend are held against. It shares no code with the interpreter.

mod along;
mod attention;
mod choice;
mod compact;
mod pending;
mod rowwise;
mod update;

use std::ops::Range;

use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Access, BLOCK_TERMS, Body, Gemm, Kernel, Rows, Slot, Sum, View};
use skipc_plan::loops::WeightGradient;
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Unary};

use crate::approx::{Approx, UNIT, gamma};
use crate::tolerance::{Exactness, Expected, Want, decode};

/// What each written parameter of a kernel should hold after a run over these operands. `exactness` is that of the
/// kernel's real outputs; integers are always exact.
///
/// # Panics
/// If kernel and operands do not fit each other: cases are made by this crate.
pub fn expected(kernel: &Kernel, operands: &[Vec<u8>], exactness: Exactness) -> Vec<Expected> {
    let mut eval = Eval::new(kernel, operands, exactness);
    let n_rows = eval.extent(kernel.extent);
    match &kernel.body {
        Body::Gemm(gemm) => eval.gemm(gemm, n_rows),
        Body::Grouped(grouped) => eval.grouped(grouped, n_rows),
        Body::Partition(partition) => eval.partition(partition, n_rows),
        Body::Attention(attention) => eval.attention(attention, n_rows),
        Body::CachedAttention(attention) => eval.cached_attention(attention, n_rows),
        Body::Along(along) => eval.along(along, n_rows),
        Body::Rowwise(rowwise) => eval.rowwise(rowwise, n_rows),
        Body::Compact(compact) => eval.compact(compact, n_rows),
        Body::Pending(pending) => eval.pending(pending, n_rows),
        Body::Update(update) => eval.update(update, n_rows),
        Body::WeightGradient(gradient) => eval.weight_gradient(gradient, n_rows),
        // What loops compute is said by the graph that they were planned from, which tests of training hold them against.
        Body::Loops(loops) => panic!("`{}` is not a kernel case", loops.name),
    }
    eval.outputs.into_iter().flatten().collect()
}

struct Eval<'a> {
    kernel: &'a Kernel,
    /// All operands, as they are before the run.
    operands: Vec<Vec<f64>>,
    /// One for each parameter that is written.
    outputs: Vec<Option<Expected>>,
}

impl<'a> Eval<'a> {
    fn new(kernel: &'a Kernel, operands: &[Vec<u8>], exactness: Exactness) -> Eval<'a> {
        let operands: Vec<Vec<f64>> =
            kernel.params.iter().zip(operands).map(|(param, bytes)| decode(param.dtype, bytes)).collect();
        let mut outputs = Vec::new();
        for ((param, idx), operand) in kernel.params.iter().zip(0..).zip(&operands) {
            let real = matches!(param.dtype, DType::F32 | DType::Bf16);
            outputs.push((param.access != Access::Read).then(|| Expected {
                param: idx,
                dtype: param.dtype,
                cols: param.cols,
                exactness: if real { exactness } else { Exactness::Bitwise },
                wants: vec![Want::Untouched; operand.len()],
            }));
        }
        Eval { kernel, operands, outputs }
    }

    fn at(&self, slot: Slot, row: usize, col: usize) -> f64 {
        let cols = self.kernel.param(slot).cols as usize;
        assert!(col < cols, "column {col} of `{}`", self.kernel.param(slot).name);
        self.operands[slot.0 as usize][row * cols + col]
    }

    fn row_of(&self, rows: Rows, logical: usize) -> usize {
        match rows {
            Rows::Dense => logical,
            Rows::Listed(list) => self.at(list, logical, 0) as usize,
        }
    }

    /// Element `(logical, col)` of a view.
    fn load(&self, view: View, logical: usize, col: usize) -> f64 {
        self.at(view.slot, self.row_of(view.rows, logical), view.col as usize + col)
    }

    fn store(&mut self, view: View, logical: usize, col: usize, number: Approx) {
        let row = self.row_of(view.rows, logical);
        let col = view.col as usize + col;
        let output = self.outputs[view.slot.0 as usize].as_mut();
        let output = output.unwrap_or_else(|| panic!("parameter {} is not written", view.slot.0));
        assert!(col < output.cols as usize, "column {col} of an output");
        output.wants[row * output.cols as usize + col] = Want::stored(number, output.dtype, output.exactness);
    }

    fn store_dense(&mut self, slot: Slot, row: usize, col: usize, number: Approx) {
        self.store(View { slot, rows: Rows::Dense, col: 0 }, row, col, number);
    }

    fn extent(&self, extent: Extent) -> usize {
        match extent {
            Extent::Fixed(rows) => rows as usize,
            Extent::Counted { count, .. } => self.at(Slot(count), 0, 0) as usize,
        }
    }

    fn weight_gradient(&mut self, gradient: &WeightGradient, n_rows: usize) {
        let WeightGradient { rows, x, cols, dy, out, adds } = *gradient;
        let n = self.extent(rows);
        for row in 0..n_rows {
            for col in 0..cols as usize {
                let before = if adds { self.at(out, row, col) } else { 0.0 };
                let left = (0..n).map(|idx| self.load(dy, idx, row)).chain([1.0]);
                let right = (0..n).map(|idx| self.load(x, idx, col)).chain([before]);
                let sum = Approx::dot(left, right);
                self.store_dense(out, row, col, sum);
            }
        }
    }

    fn gemm(&mut self, gemm: &Gemm, n_rows: usize) {
        self.gemm_over(gemm, 0..n_rows);
    }

    fn gemm_over(&mut self, gemm: &Gemm, rows: Range<usize>) {
        let k = gemm.k as usize;
        for row in rows {
            let a: Vec<f64> = (0..k).map(|inner| self.load(gemm.a, row, inner)).collect();
            for part in &gemm.parts {
                let factor = |sum: &Sum, col: usize, inner: usize| {
                    let output = sum.row as usize + col;
                    let at = |slot: Slot, inner: usize, k: u32| {
                        let dtype = self.kernel.param(slot).dtype;
                        let (row, col) = part.layout.place((output as u64, inner as u64), k, dtype);
                        self.at(slot, row as usize, col as usize)
                    };
                    let scale =
                        |scales: Slot| at(scales, inner / BLOCK_TERMS as usize, gemm.k.div_ceil(BLOCK_TERMS));
                    at(sum.weight, inner, gemm.k) * sum.scales.map_or(1.0, scale)
                };
                let sum = |sum: &Sum| {
                    let columns = 0..part.n as usize;
                    // That the sum of a block is multiplied with its scale rounds once more, as a term more would.
                    let more = usize::from(sum.scales.is_some());
                    let left = || a.iter().copied().chain(std::iter::repeat_n(0.0, more));
                    let right = |col| (0..k).map(move |inner| factor(sum, col, inner));
                    let dot = |col| Approx::dot(left(), right(col).chain(std::iter::repeat_n(0.0, more)));
                    columns.map(dot).collect()
                };
                let sums: Vec<Vec<Approx>> = part.sums.iter().map(sum).collect();
                (0..part.n as usize).for_each(|col| self.pointwise(&part.epilogue, (row, col), &sums));
            }
        }
    }

    fn pointwise(&mut self, program: &Pointwise, (row, col): (usize, usize), sums: &[Vec<Approx>]) {
        let mut regs: Vec<Approx> = Vec::new();
        for inst in &program.code {
            regs.push(match *inst {
                Inst::Acc(sum) => sums[sum as usize][col],
                Inst::AccRotated { sum, width } => {
                    let (sum, width) = (&sums[sum as usize], width as usize);
                    match col % width < width / 2 {
                        true => Approx::exact(0.0).sub(sum[col + width / 2]),
                        false => sum[col - width / 2],
                    }
                }
                Inst::Load(view) => Approx::exact(self.load(view, row, col)),
                Inst::LoadRow(view) => Approx::exact(self.load(view, row, 0)),
                Inst::LoadCol(slot) => Approx::exact(self.at(slot, 0, col)),
                Inst::LoadAt { table, index } => {
                    let cols = self.kernel.param(table).cols as usize;
                    Approx::exact(self.at(table, self.load(index, row, 0) as usize, col % cols))
                }
                Inst::Unary(unary, x) => apply_unary(unary, regs[x.0 as usize]),
                Inst::Binary(binary, a, b) => apply_binary(binary, regs[a.0 as usize], regs[b.0 as usize]),
            });
        }
        for store in &program.stores {
            self.store(store.to, row, col, regs[store.value.0 as usize]);
        }
    }
}

fn apply_unary(unary: Unary, x: Approx) -> Approx {
    match unary {
        Unary::Gelu => x.gelu(),
        Unary::Relu => x.relu(),
        Unary::Relu2 => x.relu().mul(x.relu()),
        Unary::Silu => x.silu(),
        Unary::Sigmoid => x.sigmoid(),
        Unary::GeluErf => x.gelu_erf(),
        Unary::Tanh => x.tanh(),
        Unary::OneMinus => Approx::exact(1.0).sub(x),
        Unary::Scale(by) => x.mul(Approx::exact(f64::from(by.0 as f32))),
    }
}

fn apply_binary(binary: Binary, a: Approx, b: Approx) -> Approx {
    match binary {
        Binary::Add => a.add(b),
        Binary::Sub => a.sub(b),
        Binary::Mul => a.mul(b),
    }
}
