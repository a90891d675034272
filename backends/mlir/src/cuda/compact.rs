//! A token set from scores: mask, ascending row list and count.
//!
//! Where rows are chosen by rank, [`super::ranked`] writes the mask before.
//!
//! One block walks over the rows, [`CHUNK`] at a time. A warp takes 128 neighbouring rows in four
//! ballots; the place of a row in the list is the number of chosen rows before it: those of earlier
//! chunks, of earlier warps, of earlier ballots, of lower lanes.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Compact, Kernel, Select, View};

use super::generated::Generated;
use super::{place, ranked};
use crate::code::{Bool, Code, I8, I32, Int, Long, Operand, Steps};
use crate::error::Error;

/// Threads: as many as a block can have.
pub(super) const THREADS: u32 = 1024;

/// Ballots of a warp in each chunk.
const BALLOTS: u32 = 4;

/// Rows of a chunk.
const CHUNK: u32 = THREADS * BALLOTS;

/// Generates a compaction.
///
/// # Errors
/// [`Error::Malformed`].
pub(super) fn generate(kernel: &Kernel, compact: &Compact) -> Result<Generated, Error> {
    check(kernel, compact)?;
    let code = Code::new(place::n_params(kernel)?);
    write(&code, kernel, compact);
    Ok(Generated {
        // Two rows of counts, one for each warp.
        shared_bytes: 2 * (THREADS / 32) * 4,
        ..Generated::new(code, Vec::new(), THREADS)
    })
}

fn check(kernel: &Kernel, compact: &Compact) -> Result<(), Error> {
    place::require_extent(kernel, &kernel.extent)?;
    for slot in [compact.use_forced, compact.rows, compact.count] {
        place::require_u32(kernel, slot)?;
    }
    for slot in [compact.forced, compact.mask] {
        place::require(kernel, slot, DType::U8)?;
        require_column(kernel, slot)?;
    }
    require_column(kernel, compact.rows)?;
    match &compact.select {
        Select::AtLeast { scores, .. } => {
            place::require(kernel, scores.slot, DType::F32)?;
            place::require_view(kernel, *scores, 1)?;
        }
        Select::Random { ids, sequences, .. } => {
            for view in std::iter::once(ids).chain(sequences) {
                place::require_u32(kernel, view.slot)?;
                place::require_view(kernel, *view, 1)?;
            }
        }
        Select::NotIn(mask) => require_mask(kernel, *mask)?,
        Select::InBoth(masks) => masks.iter().try_for_each(|mask| require_mask(kernel, *mask))?,
        Select::WithFirst { chosen, positions, .. } => {
            require_mask(kernel, *chosen)?;
            place::require_u32(kernel, positions.slot)?;
            place::require_view(kernel, *positions, 1)?;
        }
        Select::Ranked(ranked) => ranked::check(kernel, ranked)?,
    }
    Ok(())
}

fn require_mask(kernel: &Kernel, mask: skipc_plan::kernel::Slot) -> Result<(), Error> {
    place::require(kernel, mask, DType::U8)?;
    require_column(kernel, mask)
}

pub(super) fn require_column(kernel: &Kernel, slot: skipc_plan::kernel::Slot) -> Result<(), Error> {
    let param = place::param(kernel, slot)?;
    if param.cols == 1 {
        return Ok(());
    }
    Err(Error::Malformed { what: format!("`{}` has {} columns, not one", param.name, param.cols) })
}

