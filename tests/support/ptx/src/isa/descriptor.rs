//! Matrix descriptors of `wgmma.mma_async`: where an operand's elements lie in shared memory
//! (PTX ISA 9.7.15.5.1.2).
//!
//! An operand is a matrix of `n_mn` rows (M of A) or columns (N of B) by 32 bytes of K. Address arithmetic
//! works on chunks of 16 bytes: along K for K-major operands, along M or N for the others. A chunk's place is
//! the start address plus what the canonical layout (9.7.15.5.1.2.1.3) says, with the swizzle on the sum; so
//! a start address inside the span of a swizzle, as for the second 16 elements of K, is fine.

use std::ops::Range;

use super::swizzle::{Swizzle, swizzle_from};

/// Elements of 16 bits of K that an instruction takes (PTX ISA 9.7.15.2).
pub const K: usize = 16;

/// Which index of an operand runs through consecutive bytes (PTX ISA 9.7.15.5.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Major {
    /// K; `imm-trans-a` or `imm-trans-b` is 0.
    K,
    /// M of A, N of B; `imm-trans-a` or `imm-trans-b` is 1, which only 16-bit elements may have.
    Mn,
}

/// What the 64 bits of a matrix descriptor say (PTX ISA 9.7.15.5.1.2.2). Addresses and offsets are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WgmmaDescriptor {
    /// Where the operand starts in shared memory; a multiple of 16 below 2^18.
    pub start: u32,
    /// Leading dimension byte offset (9.7.15.5.1.2.1.1); a multiple of 16 below 2^18.
    pub leading: u32,
    /// Stride dimension byte offset (9.7.15.5.1.2.1.2); a multiple of 16 below 2^18.
    pub stride: u32,
    /// Lines of 128 bytes from a multiple of the swizzle's period to the start of its pattern; below 8.
    pub base_offset: u32,
    /// How chunks are exchanged.
    pub swizzle: Swizzle,
}

/// Why 64 bits are no matrix descriptor: the kernel's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// A bit outside of the fields is set.
    #[error("matrix descriptor {bits:#018x} sets {unused:#018x}, bits that belong to no field")]
    Unused {
        /// The descriptor.
        bits: u64,
        /// Those of its bits.
        unused: u64,
    },
    /// The base offset means nothing without a swizzle.
    #[error("matrix descriptor {bits:#018x} has a base offset, but no swizzle")]
    BaseOffset {
        /// The descriptor.
        bits: u64,
    },
}

/// 16 bytes of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Row of A or column of B of its first element.
    pub mn: u32,
    /// Byte of K of its first element.
    pub k_byte: u32,
    /// Where it lies in shared memory.
    pub address: u32,
}

impl Chunk {
    /// Row or column, and `k`, of one of the eight elements of 16 bits.
    #[inline]
    pub const fn element(&self, major: Major, idx: u32) -> (u32, u32) {
        match major {
            Major::K => (self.mn, self.k_byte / 2 + idx),
            Major::Mn => (self.mn + idx, self.k_byte / 2),
        }
    }
}

/// The bits of the five fields: 13–0, 29–16, 45–32, 51–49, 63–62.
const FIELDS: u64 = 0x3FFF | 0x3FFF << 16 | 0x3FFF << 32 | 7 << 49 | 3 << 62;

impl WgmmaDescriptor {
    /// Reads a descriptor.
    ///
    /// # Errors
    /// [`DescriptorError`] if an unused bit is set, or a base offset without a swizzle.
    pub fn from_bits(bits: u64) -> Result<Self, DescriptorError> {
        let unused = bits & !FIELDS;
        if unused != 0 {
            return Err(DescriptorError::Unused { bits, unused });
        }
        let bytes = |low: u32| ((bits >> low) as u32 & 0x3FFF) << 4;
        let base_offset = (bits >> 49) as u32 & 7;
        let swizzle = match bits >> 62 {
            0 => Swizzle::None,
            1 => Swizzle::B128,
            2 => Swizzle::B64,
            _ => Swizzle::B32,
        };
        if swizzle == Swizzle::None && base_offset != 0 {
            return Err(DescriptorError::BaseOffset { bits });
        }
        Ok(Self { start: bytes(0), leading: bytes(16), stride: bytes(32), base_offset, swizzle })
    }

