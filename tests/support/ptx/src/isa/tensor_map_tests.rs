use proptest::prelude::*;

use super::*;

/// A matrix of 100 rows by 200 columns of bf16 with boxes of 8 rows by 64 columns.
const MATRIX: Tiled<'static> = Tiled {
    data_type: DataType::Bfloat16,
    global_address: 0x10_0000,
    global_dim: &[200, 100],
    global_strides: &[400],
    box_dim: &[64, 8],
    element_strides: &[1, 1],
    swizzle: Swizzle::B128,
    fill: Fill::Zero,
};

fn error(arguments: &Tiled<'_>) -> Option<TensorMapError> {
    TensorMap::encode(arguments).err()
}

/// Each requirement of `cuTensorMapEncodeTiled` in the driver API, at its limit and beyond.
#[test]
fn rules_are_those_of_the_driver() {
    use TensorMapError as E;
    assert_eq!(error(&MATRIX), None);
    let flat = Tiled { global_dim: &[], global_strides: &[], box_dim: &[], element_strides: &[], ..MATRIX };
    assert_eq!(error(&flat), Some(E::Rank { rank: 0 }));
    let deep = Tiled { global_dim: &[1; 6], ..MATRIX };
    assert_eq!(error(&deep), Some(E::Rank { rank: 6 }));
    let rank = 2;
    let facts = [
        (
            Tiled { global_strides: &[], ..MATRIX },
            Some(E::Length { array: "globalStrides", length: 0, rank }),
        ),
        (Tiled { box_dim: &[64], ..MATRIX }, Some(E::Length { array: "boxDim", length: 1, rank })),
        (
            Tiled { element_strides: &[1; 3], ..MATRIX },
            Some(E::Length { array: "elementStrides", length: 3, rank }),
        ),
        (Tiled { global_address: 0x10_0010, ..MATRIX }, None),
        (Tiled { global_address: 0x10_0008, ..MATRIX }, Some(E::GlobalAddress { address: 0x10_0008 })),
        (Tiled { global_dim: &[0, 100], ..MATRIX }, Some(E::GlobalDim { dim: 0, size: 0 })),
        (Tiled { global_dim: &[200, 1 << 32], global_strides: &[1 << 32], ..MATRIX }, None),
        (
            Tiled { global_dim: &[200, (1 << 32) + 1], ..MATRIX },
            Some(E::GlobalDim { dim: 1, size: (1 << 32) + 1 }),
        ),
        (Tiled { global_strides: &[408], ..MATRIX }, Some(E::GlobalStride { idx: 0, stride: 408 })),
        (Tiled { global_strides: &[(1 << 40) - 16], ..MATRIX }, None),
        (Tiled { global_strides: &[1 << 40], ..MATRIX }, Some(E::GlobalStride { idx: 0, stride: 1 << 40 })),
        (
            Tiled { global_strides: &[384], ..MATRIX },
            Some(E::StrideTooShort { idx: 0, stride: 384, least: 400 }),
        ),
        (Tiled { box_dim: &[64, 0], ..MATRIX }, Some(E::BoxDim { dim: 1, size: 0 })),
        (Tiled { box_dim: &[64, 256], ..MATRIX }, None),
        (Tiled { box_dim: &[64, 257], ..MATRIX }, Some(E::BoxDim { dim: 1, size: 257 })),
        (Tiled { box_dim: &[60, 8], ..MATRIX }, Some(E::InnerBox { bytes: 120 })),
        (Tiled { box_dim: &[72, 8], ..MATRIX }, Some(E::WiderThanSwizzle { bytes: 144, span: 128 })),
        (Tiled { swizzle: Swizzle::B64, ..MATRIX }, Some(E::WiderThanSwizzle { bytes: 128, span: 64 })),
        (Tiled { swizzle: Swizzle::B64, box_dim: &[32, 8], ..MATRIX }, None),
        (
            Tiled { swizzle: Swizzle::B32, box_dim: &[32, 8], ..MATRIX },
            Some(E::WiderThanSwizzle { bytes: 64, span: 32 }),
        ),
        (Tiled { swizzle: Swizzle::B32, box_dim: &[16, 8], ..MATRIX }, None),
        (Tiled { box_dim: &[32, 8], ..MATRIX }, Some(E::NarrowerThanSwizzle { bytes: 64, span: 128 })),
        (Tiled { swizzle: Swizzle::None, box_dim: &[256, 256], ..MATRIX }, None),
        (Tiled { swizzle: Swizzle::None, box_dim: &[8, 1], ..MATRIX }, None),
        (Tiled { element_strides: &[1, 0], ..MATRIX }, Some(E::ElementStride { dim: 1, stride: 0 })),
        (Tiled { element_strides: &[1, 8], ..MATRIX }, None),
        (Tiled { element_strides: &[1, 9], ..MATRIX }, Some(E::ElementStride { dim: 1, stride: 9 })),
        (Tiled { element_strides: &[2, 1], ..MATRIX }, Some(E::InnerElementStride { stride: 2 })),
        (Tiled { fill: Fill::Nan, ..MATRIX }, None),
        (
            Tiled { fill: Fill::Nan, data_type: DataType::Uint16, ..MATRIX },
            Some(E::NanOfIntegers { data_type: DataType::Uint16 }),
        ),
    ];
    for (arguments, expected) in facts {
        assert_eq!(error(&arguments), expected, "{arguments:?}");
    }
}

