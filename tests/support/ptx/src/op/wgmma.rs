//! Matrix operations of warp groups (PTX ISA section 9.7.15).

use std::rc::Rc;

use half::{bf16, f16};

use super::barrier::all_lanes;
use crate::isa::descriptor::{K, Major, WgmmaDescriptor};
use crate::isa::fragment;
use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Form, Kind};
use crate::machine::{
    FaultKind, Finding, Outcome, ROWS, SharedOperand, Tile, Trouble, Turn, WARP_GROUP, Wait, Warp, multiply,
};
use crate::registers::{Lanes32, Mask, Slot, Source32, Source64, SourcePredicate, Unset, lanes};
use crate::syntax::{Instruction, Operand};

pub(crate) const FORMS: &[Form] = &[
    Form {
        syntax: "wgmma.mma_async.sync.aligned.{m64n8k16,m64n16k16,m64n24k16,m64n32k16,m64n40k16,m64n48k16,m64n56k16,m64n64k16,m64n72k16,m64n80k16,m64n88k16,m64n96k16,m64n104k16,m64n112k16,m64n120k16,m64n128k16,m64n136k16,m64n144k16,m64n152k16,m64n160k16,m64n168k16,m64n176k16,m64n184k16,m64n192k16,m64n200k16,m64n208k16,m64n216k16,m64n224k16,m64n232k16,m64n240k16,m64n248k16,m64n256k16}.f32.{bf16.bf16,f16.f16}",
        section: "9.7.15.5.2",
        kind: Kind::Matrix,
        decode: mma_async,
    },
    Form { syntax: "wgmma.fence.sync.aligned", section: "9.7.15.7.1", kind: Kind::Sync, decode: fence },
    Form {
        syntax: "wgmma.commit_group.sync.aligned",
        section: "9.7.15.7.2",
        kind: Kind::Sync,
        decode: commit,
    },
    Form { syntax: "wgmma.wait_group.sync.aligned", section: "9.7.15.7.3", kind: Kind::Sync, decode: wait },
    Form {
        syntax: "setmaxnreg.{inc,dec}.sync.aligned.u32",
        section: "9.7.19.5",
        kind: Kind::Sync,
        decode: set_max_registers,
    },
];

/// Where A is.
enum OperandA {
    Descriptor(Source64),
    Registers(Vec<Source32>),
}

struct Mma {
    n: usize,
    is_bf16: bool,
    slots: Vec<u32>,
    a: OperandA,
    b: Source64,
    scale_d: SourcePredicate,
    negate: (bool, bool),
    major: (Major, Major),
}

fn mma_async(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    let mma = decode_mma(decoder, instruction)?;
    Ok(Run::Turn(Box::new(move |turn| {
        mma.run(turn)?;
        Ok(Outcome::Next)
    })))
}

