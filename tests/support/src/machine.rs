//! Compiled kernels in memory, and the helpers that they call.
//!
//! This file may contain `unsafe`: it calls code that was just made.

#![expect(unsafe_code, reason = "generated code can only be called by its address")]

use std::ops::Range;
use std::time::Duration;

use memmap2::{Mmap, MmapMut};
use rustix::time::{ClockId, clock_gettime};
use skipc_artifact::abi::{Function, Helpers, HostKernel};
use skipc_artifact::image::HostLevel;
use skipc_artifact::object_image;
use skipc_artifact::program::Launch;

/// Bytes on either side of each operand and of the scratch memory that nothing may change.
const GUARD: usize = 256;

const GUARD_BYTE: u8 = 0x5a;

/// In which order the tiles run.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// One call for all.
    AtOnce,
    /// A call for each, the last first.
    Backwards,
    /// Two threads, one with the even tiles and one with the odd ones.
    TwoThreads,
}

/// One kernel, ready to be called.
pub struct Machine {
    code: Mmap,
    offset: usize,
    launch: Launch,
    scratch_bytes: u64,
}

impl Machine {
    /// The only kernel of an object, whose instructions this processor must have.
    ///
    /// # Panics
    /// If the object has another number of kernels, refers to anything outside of itself, or is for no host.
    pub fn new(object: &[u8], level: HostLevel, launch: &Launch) -> Machine {
        let image = object_image::link(object, level).unwrap();
        let [entry] = image.table.entries.as_slice() else { panic!("one kernel") };
        let mut memory = MmapMut::map_anon(image.code.len()).unwrap();
        memory.copy_from_slice(&image.code);
        let &Launch::Host { scratch_bytes, .. } = launch else { panic!("a host launch") };
        let offset = entry.offset as usize;
        Machine { code: memory.make_exec().unwrap(), offset, launch: launch.clone(), scratch_bytes }
    }

    /// Runs the kernel over operands, as the runtime would.
    ///
    /// # Panics
    /// If it writes beside its operands or beside the scratch memory.
    pub fn run(&self, operands: &mut [Vec<u8>], n_rows: u32, order: Order) {
        let mut guarded: Vec<Vec<u64>> = operands.iter().map(|operand| with_guards(operand)).collect();
        // As integers, which threads may share.
        let pointers: Vec<usize> =
            guarded.iter_mut().map(|bytes| bytes.as_mut_ptr() as usize + GUARD).collect();
        let n_tiles = self.launch.host_tiles(n_rows);
        match order {
            Order::AtOnce => self.call(&pointers, 0..n_tiles),
            Order::Backwards => (0..n_tiles).rev().for_each(|tile| self.call(&pointers, tile..tile + 1)),
            Order::TwoThreads => std::thread::scope(|scope| {
                for parity in 0..2 {
                    let pointers = &pointers;
                    scope.spawn(move || {
                        for tile in (parity..n_tiles).step_by(2) {
                            self.call(pointers, tile..tile + 1);
                        }
                    });
                }
            }),
        }
        for (idx, (operand, guarded)) in operands.iter_mut().zip(&guarded).enumerate() {
            let bytes: Vec<u8> = guarded.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let end = GUARD + operand.len();
            let intact = bytes[..GUARD].iter().chain(&bytes[end..]).all(|byte| *byte == GUARD_BYTE);
            assert!(intact, "parameter {idx}: written outside of it, {order:?}");
            operand.copy_from_slice(&bytes[GUARD..end]);
        }
    }

    /// The shortest work of this thread, of so many runs with one call for all rows: for benches.
    pub fn time(&self, operands: &mut [Vec<u8>], n_rows: u32, runs: u32) -> Duration {
        let own_time = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
        let pointers: Vec<usize> = operands.iter_mut().map(|bytes| bytes.as_mut_ptr() as usize).collect();
        let mut scratch = vec![0u8; self.scratch_bytes as usize + 64];
        let skew = scratch.as_ptr().align_offset(64);
        let entry = self.code[self.offset..].as_ptr();
        let n_tiles = self.launch.host_tiles(n_rows);
        let run = |_| {
            let started = own_time();
            // SAFETY: as in `call`, with operands of the sizes that the kernel's parameters say.
            unsafe {
                let kernel: HostKernel = std::mem::transmute(entry);
                kernel(pointers.as_ptr().cast(), &HELPERS, 0, n_tiles, scratch[skew..].as_mut_ptr());
            }
            own_time().saturating_sub(started)
        };
        (0..runs).map(run).min().unwrap_or_default()
    }

