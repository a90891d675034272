//! A token set: rows by score, by the random router, or by their rank.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{I8, I64};
use cranelift_codegen::ir::{BlockArg, InstBuilder, Value};
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Compact, Select};

use crate::emit::{Emitter, Lanes};
use crate::error::Fault;
use crate::memory::PLAIN;
use crate::ranked;

/// Emits the whole kernel: one pass over the rows in order.
pub(crate) fn emit(e: &mut Emitter<'_>, compact: &Compact, n_rows: Value) -> Result<(), Fault> {
    let use_forced = e.pointer(compact.use_forced, DType::U32)?;
    let use_forced = e.load_flag(use_forced, DType::U32);
    let forced = e.pointer(compact.forced, DType::U8)?;
    let rows = e.pointer(compact.rows, DType::U32)?;
    let mask = e.pointer(compact.mask, DType::U8)?;
    let (zero, one) = (e.int(0), e.int(1));
    let mut initial = vec![zero];
    if let Select::Ranked(_) = compact.select {
        initial.extend(ranked::State::before_first(e).values());
    }
    let last = e.fold(zero, n_rows, 1, &initial, |e, row, carried| {
        let (count, state) = (carried[0], &carried[1..]);
        let [replay, select, decided] = [(); 3].map(|()| e.builder.create_block());
        let executes = e.builder.append_block_param(decided, I8);
        let next: Vec<Value> = state.iter().map(|_| e.builder.append_block_param(decided, I64)).collect();
        e.ins().brif(use_forced, replay, &[], select, &[]);
        e.builder.seal_block(replay);
        e.builder.seal_block(select);

        e.builder.switch_to_block(replay);
        let address = e.element(forced, row, 1);
        let flag = e.load_flag(address, DType::U8);
        let flag = e.ins().icmp_imm_u(IntCC::NotEqual, flag, 0);
        let args: Vec<BlockArg> =
            std::iter::once(flag).chain(state.iter().copied()).map(BlockArg::Value).collect();
        e.ins().jump(decided, &args);

        e.builder.switch_to_block(select);
        let (flag, state) = decide(e, &compact.select, (row, n_rows), state)?;
        let args: Vec<BlockArg> = std::iter::once(flag).chain(state).map(BlockArg::Value).collect();
        e.ins().jump(decided, &args);
        e.builder.seal_block(decided);

        e.builder.switch_to_block(decided);
        let address = e.element(mask, row, 1);
        e.ins().store(PLAIN, executes, address, 0);
        e.when(executes, |e| {
            e.store_index(rows, count, row);
            Ok(())
        })?;
        let more = e.ins().iadd(count, one);
        let count = e.ins().select(executes, more, count);
        Ok(std::iter::once(count).chain(next).collect())
    })?;
    let address = e.pointer(compact.count, DType::U32)?;
    e.store_index(address, zero, last[0]);
    Ok(())
}

/// 1 if the row is in the set, else 0, and what the next row has to know.
fn decide(
    e: &mut Emitter<'_>,
    select: &Select,
    (row, n_rows): (Value, Value),
    state: &[Value],
) -> Result<(Value, Vec<Value>), Fault> {
    let flag = match select {
        Select::AtLeast { scores, threshold } => {
            let (scores, zero) = (e.row(*scores, row)?, e.int(0));
            let score = e.load(scores, zero, Lanes::One);
            let threshold = e.real(threshold.0 as f32, Lanes::One);
            e.ins().fcmp(FloatCC::GreaterThanOrEqual, score, threshold)
        }
        Select::Random { ids, sequences, seed, block, limit } => {
            let id = e.load_index(*ids, row)?;
            let sequence = match sequences {
                Some(sequences) => e.load_index(*sequences, row)?,
                None => e.int(0),
            };
            let place = seed.wrapping_mul(GOLDEN).wrapping_add(u64::from(*block) << 48).wrapping_add(GOLDEN);
            let score = random_score(e, place, sequence, id);
            let limit = e.int(*limit as i64);
            e.ins().icmp(IntCC::UnsignedLessThan, score, limit)
        }
        Select::NotIn(mask) => {
            let mask = e.pointer(*mask, DType::U8)?;
            let address = e.element(mask, row, 1);
            let flag = e.load_flag(address, DType::U8);
            e.ins().icmp_imm_u(IntCC::Equal, flag, 0)
        }
        Select::WithFirst { chosen, positions, first } => {
            let chosen = e.pointer(*chosen, DType::U8)?;
            let address = e.element(chosen, row, 1);
            let flag = e.load_flag(address, DType::U8);
            let is_chosen = e.ins().icmp_imm_u(IntCC::NotEqual, flag, 0);
            let position = e.load_index(*positions, row)?;
            let first = e.int(i64::from(*first));
            let is_first = e.ins().icmp(IntCC::UnsignedLessThan, position, first);
            e.ins().bor(is_chosen, is_first)
        }
        Select::Ranked(ranked) => {
            let (flag, state) = ranked::decide(e, ranked, (row, n_rows), ranked::State::of(state)?)?;
            return Ok((flag, state.values().to_vec()));
        }
    };
    Ok((flag, Vec::new()))
}

/// The step of SplitMix64.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// `skipc_ir::random_score`; `place` is the part of its state that is known now.
fn random_score(e: &mut Emitter<'_>, place: u64, sequence: Value, position: Value) -> Value {
    let place = e.int(place as i64);
    let sequence = e.ins().ishl_imm_u(sequence, 32);
    let mut z = e.ins().iadd(place, sequence);
    z = e.ins().iadd(z, position);
    for (shift, factor) in [(30, 0xBF58_476D_1CE4_E5B9_u64), (27, 0x94D0_49BB_1331_11EB)] {
        let shifted = e.ins().ushr_imm_u(z, shift);
        z = e.ins().bxor(z, shifted);
        let factor = e.int(factor as i64);
        z = e.ins().imul(z, factor);
    }
    let shifted = e.ins().ushr_imm_u(z, 31);
    z = e.ins().bxor(z, shifted);
    debug_assert_eq!(e.builder.func.dfg.value_type(z), I64);
    e.ins().ushr_imm_u(z, 32)
}
