use super::*;

fn descriptor(swizzle: Swizzle, start: u32, leading: u32, stride: u32) -> WgmmaDescriptor {
    WgmmaDescriptor { start, leading, stride, base_offset: 0, swizzle }
}

/// Where a 16-bit element lies.
fn address(descriptor: &WgmmaDescriptor, major: Major, mn: u32, k: u32) -> u32 {
    match major {
        Major::K => descriptor.k_major(mn, 2 * k),
        Major::Mn => descriptor.mn_major(mn, k),
    }
}

/// Reads an operand into `tile[mn][k]`; the error is the first address that lies outside of `shared`.
fn read(descriptor: WgmmaDescriptor, major: Major, shared: &[u8], tile: &mut [[u16; K]]) -> Result<(), u32> {
    for chunk in descriptor.chunks(major, 0..tile.len() as u32) {
        let from = chunk.address as usize;
        let bytes = shared.get(from..from + 16).ok_or(chunk.address)?;
        for (idx, pair) in (0..).zip(bytes.chunks_exact(2)) {
            let (mn, k) = chunk.element(major, idx);
            tile[mn as usize][k as usize] = u16::from_le_bytes([pair[0], pair[1]]);
        }
    }
    Ok(())
}

/// The table of bit fields in section 9.7.15.5.1.2.2.
#[test]
fn bits_are_those_of_the_table() {
    let facts = [
        (0x0000_0000_0000_0000, descriptor(Swizzle::None, 0, 0, 0)),
        (0x0000_0000_0000_0001, descriptor(Swizzle::None, 16, 0, 0)),
        (0x0000_0000_0000_3FFF, descriptor(Swizzle::None, 0x3_FFF0, 0, 0)),
        (0x0000_0000_0001_0000, descriptor(Swizzle::None, 0, 16, 0)),
        (0x0000_0000_3FFF_0000, descriptor(Swizzle::None, 0, 0x3_FFF0, 0)),
        (0x0000_0001_0000_0000, descriptor(Swizzle::None, 0, 0, 16)),
        (0x0000_3FFF_0000_0000, descriptor(Swizzle::None, 0, 0, 0x3_FFF0)),
        (0x4000_0000_0000_0000, descriptor(Swizzle::B128, 0, 0, 0)),
        (0x8000_0000_0000_0000, descriptor(Swizzle::B64, 0, 0, 0)),
        (0xC000_0000_0000_0000, descriptor(Swizzle::B32, 0, 0, 0)),
        (0x4002_0000_0000_0000, WgmmaDescriptor { base_offset: 1, ..descriptor(Swizzle::B128, 0, 0, 0) }),
        (0x400E_0000_0000_0000, WgmmaDescriptor { base_offset: 7, ..descriptor(Swizzle::B128, 0, 0, 0) }),
        (0x4000_0040_0001_0042, descriptor(Swizzle::B128, 0x420, 16, 1024)),
        // The encodings that the examples of section 9.7.15.5.1.2.1.3 name: LBO 16 and SBO 8; SBO 16; LBO 16
        // and SBO 8; LBO 16 and SBO 32; LBO 32 and SBO 64.
        (0x0000_0008_0010_0000, descriptor(Swizzle::None, 0, 64 * 4, 32 * 4)),
        (0xC000_0010_0001_0000, descriptor(Swizzle::B32, 0, 16, 64 * 4)),
        (0x0000_0008_0010_0000, descriptor(Swizzle::None, 0, 128 * 2, 64 * 2)),
        (0xC000_0020_0010_0000, descriptor(Swizzle::B32, 0, 128 * 2, 256 * 2)),
        (0x8000_0040_0020_0000, descriptor(Swizzle::B64, 0, 256 * 2, 512 * 2)),
    ];
    for (bits, expected) in facts {
        assert_eq!(WgmmaDescriptor::from_bits(bits), Ok(expected), "{bits:#x}");
        assert_eq!(expected.to_bits(), bits, "{bits:#x}");
    }
}

