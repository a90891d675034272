//! Facts of the PTX ISA as pure functions: fragments, swizzles, descriptors, tensor maps, roundings.
