//! Machine code of NVIDIA GPUs (SASS), read from its disassembly without running it.
//!
//! [`disassemble`] asks NVIDIA's `nvdisasm` for the instructions of a cubin, [`listing::read`] takes them apart, with the bits
//! by which the compiler orders them ([`control`]), and [`analysis::Kernel::of`] says of each loop, and of the code before and
//! after it, what it costs at least and what a warp waits for ([`analysis::Figures`]). The cycles come from the rates in
//! [`rates`]: estimates for comparing two forms of a kernel, not measurements.
//!
//! Knows nothing of our compiler, so that it reads any kernel.

pub mod analysis;
pub mod codes;
pub mod control;
mod error;
mod flow;
pub mod listing;
mod mix;
pub mod rates;
mod registers;
mod text;
mod tool;
mod warp;

pub use error::Error;
pub use text::{parts, table};
pub use tool::{disassemble, disassembler};