#[test]
fn unused_bits_are_errors() {
    for bit in [14, 15, 30, 31, 46, 47, 48, 52, 53, 60, 61] {
        let bits = 1_u64 << bit;
        assert_eq!(WgmmaDescriptor::from_bits(bits), Err(DescriptorError::Unused { bits, unused: bits }));
    }
    for bit in 49..52 {
        let bits = 1_u64 << bit;
        assert_eq!(WgmmaDescriptor::from_bits(bits), Err(DescriptorError::BaseOffset { bits }));
        assert!(WgmmaDescriptor::from_bits(bits | 1 << 62).is_ok());
    }
}

/// A layout of CuTe as the ISA prints it: coordinate digits (radix, stride in elements), rows then columns.
fn canonical(mn: u32, k: u32, rows: &[(u32, u32)], columns: &[(u32, u32)]) -> u32 {
    let sum = |mut number: u32, digits: &[(u32, u32)]| {
        digits.iter().fold(0, |sum, &(radix, stride)| {
            let digit = number % radix;
            number /= radix;
            sum + digit * stride
        })
    };
    sum(mn, rows) + sum(k, columns)
}

/// `Swizzle<B, 4, 3>` of CuTe on a byte address: bits 7.. go onto bits 4...
fn cute_swizzle(bits: u32, address: u32) -> u32 {
    address ^ ((address & ((1 << bits) - 1) << 7) >> 3)
}

/// Figures 166 and 167: the exact layouts of the two K-major tf32 examples, 16×16 elements of four bytes.
#[test]
fn k_major_examples_are_as_printed() {
    let plain = descriptor(Swizzle::None, 0x400, 64 * 4, 32 * 4);
    let narrow = descriptor(Swizzle::B32, 0x400, 16, 64 * 4);
    for mn in 0..16 {
        for k in 0..8 {
            // ((8,2),(4,4)):((4,32),(1,64))
            let offset = canonical(mn, k, &[(8, 4), (2, 32)], &[(4, 1), (4, 64)]);
            assert_eq!(plain.k_major(mn, 4 * k), 0x400 + 4 * offset);
            // Swizzle<1,4,3> o ((8,2),(4,4)):((8,64),(1,4))
            let offset = canonical(mn, k, &[(8, 8), (2, 64)], &[(4, 1), (4, 4)]);
            assert_eq!(narrow.k_major(mn, 4 * k), 0x400 + cute_swizzle(1, 4 * offset));
        }
    }
}

/// Figures 168 to 170: the exact layouts of the MN-major bf16 examples.
#[test]
fn mn_major_examples_are_as_printed() {
    let plain = descriptor(Swizzle::None, 0x800, 128 * 2, 64 * 2);
    let narrow = descriptor(Swizzle::B32, 0x800, 128 * 2, 256 * 2);
    let middle = descriptor(Swizzle::B64, 0x800, 256 * 2, 512 * 2);
    for k in 0..16 {
        for mn in 0..16 {
            // ((8,1,2),(8,2)):((1,8,64),(8,128))
            let offset = canonical(mn, k, &[(8, 1), (1, 8), (2, 64)], &[(8, 8), (2, 128)]);
            assert_eq!(plain.mn_major(mn, k), 0x800 + 2 * offset);
        }
        for mn in 0..32 {
            // Swizzle<1,4,3> o ((8,2,2),(8,2)):((1,8,128),(16,256))
            let offset = canonical(mn, k, &[(8, 1), (2, 8), (2, 128)], &[(8, 16), (2, 256)]);
            assert_eq!(narrow.mn_major(mn, k), 0x800 + cute_swizzle(1, 2 * offset));
        }
        for mn in 0..64 {
            // Swizzle<2,4,3> o ((8,4,2),(8,2)):((1,8,256),(32,512))
            let offset = canonical(mn, k, &[(8, 1), (4, 8), (2, 256)], &[(8, 32), (2, 512)]);
            assert_eq!(middle.mn_major(mn, k), 0x800 + cute_swizzle(2, 2 * offset));
        }
    }
}

