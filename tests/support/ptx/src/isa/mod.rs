//! Facts of the PTX ISA as pure functions: fragments, swizzles, descriptors, tensor maps, roundings.
//!
//! Nothing here knows the rest of the crate. Sections are those of the PTX ISA 9.0; the tests compare with
//! tables and figures of that document, and with the layouts that CUTLASS publishes, never with what skipc
//! emits.

pub mod approx;
pub mod arithmetic;
pub mod descriptor;
pub mod fragment;
pub mod round;
pub mod swizzle;
pub mod tensor_map;
