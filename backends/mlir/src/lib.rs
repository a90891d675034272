//! Kernels to MLIR (LLVM dialect and NVVM) to an LLVM module.
