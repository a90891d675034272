//! Barriers that count arrivals and transactions (PTX ISA section 9.7.13.15).

use std::rc::Rc;

use super::memory::At;
use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Form, Kind};
use crate::machine::{
    AccessKind, FaultKind, Finding, MAX_COUNT, Mbarrier, Outcome, Pointee, Space, Stamp, Trouble, Turn, Wait,
};
use crate::registers::{Lanes64, Mask, Slot, Source32, Source64, WARP, lanes};
use crate::syntax::{Instruction, Operand};

pub(crate) const FORMS: &[Form] = &[
    Form {
        syntax: "mbarrier.init.{shared,shared::cta,}.b64",
        section: "9.7.13.15.9",
        kind: Kind::Sync,
        decode: init,
    },
    Form {
        syntax: "mbarrier.inval.{shared,shared::cta,}.b64",
        section: "9.7.13.15.10",
        kind: Kind::Sync,
        decode: invalidate,
    },
    Form {
        syntax: "mbarrier.arrive.{release.cta,release.cluster,}.{shared,shared::cta,shared::cluster,}.b64",
        section: "9.7.13.15.13",
        kind: Kind::Sync,
        decode: arrive,
    },
    Form {
        syntax: "mbarrier.arrive.expect_tx.{release.cta,release.cluster,}.{shared,shared::cta,shared::cluster,}.b64",
        section: "9.7.13.15.13",
        kind: Kind::Sync,
        decode: arrive,
    },
    Form {
        syntax: "mbarrier.{test_wait,try_wait}.{parity,}.{acquire.cta,acquire.cluster,}.{shared,shared::cta,}.b64",
        section: "9.7.13.15.16",
        kind: Kind::Sync,
        decode: wait,
    },
];

/// Block and offset of the mbarrier that a lane names.
pub(super) fn place(turn: &Turn<'_>, lane: usize, address: u64) -> Result<(usize, u32), Trouble> {
    match turn.place(Space::Shared, lane, address, 8)? {
        Pointee::Shared(block, offset) => Ok((block, offset as u32)),
        _ => Err(turn.finding(FaultKind::Barrier, "an mbarrier lies in shared memory").into()),
    }
}

fn init(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 2)?;
    let at = At::decode(decoder, &instruction.operands[0])?;
    let count = decoder.source32(&instruction.operands[1])?;
    Ok(Run::Turn(Box::new(move |turn| {
        let addresses = at.get(turn)?;
        let mask = turn.mask;
        let counts = turn.registers().get32(count, mask)?;
        let agent = turn.cluster.agents.warp(turn.warp_in_cluster());
        for lane in lanes(mask) {
            let (block, offset) = place(turn, lane, addresses[lane])?;
            let count = counts[lane];
            if count == 0 || count > MAX_COUNT {
                let what = format!("a count of {count}; 1 to {MAX_COUNT} are possible");
                return Err(turn.finding(FaultKind::Barrier, what).into());
            }
            if turn.cluster.blocks[block].shared.mbarriers.contains_key(&offset) {
                let offset = turn.own(offset.into());
                let what =
                    format!("there is an mbarrier at byte {offset} already: mbarrier.inval comes first");
                return Err(turn.finding(FaultKind::Barrier, what).into());
            }
            let time = turn.state().time;
            let stamp = Stamp {
                agent,
                kind: AccessKind::Generic,
                cluster: turn.cluster.number,
                time,
                lanes: 1 << lane,
                at: turn.at,
            };
            let n_before = turn.cluster.n_mbarriers;
            let Some(row) = turn.cluster.agents.mbarrier(n_before) else {
                let what = format!(
                    "the cluster has initialised {n_before} mbarriers; the machine tells no more apart"
                );
                return Err(turn.finding(FaultKind::Barrier, what).into());
            };
            turn.cluster.n_mbarriers += 1;
            turn.cluster.blocks[block].shared.mbarriers.insert(offset, Mbarrier::new(row, count, stamp));
        }
        Ok(Outcome::Next)
    })))
}

fn invalidate(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 1)?;
    let at = At::decode(decoder, &instruction.operands[0])?;
    Ok(Run::Turn(Box::new(move |turn| {
        let addresses = at.get(turn)?;
        for lane in lanes(turn.mask) {
            let (block, offset) = place(turn, lane, addresses[lane])?;
            turn.use_mbarrier(lane, block, offset)?;
            turn.cluster.blocks[block].shared.mbarriers.remove(&offset);
        }
        Ok(Outcome::Next)
    })))
}

