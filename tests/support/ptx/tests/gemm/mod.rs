//! Inputs and expected results of the two matmuls.

use std::sync::Arc;

use half::bf16;
use skipc_ptx::isa::swizzle::Swizzle;
use skipc_ptx::isa::tensor_map::{DataType, Fill, TensorMap, Tiled};
use skipc_ptx::machine::{Arg, Buffer, Counters, Fault, Launch, Memory, Program, run};

pub(crate) const TMA_0: (&str, &str) = ("gemm_tma", include_str!("../kernels/gemm_tma_d0.ptx"));
pub(crate) const TMA_1: (&str, &str) = ("gemm_tma", include_str!("../kernels/gemm_tma_d1.ptx"));
pub(crate) const GATHER_0: (&str, &str) = ("gemm_gather", include_str!("../kernels/gemm_gather_d0.ptx"));
pub(crate) const GATHER_1: (&str, &str) = ("gemm_gather", include_str!("../kernels/gemm_gather_d1.ptx"));

/// Threads of a block, rows and columns of its tile, elements of K of a stage.
const THREADS: u32 = 384;
const TILE: u32 = 128;
const STAGE: u32 = 64;

/// Dynamic shared memory: four stages of A and B, a tile of results, eight mbarriers.
const SHARED: u32 = 163_904;

/// What a result holds before the kernel writes it.
const POISON: u16 = 0x7FC1;

/// Small whole numbers, whose sums are exact in f32 and whose products are exact in bf16.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> bf16 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bf16::from_f32((self.0 >> 60) as f32 % 3.0 - 1.0)
    }

    fn matrix(&mut self, rows: u32, cols: u32) -> Vec<bf16> {
        (0..rows * cols).map(|_| self.next()).collect()
    }
}

fn bytes(matrix: &[bf16]) -> Vec<u8> {
    matrix.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect()
}

fn words(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

fn add(memory: &mut Memory, name: &str, bytes: Vec<u8>, writable: bool) -> u64 {
    memory.add(Buffer { name: name.to_owned(), bytes, writable })
}

/// A matrix in boxes of 64 columns by 128 rows, swizzled by 128 bytes.
fn map(address: u64, rows: u32, cols: u32) -> Arg {
    let map = TensorMap::encode(&Tiled {
        data_type: DataType::Bfloat16,
        global_address: address,
        global_dim: &[u64::from(cols), u64::from(rows)],
        global_strides: &[u64::from(cols) * 2],
        box_dim: &[STAGE, TILE],
        element_strides: &[1, 1],
        swizzle: Swizzle::B128,
        fill: Fill::Zero,
    });
    Arg::Bytes(map.expect("a valid map").to_bytes().to_vec())
}

/// `row · columnᵀ`, both along K.
fn dot(a: &[bf16], b: &[bf16]) -> u16 {
    let sum: f32 = a.iter().zip(b).map(|(a, b)| a.to_f32() * b.to_f32()).sum();
    bf16::from_f32(sum).to_bits()
}

/// `D[m, n] = A[m, k] · B[n, k]ᵀ`.
pub(crate) struct Tma {
    pub(crate) m: u32,
    pub(crate) n: u32,
    pub(crate) k: u32,
}

impl Tma {
    /// Runs it: the expected and the found result, or the fault.
    pub(crate) fn run(&self, (name, text): (&str, &str), seed: u64) -> Ran {
        let Self { m, n, k } = *self;
        let mut numbers = Numbers(7);
        let (a, b) = (numbers.matrix(m, k), numbers.matrix(n, k));
        let mut memory = Memory::default();
        let at_a = add(&mut memory, "a", bytes(&a), false);
        let at_b = add(&mut memory, "b", bytes(&b), false);
        let at_d = add(&mut memory, "d", POISON.to_le_bytes().repeat((m * n) as usize), true);
        let args = vec![map(at_a, m, k), map(at_b, n, k), map(at_d, m, n), Arg::U32(k)];
        let launch =
            Launch { dynamic_shared: SHARED, seed, ..Launch::new([n / TILE, m / TILE, 1], THREADS, args) };
        let program = Arc::new(Program::load(text, name).unwrap_or_else(|error| panic!("{error}")));
        let result = run(&program, &launch, &mut memory);
        let rows = a.chunks(k as usize);
        let expected = rows.flat_map(|a| b.chunks(k as usize).map(move |b| dot(a, b))).collect();
        let found = words(&memory.buffers()[2].bytes);
        (expected, result.map(|counters| (found, counters)))
    }

    pub(crate) fn check(&self, kernel: (&str, &str), seed: u64) -> Result<Counters, String> {
        compare(self.run(kernel, seed))
    }
}

/// `D[rows[i], n] = A[rows[i], k] · B[n, k]ᵀ` for the first `count` rows of a list.
pub(crate) struct Gather {
    pub(crate) m: u32,
    pub(crate) n: u32,
    pub(crate) k: u32,
    pub(crate) count: u32,
}

impl Gather {
    /// Runs it: the expected and the found result, or the fault.
    pub(crate) fn run(&self, (name, text): (&str, &str), seed: u64) -> Ran {
        let Self { m, n, k, count } = *self;
        let mut numbers = Numbers(9);
        let (a, b) = (numbers.matrix(m, k), numbers.matrix(n, k));
        // Every row once, in an order that is not theirs.
        let rows: Vec<u32> = (0..m).map(|idx| (idx * 37 + 11) % m).collect();
        let mut memory = Memory::default();
        let at_a = add(&mut memory, "a", bytes(&a), false);
        let listed = rows.iter().flat_map(|row| row.to_le_bytes()).collect();
        let at_rows = add(&mut memory, "rows", listed, false);
        let at_count = add(&mut memory, "count", count.to_le_bytes().to_vec(), false);
        let at_b = add(&mut memory, "b", bytes(&b), false);
        let at_d = add(&mut memory, "d", POISON.to_le_bytes().repeat((m * n) as usize), true);
        let addresses = [at_a, at_rows, at_count].map(Arg::U64);
        let args = [&addresses[..], &[map(at_b, n, k), Arg::U64(at_d), Arg::U32(k), Arg::U32(n)]].concat();
        let launch =
            Launch { dynamic_shared: SHARED, seed, ..Launch::new([n / TILE, m / TILE, 1], THREADS, args) };
        let program = Arc::new(Program::load(text, name).unwrap_or_else(|error| panic!("{error}")));
        let result = run(&program, &launch, &mut memory);
        let mut expected = vec![POISON; (m * n) as usize];
        for row in &rows[..count as usize] {
            let a = &a[(row * k) as usize..][..k as usize];
            let to = &mut expected[(row * n) as usize..][..n as usize];
            to.iter_mut().zip(b.chunks(k as usize)).for_each(|(to, b)| *to = dot(a, b));
        }
        let found = words(&memory.buffers()[4].bytes);
        (expected, result.map(|counters| (found, counters)))
    }

    pub(crate) fn check(&self, kernel: (&str, &str), seed: u64) -> Result<Counters, String> {
        compare(self.run(kernel, seed))
    }
}

type Ran = (Vec<u16>, Result<(Vec<u16>, Counters), Box<Fault>>);

fn compare((expected, found): Ran) -> Result<Counters, String> {
    let (found, counters) = found.map_err(|fault| fault.to_string())?;
    match expected.iter().zip(&found).position(|(expected, found)| expected != found) {
        None => Ok(counters),
        Some(at) => Err(format!("element {at} is {:#06x}, not {:#06x}", found[at], expected[at])),
    }
}
