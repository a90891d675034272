//! Convolutions: taps, widths, sequences; rows and inputs that are all tokens or those of a set; inputs in a cache.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Along, Body, Conv, Inputs, Slot, View};

use super::Case;
use super::cached::Pages;
use super::draft::{Draft, Set, Values, dense, listed};
use crate::tolerance::Exactness;

/// Lengths of the sequences of a batch: one token, tails of tiles, and tiles.
const BATCH: [u32; 6] = [17, 1, 64, 5, 1, 15];

/// Tokens of each sequence, of which so many are new: one token, ends of pages, a prompt, nothing new.
const SEQUENCES: [(u32, u32); 7] = [(17, 1), (1, 1), (32, 3), (15, 15), (16, 2), (5, 0), (130, 1)];

pub(super) fn add(cases: &mut Vec<Case>) {
    for dtype in [DType::F32, DType::Bf16] {
        for lengths in [&[][..], &[1], &[15], &[16], &[17], &[1, 1, 1], &[63], &[64], &[65], &BATCH] {
            cases.push(of_rows((dtype, 36, 4), lengths, (None, None)));
        }
        for cols in [1, 3, 4, 17, 257] {
            cases.push(of_rows((dtype, cols, 3), &[5, 2], (None, None)));
        }
        for taps in [1, 2, 5, 40] {
            cases.push(of_rows((dtype, 8, taps), &[33, 3], (None, None)));
        }
        for set in Set::ALL {
            // Inputs of all tokens, of the rows' own set, and rows that are thrown away.
            cases.push(of_rows((dtype, 20, 4), &BATCH, (Some(set), None)));
            cases.push(of_rows((dtype, 20, 4), &BATCH, (Some(set), Some(set))));
            cases.push(of_rows((dtype, 20, 4), &BATCH, (None, Some(set))));
        }
        for taps in [1, 4, 17, 40] {
            cases.push(of_cache((dtype, 20, taps), &SEQUENCES, None));
        }
        for cols in [1, 3, 17, 257] {
            cases.push(of_cache((dtype, cols, 4), &[(17, 2), (3, 3)], None));
        }
        for present in Set::ALL {
            cases.push(of_cache((dtype, 20, 4), &SEQUENCES, Some(present)));
        }
        cases.push(of_cache((dtype, 12, 4), &[(33, 0)], None));
    }
}

/// Columns of positions and sequences, of all tokens or by the list of a set.
#[derive(Clone, Copy)]
struct Tokens {
    places: [View; 2],
    list: Option<Slot>,
    n: u32,
}

fn tokens(draft: &mut Draft, name: &str, lengths: &[u32], set: Option<Set>) -> Tokens {
    let of = |(sequence, length): (u32, &u32)| (0..*length).map(move |position| (position, sequence));
    let (positions, sequences): (Vec<u32>, Vec<u32>) = (0..).zip(lengths).flat_map(of).unzip();
    let n = positions.len() as u32;
    let bound = n + 3;
    let members = set.map(|set| set.rows(n, draft));
    let list = members.as_ref().map(|members| draft.column(&format!("{name}_list"), bound, members));
    let mut column = |what: &str, values: &[u32]| {
        let slot = draft.column(&format!("{name}_{what}"), bound, values);
        list.map_or(dense(slot), |list| listed(slot, list))
    };
    let places = [column("pos", &positions), column("seq", &sequences)];
    Tokens { places, list, n: members.map_or(n, |members| members.len() as u32) }
}

/// The rows of a set, or all, over the inputs of a set, or of all tokens.
fn of_rows(
    (dtype, cols, taps): (DType, u32, u32),
    lengths: &[u32],
    (rows, inputs): (Option<Set>, Option<Set>),
) -> Case {
    let [of_rows, of_inputs] = [rows, inputs].map(|set| set.map_or("tokens", Set::name));
    let text = lengths.iter().map(u32::to_string).collect::<Vec<String>>().join("_");
    let mut draft = Draft::new(format!("conv_{dtype}_{taps}x{cols}_of_{of_rows}_over_{of_inputs}_{text}"));
    let n = lengths.iter().sum::<u32>();
    let bound = n + 3;
    let queries = tokens(&mut draft, "q", lengths, rows);
    // Rows of one set are the same rows, drawn but once.
    let keys = match rows == inputs {
        true => queries,
        false => tokens(&mut draft, "k", lengths, inputs),
    };
    let x = draft.reals("x", (dtype, bound, cols), n, Values::Within(2.0));
    let filters = draft.reals("filters", (DType::F32, taps, cols), taps, Values::Within(1.0));
    let out = draft.output("out", (dtype, bound, cols));
    let extent = draft.counted(queries.n, bound);
    let of_inputs = if rows == inputs { extent } else { draft.counted(keys.n, bound) };
    let x = keys.list.map_or(dense(x), |list| listed(x, list));
    let [positions, sequences] = keys.places;
    let inputs = Inputs::Rows { extent: of_inputs, x, positions, sequences };
    let [positions, sequences] = queries.places;
    let conv = Conv { cols, taps, filters, positions, sequences, inputs, out };
    draft.finish(extent, Body::Along(Along::Conv(conv)), Exactness::Chain)
}

/// The new tokens of sequences over the inputs of all of their tokens, or of those that are present.
fn of_cache((dtype, cols, taps): (DType, u32, u32), sequences: &[(u32, u32)], present: Option<Set>) -> Case {
    let lengths: Vec<String> = sequences.iter().map(|(length, new)| format!("{length}_new_{new}")).collect();
    let of = present.map_or(String::new(), |set| format!("_present_{}", set.name()));
    let mut draft = Draft::new(format!("cached_conv_{dtype}_{taps}x{cols}_tokens_{}{of}", lengths.join("_")));
    let pages = Pages::new(&mut draft, sequences);
    let n_cached = pages.n_rows() as usize;
    let (mut holds, mut is_input) = (vec![false; n_cached], vec![0; n_cached]);
    let (mut positions, mut of_rows) = (Vec::new(), Vec::new());
    for (sequence, (length, new)) in sequences.iter().enumerate() {
        let members = present.map_or_else(|| (0..*length).collect(), |set| set.rows(*length, &mut draft));
        for position in members {
            let place = pages.place(sequence, position);
            (holds[place], is_input[place]) = (true, 1);
        }
        positions.extend(length - new..*length);
        of_rows.extend(std::iter::repeat_n(sequence as u32, *new as usize));
    }
    let (n, bound) = (positions.len() as u32, positions.len() as u32 + 2);
    let cache = draft.cache("x", (dtype, cols), &holds, Values::Within(2.0));
    let filters = draft.reals("filters", (DType::F32, taps, cols), taps, Values::Within(1.0));
    let positions = dense(draft.column("positions", bound, &positions));
    let sequences = dense(draft.column("sequences", bound, &of_rows));
    let pages = pages.table(&mut draft);
    let present = present.map(|_| draft.decisions("present", is_input.len() as u32, &is_input));
    let out = draft.output("out", (dtype, bound, cols));
    let extent = draft.counted(n, bound);
    let inputs = Inputs::Cached { cache, pages, present };
    let conv = Conv { cols, taps, filters, positions, sequences, inputs, out };
    draft.finish(extent, Body::Along(Along::Conv(conv)), Exactness::Chain)
}