/// The comments of `CUtensorMapDataType` in `cuda.h`.
#[test]
fn types_have_the_numbers_and_sizes_of_the_header() {
    let header = [(0, 1), (1, 2), (2, 4), (3, 4), (4, 8), (5, 8), (6, 2), (7, 4), (8, 8), (9, 2)];
    assert_eq!(DataType::ALL.map(|known| (known as u8, known.size())), header);
}

fn map(arguments: &Tiled<'_>) -> TensorMap {
    TensorMap::encode(arguments).expect("the arguments should be valid")
}

fn pieces(arguments: &Tiled<'_>, coordinates: &[i32], shared: u32) -> Vec<Piece> {
    let map = map(arguments);
    let boxes = map.boxes(coordinates, shared).expect("the box should be valid");
    boxes.collect()
}

fn whole(shared: u32, len: u32, global: u64) -> Piece {
    Piece { shared, len, inside: Some(Inside { skip: 0, len, global }) }
}

/// Chunk `c` of row `r` lies in place `c ^ r` of its line (PTX ISA 5.5.7, the table of 128 bytes).
#[test]
fn a_swizzled_box_inside_the_tensor() {
    let pieces = pieces(&MATRIX, &[64, 10], 0x400);
    assert_eq!(pieces.len(), 64);
    // Element (10, 64) is 10 · 400 + 64 · 2 bytes from the start.
    let origin = 0x10_0000 + 4128;
    assert_eq!(pieces[0], whole(0x400, 16, origin));
    assert_eq!(pieces[1], whole(0x410, 16, origin + 16));
    assert_eq!(pieces[7], whole(0x470, 16, origin + 112));
    assert_eq!(pieces[8], whole(0x490, 16, origin + 400));
    assert_eq!(pieces[9], whole(0x480, 16, origin + 416));
    assert_eq!(pieces[8 * 5], whole(0x400 + 5 * 128 + 5 * 16, 16, origin + 2000));
    assert_eq!(pieces[8 * 5 + 6], whole(0x400 + 5 * 128 + 3 * 16, 16, origin + 2096));
    assert_eq!(pieces[63], whole(0x780, 16, origin + 7 * 400 + 112));
}

/// A box that starts in line 1 of the pattern: the swizzle goes by the address, not by the box.
#[test]
fn a_box_may_start_inside_the_pattern() {
    let pieces = pieces(&MATRIX, &[0, 0], 0x480);
    assert_eq!(pieces[0].shared, 0x490);
    assert_eq!(pieces[1].shared, 0x480);
    assert_eq!(pieces[8].shared, 0x520);
}

