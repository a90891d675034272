//! Legal graph to kernels, buffers and steps, and the kernel interpreter.