fn write(code: &Code, kernel: &Kernel, compact: &Compact) {
    let rows = place::extent(code, &kernel.extent);
    let forced = code.param(compact.use_forced.0).load::<I32>().ne(0);
    let (lane, warp) = (code.thread() % 32, code.thread() / 32);
    if let Select::Ranked(ranked) = &compact.select {
        code.when(!forced, || ranked::write(code, kernel, ranked, rows, compact.mask.0));
        code.barrier();
    }
    let counts = code.shared();
    let below = (code.int(1) << lane) - 1;

    let start = (code.int(0), code.int(0));
    let (total, _) = code.repeat(Steps { from: 0, to: rows, step: CHUNK }, start, |chunk, (before, half)| {
        let first = chunk + warp * (32 * BALLOTS) + lane;
        let (mut chosen, mut bits) = (Vec::new(), Vec::new());
        for ballot in 0..BALLOTS {
            let row = first + ballot * 32;
            let inside = row.lt(rows);
            let row_read = inside.select(row, 0u32);
            let takes = code.either(
                forced,
                || code.param(compact.forced.0).at::<I8>(row_read).load::<I8>().to_int().ne(0),
                || selected(code, kernel, compact, row_read),
            ) & inside;
            // A ranked mask stands already, unless decisions are forced: no thread writes what others read.
            let is_new = if matches!(compact.select, Select::Ranked(_)) { inside & forced } else { inside };
            code.when(is_new, || {
                code.param(compact.mask.0).at::<I8>(row).store(takes.to_int().to_byte());
            });
            bits.push(code.ballot(takes));
            chosen.push((row, takes));
        }
        let in_warp = bits.iter().fold(code.int(0), |sum, bits| sum + bits.count_ones());
        // Chunks take turns with two rows of counts, so one barrier between writing and reading is
        // enough: a row is written again only after the barrier of the chunk between.
        let row_of_counts = counts.at::<I32>(half * (THREADS / 32));
        code.when(lane.eq(0), || row_of_counts.at::<I32>(warp).store(in_warp));
        code.barrier();
        let of_lane = row_of_counts.at::<I32>(lane).load::<I32>();
        let earlier = code.reduce(lane.lt(warp).select(of_lane, 0u32), 32, |a, b| a + b);
        let in_chunk = code.reduce(of_lane, 32, |a, b| a + b);
        let mut place = before + earlier;
        for ((row, takes), bits) in chosen.iter().zip(&bits) {
            let at = place + (*bits & below).count_ones();
            code.when(*takes, || code.param(compact.rows.0).at::<I32>(at).store(*row));
            place = place + bits.count_ones();
        }
        (before + in_chunk, half ^ 1)
    });
    code.when(code.thread().eq(0), || code.param(compact.count.0).store(total));
}

/// Does the rule choose the row? The row exists, or is row 0 when there is none.
fn selected<'c>(code: &'c Code, kernel: &Kernel, compact: &Compact, row: Int<'c>) -> Bool<'c> {
    let mask = code.param(compact.mask.0);
    match &compact.select {
        Select::AtLeast { scores, threshold } => {
            let param = kernel.param(scores.slot);
            let score = place::load_group(place::element(code, param, *scores, row, 0u32), param.dtype, 1)[0];
            score.ge(threshold.into_inner() as f32)
        }
        Select::Random { ids, sequences, seed, block, limit } => {
            let number = |view: &View| {
                let param = kernel.param(view.slot);
                place::element(code, param, *view, row, 0u32).load::<I32>().to_long()
            };
            let sequence = sequences.as_ref().map(number);
            random_score(code, *seed, *block, sequence, number(ids)).below(*limit)
        }
        Select::NotIn(other) => code.param(other.0).at::<I8>(row).load::<I8>().to_int().eq(0),
        Select::WithFirst { chosen, positions, first } => {
            let param = kernel.param(positions.slot);
            let position = place::element(code, param, *positions, row, 0u32).load::<I32>();
            code.param(chosen.0).at::<I8>(row).load::<I8>().to_int().ne(0) | position.below(*first)
        }
        Select::InBoth(masks) => {
            let is_in = |mask: &skipc_plan::kernel::Slot| {
                code.param(mask.0).at::<I8>(row).load::<I8>().to_int().ne(0)
            };
            is_in(&masks[0]) & is_in(&masks[1])
        }
        // The mask stands already.
        Select::Ranked(_) => mask.at::<I8>(row).load::<I8>().to_int().ne(0),
    }
}

/// `skipc_ir::random_score`, of which the part that does not depend on the row is computed here.
fn random_score<'c>(
    code: &'c Code,
    seed: u64,
    block: u32,
    sequence: Option<Long<'c>>,
    id: Long<'c>,
) -> Long<'c> {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let constant = seed.wrapping_mul(GOLDEN).wrapping_add(u64::from(block) << 48).wrapping_add(GOLDEN);
    let place = sequence.map_or(id, |sequence| (sequence << 32u64) + id);
    let z = place + Operand::val(constant, code);
    let z = (z ^ (z >> 30u64)) * 0xBF58_476D_1CE4_E5B9_u64;
    let z = (z ^ (z >> 27u64)) * 0x94D0_49BB_1331_11EB_u64;
    (z ^ (z >> 31u64)) >> 32u64
}
