use ordered_float::OrderedFloat;
use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Body, NormKind, Rowwise, Slot, View};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store};

use crate::case::{Bound, Case, ODD_COLS, dense, listed, row_list};

const COUNTS: [u32; 6] = [0, 1, 63, 64, 65, 130];

/// `y[list[i]] = x[list[i]] · gain + scale[i] − z[i + 1 ..]` in some mix of types and places.
fn map_case(case: &mut Case, x: Slot, y: Slot, list: Slot, cols: u32, rows: u32) -> Pointwise {
    let gain = case.reals(DType::F32, 1, cols);
    let scale = case.reals(DType::F32, rows, 3);
    let z = case.reals(DType::Bf16, rows, cols + 1);
    Pointwise {
        code: vec![
            Inst::Load(listed(x, list)),
            Inst::LoadCol(gain),
            Inst::Binary(Binary::Mul, Reg(0), Reg(1)),
            Inst::LoadRow(View { col: 2, ..dense(scale) }),
            Inst::Binary(Binary::Add, Reg(3), Reg(3)),
            Inst::Binary(Binary::Add, Reg(2), Reg(4)),
            Inst::Load(View { col: 1, ..dense(z) }),
            Inst::Binary(Binary::Sub, Reg(5), Reg(6)),
        ],
        stores: vec![Store { to: listed(y, list), value: Reg(7) }],
    }
}

#[test]
fn maps_load_compute_and_store_in_place_of_listed_rows() {
    for cols in ODD_COLS {
        for count in COUNTS {
            let mut case = Case::default();
            let list = case.indices(&row_list(count, 200));
            let x = case.updated(DType::F32, 200, cols);
            let program = map_case(&mut case, x, x, list, cols, 130);
            let extent = case.counted(count, 130);
            case.check(extent, Body::Rowwise(Rowwise::Map { cols, program }), Bound::Exact);
        }
    }
}

#[test]
fn maps_convert_between_types() {
    for (from, to) in [(DType::Bf16, DType::F32), (DType::F32, DType::Bf16), (DType::Bf16, DType::Bf16)] {
        for cols in ODD_COLS {
            let mut case = Case::default();
            let list = case.indices(&row_list(65, 100));
            let (x, y) = (case.reals(from, 100, cols), case.output(to, 100, cols));
            let program = map_case(&mut case, x, y, list, cols, 65);
            let rowwise = Rowwise::Map { cols, program };
            // Both round the same exact numbers, so bf16 agrees to the bit.
            case.check(Extent::Fixed(65), Body::Rowwise(rowwise), Bound::Exact);
        }
    }
}

#[test]
fn a_count_past_its_limit_is_cut() {
    let mut case = Case::default();
    let (x, y) = (case.reals(DType::F32, 64, 4), case.output(DType::F32, 64, 4));
    let program =
        Pointwise { code: vec![Inst::Load(dense(x))], stores: vec![Store { to: dense(y), value: Reg(0) }] };
    let extent = case.counted(64, 64);
    case.check(extent, Body::Rowwise(Rowwise::Map { cols: 4, program }), Bound::Exact);
}

#[test]
fn norms_of_any_width() {
    for cols in ODD_COLS {
        for count in [0, 1, 65] {
            for dtype in [DType::F32, DType::Bf16] {
                for layer in [false, true] {
                    let mut case = Case::default();
                    let list = case.indices(&row_list(count, 90));
                    let x = case.reals(dtype, 90, cols + 2);
                    let gain = case.reals(DType::F32, 1, cols);
                    let kind = match layer {
                        true => NormKind::Layer { bias: case.reals(DType::F32, 1, cols) },
                        false => NormKind::Rms,
                    };
                    let out = case.output(dtype, 65, cols);
                    let norm = Rowwise::Norm {
                        kind,
                        eps: OrderedFloat(1e-5),
                        cols,
                        groups: 1,
                        x: View { col: 2, ..listed(x, list) },
                        gain,
                        out,
                    };
                    // Statistics are exact sums but for a mean that is not; four roundings on numbers up to 8 · 4.
                    let bound = Bound::Ulps { n: 6.0, scale: 8.0 };
                    let extent = case.counted(count, 65);
                    case.check(extent, Body::Rowwise(norm), bound);
                }
            }
        }
    }
}

#[test]
fn embeddings_and_unknown_ids() {
    for cols in ODD_COLS {
        for (table_type, out_type) in [(DType::F32, DType::F32), (DType::Bf16, DType::F32)] {
            let mut case = Case::default();
            let ids =
                case.indices(&(0..70).map(|idx| idx * 5 % 13).chain([u32::MAX, 10, 9]).collect::<Vec<_>>());
            let table = case.reals(table_type, 10, cols);
            let out = case.output(out_type, 73, cols);
            let embed = Rowwise::Embed { cols, ids: dense(ids), n_ids: 10, table, out };
            case.check(Extent::Fixed(73), Body::Rowwise(embed), Bound::Exact);
        }
    }
}

#[test]
fn rotations_in_place_and_elsewhere() {
    for (heads, width) in [(1, 2), (3, 6), (2, 10), (4, 32), (2, 34)] {
        for in_place in [true, false] {
            let mut case = Case::default();
            let positions = case.indices(&(0..65).map(|row| row * 7 % 11).collect::<Vec<_>>());
            let x = match in_place {
                true => case.updated(DType::F32, 65, heads * width),
                false => case.reals(DType::F32, 65, heads * width),
            };
            let cos = case.reals(DType::F32, 11, width / 2);
            let sin = case.reals(DType::F32, 11, width / 2);
            let out = if in_place { x } else { case.output(DType::F32, 65, heads * width) };
            let (x, positions) = (dense(x), dense(positions));
            let rope = Rowwise::Rope { heads, width, turned: None, x, positions, cos, sin, out };
            case.check(Extent::Fixed(65), Body::Rowwise(rope), Bound::Exact);
        }
    }
}
