//! A token set: rows by score, by the random router, or by their rank.

use inkwell::FloatPredicate;
use inkwell::values::BasicValue as _;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Compact, Select};

use super::code::{Code, Int, Made, carried};
use super::frame::Frame;
use super::ranked;

/// Emits the whole kernel: one pass over the rows in order.
pub(crate) fn emit<'c>(f: &Frame<'_, 'c>, compact: &Compact, n_rows: Int<'c>) -> Made<()> {
    let use_forced = f.load_word(f.pointer(compact.use_forced, DType::U32)?)?;
    let use_forced = f.is(inkwell::IntPredicate::NE, use_forced, f.int(0))?;
    let forced = f.pointer(compact.forced, DType::U8)?;
    let rows = f.pointer(compact.rows, DType::U32)?;
    let mask = f.pointer(compact.mask, DType::U8)?;
    let mut initial = vec![f.int(0)];
    if let Select::Ranked(_) = compact.select {
        initial.extend(ranked::State::before_first(f).values());
    }
    let last = f.fold(f.int(0), n_rows, 1, &initial, |row, carried| {
        let (count, state) = (carried[0], &carried[1..]);
        let decided = f.branch(
            use_forced,
            || {
                let flag = f.load_flag(f.offset(forced, row)?)?;
                Ok(std::iter::once(flag).chain(state.iter().copied()).collect())
            },
            || decide(f, &compact.select, (row, n_rows), state),
        )?;
        let (is_member, state) = (decided[0], &decided[1..]);
        f.store_flag(f.offset(mask, row)?, is_member)?;
        f.when(is_member, || f.store_word(f.element(rows, count, 4)?, row))?;
        let count = f.add(count, f.as_index(is_member)?)?;
        Ok(std::iter::once(count).chain(state.iter().copied()).collect())
    })?;
    f.store_word(f.pointer(compact.count, DType::U32)?, last[0])
}

/// Whether the row is in the set, and what the next row has to know.
fn decide<'c>(
    f: &Frame<'_, 'c>,
    select: &Select,
    (row, n_rows): (Int<'c>, Int<'c>),
    state: &[Int<'c>],
) -> Made<Vec<Int<'c>>> {
    Ok(match select {
        Select::AtLeast { scores, threshold } => {
            let score = f.load(f.row(*scores, row)?, f.int(0), 1)?;
            let is_member = f.fis(FloatPredicate::OGE, score, f.real(threshold.0 as f32, 1))?;
            vec![f.only_lane(is_member)?]
        }
        Select::Random { ids, sequences, seed, block, limit } => {
            let id = f.load_index(*ids, row)?;
            let sequence = match sequences {
                Some(sequences) => f.load_index(*sequences, row)?,
                None => f.int(0),
            };
            let place = seed.wrapping_mul(GOLDEN).wrapping_add(u64::from(*block) << 48).wrapping_add(GOLDEN);
            let score = random_score(f, place, sequence, id)?;
            vec![f.below(score, f.int(*limit as i64))?]
        }
        Select::NotIn(mask) => {
            let is_in = f.load_flag(f.offset(f.pointer(*mask, DType::U8)?, row)?)?;
            vec![f.is(inkwell::IntPredicate::EQ, is_in, f.ctx.bool_type().const_zero())?]
        }
        Select::WithFirst { chosen, positions, first } => {
            let is_chosen = f.load_flag(f.offset(f.pointer(*chosen, DType::U8)?, row)?)?;
            let is_first = f.below(f.load_index(*positions, row)?, f.int(i64::from(*first)))?;
            vec![f.or(is_chosen, is_first)?]
        }
        Select::Ranked(ranked) => {
            let (is_member, state) = ranked::decide(f, ranked, (row, n_rows), ranked::State::of(state)?)?;
            std::iter::once(is_member).chain(state.values()).collect()
        }
    })
}

impl<'c> Code<'c> {
    /// The only lane of a condition, or of bits.
    pub(crate) fn only_lane(&self, lanes: super::code::Lanes<'c>) -> Made<Int<'c>> {
        let lane = self.builder.build_extract_element(lanes, self.ctx.i64_type().const_zero(), "")?;
        carried(lane.as_basic_value_enum())
    }
}

/// The step of SplitMix64.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// `skipc_ir::random_score`; `place` is the part of its state that is known now.
fn random_score<'c>(code: &Code<'c>, place: u64, sequence: Int<'c>, position: Int<'c>) -> Made<Int<'c>> {
    let place = code.add(code.int(place as i64), code.shl(sequence, 32)?)?;
    let mut z = code.add(place, position)?;
    for (shift, factor) in [(30, 0xBF58_476D_1CE4_E5B9_u64), (27, 0x94D0_49BB_1331_11EB)] {
        z = code.times(code.xor(z, code.shr(z, shift)?)?, factor)?;
    }
    code.shr(code.xor(z, code.shr(z, 31)?)?, 32)
}
