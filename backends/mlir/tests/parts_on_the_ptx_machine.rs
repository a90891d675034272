//! Parts of matmuls in tiles that the kernel cases do not reach: the large tile, and several sums of which the tile's
//! columns are no multiple. Operands are small integers, so that every order of sums gives the same bits.

#[path = "../../../tests/conformance/on_the_ptx_machine.rs"]
mod on_the_ptx_machine;

use std::sync::Arc;

use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_llvm::CudaTarget;
use skipc_mlir::lower;
use skipc_plan::buckets::ByHeight;
use skipc_plan::interp::{Tiling, run_kernel};
use skipc_plan::kernel::{Access, Body, Gemm, Kernel, Param, Part, Rows, Slot, Sum, View, WeightLayout};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store};
use skipc_ptx::machine::Program;

/// Schedules that each kernel is run in.
const SCHEDULES: u64 = 2;

/// Positions that there are angles of.
const POSITIONS: u32 = 16;

/// A kernel in the making, and its operands.
struct Bench {
    dtype: DType,
    bound: u32,
    rows: u32,
    k: u32,
    params: Vec<Param>,
    operands: Vec<Vec<u8>>,
    state: u32,
}

impl Bench {
    fn new(dtype: DType, (rows, bound): (u32, u32), k: u32) -> Self {
        let (params, operands, state) = (Vec::new(), Vec::new(), 1);
        let mut bench = Self { dtype, bound, rows, k, params, operands, state };
        bench.add("count", (DType::U32, 1), Access::Read, rows.to_le_bytes().to_vec());
        bench.reals("x", (dtype, bound, k));
        bench
    }

    fn add(&mut self, name: &str, (dtype, cols): (DType, u32), access: Access, bytes: Vec<u8>) -> Slot {
        self.params.push(Param { name: name.to_owned(), dtype, cols, access });
        self.operands.push(bytes);
        Slot(self.params.len() as u32 - 1)
    }

    /// One of −2, −1, 0, 1, 2.
    fn small(&mut self) -> f32 {
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.state >> 16) as f32 % 5.0 - 2.0
    }

    fn reals(&mut self, name: &str, (dtype, rows, cols): (DType, u32, u32)) -> Slot {
        let mut bytes = Vec::new();
        for _ in 0..rows * cols {
            // These numbers have no bits in the lower half, so that the upper one is the same in bf16.
            let word = self.small().to_bits().to_le_bytes();
            bytes.extend_from_slice(if dtype == DType::Bf16 { &word[2..] } else { &word });
        }
        self.add(name, (dtype, cols), Access::Read, bytes)
    }

    fn output(&mut self, name: &str, (dtype, cols): (DType, u32)) -> View {
        let bytes = vec![0xDB; (self.bound * cols * dtype.size()) as usize];
        dense(self.add(name, (dtype, cols), Access::Write, bytes))
    }

    /// A weight of `rows` rows.
    fn weight(&mut self, name: &str, rows: u32) -> Slot {
        self.reals(name, (self.dtype, rows, self.k))
    }

    /// The kernel on the machine and in the interpreter.
    fn check(self, parts: Vec<Part>) {
        let extent = Extent::Counted { count: 0, at_most: self.bound };
        let gemm = Gemm { a: dense(Slot(1)), k: self.k, parts };
        let kernel = Kernel { params: self.params.clone(), extent, body: Body::Gemm(gemm) };
        let mut expected = self.operands.clone();
        run_kernel(&kernel, &mut expected, Tiling::of(16)).expect("it runs");
        for target in [CudaTarget::Sm80, CudaTarget::Sm90a] {
            self.check_on(target, &kernel, &expected);
        }
    }

    fn check_on(&self, target: CudaTarget, kernel: &Kernel, expected: &[Vec<u8>]) {
        let lowered = lower(target, &[("kernel".to_owned(), kernel)], &ByHeight).expect("code");
        let program = Arc::new(Program::load(&lowered.ptx.text, "kernel").expect("PTX of the machine"));
        let loaded = (program, lowered.launches[0].clone());
        for seed in 0..SCHEDULES {
            let found = on_the_ptx_machine::run(&loaded, kernel, &self.operands, seed).expect("it runs");
            for (param, (found, expected)) in kernel.params.iter().zip(found.iter().zip(expected)) {
                assert!(found == expected, "`{}` of {}, {} rows", param.name, kernel.describe(), self.rows);
            }
        }
    }
}

fn dense(slot: Slot) -> View {
    View { slot, rows: Rows::Dense, col: 0 }
}

fn part(n: u32, sums: Vec<Sum>, epilogue: Pointwise) -> Part {
    Part { n, layout: WeightLayout::Rows, sums, epilogue }
}