/// 200 columns end after 8 of the last box's 64; 100 rows after 4 of its 8.
#[test]
fn elements_outside_of_the_tensor() {
    let unswizzled = Tiled { swizzle: Swizzle::None, ..MATRIX };
    let rows = pieces(&unswizzled, &[192, 96], 0);
    assert_eq!(rows.len(), 8);
    for (row, piece) in rows.iter().enumerate() {
        let global = 0x10_0000 + (96 + row as u64) * 400 + 384;
        let inside = (row < 4).then_some(Inside { skip: 0, len: 16, global });
        assert_eq!(*piece, Piece { shared: 128 * row as u32, len: 128, inside });
    }
    // Before the start: three elements of a row are missing, and the first two rows.
    let rows = pieces(&unswizzled, &[-3, -2], 0);
    assert_eq!(rows[1].inside, None);
    assert_eq!(rows[2].inside, Some(Inside { skip: 6, len: 122, global: 0x10_0000 }));
    let swizzled = pieces(&MATRIX, &[-3, -2], 0);
    assert_eq!(swizzled[16].inside, Some(Inside { skip: 6, len: 10, global: 0x10_0000 }));
    assert_eq!(swizzled[17].inside, Some(Inside { skip: 0, len: 16, global: 0x10_000A }));
    // Far away, nothing is left.
    for far in [[200, 0], [i32::MAX, 0], [i32::MIN, 0], [0, 100], [0, i32::MAX], [0, i32::MIN], [-64, 0]] {
        assert!(pieces(&MATRIX, &far, 0).iter().all(|piece| piece.inside.is_none()));
    }
}

/// The driver API: with `elementStrides[i]` not one, `ceil(boxDim[i] / elementStrides[i])` elements are
/// loaded.
#[test]
fn element_strides_skip_rows() {
    let sparse = Tiled { box_dim: &[8, 8], element_strides: &[1, 3], swizzle: Swizzle::None, ..MATRIX };
    let rows = pieces(&sparse, &[0, 93], 128);
    let row = |number: u64| 0x10_0000 + number * 400;
    let outside = Piece { shared: 160, len: 16, inside: Some(Inside { skip: 0, len: 16, global: row(99) }) };
    assert_eq!(rows, [whole(128, 16, row(93)), whole(144, 16, row(96)), outside]);
    assert_eq!(map(&sparse).box_bytes(), 48);
    assert_eq!(pieces(&sparse, &[0, 96], 128)[2].inside, None);
}

/// Five dimensions of f32: the second runs faster than the third, and so on.
#[test]
fn dimensions_count_up_from_the_inside() {
    let arguments = Tiled {
        data_type: DataType::Float32,
        global_address: 0,
        global_dim: &[4, 3, 3, 3, 3],
        global_strides: &[16, 48, 144, 432],
        box_dim: &[4, 2, 1, 2, 2],
        element_strides: &[1; 5],
        swizzle: Swizzle::None,
        fill: Fill::Nan,
    };
    let rows = pieces(&arguments, &[0, 1, 2, 1, 0], 0);
    let origin = 16 + 96 + 144;
    let globals = [0, 16, 144, 160, 432, 448, 576, 592];
    let expected: Vec<Piece> =
        globals.iter().enumerate().map(|(row, from)| whole(16 * row as u32, 16, origin + from)).collect();
    assert_eq!(rows, expected);
    assert_eq!(map(&arguments).box_bytes(), 128);
    assert_eq!(map(&arguments).fill_bytes()[..4], [0xFF, 0xFF, 0xFF, 0x7F]);
}

#[test]
fn copies_are_checked() {
    let map = map(&MATRIX);
    assert_eq!(map.boxes(&[0], 0).err(), Some(BoxError::Rank { coordinates: 1, rank: 2 }));
    assert_eq!(map.boxes(&[0, 0], 0x440).err(), Some(BoxError::SharedAddress { address: 0x440 }));
    let negative = BoxError::NegativeStore { dim: 1, coordinate: -1 };
    assert_eq!([map.check_store(&[0, -1]), map.check_store(&[300, 0])], [Err(negative), Ok(())]);
    assert!(map.starts_aligned(&[8, 3]) && map.starts_aligned(&[-8, 3]) && !map.starts_aligned(&[4, 0]));
    assert_eq!(map.box_bytes(), 1024);
    assert_eq!(map.fill_bytes(), [0; 16]);
    let nan = TensorMap { fill: Fill::Nan, ..map };
    assert_eq!(nan.fill_bytes()[..4], [0xFF, 0x7F, 0xFF, 0x7F]);
}

#[test]
fn bytes_that_are_no_map_are_found() {
    let map = map(&MATRIX);
    let bytes = map.to_bytes();
    assert_eq!(TensorMap::from_bytes(&bytes), Ok(map));
    assert_eq!(TensorMap::from_bytes(&[0; 128]), Err(BytesError::Magic { found: [0; 8] }));
    for at in 0..128 {
        let mut changed = bytes;
        changed[at] ^= 0x20;
        let found = TensorMap::from_bytes(&changed);
        assert!(
            matches!(found, Err(BytesError::Magic { .. } | BytesError::CheckSum)),
            "byte {at}: {found:?}"
        );
    }
}

