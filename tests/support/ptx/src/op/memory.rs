//! Loads, stores, atomics (PTX ISA sections 9.7.9.8, 9.7.9.9, 9.7.9.11, 9.7.13.5 and 9.7.13.6), and addresses in the
//! shared memory of another block of the cluster (9.7.9.23).

use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Form, Kind};
use crate::machine::{Change, FaultKind, Order, Outcome, SHARED_WINDOW, Scope, Space, Trouble, Turn};
use crate::registers::{Lanes32, Lanes64, Mask, Slot, Source32, Source64, Unset, WARP, lanes};
use crate::syntax::{Address, Base, Instruction, Operand};

pub(crate) const FORMS: &[Form] = &[
    Form {
        syntax: "ld.{global,global.nc,shared,shared::cta,shared::cluster,param,}.{v2,v4,}.{b8,u8,s8,b16,u16,s16,b32,u32,s32,f32,b64,u64,s64,f64}",
        section: "9.7.9.8, 9.7.9.9",
        kind: Kind::Memory,
        decode: load,
    },
    Form {
        syntax: "ld.{volatile,relaxed.cta,relaxed.cluster,relaxed.gpu,relaxed.sys,acquire.cta,acquire.cluster,acquire.gpu,acquire.sys}.{global,shared,shared::cta,shared::cluster,}.{v2,v4,}.{b8,u8,s8,b16,u16,s16,b32,u32,s32,f32,b64,u64,s64,f64}",
        section: "9.7.9.8",
        kind: Kind::Memory,
        decode: load,
    },
    Form {
        syntax: "st.{global,shared,shared::cta,shared::cluster,}.{v2,v4,}.{b8,u8,s8,b16,u16,s16,b32,u32,s32,f32,b64,u64,s64,f64}",
        section: "9.7.9.11",
        kind: Kind::Memory,
        decode: store,
    },
    Form {
        syntax: "st.{volatile,relaxed.cta,relaxed.cluster,relaxed.gpu,relaxed.sys,release.cta,release.cluster,release.gpu,release.sys}.{global,shared,shared::cta,shared::cluster,}.{v2,v4,}.{b8,u8,s8,b16,u16,s16,b32,u32,s32,f32,b64,u64,s64,f64}",
        section: "9.7.9.11",
        kind: Kind::Memory,
        decode: store,
    },
    Form {
        syntax: "red.{relaxed.cta,relaxed.cluster,relaxed.gpu,relaxed.sys,release.cta,release.cluster,release.gpu,release.sys,}.{global,shared,}.add.{u32,s32,f32,u64}",
        section: "9.7.13.6",
        kind: Kind::Atomic,
        decode: reduce,
    },
    Form {
        syntax: "atom.{relaxed.cta,relaxed.cluster,relaxed.gpu,relaxed.sys,acquire.cta,acquire.cluster,acquire.gpu,acquire.sys,release.cta,release.cluster,release.gpu,release.sys,acq_rel.cta,acq_rel.cluster,acq_rel.gpu,acq_rel.sys,}.{global,shared,}.add.{u32,s32,f32,u64}",
        section: "9.7.13.5",
        kind: Kind::Atomic,
        decode: atomic,
    },
    Form {
        syntax: "mapa.shared::cluster.{u32,u64}",
        section: "9.7.9.23",
        kind: Kind::Integer,
        decode: map_address,
    },
];

/// An address operand: a base of 64 or 32 bits and an offset.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At {
    Double(Source64, i64),
    Word(u32, i64),
}

impl At {
    /// Reads `[base + offset]`.
    pub(crate) fn decode(decoder: &Decoder<'_>, operand: &Operand) -> Result<Self, DecodeError> {
        match operand {
            Operand::Address(Address { base, offset, coordinates }) if coordinates.is_empty() => {
                Self::of_base(decoder, base, *offset)
            }
            other => Err(decoder.error(format!("{other:?} is not an address"))),
        }
    }

    pub(crate) fn of_base(decoder: &Decoder<'_>, base: &Base, offset: i64) -> Result<Self, DecodeError> {
        match base {
            Base::Register(id) => match decoder.slot(&Operand::Register(*id))? {
                Slot::Double(slot) => Ok(Self::Double(Source64::Register(slot), offset)),
                Slot::Word(slot) => Ok(Self::Word(slot, offset)),
                Slot::Predicate(_) => Err(decoder.error("a predicate is not an address")),
            },
            Base::Symbol(name) => Ok(Self::Double(Source64::Constant(decoder.symbol(name)?), offset)),
            Base::Constant(value) => Ok(Self::Double(Source64::Constant(*value), offset)),
        }
    }

    /// The address of each lane.
    pub(crate) fn get(self, turn: &mut Turn<'_>) -> Result<Lanes64, Unset> {
        let mask = turn.mask;
        match self {
            Self::Double(source, offset) => {
                let mut base = turn.registers().get64(source, mask)?;
                base.iter_mut().for_each(|address| *address = address.wrapping_add_signed(offset));
                Ok(base)
            }
            Self::Word(slot, offset) => {
                let base = turn.registers().get32(Source32::Register(slot), mask)?;
                Ok(base.map(|address| u64::from(address.wrapping_add_signed(offset as i32))))
            }
        }
    }