    /// The 64 bits, by `matrix-descriptor-encode(x) = (x & 0x3FFFF) >> 4` (PTX ISA 9.7.15.5.1.2.2).
    pub fn to_bits(self) -> u64 {
        let encode = |bytes: u32| u64::from((bytes & 0x3_FFFF) >> 4);
        let mode = match self.swizzle {
            Swizzle::None => 0,
            Swizzle::B128 => 1,
            Swizzle::B64 => 2,
            Swizzle::B32 => 3,
        };
        encode(self.start)
            | encode(self.leading) << 16
            | encode(self.stride) << 32
            | u64::from(self.base_offset & 7) << 49
            | mode << 62
    }

    /// Where a byte of a K-major operand lies: byte `k_byte < 32` of K, of row (A) or column (B) `mn`.
    ///
    /// Canonical layouts in chunks (9.7.15.5.1.2.1.3): eight rows one span apart, then `stride`; along K,
    /// `leading` without a swizzle, else the next chunk, whatever `leading` says.
    #[inline]
    pub const fn k_major(&self, mn: u32, k_byte: u32) -> u32 {
        let step = if matches!(self.swizzle, Swizzle::None) { self.leading } else { 16 };
        let row = (mn & 7) * self.swizzle.span() + (mn >> 3) * self.stride;
        self.place(row + (k_byte >> 4) * step) + (k_byte & 15)
    }

    /// Where a 16-bit element of an MN-major operand lies: element `k < 16` of K, row (A) or column (B) `mn`.
    ///
    /// Canonical layouts in chunks (9.7.15.5.1.2.1.3): a span of chunks, then `leading`; along K, eight
    /// spans, then `stride`. Without a swizzle the two offsets change their roles.
    #[inline]
    pub const fn mn_major(&self, mn: u32, k: u32) -> u32 {
        let (beyond_span, beyond_eight) = match self.swizzle {
            Swizzle::None => (self.stride, self.leading),
            _ => (self.leading, self.stride),
        };
        let chunk = mn >> 3;
        let width = self.swizzle.span() / 16;
        let along = chunk % width * 16 + chunk / width * beyond_span;
        let across = (k & 7) * self.swizzle.span() + (k >> 3) * beyond_eight;
        self.place(along + across) + (mn & 7) * 2
    }

    /// The chunks of the rows or columns `mn` of an operand, whose ends are multiples of 8, once each: two for each.
    ///
    /// A chunk holds 16 bytes of K of one row or column, or for [`Major::Mn`] eight rows or columns of one
    /// `k`.
    pub fn chunks(self, major: Major, mn: Range<u32>) -> impl Iterator<Item = Chunk> {
        let first = mn.start;
        (0..2 * mn.len() as u32).map(move |number| match major {
            Major::K => {
                let (mn, k_byte) = (first + (number >> 1), (number & 1) * 16);
                Chunk { mn, k_byte, address: self.k_major(mn, k_byte) }
            }
            Major::Mn => {
                let (mn, k) = (first + (number >> 4 << 3), number & 15);
                Chunk { mn, k_byte: 2 * k, address: self.mn_major(mn, k) }
            }
        })
    }

    /// The final address of a byte of the layout without swizzle, given by its offset from the start.
    const fn place(&self, offset: u32) -> u32 {
        swizzle_from(self.start.wrapping_add(offset), self.swizzle, self.base_offset)
    }
}

#[cfg(test)]
#[path = "descriptor_tests.rs"]
mod tests;
