//! Kernels to host object code without LLVM.