/// `mbarrier.arrive` with a count, or with bytes to expect.
fn arrive(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    let expects = instruction.opcode.contains(".expect_tx");
    let (state, rest) = match instruction.operands.as_slice() {
        [Operand::Address(_), ..] => (None, instruction.operands.as_slice()),
        [Operand::Sink, rest @ ..] => (None, rest),
        [state, rest @ ..] => (Some(decoder.to64(state)?), rest),
        [] => return Err(decoder.error("no operands")),
    };
    let (at, number) = match rest {
        [at] if !expects => (at, Source32::Constant(1)),
        [at, number] => (at, decoder.source32(number)?),
        _ => return Err(decoder.error("an address, then bytes or a count, are wanted")),
    };
    let at = At::decode(decoder, at)?;
    Ok(Run::Turn(Box::new(move |turn| {
        let addresses = at.get(turn)?;
        let mask = turn.mask;
        let numbers = turn.registers().get32(number, mask)?;
        let mut states: Lanes64 = [0; WARP];
        for (lane, same) in by_address(mask, &addresses) {
            let (block, offset) = place(turn, lane, addresses[lane])?;
            let mut expected = 0;
            let mut count = 0_u32;
            for lane in lanes(same) {
                turn.use_mbarrier(lane, block, offset)?;
                let number = numbers[lane];
                let least = u32::from(!expects);
                if !(least..=MAX_COUNT).contains(&number) {
                    let what = format!("a count of {number}; {least} to {MAX_COUNT} are possible");
                    return Err(Finding { kind: FaultKind::Barrier, lane: lane as u32, what }.into());
                }
                expected += if expects { number } else { 0 };
                count += if expects { 1 } else { number };
            }
            if let Some(mbarrier) = turn.cluster.blocks[block].shared.mbarriers.get(&offset) {
                lanes(same).for_each(|lane| states[lane] = u64::from(mbarrier.phase));
            }
            turn.mask = same;
            let view = turn.release();
            let arrived = turn.cluster.arrive(block, offset, count, &view, expected);
            turn.mask = mask;
            arrived.map_err(|finding| turn.finding(finding.kind, finding.what))?;
        }
        if let Some(state) = state {
            turn.registers().set64(state, mask, &states);
        }
        Ok(Outcome::Next)
    })))
}

/// Lanes that name the same address, with the lowest of them.
fn by_address(mask: Mask, addresses: &Lanes64) -> Vec<(usize, Mask)> {
    let mut groups: Vec<(usize, Mask)> = Vec::new();
    for lane in lanes(mask) {
        match groups.iter_mut().find(|(first, _)| addresses[*first] == addresses[lane]) {
            Some((_, same)) => *same |= 1 << lane,
            None => groups.push((lane, 1 << lane)),
        }
    }
    groups
}

/// The phase to wait for: a parity, or the state that an arrival returned.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Parity(Source32),
    State(Source64),
}

fn wait(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    let operands = instruction.operands.as_slice();
    if !(3..=4).contains(&operands.len()) {
        return Err(decoder.error(format!("{} operands, 3 or 4 wanted", operands.len())));
    }
    let to = decoder.to_predicate(&operands[0])?;
    let at = At::decode(decoder, &operands[1])?;
    let phase = if instruction.opcode.contains(".parity") {
        Phase::Parity(decoder.source32(&operands[2])?)
    } else {
        match decoder.slot(&operands[2])? {
            Slot::Double(slot) => Phase::State(Source64::Register(slot)),
            _ => return Err(decoder.error("the state is a register of 64 bits")),
        }
    };
    if let Some(limit) = operands.get(3) {
        decoder.source32(limit)?;
    }
    Ok(Run::Turn(Box::new(move |turn| {
        let addresses = at.get(turn)?;
        let mask = turn.mask;
        let parities = match phase {
            Phase::Parity(source) => turn.registers().get32(source, mask)?.map(|parity| parity & 1),
            Phase::State(source) => turn.registers().get64(source, mask)?.map(|state| state as u32 & 1),
        };
        let (mut over, mut open) = (0, None);
        for (lane, same) in by_address(mask, &addresses) {
            let (block, offset) = place(turn, lane, addresses[lane])?;
            for lane in lanes(same) {
                turn.use_mbarrier(lane, block, offset)?;
                let parity = parities[lane];
                if turn.cluster.blocks[block].shared.mbarriers[&offset].is_over(parity) {
                    over |= 1 << lane;
                } else {
                    open = Some(Wait::Mbarrier { block: block as u32, offset, parity });
                }
            }
        }
        // A wait may give up before its phase is over, and the loop around it has to ask again.
        let gives_up = turn.cluster.launch.seed != 0 && turn.cluster.rng.once_in(2);
        if let Some(open) = open
            && !gives_up
        {
            return Ok(Outcome::Wait(open));
        }
        for (lane, same) in by_address(over, &addresses) {
            let (block, offset) = place(turn, lane, addresses[lane])?;
            let view = Rc::clone(&turn.cluster.blocks[block].shared.mbarriers[&offset].completed);
            turn.mask = same;
            turn.acquire(&view);
            turn.mask = mask;
        }
        turn.registers().set_predicate(to, mask, over);
        Ok(Outcome::Next)
    })))
}