/// The remaining rows of the table of canonical layouts, with the offsets of a tile of 64×64 bf16 that lies
/// densely: `((8,m),(T,2k)):((8T,SBO),(1,T))` and so on.
#[test]
fn other_canonical_layouts_are_as_printed() {
    let k_64 = descriptor(Swizzle::B64, 0x2000, 0, 512);
    let k_128 = descriptor(Swizzle::B128, 0x2000, 0, 1024);
    let mn_128 = descriptor(Swizzle::B128, 0x2000, 2048, 1024);
    for k in 0..16 {
        for mn in 0..64 {
            let offset = canonical(mn, k, &[(8, 32), (8, 256)], &[(8, 1), (2, 8)]);
            assert_eq!(k_64.k_major(mn, 2 * k), 0x2000 + cute_swizzle(2, 2 * offset));
            let offset = canonical(mn, k, &[(8, 64), (8, 512)], &[(8, 1), (2, 8)]);
            assert_eq!(k_128.k_major(mn, 2 * k), 0x2000 + cute_swizzle(3, 2 * offset));
        }
        for mn in 0..128 {
            let offset = canonical(mn, k, &[(8, 1), (8, 8), (2, 1024)], &[(8, 64), (2, 512)]);
            assert_eq!(mn_128.mn_major(mn, k), 0x2000 + cute_swizzle(3, 2 * offset));
        }
    }
}

/// Worked by hand from the table of 128-byte swizzling in section 5.5.7: chunk `c` of row `r` lies in place
/// `c ^ r`.
#[test]
fn single_addresses() {
    let tile = descriptor(Swizzle::B128, 0x400, 16, 1024);
    for (mn, k_byte, address) in [
        (0, 0, 0x400),
        (0, 16, 0x410),
        (1, 0, 0x490),
        (1, 16, 0x480),
        (5, 2, 0x6D2),
        (7, 16, 0x7E0),
        (8, 0, 0x800),
    ] {
        assert_eq!(tile.k_major(mn, k_byte), address, "row {mn} byte {k_byte}");
    }
    // The third step of 16 elements starts 64 bytes on: chunks 4 and 5.
    let advanced = WgmmaDescriptor { start: 0x440, ..tile };
    for (mn, k_byte, address) in [
        (0, 0, 0x440),
        (1, 0, 0x4D0),
        (1, 16, 0x4C0),
        (4, 0, 0x600),
        (4, 16, 0x610),
        (5, 0, 0x690),
        (7, 30, 0x7AE),
    ] {
        assert_eq!(advanced.k_major(mn, k_byte), address, "row {mn} byte {k_byte}");
    }
    let plain = descriptor(Swizzle::None, 0x400, 2048, 128);
    for (mn, k_byte, address) in [(0, 0, 0x400), (1, 0, 0x410), (8, 0, 0x480), (9, 18, 0xC92), (7, 31, 0xC7F)]
    {
        assert_eq!(plain.k_major(mn, k_byte), address, "row {mn} byte {k_byte}");
    }
}

/// A tile stored row by row with 128-byte swizzle, read in four steps of 16 along K.
#[test]
fn steps_along_k_read_the_tile() {
    let mut shared = vec![0; 0x400 + 64 * 128];
    let value = |mn: usize, k: usize| (mn * 64 + k) as u16;
    for mn in 0..64 {
        for k in 0..64 {
            let address = 0x400 + mn * 128 + ((k / 8) ^ (mn & 7)) * 16 + k % 8 * 2;
            shared[address..address + 2].copy_from_slice(&value(mn, k).to_le_bytes());
        }
    }
    for step in 0..4 {
        let bits = 0x4000_0040_0001_0040 + 2 * step as u64;
        let descriptor = WgmmaDescriptor::from_bits(bits).expect("the bits should be a descriptor");
        let mut tile = [[0; K]; 64];
        assert_eq!(read(descriptor, Major::K, &shared, &mut tile), Ok(()));
        for (mn, row) in tile.iter().enumerate() {
            for (k, read) in row.iter().enumerate() {
                assert_eq!(*read, value(mn, 16 * step + k));
            }
        }
        assert_eq!(
            read(descriptor, Major::K, &shared[..0x1000], &mut tile),
            Err(0x1000 + ((2 * step as u32) << 4))
        );
    }
}