/// `Σ_s 2^(n − s) · acc_s`, in which each sum counts another number of times.
fn mixed(n_sums: u32, to: View) -> Pointwise {
    let mut code = vec![Inst::Acc(0)];
    for sum in 1..n_sums {
        let so_far = Reg(code.len() as u32 - 1);
        let next = [so_far.0 + 1, so_far.0 + 2].map(Reg);
        code.push(Inst::Binary(Binary::Add, so_far, so_far));
        code.push(Inst::Acc(sum));
        code.push(Inst::Binary(Binary::Add, next[0], next[1]));
    }
    let value = Reg(code.len() as u32 - 1);
    Pointwise { code, stores: vec![Store { to, value }] }
}

/// `acc_0 · cos + rotate_half(acc_last) · sin`.
fn turned(last: u32, width: u32, [cos, sin]: [Slot; 2], positions: Slot, to: View) -> Pointwise {
    let index = dense(positions);
    let code = vec![
        Inst::Acc(0),
        Inst::LoadAt { table: cos, index },
        Inst::Binary(Binary::Mul, Reg(0), Reg(1)),
        Inst::AccRotated { sum: last, width },
        Inst::LoadAt { table: sin, index },
        Inst::Binary(Binary::Mul, Reg(3), Reg(4)),
        Inst::Binary(Binary::Add, Reg(2), Reg(5)),
    ];
    Pointwise { code, stores: vec![Store { to, value: Reg(6) }] }
}

/// Angles of heads of this width, and a position for each row.
fn angles(bench: &mut Bench, width: u32) -> ([Slot; 2], Slot) {
    let tables = ["cos", "sin"].map(|name| bench.reals(name, (DType::F32, POSITIONS, width / 2)));
    let positions = (0..bench.bound).flat_map(|row| (row * 5 % POSITIONS).to_le_bytes()).collect();
    (tables, bench.add("positions", (DType::U32, 1), Access::Read, positions))
}

/// Queries that turn, values, and a score: two parts of one weight, the second of which is no whole number of tiles.
fn large(dtype: DType, rows: u32) {
    let (heads, width, n_values) = (4, 128, 520);
    let mut bench = Bench::new(dtype, (rows, 300), 264);
    let (tables, positions) = angles(&mut bench, width);
    let weight = bench.weight("weight", heads * width + n_values);
    let terms = ["high", "middle", "low"].map(|name| bench.weight(name, 2));
    let queries = bench.output("q", (dtype, heads * width));
    let values = bench.output("v", (dtype, n_values));
    let score = bench.output("score", (DType::F32, 1));
    let rows_of = |row| vec![Sum::of(weight, row)];
    let scores = [1, 0].into_iter().flat_map(|row| terms.map(|weight| Sum::of(weight, row))).collect();
    bench.check(vec![
        part(heads * width, rows_of(n_values), turned(0, width, tables, positions, queries)),
        part(n_values, rows_of(0), mixed(1, values)),
        part(1, scores, mixed(6, score)),
    ]);
}

#[test]
fn large_tiles_of_several_parts() {
    large(DType::Bf16, 129);
    large(DType::F32, 1);
}

/// Parts whose sums do not share the tile's columns evenly.
fn uneven(dtype: DType, (rows, k): (u32, u32)) {
    let mut bench = Bench::new(dtype, (rows, 70), k);
    let (tables, positions) = angles(&mut bench, 16);
    let weight = bench.weight("weight", 100);
    let mut parts = Vec::new();
    for (n_sums, n) in [(3, 31), (6, 7), (5, 44), (2, 1), (6, 20)] {
        let out = bench.output("out", (DType::F32, n));
        let sums = (0..n_sums).map(|sum| Sum::of(weight, sum * 11 % 56)).collect();
        parts.push(part(n, sums, mixed(n_sums, out)));
    }
    let out = bench.output("turned", (dtype, 48));
    let sums = (0..3).map(|sum| Sum::of(weight, sum * 24)).collect();
    parts.insert(2, part(48, sums, turned(2, 16, tables, positions, out)));
    bench.check(parts);
}

#[test]
fn sums_that_share_a_tile_unevenly() {
    for dtype in [DType::F32, DType::Bf16] {
        for shape in [(65, 33), (1, 40), (64, 7), (0, 64)] {
            uneven(dtype, shape);
        }
    }
}

/// Scores of several routers alone have a small tile of their own.
#[test]
fn narrow_parts_alone() {
    for dtype in [DType::F32, DType::Bf16] {
        for (rows, k) in [(33, 512), (31, 35), (1, 1)] {
            let mut bench = Bench::new(dtype, (rows, 70), k);
            let weight = bench.weight("weight", 9);
            let parts = [(3, 2), (1, 8), (6, 1), (1, 7)].map(|(n_sums, n)| {
                let out = bench.output("out", (DType::F32, n));
                let sums = (0..n_sums).map(|sum| Sum::of(weight, sum % 2)).collect();
                part(n, sums, mixed(n_sums, out))
            });
            bench.check(parts.to_vec());
        }
    }
}