fn decode_mma(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Mma, DecodeError> {
    let shape = instruction.opcode.split('.').nth(4).unwrap_or_default();
    let n = shape.strip_prefix("m64n").and_then(|rest| rest.strip_suffix("k16")).and_then(|n| n.parse().ok());
    let n: usize = n.ok_or_else(|| decoder.error(format!("the shape {shape} is not m64nNk16")))?;
    let in_registers = matches!(instruction.operands.get(1), Some(Operand::List(_)));
    decoder.expect_operands(instruction, if in_registers { 7 } else { 8 })?;
    let operands = &instruction.operands;
    let Operand::List(items) = &operands[0] else {
        return Err(decoder.error("accumulators in braces are wanted"));
    };
    let slots: Vec<u32> = items.iter().map(|item| decoder.to32(item)).collect::<Result<_, _>>()?;
    if slots.len() != n / 2 {
        return Err(decoder.error(format!("{} accumulators, {} wanted", slots.len(), n / 2)));
    }
    let a = if in_registers {
        let list = decoder.list32(&operands[1])?;
        if list.len() != 4 {
            return Err(decoder.error(format!("{} registers of A, 4 wanted", list.len())));
        }
        OperandA::Registers(list)
    } else {
        OperandA::Descriptor(decoder.source64(&operands[1])?)
    };
    let scale = |operand: &Operand| match decoder.constant(operand)? as i64 {
        1 => Ok(false),
        -1 => Ok(true),
        other => Err(decoder.error(format!("a scale of {other}; 1 and -1 are possible"))),
    };
    let major =
        |operand: Option<&Operand>| match operand.map(|operand| decoder.constant(operand)).transpose()? {
            None | Some(0) => Ok(Major::K),
            Some(1) => Ok(Major::Mn),
            Some(other) => Err(decoder.error(format!("a transposition of {other}; 0 and 1 are possible"))),
        };
    let negate = (scale(&operands[4])?, scale(&operands[5])?);
    let major = if in_registers {
        (Major::K, major(operands.get(6))?)
    } else {
        (major(operands.get(6))?, major(operands.get(7))?)
    };
    let scale_d = decoder.source_predicate(&operands[3])?;
    let b = decoder.source64(&operands[2])?;
    Ok(Mma { n, is_bf16: instruction.opcode.ends_with(".bf16.bf16"), slots, a, b, scale_d, negate, major })
}

/// A of one execution.
#[derive(Clone, Copy)]
enum A<'s> {
    Descriptor(WgmmaDescriptor),
    Registers(&'s [Source32]),
}

impl Mma {
    fn run(&self, turn: &mut Turn<'_>) -> Result<(), Trouble> {
        let b = descriptor(turn, self.b)?;
        let a = match &self.a {
            OperandA::Descriptor(source) => A::Descriptor(descriptor(turn, *source)?),
            OperandA::Registers(sources) => A::Registers(sources),
        };
        let key = match a {
            A::Descriptor(a) => b.to_bits() ^ a.to_bits().rotate_left(17),
            A::Registers(_) => b.to_bits(),
        };
        let position = turn.collective(key)?;
        if !turn.state().wgmma.is_fenced() {
            let what = "no wgmma.fence comes before the first wgmma.mma_async";
            return Err(turn.finding(FaultKind::MissingWgmmaFence, what).into());
        }
        let (mut rows, sources): (_, &[Source32]) = match a {
            A::Descriptor(a) => (self.rows(turn, a)?, &[]),
            A::Registers(sources) => (self.fragment(turn, sources)?, sources),
        };
        if self.negate.0 {
            rows.iter_mut().flatten().for_each(|value| *value = -*value);
        }
        let b = self.columns(turn, b, position)?;
        let mut tile = self.accumulators(turn)?;
        multiply(&mut tile.values, &rows, &b.values, self.n);
        let state = turn.state();
        let Warp { registers, wgmma, .. } = state;
        let slot = |source: &Source32| if let Source32::Register(slot) = source { Some(*slot) } else { None };
        wgmma.put(registers, tile, sources.iter().filter_map(slot));
        turn.cluster.counters.wgmma += 1;
        turn.cluster.counters.matrix_macs += (ROWS * K * self.n) as u64;
        Ok(())
    }

    fn number(&self, bits: u16) -> f32 {
        if self.is_bf16 { bf16::from_bits(bits).to_f32() } else { f16::from_bits(bits).to_f32() }
    }

    /// The warp's rows of A in shared memory.
    fn rows(&self, turn: &mut Turn<'_>, a: WgmmaDescriptor) -> Result<[[f32; K]; ROWS], Finding> {
        let first = (turn.warp % WARP_GROUP * ROWS) as u32;
        let mut rows = [[0.0; K]; ROWS];
        turn.operand(a.chunks(self.major.0, first..first + ROWS as u32), |chunk, elements, _| {
            for (idx, bits) in (0..).zip(elements) {
                let (row, k) = chunk.element(self.major.0, idx);
                rows[(row - first) as usize][k as usize] = self.number(bits);
            }
        })?;
        Ok(rows)
    }

    /// The warp's rows of A in registers, two elements each.
    fn fragment(&self, turn: &mut Turn<'_>, sources: &[Source32]) -> Result<[[f32; K]; ROWS], Trouble> {
        let mut rows = [[0.0; K]; ROWS];
        for (idx, source) in sources.iter().enumerate() {
            if let Source32::Register(slot) = source
                && turn.registers().is_fresh(*slot)
            {
                return Err(written_since(turn, *slot));
            }
            let values = turn.registers().get32(*source, Mask::MAX)?;
            for (lane, pair) in values.iter().enumerate() {
                for half in 0..2 {
                    let (row, k) = fragment::wgmma_a(lane, 2 * idx + half);
                    rows[row][k] = self.number((pair >> (16 * half)) as u16);
                }
            }
        }
        Ok(rows)
    }

    /// B as `[k][n]`, which the first warp of the group that comes reads for all four.
    fn columns(
        &self,
        turn: &mut Turn<'_>,
        b: WgmmaDescriptor,
        position: usize,
    ) -> Result<Rc<SharedOperand>, Finding> {
        let group = turn.warp / WARP_GROUP;
        if let Some(known) = turn.cluster.blocks[turn.block].take_operand(group, position) {
            turn.know_writes(&known.writes)?;
            return Ok(known);
        }
        let mut operand = SharedOperand { values: vec![0.0; K * self.n], writes: Vec::new() };
        let sign = if self.negate.1 { -1.0 } else { 1.0 };
        let SharedOperand { values, writes } = &mut operand;
        turn.operand(b.chunks(self.major.1, 0..self.n as u32), |chunk, elements, write| {
            // Chunks next to each other mostly come from one copy.
            if !writes.iter().rev().any(|(_, known)| *known == write.1) {
                writes.push(write);
            }
            for (idx, bits) in (0..).zip(elements) {
                let (column, k) = chunk.element(self.major.1, idx);
                values[k as usize * self.n + column as usize] = sign * self.number(bits);
            }
        })?;
        Ok(turn.cluster.blocks[turn.block].keep_operand(group, position, Rc::new(operand)))
    }

    fn accumulators(&self, turn: &mut Turn<'_>) -> Result<Tile, Trouble> {
        let scale = turn.registers().get_predicate(self.scale_d, Mask::MAX)?;
        if scale != 0 && scale != Mask::MAX {
            return Err(turn.finding(FaultKind::Operand, "lanes disagree about scale-d").into());
        }
        let in_flight = turn.state().wgmma.take(&self.slots);
        if in_flight.is_none() {
            let state = turn.state();
            if let Some(slot) = self.slots.iter().find(|slot| state.wgmma.owns(**slot)) {
                let lanes = Mask::MAX;
                return Err(Unset { slot: Slot::Word(*slot), lanes }.into());
            }
        }
        let state = turn.state();
        if let Some(slot) = self.slots.iter().copied().find(|slot| state.registers.is_fresh(*slot)) {
            return Err(written_since(turn, slot));
        }
        match in_flight {
            Some(tile) if scale != 0 => Ok(tile),
            None if scale != 0 => {
                let get = |slot: &u32| state.registers.get32(Source32::Register(*slot), Mask::MAX);
                let registers: Vec<Lanes32> = self.slots.iter().map(get).collect::<Result<_, _>>()?;
                Ok(Tile::gather(self.slots.clone(), &registers))
            }
            _ => Ok(Tile::zero(self.slots.clone())),
        }
    }
}

fn written_since(turn: &Turn<'_>, slot: u32) -> Trouble {
    let name = turn.register_name(Slot::Word(slot));
    let what = format!("{name} was written after the last wgmma.fence");
    turn.finding(FaultKind::MissingWgmmaFence, what).into()
}

/// A descriptor, which all lanes have to agree on.
fn descriptor(turn: &mut Turn<'_>, source: Source64) -> Result<WgmmaDescriptor, Trouble> {
    let mask = turn.mask;
    let values = turn.registers().get64(source, mask)?;
    let first = values[mask.trailing_zeros() as usize];
    if lanes(mask).any(|lane| values[lane] != first) {
        return Err(turn.finding(FaultKind::Descriptor, "lanes of a warp have different descriptors").into());
    }
    let descriptor = WgmmaDescriptor::from_bits(first);
    descriptor.map_err(|error| turn.finding(FaultKind::Descriptor, error.to_string()).into())
}

fn fence(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 0)?;
    Ok(Run::Turn(Box::new(|turn| {
        turn.collective(0)?;
        spare_registers(turn)?;
        let state = turn.state();
        state.registers.fence();
        state.wgmma.fence();
        Ok(Outcome::Next)
    })))
}

