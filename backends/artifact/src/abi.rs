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
/// `b_inner` says, those of the others are adjacent. It is fastest with rows of `b` adjacent (`ldb` 1). The same operands and sizes give the same bits, whichever thread calls.
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

/// A function of one f32.
pub type MapF32 = extern "C" fn(f32) -> f32;

/// The functions that host kernels may call, found by their byte offset in this table.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Helpers {
    /// Matrix product; offset 0.
    pub gemm_f32: GemmF32,
    /// `e^x`, within 1 ulp; offset 8.
    pub exp: MapF32,
    /// Hyperbolic tangent, within 1 ulp; offset 16.
    pub tanh: MapF32,
}

impl Helpers {
    /// Byte offset of [`Helpers::gemm_f32`].
    pub const GEMM_F32: i32 = 0;
    /// Byte offset of [`Helpers::exp`].
    pub const EXP: i32 = 8;
    /// Byte offset of [`Helpers::tanh`].
    pub const TANH: i32 = 16;
}

const _: () = {
    assert!(std::mem::offset_of!(Helpers, gemm_f32) == Helpers::GEMM_F32 as usize);
    assert!(std::mem::offset_of!(Helpers, exp) == Helpers::EXP as usize);
    assert!(std::mem::offset_of!(Helpers, tanh) == Helpers::TANH as usize);
};

/// A host kernel.
pub type HostKernel = unsafe extern "C" fn(
    args: *const *mut u8,
    helpers: *const Helpers,
    begin: u32,
    end: u32,
    scratch: *mut u8,
);
