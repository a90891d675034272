//! What a multiprocessor of Hopper does in a cycle: from NVIDIA's H100 whitepaper and the throughput table of its programming
//! guide, latencies from microbenchmarks (Luo and others 2024, "Benchmarking and dissecting the NVIDIA Hopper GPU architecture").
//! Estimates, which a device settles.

/// Schedulers, each of which issues one instruction of a warp.
pub const SCHEDULERS: u32 = 4;

/// Cycles of a scheduler for a warp's instruction of the special functions, of which it has four lanes.
pub const SPECIAL: u32 = 8;

/// Multiply-adds of tensor cores for each factor of an instruction's inner extent, which is 16 for bf16 and f16, 8 for tf32, 32 for 8 bits.
pub const TENSOR_MACS_PER_FACTOR: u32 = 128;

/// Cycles from a load of global memory to its value where the second-level cache has it.
pub const GLOBAL_LATENCY: u32 = 300;

/// The same of shared memory, and of shuffles between lanes.
pub const SHARED_LATENCY: u32 = 35;

/// The same of a special function, a conversion, and other instructions of unknown latency.
pub const OTHER_LATENCY: u32 = 25;

/// Bytes of shared memory.
pub const SHARED_BYTES: u32 = 128;

/// Bytes of the second-level cache.
pub const GLOBAL_BYTES: u32 = 64;

/// Registers of 32 bits.
pub const REGISTERS: u32 = 65_536;

/// Threads of a warp.
pub const WARP: u32 = 32;

/// Threads of a warp group, which share an instruction of the tensor cores.
pub const WARP_GROUP: u32 = 128;