/// Fails if a register was written that a matrix operation under way reads or owns.
fn spare_registers(turn: &mut Turn<'_>) -> Result<(), Finding> {
    let state = turn.state();
    let Some(slot) = state.wgmma.overwritten(&state.registers) else { return Ok(()) };
    let name = turn.register_name(Slot::Word(slot));
    let what = format!("{name} was written while a wgmma.mma_async that has not been waited for uses it");
    Err(turn.finding(FaultKind::RegisterInFlight, what))
}

fn commit(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 0)?;
    Ok(Run::Turn(Box::new(|turn| {
        turn.collective(0)?;
        let state = turn.state();
        state.wgmma.commit(state.collective as u32);
        Ok(Outcome::Next)
    })))
}

fn wait(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 1)?;
    let left = decoder.constant(&instruction.operands[0])? as u32;
    Ok(Run::Turn(Box::new(move |turn| {
        all_lanes(turn)?;
        spare_registers(turn)?;
        let Some((group, position)) = turn.state().wgmma.waits_for(left) else { return Ok(Outcome::Next) };
        let own = turn.warp / WARP_GROUP;
        if turn.cluster.blocks[turn.block].reached(own) < position as usize {
            return Ok(Outcome::Wait(Wait::WarpGroup { group: own as u32, position }));
        }
        let agent = turn.wgmma_agent();
        let mask = turn.mask;
        let Warp { registers, wgmma, .. } = turn.state();
        wgmma.complete(registers, group);
        turn.state().learn(mask, |_, view| view.known.raise(agent, 1, group));
        Ok(Outcome::Next)
    })))
}

/// Most registers of a thread (PTX ISA section 9.7.19.5).
const MAX_REGISTERS: u64 = 256;

fn set_max_registers(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 1)?;
    let count = decoder.constant(&instruction.operands[0])?;
    if !(24..=MAX_REGISTERS).contains(&count) || !count.is_multiple_of(8) {
        return Err(
            decoder.error(format!("{count} registers; a multiple of 8 from 24 to {MAX_REGISTERS} is wanted"))
        );
    }
    Ok(Run::Turn(Box::new(move |turn| {
        turn.collective(count)?;
        Ok(Outcome::Next)
    })))
}