    /// The address that one lane has.
    pub(crate) fn of_lane(self, turn: &mut Turn<'_>, lane: usize) -> Result<u64, Unset> {
        let whole = turn.mask;
        turn.mask = 1 << lane;
        let address = self.get(turn);
        turn.mask = whole;
        Ok(address?[lane])
    }
}

/// A register or a constant that memory is read into or written from, of any width.
#[derive(Debug, Clone, Copy)]
enum Item {
    Word(Source32),
    Double(Source64),
    Nothing,
}

struct Shape {
    space: Space,
    /// Bytes of an item.
    bytes: usize,
    signed: bool,
}

fn shape(decoder: &Decoder<'_>, opcode: &str) -> Result<Shape, DecodeError> {
    let mut space = Space::Generic;
    for part in opcode.split('.') {
        space = match part {
            "global" => Space::Global,
            "shared" | "shared::cta" | "shared::cluster" => Space::Shared,
            "param" => Space::Param,
            _ => space,
        };
    }
    let ty = opcode.rsplit('.').next().unwrap_or_default();
    let bits: usize =
        ty.get(1..).and_then(|bits| bits.parse().ok()).ok_or_else(|| decoder.error("no width"))?;
    Ok(Shape { space, bytes: bits / 8, signed: ty.starts_with('s') })
}

fn items(decoder: &mut Decoder<'_>, operand: &Operand, results: bool) -> Result<Vec<Item>, DecodeError> {
    let list = match operand {
        Operand::List(items) => items.as_slice(),
        single => std::slice::from_ref(single),
    };
    let item = |operand: &Operand| match operand {
        Operand::Register(_) => match decoder.slot(operand)? {
            Slot::Word(slot) => Ok(Item::Word(Source32::Register(slot))),
            Slot::Double(slot) => Ok(Item::Double(Source64::Register(slot))),
            Slot::Predicate(_) => Err(decoder.error("a predicate has no place in memory")),
        },
        Operand::Sink if results => Ok(Item::Nothing),
        _ if results => Err(decoder.error(format!("{operand:?} is not a register"))),
        Operand::Integer(_) | Operand::Float64(_) | Operand::Symbol(_) => {
            decoder.source64(operand).map(Item::Double)
        }
        other => decoder.source32(other).map(Item::Word),
    };
    list.iter().map(item).collect()
}

fn load(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 2)?;
    let shape = shape(decoder, &instruction.opcode)?;
    let to = items(decoder, &instruction.operands[0], true)?;
    let at = At::decode(decoder, &instruction.operands[1])?;
    let total = vector_bytes(decoder, &shape, to.len(), &instruction.opcode)?;
    let order = Order::of_opcode(&instruction.opcode, Order::Weak);
    Ok(Run::Turn(Box::new(move |turn| {
        let addresses = at.get(turn)?;
        let data = turn.load(shape.space, &addresses, total, order)?;
        let mask = turn.mask;
        for (idx, item) in to.iter().enumerate() {
            let from = idx * shape.bytes;
            let value = |lane: usize| {
                let mut word = [0; 8];
                word[..shape.bytes].copy_from_slice(&data[lane][from..from + shape.bytes]);
                let value = u64::from_le_bytes(word);
                let shift = 64 - 8 * shape.bytes as u32;
                if shape.signed { ((value << shift) as i64 >> shift) as u64 } else { value }
            };
            match item {
                Item::Word(Source32::Register(slot)) => {
                    let values: Lanes32 = std::array::from_fn(|lane| value(lane) as u32);
                    turn.registers().set32(*slot, mask, &values);
                }
                Item::Double(Source64::Register(slot)) => {
                    let values: Lanes64 = std::array::from_fn(value);
                    turn.registers().set64(*slot, mask, &values);
                }
                _ => {}
            }
        }
        Ok(Outcome::Next)
    })))
}

fn store(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 2)?;
    let shape = shape(decoder, &instruction.opcode)?;
    let at = At::decode(decoder, &instruction.operands[0])?;
    let from = items(decoder, &instruction.operands[1], false)?;
    let total = vector_bytes(decoder, &shape, from.len(), &instruction.opcode)?;
    let order = Order::of_opcode(&instruction.opcode, Order::Weak);
    Ok(Run::Turn(Box::new(move |turn| {
        let addresses = at.get(turn)?;
        let mut data = [[0; 16]; WARP];
        for (idx, item) in from.iter().enumerate() {
            let values = values(turn, item)?;
            for lane in lanes(turn.mask) {
                let start = idx * shape.bytes;
                data[lane][start..start + shape.bytes]
                    .copy_from_slice(&values[lane].to_le_bytes()[..shape.bytes]);
            }
        }
        turn.store(shape.space, &addresses, total, (&data, order))?;
        Ok(Outcome::Next)
    })))
}

