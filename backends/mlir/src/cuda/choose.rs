//! Experts: which of them a row takes, and rows in segments by that.

use skipc_artifact::program::RowTile;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Choice, Kernel, NO_CHOICE, Partition, Ranking, Replay, Slot, View};

use super::compact::{THREADS as BLOCK, require_column};
use super::generated::Generated;
use super::place;
use crate::code::math::Precision;
use crate::code::{Bool, Code, F32, Float, I32, Int, Steps};
use crate::error::Error;

/// Threads of a block of choices: a warp for each row.
const THREADS: u32 = 128;

/// Choices that a lane of a warp can have.
const IN_LANE: u32 = 32;

/// The choice of a row without its kernel.
pub(super) struct Choose {
    pub(super) n: u32,
    pub(super) choice: Choice,
    pub(super) logits: View,
    pub(super) bias: Option<Slot>,
    pub(super) replay: Option<Replay>,
    pub(super) out: Slot,
}

/// Generates choices: lane `i` has the choices `i`, `i + 32`, ….
///
/// # Errors
/// [`Error::Malformed`] and, for more choices than the lanes of a warp can have, [`Error::Unsupported`].
pub(super) fn choose(kernel: &Kernel, choose: &Choose) -> Result<Generated, Error> {
    place::require_extent(kernel, &kernel.extent)?;
    let Choose { n, choice, logits, bias, replay, out } = *choose;
    if n == 0 || choice.k == 0 || choice.k > n {
        return Err(Error::Malformed { what: format!("{} of {n} choices", choice.k) });
    }
    if n > 32 * IN_LANE {
        return Err(Error::Unsupported { what: format!("{n} choices of experts; {} can be", 32 * IN_LANE) });
    }
    place::require(kernel, logits.slot, DType::F32)?;
    place::require_view(kernel, logits, n)?;
    let blocks = 2 + u32::from(choice.ranks.is_some());
    for (slot, cols) in bias.map(|bias| (bias, n)).into_iter().chain([(out, blocks * choice.k)]) {
        place::require(kernel, slot, DType::F32)?;
        place::require_view(kernel, View::dense(slot), cols)?;
    }
    if let Some(Replay { use_forced, choices }) = replay {
        place::require_u32(kernel, use_forced)?;
        place::require(kernel, choices.slot, DType::F32)?;
        place::require_view(kernel, choices, choice.k)?;
    }
    let code = Code::new(place::n_params(kernel)?);
    write_choice(&code, kernel, choose);
    Ok(Generated::new(code, vec![RowTile { from: 0, rows: THREADS / 32, across: 1 }], THREADS))
}

/// A choice that a lane has.
struct Own<'c> {
    col: Int<'c>,
    inside: Bool<'c>,
    score: Float<'c>,
}

fn write_choice(code: &Code, kernel: &Kernel, choose: &Choose) {
    let Choice { k, normalise, scale, ranks: by, .. } = choose.choice;
    let rows = place::extent(code, &kernel.extent);
    let row = code.block_x() * (THREADS / 32) + code.thread() / 32;
    // A whole warp leaves, and there is no barrier that it would be missed at.
    code.return_if(row.ge(rows));
    let lane = code.thread() % 32;
    let choices = scores(code, kernel, choose, (row, lane));
    let mut ranks = ranks(code, choose, &choices);
    // What choices rank by among those of other rows.
    let among_rows = ranks.clone();
    // Those that are replayed are marked by a rank that is not a number, and the highest, one after the other, until k are: scores are
    // divided by the sum of these.
    let mark = code.int(f32::NAN.to_bits()).as_float();
    let replayed = choose.replay.map(|replay| replayed(code, kernel, replay, (row, k), &choices));
    let mut n_listed = code.int(0);
    if let Some((_, listed)) = &replayed {
        for ((rank, listed), own) in ranks.iter_mut().zip(listed).zip(&choices) {
            *rank = listed.select(mark, *rank);
            n_listed = n_listed + code.ballot(*listed & own.inside).count_ones();
        }
    }
    let (ranks, mut among_rows) =
        mark_highest(code, (&choices, mark), (n_listed, choose.choice), (ranks, among_rows));
    let mut taken: Vec<Bool<'_>> =
        ranks.iter().zip(&choices).map(|(rank, own)| !rank.ge(*rank) & own.inside).collect();
    let zero = code.float(0.0);
    let of_lane =
        taken.iter().zip(&choices).fold(zero, |sum, (is_taken, own)| sum + is_taken.select(own.score, zero));
    let sum = code.reduce(of_lane, 32, |a, b| a + b);
    if let Some((is_replayed, listed)) = replayed {
        taken.iter_mut().zip(listed).for_each(|(taken, listed)| *taken = *taken & (listed | !is_replayed));
        // All rank alike among those of other rows.
        among_rows.iter_mut().for_each(|rank| *rank = is_replayed.select(zero, *rank));
    }
    let below = (code.int(1) << lane) - 1;
    let out = View::dense(choose.out);
    let out = place::element(code, kernel.param(choose.out), out, row, 0u32);
    if choose.replay.is_some() {
        // Places without a choice.
        let count =
            taken.iter().fold(code.int(0), |count, is_taken| count + code.ballot(*is_taken).count_ones());
        let with_ranks = u32::from(by.is_some());
        code.repeat(Steps { from: 0, to: k.div_ceil(32), step: 1 }, (), |chunk, ()| {
            let place = chunk * 32 + lane;
            let is_empty = match choose.n == k {
                // Where all choices have places, each has its own.
                true => place.lt(k),
                false => place.lt(k) & place.ge(count),
            };
            code.when(is_empty, || {
                out.at::<F32>(place).store(code.float(0.0));
                out.at::<F32>(place + k).store(code.float(NO_CHOICE as f32));
                if with_ranks > 0 {
                    out.at::<F32>(place + 2 * k).store(code.float(0.0));
                }
            });
        });
    }
    let mut before = code.int(0);
    for ((is_taken, own), rank) in taken.iter().zip(&choices).zip(&among_rows) {
        let bits = code.ballot(*is_taken);
        let at = if choose.n == k { own.col } else { before + (bits & below).count_ones() };
        let score = if normalise { own.score / sum } else { own.score };
        let counted = score * (scale.0 as f32);
        code.when(*is_taken, || {
            out.at::<F32>(at).store(counted);
            out.at::<F32>(at + k).store(real(own.col));
            if by.is_some() {
                out.at::<F32>(at + 2 * k).store(*rank);
            }
        });
        before = before + bits.count_ones();
    }
}

