//! Embedding and rotary positions.

use skipc_artifact::target::DType;
use skipc_ir::{F64, Frequencies};
use skipc_plan::kernel::{Body, Rowwise};

use super::Case;
use super::draft::{Draft, Set, Values, dense, listed};
use crate::tolerance::Exactness;

pub(super) fn add(cases: &mut Vec<Case>) {
    for (table, out) in [
        (DType::F32, DType::F32),
        (DType::Bf16, DType::Bf16),
        (DType::F32, DType::Bf16),
        (DType::Bf16, DType::F32),
    ] {
        for (rows, cols) in [(0, 16), (1, 64), (17, 33), (64, 96), (65, 7)] {
            cases.push(embed((table, out), (rows, cols)));
        }
    }
    for dtype in [DType::F32, DType::Bf16] {
        for (heads, width) in [(1, 2), (3, 6), (4, 16), (2, 24), (2, 64), (1, 128)] {
            cases.push(rope(dtype, (heads, width, None), (13, 16)));
        }
        for rows in [0, 1, 63, 64, 65] {
            cases.push(rope(dtype, (2, 8, None), (rows, 66)));
            cases.push(rope(dtype, (2, 16, Some(8)), (rows, 66)));
        }
        // Columns that pass: fewer and more than those that turn, one, and pairs that fit no vector.
        for (heads, width, turned) in [(1, 4, 2), (3, 80, 32), (2, 24, 18), (2, 9, 8), (1, 256, 64)] {
            cases.push(rope(dtype, (heads, width, Some(turned)), (13, 16)));
        }
        for set in Set::ALL {
            cases.push(routed_rope(dtype, set));
        }
        cases.push(rope_in_place(dtype, None));
        cases.push(rope_in_place(dtype, Some(4)));
    }
}

/// Ids out of the table (which give zeros) at the end of it, far beyond, and where a signed number turns negative.
fn embed((table_type, out): (DType, DType), (rows, cols): (u32, u32)) -> Case {
    let mut draft = Draft::new(format!("embed_{table_type}_{out}_{cols}_rows_{rows}"));
    let (bound, n_ids) = (66, 50);
    let ids: Vec<u32> = (0..rows)
        .map(|row| match row % 8 {
            3 => n_ids,
            5 => u32::MAX,
            7 => 1 << 31,
            1 => n_ids - 1,
            _ => draft.next() as u32 % n_ids,
        })
        .collect();
    let ids = draft.column("ids", bound, &ids);
    let table = draft.reals("table", (table_type, n_ids, cols), n_ids, Values::Within(2.0));
    let out = draft.output("out", (out, bound, cols));
    let extent = draft.counted(rows, bound);
    let embed = Rowwise::Embed { cols, ids: dense(ids), n_ids, table, out };
    draft.finish(extent, Body::Rowwise(embed), Exactness::Bitwise)
}

/// Tables of a true rotation for positions up to `n`, and columns of positions in no order.
pub(super) fn tables(draft: &mut Draft, n: u32, half: u32) -> [skipc_plan::kernel::Slot; 2] {
    let angle = |at: u32| {
        let frequencies = Frequencies { theta: F64::from(10_000.0), scaling: None };
        f64::from(frequencies.angle(i64::from(at / half), (at % half) as usize, half as usize))
    };
    let cos: Vec<f64> = (0..n * half).map(|at| libm::cos(angle(at))).collect();
    let sin: Vec<f64> = (0..n * half).map(|at| libm::sin(angle(at))).collect();
    [("cos", cos), ("sin", sin)].map(|(name, table)| draft.matrix(name, (DType::F32, n, half), &table))
}

/// What the name of a case says of columns that pass.
fn turned_name(turned: Option<u32>) -> String {
    turned.map_or_else(String::new, |turned| format!("_turned_{turned}"))
}

fn rope(dtype: DType, (heads, width, turned): (u32, u32, Option<u32>), (rows, bound): (u32, u32)) -> Case {
    let part = turned_name(turned);
    let mut draft = Draft::new(format!("rope_{dtype}_{heads}x{width}{part}_rows_{rows}_of_{bound}"));
    let cols = heads * width;
    let x = draft.reals("x", (dtype, bound, cols), rows, Values::Within(2.0));
    let positions: Vec<u32> = (0..rows).map(|_| draft.next() as u32 % 100).collect();
    let positions = draft.column("positions", bound, &positions);
    let [cos, sin] = tables(&mut draft, 100, turned.unwrap_or(width) / 2);
    let out = draft.output("out", (dtype, bound, cols));
    let extent = draft.counted(rows, bound);
    let positions = dense(positions);
    let rope = Rowwise::Rope { heads, width, turned, x: dense(x), positions, cos, sin, out };
    draft.finish(extent, Body::Rowwise(rope), Exactness::Chain)
}

/// Compact queries whose positions stand with all tokens.
fn routed_rope(dtype: DType, set: Set) -> Case {
    let mut draft = Draft::new(format!("rope_{dtype}_listed_positions_{}", set.name()));
    let (n_tokens, bound, heads, width) = (70, 72, 2, 16);
    let rows = set.rows(n_tokens, &mut draft);
    let n_rows = rows.len() as u32;
    let x = draft.reals("x", (dtype, bound, heads * width), n_rows, Values::Within(2.0));
    let list = draft.column("rows", bound, &rows);
    let positions: Vec<u32> = (0..n_tokens).map(|token| token % 41).collect();
    let positions = draft.column("positions", bound, &positions);
    let [cos, sin] = tables(&mut draft, 41, width / 2);
    let out = draft.output("out", (dtype, bound, heads * width));
    let extent = draft.counted(n_rows, bound);
    let positions = listed(positions, list);
    let rope = Rowwise::Rope { heads, width, turned: None, x: dense(x), positions, cos, sin, out };
    draft.finish(extent, Body::Rowwise(rope), Exactness::Chain)
}

/// The result stands where the operand stood.
fn rope_in_place(dtype: DType, turned: Option<u32>) -> Case {
    let mut draft = Draft::new(format!("rope_{dtype}_in_place{}", turned_name(turned)));
    let (rows, bound, heads, width) = (20, 24, 2, 12);
    let x = draft.updated("x", (dtype, bound, heads * width), rows, Values::Within(2.0));
    let positions = draft.column("positions", bound, &(0..rows).collect::<Vec<u32>>());
    let [cos, sin] = tables(&mut draft, 20, turned.unwrap_or(width) / 2);
    let extent = draft.counted(rows, bound);
    let positions = dense(positions);
    let rope = Rowwise::Rope { heads, width, turned, x: dense(x), positions, cos, sin, out: x };
    draft.finish(extent, Body::Rowwise(rope), Exactness::Chain)
}
