//! How 16-byte chunks change places in shared memory (PTX ISA 5.5.7, 9.7.15.5.1.2).

/// A pattern in which chunks of 16 bytes are swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Swizzle {
    /// Chunks stay where they are.
    None,
    /// Within 32 bytes; repeats after 256.
    B32,
    /// Within 64 bytes; repeats after 512.
    B64,
    /// Within 128 bytes, 16 bytes kept together; repeats after 1024.
    B128,
}

impl Swizzle {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::B32, Self::B64, Self::B128];

    /// Bytes within which chunks change places; 16, a chunk alone, where they do not (PTX ISA 9.7.15.5.1.2,
    /// Table 38).
    pub const fn span(self) -> u32 {
        match self {
            Self::None => 16,
            Self::B32 => 32,
            Self::B64 => 64,
            Self::B128 => 128,
        }
    }

    /// Bytes after which the pattern repeats; a pattern starts at a multiple of it (PTX ISA 9.7.15.5.1.2.2).
    pub const fn period(self) -> u32 {
        match self {
            Self::None => 16,
            Self::B32 => 256,
            Self::B64 => 512,
            Self::B128 => 1024,
        }
    }

    /// Bits of the line's number, an address over 128, that choose the exchange.
    const fn lines(self) -> u32 {
        match self {
            Self::None => 0,
            Self::B32 => 1,
            Self::B64 => 3,
            Self::B128 => 7,
        }
    }
}

/// Where the byte at `address` of the unswizzled layout lies in shared memory; its own inverse.
///
/// The pattern depends on the absolute address alone: it starts at multiples of its period, whatever buffer
/// is laid over it (PTX ISA 5.5.7: the base offset of a copy is `(dstMem / 128) % 8` for 128 bytes).
#[inline]
pub const fn swizzle(address: u32, mode: Swizzle) -> u32 {
    swizzle_from(address, mode, 0)
}

/// As [`swizzle`], for a pattern that starts `base_offset` lines of 128 bytes after a multiple of its period
/// (PTX ISA 9.7.15.5.1.2.2, "base offset").
#[inline]
pub const fn swizzle_from(address: u32, mode: Swizzle, base_offset: u32) -> u32 {
    let line = (address >> 7).wrapping_sub(base_offset) & mode.lines();
    address ^ (line << 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables of section 5.5.7: for each line of 128 bytes, the chunk of the source that lies in each
    /// place.
    const TABLES: [(Swizzle, &[[u32; 8]]); 4] = [
        (Swizzle::None, &[[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]]),
        (Swizzle::B32, &[[0, 1, 2, 3, 4, 5, 6, 7], [1, 0, 3, 2, 5, 4, 7, 6]]),
        (
            Swizzle::B64,
            &[
                [0, 1, 2, 3, 4, 5, 6, 7],
                [1, 0, 3, 2, 5, 4, 7, 6],
                [2, 3, 0, 1, 6, 7, 4, 5],
                [3, 2, 1, 0, 7, 6, 5, 4],
            ],
        ),
        (
            Swizzle::B128,
            &[
                [0, 1, 2, 3, 4, 5, 6, 7],
                [1, 0, 3, 2, 5, 4, 7, 6],
                [2, 3, 0, 1, 6, 7, 4, 5],
                [3, 2, 1, 0, 7, 6, 5, 4],
                [4, 5, 6, 7, 0, 1, 2, 3],
                [5, 4, 7, 6, 1, 0, 3, 2],
                [6, 7, 4, 5, 2, 3, 0, 1],
                [7, 6, 5, 4, 3, 2, 1, 0],
            ],
        ),
    ];

    #[test]
    fn chunks_lie_as_in_the_tables() {
        for (mode, lines) in TABLES {
            for repetition in 0..4 {
                for (line, chunks) in lines.iter().enumerate() {
                    let line = (repetition * lines.len() + line) as u32 * 128;
                    for (place, chunk) in chunks.iter().enumerate() {
                        assert_eq!(swizzle(line + chunk * 16, mode), line + place as u32 * 16, "{mode:?}");
                    }
                }
            }
        }
    }

    /// Table 11 of the CUDA programming guide, for a buffer that starts in line 3: `smem[y][((y + 3) % 8) ^
    /// x]`.
    #[test]
    fn a_buffer_may_start_inside_the_pattern() {
        let start = 0x8180;
        for (y, x, place) in [(0, 0, 3), (1, 0, 4), (2, 1, 4), (4, 0, 7), (5, 6, 6), (7, 2, 0)] {
            let to = start + y * 128 + place * 16;
            assert_eq!(swizzle(start + y * 128 + x * 16, Swizzle::B128), to, "row {y} chunk {x}");
        }
    }

    /// A pattern that starts where the base offset says looks as one at a multiple of its period.
    #[test]
    fn a_base_offset_moves_the_pattern() {
        for mode in [Swizzle::B32, Swizzle::B64, Swizzle::B128] {
            for base_offset in 0..8 {
                let start = 0x4000 + base_offset * 128;
                for offset in 0..2048 {
                    let moved = swizzle_from(start + offset, mode, base_offset) - start;
                    assert_eq!(moved, swizzle(offset, mode), "{mode:?} at {base_offset}");
                }
            }
        }
    }

    #[test]
    fn spans_and_periods_are_those_of_the_tables() {
        let expected = [(16, 16), (32, 256), (64, 512), (128, 1024)];
        assert_eq!(Swizzle::ALL.map(|mode| (mode.span(), mode.period())), expected);
    }

    proptest::proptest! {
        #[test]
        fn swizzling_twice_changes_nothing(address in 0_u32..1 << 18, mode in 0_usize..4, base in 0_u32..8) {
            let mode = Swizzle::ALL[mode];
            let once = swizzle_from(address, mode, base);
            assert_eq!(swizzle_from(once, mode, base), address);
            assert_eq!(once / mode.span(), address / mode.span());
            assert_eq!(once % 16, address % 16);
        }
    }
}
