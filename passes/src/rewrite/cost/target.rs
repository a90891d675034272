//! What a target's kernels take. Measured, not guessed.

/// Times of kernels, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// To start a kernel and to end it.
    pub launch: f64,
    /// A multiply-add of a matmul.
    pub gemm_mac: f64,
    /// A multiply-add of router logits.
    pub dot_mac: f64,
    /// Attention, for a column of a query and a key of its sequence, seen or not.
    pub attention_mac: f64,
    /// The same for rows that are done one by one, instead of in tiles.
    pub attention_row_mac: f64,
    /// To lay out a column of a key, seen or not, for a matmul with a tile of queries.
    pub attention_key: f64,
    /// An element that is read or written.
    pub element: f64,
    /// An element of a weight that is read from memory: what a matmul of few rows waits for.
    pub weight: f64,
    /// An element of a function with an exponential in it.
    pub exp: f64,
    /// An element that is read or written by a list of rows, beyond what it takes in order.
    pub gathered: f64,
}

/// The CPU, in f32, on one thread, by LLVM with AVX-512.
///
/// Measured on a virtual AMD EPYC (2 processors, shared), 512 tokens, time of the thread, by
/// `cargo run --release --features cuda --example bench -- constants`. `dot_mac` has what each row of a narrow matmul takes
/// in it. `weight` is from matmuls of 2 to 4 rows with weights of 4 MiB, by a library alone. `gathered` was measured with
/// weights in rows; all rows of a step, which is what that bench forces, are not gathered any more. `attention_row_mac` and
/// `attention_key` are of Cranelift's forms, from `skipc tune` with 1,024 keys of 8 heads of 64 columns, all seen: half of what
/// it says for each. Not measured for other processors, bf16, or GPUs.
pub const CPU: Target = Target {
    launch: 115.0,
    gemm_mac: 0.0193,
    dot_mac: 0.12,
    attention_mac: 0.0223,
    attention_row_mac: 0.15,
    attention_key: 0.2,
    element: 0.025,
    weight: 0.1,
    exp: 0.64,
    gathered: 0.056,
};
