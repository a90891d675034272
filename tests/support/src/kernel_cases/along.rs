//! Work along sequences: means, of sequences of one row, of many, and of the rows of a set.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Along, Body};

use super::Case;
use super::draft::{Draft, Set, Values, dense, listed};
use crate::tolerance::Exactness;

/// Lengths of the sequences of a batch: one token, tails of tiles, and tiles.
const BATCH: [u32; 6] = [17, 1, 64, 5, 1, 15];

pub(super) fn add(cases: &mut Vec<Case>) {
    for dtype in [DType::F32, DType::Bf16] {
        for lengths in [&[][..], &[1], &[15], &[1, 1, 1], &[65], &BATCH] {
            cases.push(mean(dtype, 36, lengths, None));
        }
        for cols in [1, 3, 4, 17, 1025] {
            cases.push(mean(dtype, cols, &[3, 2], None));
        }
        for set in Set::ALL {
            cases.push(mean(dtype, 20, &BATCH, Some(set)));
        }
    }
}

/// All rows of a matrix, or those of a set.
fn mean(dtype: DType, cols: u32, lengths: &[u32], set: Option<Set>) -> Case {
    let of = set.map_or("all", Set::name);
    let text = lengths.iter().map(u32::to_string).collect::<Vec<String>>().join("_");
    let mut draft = Draft::new(format!("along_mean_{dtype}_{cols}_of_{of}_tokens_{text}"));
    let sequences: Vec<u32> =
        (0..).zip(lengths).flat_map(|(sequence, length)| vec![sequence; *length as usize]).collect();
    let rows = sequences.len() as u32;
    let bound = rows + 3;
    let members = set.map(|set| set.rows(rows, &mut draft));
    let list = members.as_ref().map(|members| draft.column("list", bound, members));
    let x = draft.reals("x", (dtype, bound, cols), rows, Values::Within(2.0));
    let sequences = draft.column("sequences", bound, &sequences);
    let out = draft.output("out", (dtype, bound, cols));
    let extent = draft.counted(members.map_or(rows, |members| members.len() as u32), bound);
    let [x, sequences] = [x, sequences].map(|slot| list.map_or(dense(slot), |list| listed(slot, list)));
    draft.finish(extent, Body::Along(Along::Mean { cols, x, sequences, out }), Exactness::Chain)
}