/// Marks the highest ranks, one after the other, until `k` choices are marked, of which `n_marked` are. The second numbers are what
/// they rank by among those of other rows.
fn mark_highest<'c>(
    code: &'c Code,
    (choices, mark): (&[Own<'c>], Float<'c>),
    (n_marked, choice): (Int<'c>, Choice),
    start: (Vec<Float<'c>>, Vec<Float<'c>>),
) -> (Vec<Float<'c>>, Vec<Float<'c>>) {
    code.repeat(Steps { from: n_marked, to: choice.k, step: 1 }, start, |turn, (ranks, among)| {
        let in_lane = ranks.iter().copied().reduce(|a, b| a.max(b)).unwrap_or(mark);
        let best = code.reduce(in_lane, 32, |a, b| a.max(b));
        let none = code.int(i32::MAX as u32);
        let first = ranks
            .iter()
            .zip(choices)
            .fold(none, |first, (rank, own)| first.min(rank.ge(best).select(own.col, none)));
        let first = code.reduce(first, 32, |a, b| a.min(b));
        let among = match choice.ranks {
            Some(Ranking::Turn) => replaced(&among, (choices, first), code.float(0.0) - real(turn)),
            Some(Ranking::Score) | None => among,
        };
        (replaced(&ranks, (choices, first), mark), among)
    })
}

/// Whether choices are replayed, and which of those of a lane are.
fn replayed<'c>(
    code: &'c Code,
    kernel: &Kernel,
    Replay { use_forced, choices }: Replay,
    (row, k): (Int<'c>, u32),
    own: &[Own<'c>],
) -> (Bool<'c>, Vec<Bool<'c>>) {
    let is_replayed = code.param(use_forced.0).load::<I32>().ne(0);
    let none: Vec<Bool<'c>> = own.iter().map(|own| own.col.lt(0u32)).collect();
    let listed = place::element(code, kernel.param(choices.slot), choices, row, 0u32);
    let columns: Vec<Float<'c>> = own.iter().map(|own| real(own.col)).collect();
    let n_listed = is_replayed.select(code.int(k), 0u32);
    let marked =
        code.repeat(Steps { from: 0, to: n_listed, step: 1 }, none, |place, marked: Vec<Bool<'c>>| {
            let choice = listed.at::<F32>(place).load::<F32>();
            let marks = columns.iter().map(|col| col.ge(choice) & choice.ge(*col));
            marked.iter().zip(marks).map(|(before, now)| *before | now).collect::<Vec<_>>()
        });
    (is_replayed, marked)
}

/// The numbers of a lane's choices with another one in place of that of the choice `first`.
fn replaced<'c>(
    numbers: &[Float<'c>],
    (choices, first): (&[Own<'c>], Int<'c>),
    by: Float<'c>,
) -> Vec<Float<'c>> {
    numbers.iter().zip(choices).map(|(number, own)| own.col.eq(first).select(by, *number)).collect()
}

/// The choices of a lane with their scores.
fn scores<'c>(
    code: &'c Code,
    kernel: &Kernel,
    choose: &Choose,
    (row, lane): (Int<'c>, Int<'c>),
) -> Vec<Own<'c>> {
    let param = kernel.param(choose.logits.slot);
    let from = place::element(code, param, choose.logits, row, 0u32);
    let own = |idx: u32| {
        let col = lane + idx * 32;
        let inside = col.lt(choose.n);
        Own { col, inside, score: from.at::<F32>(inside.select(col, 0u32)).load::<F32>() }
    };
    let mut choices: Vec<Own<'c>> = (0..choose.n.div_ceil(32)).map(own).collect();
    if choose.choice.sigmoid {
        choices.iter_mut().for_each(|own| own.score = own.score.sigmoid(Precision::Full));
        return choices;
    }
    // Where a lane has no choice it has the logit of the first.
    let first = choices[0].score;
    let largest = choices.iter().map(|own| own.score).fold(first, |a, b| a.max(b));
    let largest = code.reduce(largest, 32, |a, b| a.max(b));
    let zero = code.float(0.0);
    for own in &mut choices {
        own.score = own.inside.select((own.score - largest).exp(Precision::Full), zero);
    }
    let of_lane = choices.iter().fold(zero, |sum, own| sum + own.score);
    let total = code.reduce(of_lane, 32, |a, b| a + b);
    choices.iter_mut().for_each(|own| own.score = own.score / total);
    choices
}

