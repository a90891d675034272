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
    /// An element that is read or written.
    pub element: f64,
    /// An element of a weight that is read from memory: what a product of few rows waits for.
    pub weight: f64,
    /// An element of a function with an exponential in it.
    pub exp: f64,
    /// An element that is read or written by a list of rows, beyond what it takes in order.
    pub gathered: f64,
}

/// The CPU, in f32, on one thread, baseline x86-64 code with a matrix product for AVX-512.
///
/// Measured on a virtual AMD EPYC (2 processors, shared), 512 tokens, time of the thread, by
/// `cargo run --release --example bench -- constants`. Three runs of `gemm_mac` gave 0.034, 0.047 and 0.063, of the
/// others the last two agreed within a tenth. `element` is the least certain: the rotary embedding gave 0.01 with an
/// uncertainty of 0.05, and rows that are moved by a list cannot be cheaper than rows in order. Not measured for other
/// processors, bf16, or GPUs.
pub const CPU: Target = Target {
    launch: 165.0,
    gemm_mac: 0.047,
    dot_mac: 0.093,
    attention_mac: 0.066,
    element: 0.05,
    weight: 0.1,
    exp: 3.3,
    gathered: 0.056,
};