    fn call(&self, pointers: &[usize], tiles: Range<u32>) {
        // Scratch memory holds anything, here NaN; it is aligned to 64 bytes.
        let mut scratch = vec![[0xff_u8; 64]; self.scratch_bytes.div_ceil(64) as usize + 9];
        let skew = scratch.as_ptr().cast::<u8>().align_offset(64);
        let flat = scratch.as_flattened_mut();
        let end = skew + GUARD + self.scratch_bytes as usize;
        let first = flat[skew + GUARD..].as_mut_ptr();
        let entry = self.code[self.offset..].as_ptr();
        // SAFETY: the bytes at the entry are a function of this type, made for this process's architecture, in
        // executable memory that outlives the call. Operands and scratch memory are as large as the kernel's
        // parameters and launch say; that it keeps to them is what the tests are about.
        unsafe {
            let kernel: HostKernel = std::mem::transmute(entry);
            kernel(pointers.as_ptr().cast(), &HELPERS, tiles.start, tiles.end, first);
        }
        assert!(flat[end..].iter().all(|byte| *byte == 0xff), "written past the scratch memory");
        assert!(flat[..skew + GUARD].iter().all(|byte| *byte == 0xff), "written before the scratch memory");
    }
}

/// The bytes between guards, at an address that is a multiple of 8.
fn with_guards(bytes: &[u8]) -> Vec<u64> {
    let mut all = vec![GUARD_BYTE; GUARD];
    all.extend_from_slice(bytes);
    all.resize((GUARD + bytes.len()).next_multiple_of(8) + GUARD, GUARD_BYTE);
    all.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect()
}

static HELPERS: Helpers = Helpers { gemm_f32, map_f32, softmax_f32 };

/// See [`skipc_artifact::abi::MapF32`]; rounded once.
///
/// # Safety
///
/// The numbers are so many.
unsafe extern "C" fn map_f32(function: u64, numbers: *mut f32, n: u64) {
    // SAFETY: the caller vouches for it.
    let numbers = unsafe { std::slice::from_raw_parts_mut(numbers, n as usize) };
    let function = Function::of(function).expect("a function");
    for number in numbers {
        let x = f64::from(*number);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        *number = match function {
            Function::Gelu => x * sigmoid((8.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)),
            Function::Silu => x * sigmoid(x),
            Function::Sigmoid => sigmoid(x),
            Function::GeluErf => x * 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2),
            Function::Tanh => x.tanh(),
        } as f32;
    }
}

/// See [`skipc_artifact::abi::SoftmaxF32`].
///
/// # Safety
///
/// The scores are so many.
unsafe extern "C" fn softmax_f32(scores: *mut f32, n: u64, scale: f32, largest: f32) -> f32 {
    // SAFETY: the caller vouches for it.
    let scores = unsafe { std::slice::from_raw_parts_mut(scores, n as usize) };
    scores.iter_mut().for_each(|score| *score = f64::from(*score * scale - largest).exp() as f32);
    scores.iter().sum()
}

/// See [`skipc_artifact::abi::GemmF32`]; every element in one order, whatever the sizes.
///
/// # Safety
///
/// The pointers are to matrices of these sizes and strides.
unsafe extern "C" fn gemm_f32(
    m: u64,
    n: u64,
    k: u64,
    a: *const f32,
    lda: u64,
    b: *const f32,
    ldb: u64,
    b_inner: u64,
    c: *mut f32,
    ldc: u64,
) {
    let [m, n, k, lda, ldb, b_inner, ldc] = [m, n, k, lda, ldb, b_inner, ldc].map(|size| size as usize);
    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
        // SAFETY: rows and columns are below the sizes that the caller vouches for.
        unsafe {
            *c.add(i * ldc + j) = (0..k).map(|l| *a.add(i * lda + l) * *b.add(j * ldb + l * b_inner)).sum();
        }
    }
}
