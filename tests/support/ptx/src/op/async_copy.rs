//! Copies of threads that run beside them (PTX ISA sections 9.7.9.25.3 and 9.7.13.15.15).

use super::mbarrier;
use super::memory::At;
use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Form, Kind};
use crate::machine::{
    AccessKind, Copying, FaultKind, Finding, MAX_COUNT, Outcome, Pending, Space, Stamp, Turn, View,
};
use crate::registers::{Source32, lanes};
use crate::syntax::Instruction;

pub(crate) const FORMS: &[Form] = &[
    Form {
        syntax: "cp.async.{ca,cg}.{shared,shared::cta}.global",
        section: "9.7.9.25.3.1",
        kind: Kind::AsyncCopy,
        decode: copy,
    },
    Form { syntax: "cp.async.commit_group", section: "9.7.9.25.3.2", kind: Kind::Sync, decode: commit },
    Form { syntax: "cp.async.wait_group", section: "9.7.9.25.3.3", kind: Kind::Sync, decode: wait },
    Form { syntax: "cp.async.wait_all", section: "9.7.9.25.3.3", kind: Kind::Sync, decode: wait_all },
    Form {
        syntax: "cp.async.mbarrier.arrive.{noinc,}.{shared,shared::cta,}.b64",
        section: "9.7.13.15.15",
        kind: Kind::Sync,
        decode: arrive,
    },
];

fn copy(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    let n = instruction.operands.len();
    if !(3..=4).contains(&n) {
        return Err(decoder.error(format!("{n} operands, 3 or 4 wanted")));
    }
    let to = At::decode(decoder, &instruction.operands[0])?;
    let from = At::decode(decoder, &instruction.operands[1])?;
    let bytes = decoder.constant(&instruction.operands[2])? as u32;
    let allowed: &[u32] = if instruction.opcode.contains(".cg.") { &[16] } else { &[4, 8, 16] };
    if !allowed.contains(&bytes) {
        return Err(decoder.error(format!("{bytes} bytes; {allowed:?} are possible")));
    }
    let present = match instruction.operands.get(3) {
        Some(operand) => decoder.source32(operand)?,
        None => Source32::Constant(bytes),
    };
    Ok(Run::Turn(Box::new(move |turn| {
        let (to, from) = (to.get(turn)?, from.get(turn)?);
        let mask = turn.mask;
        let present = turn.registers().get32(present, mask)?;
        for (group, view) in turn.views() {
            for lane in lanes(group) {
                let one = Copy { to: to[lane], from: from[lane], bytes, present: present[lane] };
                copy_lane(turn, lane, &one, &view)?;
            }
        }
        turn.count_copies(&from, &to, bytes, &present);
        Ok(Outcome::Next)
    })))
}

struct Copy {
    to: u64,
    from: u64,
    bytes: u32,
    /// Bytes that come from memory; the rest are zeros.
    present: u32,
}

fn copy_lane(turn: &mut Turn<'_>, lane: usize, copy: &Copy, view: &View) -> Result<(), Finding> {
    let Copy { to, from, bytes, present } = *copy;
    if present > bytes {
        let what = format!("{present} bytes of the {bytes} are to come from memory");
        return Err(Finding { kind: FaultKind::Operand, lane: lane as u32, what });
    }
    let agent = turn.cluster.agents.async_copies(turn.warp_in_cluster());
    let time = turn.state().groups(Copying::Threads)[lane].issue();
    let stamp = Stamp {
        agent,
        kind: AccessKind::AsyncCopy,
        cluster: turn.cluster.number,
        time,
        lanes: 1 << lane,
        at: turn.at,
    };
    let access = turn.access_as(stamp, 1 << lane, view);
    let mut data = [0; 16];
    if present > 0 {
        // The whole of it has to be aligned, though only a part is read.
        let needed = bytes.min(present.next_power_of_two());
        let place = turn.cluster.memory.place(lane as u32, from, needed, bytes)?;
        turn.note_read(place, lane, present as usize, &access)?;
        let from = &turn.cluster.memory.buffer(place.0).bytes[place.1..place.1 + present as usize];
        data[..present as usize].copy_from_slice(from);
    }
    let place = turn.place(Space::Shared, lane, to, bytes)?;
    turn.note_write(place, lane, bytes as usize, &access)?;
    turn.bytes_mut(place, bytes as usize).copy_from_slice(&data[..bytes as usize]);
    Ok(())
}

fn commit(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    commit_groups(decoder, instruction, Copying::Threads)
}

/// Closes the open groups of copies of a kind.
pub(super) fn commit_groups(
    decoder: &mut Decoder<'_>,
    instruction: &Instruction,
    of: Copying,
) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 0)?;
    Ok(Run::Turn(Box::new(move |turn| {
        let mask = turn.mask;
        turn.state().commit(of, mask);
        Ok(Outcome::Next)
    })))
}

fn wait(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 1)?;
    let left = decoder.constant(&instruction.operands[0])? as u32;
    Ok(Run::Turn(Box::new(move |turn| {
        complete(turn, left);
        Ok(Outcome::Next)
    })))
}

fn wait_all(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 0)?;
    Ok(Run::Turn(Box::new(|turn| {
        let mask = turn.mask;
        turn.state().commit(Copying::Threads, mask);
        complete(turn, 0);
        Ok(Outcome::Next)
    })))
}

fn complete(turn: &mut Turn<'_>, left: u32) {
    let agent = turn.cluster.agents.async_copies(turn.warp_in_cluster());
    let mask = turn.mask;
    turn.state().complete(Copying::Threads, mask, left, &[agent]);
}

fn arrive(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 1)?;
    let at = At::decode(decoder, &instruction.operands[0])?;
    let adds = !instruction.opcode.contains(".noinc");
    Ok(Run::Turn(Box::new(move |turn| {
        let addresses = at.get(turn)?;
        let agent = turn.cluster.agents.async_copies(turn.warp_in_cluster());
        for lane in lanes(turn.mask) {
            let (block, offset) = mbarrier::place(turn, lane, addresses[lane])?;
            turn.use_mbarrier(lane, block, offset)?;
            if adds && let Some(mbarrier) = turn.cluster.blocks[block].shared.mbarriers.get_mut(&offset) {
                mbarrier.pending += 1;
                if mbarrier.pending > MAX_COUNT {
                    let what = format!("more than {MAX_COUNT} arrivals are pending");
                    return Err(turn.finding(FaultKind::Barrier, what).into());
                }
            }
            let time = turn.state().groups(Copying::Threads)[lane].mark();
            let mut view = Box::new(View::of(turn.cluster.number));
            view.known.raise(agent, 1 << lane, time);
            let at = turn.at;
            turn.cluster.pending.push(Pending::Arrive { block, offset, view, at });
        }
        Ok(Outcome::Next)
    })))
}
