//! The version of a routing trace.

/// The version of the format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;
