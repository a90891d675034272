//! How the runtime calls kernels.
//!
//! # Host
//!
//! ```text
//! extern "C" fn kernel(args: *const *mut u8, helpers: *const Helpers, begin: u32, end: u32, scratch: *mut u8)
//! ```
//! `args` points to one pointer for each parameter. The call works on the row tiles `begin .. end`; tiles past the
//! extent do not occur (the caller reads the count). A kernel of one task gets `0, 1`. Kernels keep no state, do not
//! unwind and call nothing but the helpers.
//!
//! # CUDA
//!
//! `.entry kernel(.param .u64 …)`: one global-memory pointer for each parameter.

/// `c[m, n] = a[m, k] · b[n, k]ᵀ` over f32. Rows are `lda`, `ldb`, `ldc` elements apart, inner elements of `b` so many as
/// `b_inner` says, those of the others are adjacent. It is fastest with rows of `b` adjacent (`ldb` 1).
/// The same operands and sizes give the same bits, whichever thread calls.
pub type GemmF32 = unsafe extern "C" fn(
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
);

/// A function of one number that host kernels have computed for many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// The tanh form of GELU.
    Gelu,
    /// `x / (1 + e^−x)`.
    Silu,
    /// `1 / (1 + e^−x)`.
    Sigmoid,
    /// The form of GELU with the error function.
    GeluErf,
    /// Hyperbolic tangent.
    Tanh,
}

impl Function {
    /// All of them, in the order of their codes.
    pub const ALL: [Function; 5] =
        [Function::Gelu, Function::Silu, Function::Sigmoid, Function::GeluErf, Function::Tanh];

    /// What kernels pass for it.
    pub fn code(self) -> u64 {
        self as u64
    }

    /// The function of a code.
    pub fn of(code: u64) -> Option<Function> {
        Function::ALL.into_iter().find(|function| function.code() == code)
    }
}

/// Applies the function of this code to each of `n` numbers, in place. Sigmoid is within 2 ulp, SiLU and tanh
/// within 3.
pub type MapF32 = unsafe extern "C" fn(function: u64, numbers: *mut f32, n: u64);

/// Turns each of `n` scores into `e^(score · scale − largest)`, within 1 ulp for exponents from −86.5 to 0 (further down
/// it is that of −86.5); returns their sum, added in an order that depends on `n` alone.
pub type SoftmaxF32 = unsafe extern "C" fn(scores: *mut f32, n: u64, scale: f32, largest: f32) -> f32;

/// The functions that host kernels may call, found by their byte offset in this table.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Helpers {
    /// Matmul; offset 0.
    pub gemm_f32: GemmF32,
    /// Functions of many numbers; offset 8.
    pub map_f32: MapF32,
    /// Weights of a softmax; offset 16.
    pub softmax_f32: SoftmaxF32,
}

impl Helpers {
    /// Byte offset of [`Helpers::gemm_f32`].
    pub const GEMM_F32: i32 = 0;
    /// Byte offset of [`Helpers::map_f32`].
    pub const MAP_F32: i32 = 8;
    /// Byte offset of [`Helpers::softmax_f32`].
    pub const SOFTMAX_F32: i32 = 16;
}

const _: () = {
    assert!(std::mem::offset_of!(Helpers, gemm_f32) == Helpers::GEMM_F32 as usize);
    assert!(std::mem::offset_of!(Helpers, map_f32) == Helpers::MAP_F32 as usize);
    assert!(std::mem::offset_of!(Helpers, softmax_f32) == Helpers::SOFTMAX_F32 as usize);
};

/// A host kernel.
pub type HostKernel = unsafe extern "C" fn(
    args: *const *mut u8,
    helpers: *const Helpers,
    begin: u32,
    end: u32,
    scratch: *mut u8,
);