/// Maps of all ranks, types and swizzles, and a place for the box.
fn maps() -> impl Strategy<Value = (TensorMap, Vec<i32>)> {
    let dims = prop::collection::vec((1_u64..20, 1_u32..6, 1_u32..4, -6_i32..22), 0..5);
    (0_usize..10, 0_usize..4, dims, (1_u64..200, 1_u32..5, -70_i32..210), any::<bool>()).prop_map(
        |(data_type, swizzle, outer, (columns, chunks, x), nan)| {
            let (data_type, swizzle) = (DataType::ALL[data_type], Swizzle::ALL[swizzle]);
            let bytes = if swizzle == Swizzle::None { 16 * chunks } else { swizzle.span() };
            let mut global_dim = vec![columns];
            let mut strides = vec![];
            let mut stride = (columns * u64::from(data_type.size())).next_multiple_of(16);
            let (mut box_dim, mut steps, mut coordinates) =
                (vec![bytes / data_type.size()], vec![1], vec![x]);
            for (size, in_box, step, at) in outer {
                strides.push(stride);
                stride *= size;
                global_dim.push(size);
                box_dim.push(in_box);
                steps.push(step);
                coordinates.push(at);
            }
            let arguments = Tiled {
                data_type,
                global_address: 1 << 20,
                global_dim: &global_dim,
                global_strides: &strides,
                box_dim: &box_dim,
                element_strides: &steps,
                swizzle,
                fill: if nan && data_type.is_float() { Fill::Nan } else { Fill::Zero },
            };
            (map(&arguments), coordinates)
        },
    )
}

proptest! {
    #[test]
    fn a_box_covers_its_bytes_once((map, coordinates) in maps(), line in 0_u32..8) {
        let shared = line * 128;
        let n_bytes = map.box_bytes() as usize;
        let mut covered = vec![0; n_bytes + 1024];
        for piece in map.boxes(&coordinates, shared).expect("the box should be valid") {
            let at = (piece.shared - shared) as usize;
            covered[at..at + piece.len as usize].iter_mut().for_each(|times| *times += 1);
        }
        // A box that ends inside of a line may have its last rows swapped within it.
        let total: u32 = covered.iter().sum();
        prop_assert_eq!(total as usize, n_bytes);
        prop_assert!(covered.iter().all(|times| *times <= 1));
        prop_assert!(covered[n_bytes.next_multiple_of(128)..].iter().all(|times| *times == 0));
    }

    /// The bytes inside are those that a loop over all elements finds.
    #[test]
    fn pieces_are_what_a_loop_over_elements_finds((map, coordinates) in maps()) {
        let arguments = map.arguments();
        let size = u64::from(arguments.data_type.size());
        let mut expected = vec![];
        for number in 0..map.box_bytes() / size {
            let mut rest = number;
            let mut address = Some(arguments.global_address);
            for (dim, &first) in coordinates.iter().enumerate() {
                let step = arguments.element_strides[dim];
                let taken = u64::from(arguments.box_dim[dim].div_ceil(step));
                let at = i64::from(first) + (rest % taken) as i64 * i64::from(step);
                rest /= taken;
                let stride = if dim == 0 { size } else { arguments.global_strides[dim - 1] };
                let within = at >= 0 && (at as u64) < arguments.global_dim[dim];
                address = address.filter(|_| within).map(|sum| sum + at as u64 * stride);
            }
            expected.push((swizzle((number * size) as u32, arguments.swizzle), address));
        }
        let mut found = vec![];
        for piece in map.boxes(&coordinates, 0).expect("the box should be valid") {
            for byte in (0..piece.len).step_by(size as usize) {
                let inside = piece.inside.filter(|part| (part.skip..part.skip + part.len).contains(&byte));
                let global = inside.map(|part| part.global + u64::from(byte - part.skip));
                found.push((piece.shared + byte, global));
            }
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn bytes_hold_the_map((map, _) in maps()) {
        prop_assert_eq!(TensorMap::from_bytes(&map.to_bytes()), Ok(map));
    }
}
