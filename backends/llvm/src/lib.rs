//! LLVM modules to PTX and cubin.
//!
//! A [`Module`] owns its LLVM context, so nothing with an LLVM lifetime leaves this crate:
//! what leaves is [`Ptx`] and [`Cubin`].
//!
//! ```text
//! Module ─check externals→ optimise→ Ptx ─ptxas→ Cubin + KernelResources
//! ```
//!
//! - [`CudaTarget`] lists the devices that can be compiled for, and [`Feature`] what kernels
//!   ask of them. LLVM ends the process on an instruction that a target lacks, so
//!   [`CudaTarget::require`] has to be asked before code generation.
//! - The bytes of PTX and cubin depend on the module and the target alone. The assembler runs in
//!   an empty directory under fixed file names, always with the same options: they are stored in
//!   the cubin.

mod cubin;
mod error;
#[expect(unsafe_code, reason = "raw LLVM calls that inkwell has no safe form of")]
mod ffi;
mod host;
mod module;
mod ptxas;
mod resources;
mod target;

pub use cubin::Cubin;
pub use error::Error;
pub use ffi::{RawContext, RawModule, end_without_memory};
pub use host::Host;
pub use module::{Module, Ptx};
pub use ptxas::Ptxas;
pub use resources::KernelResources;
pub use target::{CudaTarget, Feature};

/// The version of LLVM that generates code, such as `22.1.8`.
#[must_use]
pub fn version() -> String {
    let (major, minor, patch) = inkwell::support::get_llvm_version();
    format!("{major}.{minor}.{patch}")
}