/// A tile of K rows with 64 elements of M each, stored with 128-byte swizzle: `imm-trans` 1.
#[test]
fn transposed_operands_read_the_tile() {
    let mut shared = vec![0; 16 * 128];
    for k in 0..16 {
        for mn in 0..64 {
            let address = k * 128 + ((mn / 8) ^ (k & 7)) * 16 + mn % 8 * 2;
            shared[address..address + 2].copy_from_slice(&((k * 64 + mn) as u16).to_le_bytes());
        }
    }
    let mut tile = [[0; K]; 64];
    assert_eq!(read(descriptor(Swizzle::B128, 0, 0, 1024), Major::Mn, &shared, &mut tile), Ok(()));
    for (mn, row) in tile.iter().enumerate() {
        for (k, read) in row.iter().enumerate() {
            assert_eq!(usize::from(*read), k * 64 + mn);
        }
    }
}

/// The pattern of a tile may start at any line; the base offset tells (9.7.15.5.1.2.2).
#[test]
fn base_offsets_move_the_pattern() {
    let aligned = descriptor(Swizzle::B128, 0x1000, 0, 1024);
    let moved = WgmmaDescriptor { start: 0x1180, base_offset: (0x1180 >> 7) & 7, ..aligned };
    assert_eq!(moved.base_offset, 3);
    for (one, other) in aligned.chunks(Major::K, 0..64).zip(moved.chunks(Major::K, 0..64)) {
        assert_eq!(one.address + 0x180, other.address);
    }
}

/// Descriptors of dense operands: for each layout (swizzle, major, leading, stride, alignment of the start).
fn dense(n_mn: u32) -> Vec<(Swizzle, Major, u32, u32)> {
    vec![
        (Swizzle::None, Major::K, n_mn * 16, 128),
        (Swizzle::B32, Major::K, 0, 256),
        (Swizzle::None, Major::Mn, n_mn * 16, 128),
        (Swizzle::B32, Major::Mn, 256, n_mn * 16),
        (Swizzle::B64, Major::Mn, 512, n_mn * 16),
        (Swizzle::B128, Major::Mn, 1024, n_mn * 16),
    ]
}

proptest::proptest! {
    /// A dense operand fills its 32 `n_mn` bytes, each chunk once.
    #[test]
    fn chunks_of_dense_operands_do_not_meet(eights in 1_u32..33, start in 0_u32..64) {
        let n_mn = eights * 8;
        for (swizzle, major, leading, stride) in dense(n_mn) {
            if major == Major::Mn && !(2 * n_mn).is_multiple_of(swizzle.span()) {
                continue;
            }
            let start = start * 1024;
            let descriptor = descriptor(swizzle, start, leading, stride);
            let mut addresses: Vec<u32> = descriptor.chunks(major, 0..n_mn).map(|chunk| chunk.address).collect();
            addresses.sort_unstable();
            let expected: Vec<u32> = (0..2 * n_mn).map(|number| start + 16 * number).collect();
            assert_eq!(addresses, expected, "{swizzle:?} {major:?}");
        }
    }

    #[test]
    fn chunks_are_where_their_elements_are(
        start in 0_u32..1 << 10,
        leading in 0_u32..1 << 6,
        stride in 0_u32..1 << 6,
        base_offset in 0_u32..8,
        mode in 0_usize..4,
    ) {
        let swizzle = Swizzle::ALL[mode];
        let base_offset = if swizzle == Swizzle::None { 0 } else { base_offset };
        let (start, leading, stride) = (16 * start, 16 * leading, 16 * stride);
        let descriptor = WgmmaDescriptor { start, leading, stride, base_offset, swizzle };
        assert_eq!(WgmmaDescriptor::from_bits(descriptor.to_bits()), Ok(descriptor));
        for major in [Major::K, Major::Mn] {
            for chunk in descriptor.chunks(major, 0..64) {
                for element in 0..8 {
                    let (mn, k) = chunk.element(major, element);
                    assert_eq!(address(&descriptor, major, mn, k), chunk.address + 2 * element);
                }
            }
        }
    }
}