fn values(turn: &mut Turn<'_>, item: &Item) -> Result<Lanes64, Unset> {
    let mask = turn.mask;
    match item {
        Item::Word(source) => Ok(turn.registers().get32(*source, mask)?.map(u64::from)),
        Item::Double(source) => turn.registers().get64(*source, mask),
        Item::Nothing => Ok([0; WARP]),
    }
}

/// Bytes that a lane moves at once.
fn vector_bytes(decoder: &Decoder<'_>, shape: &Shape, n: usize, opcode: &str) -> Result<u32, DecodeError> {
    let wanted = if opcode.contains(".v4.") {
        4
    } else if opcode.contains(".v2.") {
        2
    } else {
        1
    };
    let total = wanted * shape.bytes;
    if n != wanted {
        return Err(decoder.error(format!("{n} registers, {wanted} wanted")));
    }
    if total > 16 {
        return Err(decoder.error(format!("{total} bytes at once; 16 are possible")));
    }
    Ok(total as u32)
}

fn reduce(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 2)?;
    let [at, value] = [&instruction.operands[0], &instruction.operands[1]];
    change(decoder, &instruction.opcode, None, at, value)
}

fn atomic(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 3)?;
    let [to, at, value] = [0, 1, 2].map(|idx| &instruction.operands[idx]);
    let to = items(decoder, to, true)?;
    change(decoder, &instruction.opcode, to.first().copied(), at, value)
}

fn change(
    decoder: &mut Decoder<'_>,
    opcode: &str,
    to: Option<Item>,
    at: &Operand,
    value: &Operand,
) -> Result<Run, DecodeError> {
    let shape = shape(decoder, opcode)?;
    let at = At::decode(decoder, at)?;
    let value = items(decoder, value, false)?;
    let [value] = value[..] else { return Err(decoder.error("one value is wanted")) };
    let is_float = opcode.ends_with(".f32");
    let relaxed = Order::Strong { scope: Scope::Device, acquires: false, releases: false };
    let order = Order::of_opcode(opcode, relaxed);
    Ok(Run::Turn(Box::new(move |turn| {
        let addresses = at.get(turn)?;
        let values = values(turn, &value)?;
        let mut sum = |lane: usize, there: u64| {
            if is_float {
                let sum = f32::from_bits(there as u32) + f32::from_bits(values[lane] as u32);
                u64::from(sum.to_bits())
            } else {
                there.wrapping_add(values[lane])
            }
        };
        let how = Change { order, reads: to.is_some(), change: &mut sum };
        let before = turn.change(shape.space, &addresses, shape.bytes as u32, how)?;
        let mask: Mask = turn.mask;
        match to {
            Some(Item::Word(Source32::Register(slot))) => {
                turn.registers().set32(slot, mask, &before.map(|value| value as u32));
            }
            Some(Item::Double(Source64::Register(slot))) => turn.registers().set64(slot, mask, &before),
            _ => {}
        }
        Ok::<_, Trouble>(Outcome::Next)
    })))
}

fn map_address(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 3)?;
    let [to, address] = [0, 1].map(|idx| &instruction.operands[idx]);
    let mapped = match instruction.opcode.ends_with(".u64") {
        true => Mapped::Double(decoder.to64(to)?, decoder.source64(address)?),
        false => Mapped::Word(decoder.to32(to)?, decoder.source32(address)?),
    };
    let rank = decoder.source32(&instruction.operands[2])?;
    Ok(Run::Turn(Box::new(move |turn| {
        let mask = turn.mask;
        let ranks = turn.registers().get32(rank, mask)?;
        let n_blocks = turn.cluster.blocks.len() as u32;
        if let Some(lane) = lanes(mask).find(|lane| ranks[*lane] >= n_blocks) {
            let what = format!("block {} of a cluster of {n_blocks}", ranks[lane]);
            return Err(turn.finding(FaultKind::Operand, what).into());
        }
        let within = (1 << SHARED_WINDOW) - 1;
        let in_block =
            |address: u32, lane: usize| (address & within) | (ranks[lane].wrapping_add(1) << SHARED_WINDOW);
        match mapped {
            Mapped::Word(to, address) => {
                let addresses = turn.registers().get32(address, mask)?;
                let mapped = std::array::from_fn(|lane| in_block(addresses[lane], lane));
                turn.registers().set32(to, mask, &mapped);
            }
            Mapped::Double(to, address) => {
                let addresses = turn.registers().get64(address, mask)?;
                let mapped = std::array::from_fn(|lane| in_block(addresses[lane] as u32, lane).into());
                turn.registers().set64(to, mask, &mapped);
            }
        }
        Ok(Outcome::Next)
    })))
}

/// Where an address of a block becomes one of the cluster, in either width.
#[derive(Clone, Copy)]
enum Mapped {
    Word(u32, Source32),
    Double(u32, Source64),
}