/// What the choices of a lane rank by: last what is not a number, and not at all, by one, what is no choice.
fn ranks<'c>(code: &'c Code, choose: &Choose, choices: &[Own<'c>]) -> Vec<Float<'c>> {
    let (last, none) = (code.int(f32::NEG_INFINITY.to_bits()).as_float(), code.int(f32::NAN.to_bits()));
    let rank = |own: &Own<'c>| {
        let mut rank = own.score;
        if let Some(bias) = choose.bias {
            let bias = code.param(bias.0).at::<F32>(own.inside.select(own.col, 0u32));
            rank = rank + bias.load::<F32>();
        }
        let rank = rank.ge(rank).select(rank, last);
        own.inside.select(rank, none.as_float())
    };
    choices.iter().map(rank).collect()
}

/// A number below 2²³ as f32.
fn real(number: Int<'_>) -> Float<'_> {
    const ONE_UNIT: f32 = 8_388_608.0;
    (number | ONE_UNIT.to_bits()).as_float() - ONE_UNIT
}

/// Generates a partition. One block walks over the rows for each segment; the place of a row in the list is the number of
/// rows of its segment before it, behind those of earlier segments.
///
/// # Errors
/// [`Error::Malformed`].
pub(super) fn partition(kernel: &Kernel, partition: &Partition) -> Result<Generated, Error> {
    place::require_extent(kernel, &kernel.extent)?;
    place::require(kernel, partition.index.slot, DType::F32)?;
    place::require_view(kernel, partition.index, 1)?;
    for slot in [partition.rows, partition.ends, partition.count] {
        place::require_u32(kernel, slot)?;
        require_column(kernel, slot)?;
    }
    let code = Code::new(place::n_params(kernel)?);
    write_partition(&code, kernel, partition);
    Ok(Generated {
        // Two rows of counts, one for each warp.
        shared_bytes: 2 * (BLOCK / 32) * 4,
        ..Generated::new(code, Vec::new(), BLOCK)
    })
}

fn write_partition(code: &Code, kernel: &Kernel, partition: &Partition) {
    let rows = place::extent(code, &kernel.extent);
    let (lane, warp) = (code.thread() % 32, code.thread() / 32);
    let (counts, below) = (code.shared(), (code.int(1) << lane) - 1);
    let index = kernel.param(partition.index.slot);
    let start = (code.int(0), code.int(0), code.float(partition.first as f32));
    let steps = Steps { from: 0, to: partition.parts, step: 1 };
    let (total, _, _) = code.repeat(steps, start, |segment, (before, half, number)| {
        let start = (before, half);
        let (end, half) =
            code.repeat(Steps { from: 0, to: rows, step: BLOCK }, start, |chunk, (before, half)| {
                let row = chunk + code.thread();
                let inside = row.lt(rows);
                let at = place::element(code, index, partition.index, inside.select(row, 0u32), 0u32);
                let of_row = at.load::<F32>();
                let takes = of_row.ge(number) & number.ge(of_row) & inside;
                let bits = code.ballot(takes);
                // Chunks take turns with two rows of counts, so one barrier between writing and reading is enough.
                let row_of_counts = counts.at::<I32>(half * (BLOCK / 32));
                code.when(lane.eq(0), || row_of_counts.at::<I32>(warp).store(bits.count_ones()));
                code.barrier();
                let of_lane = row_of_counts.at::<I32>(lane).load::<I32>();
                let earlier = code.reduce(lane.lt(warp).select(of_lane, 0u32), 32, |a, b| a + b);
                let in_chunk = code.reduce(of_lane, 32, |a, b| a + b);
                let at = before + earlier + (bits & below).count_ones();
                code.when(takes, || code.param(partition.rows.0).at::<I32>(at).store(row));
                (before + in_chunk, half ^ 1)
            });
        code.when(code.thread().eq(0), || code.param(partition.ends.0).at::<I32>(segment).store(end));
        (end, half, number + 1.0)
    });
    code.when(code.thread().eq(0), || code.param(partition.count.0).store(total));
}
