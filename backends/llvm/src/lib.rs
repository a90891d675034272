//! LLVM modules to PTX and cubin.
