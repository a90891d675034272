//! Kernels of a plan to CUDA code, by MLIR's LLVM and NVVM dialects.
//!
//! ```text
//! plan::Kernel ─cuda→ MLIR text ─Session→ llvm::Module ─skipc-llvm→ Ptx → Cubin
//! ```
//!
//! - `code` is the language that kernels are written in: typed values, structured control flow.
//! - `cuda` has one file per kind of kernel. Each chooses its tile and its launch from the shapes
//!   alone, and reads counts on the device.
//! - [`Session`] owns the MLIR context. Text that it refuses is an error with MLIR's own words.
//!
//! Kernels of a plan go into one module, in the order of the plan, so the same plan gives the same
//! bytes.

mod code;
mod cuda;
mod error;
#[expect(unsafe_code, reason = "raw MLIR calls that melior has no safe form of")]
mod ffi;
mod session;

pub use cuda::{CudaCodegen, Lowered, lower};
pub use error::Error;
pub use session::{Mlir, Session};
