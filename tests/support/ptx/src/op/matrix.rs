//! Matrices of warps: loads and stores of 8 × 8 pieces, `mma.sync` (PTX ISA section 9.7.14.5).

use half::{bf16, f16};

use super::barrier::all_lanes;
use super::memory::At;
use crate::isa::fragment;
use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Form, Kind};
use crate::machine::{Order, Outcome, Space, Turn};
use crate::registers::{Lanes32, Lanes64, Mask, Source32, WARP};
use crate::syntax::{Instruction, Operand};

pub(crate) const FORMS: &[Form] = &[
    Form {
        syntax: "ldmatrix.sync.aligned.m8n8.{x1,x2,x4}.{trans,}.{shared,shared::cta}.b16",
        section: "9.7.14.5.15",
        kind: Kind::Memory,
        decode: load,
    },
    Form {
        syntax: "stmatrix.sync.aligned.m8n8.{x1,x2,x4}.{trans,}.{shared,shared::cta}.b16",
        section: "9.7.14.5.16",
        kind: Kind::Memory,
        decode: store,
    },
    Form {
        syntax: "mma.sync.aligned.{m16n8k16,m16n8k8}.row.col.f32.{bf16.bf16,f16.f16}.f32",
        section: "9.7.14.5.14",
        kind: Kind::Matrix,
        decode: mma,
    },
];

/// How many matrices, and whether they are transposed.
fn matrices(opcode: &str) -> (usize, bool) {
    let n = if opcode.contains(".x4") {
        4
    } else if opcode.contains(".x2") {
        2
    } else {
        1
    };
    (n, opcode.contains(".trans"))
}

fn element(trans: bool, lane: usize, half: usize) -> (usize, usize) {
    if trans { fragment::matrix_element_trans(lane, half) } else { fragment::matrix_element(lane, half) }
}

/// Registers in braces, one for each matrix.
fn registers(decoder: &mut Decoder<'_>, operand: &Operand, n: usize) -> Result<Vec<u32>, DecodeError> {
    let list = match operand {
        Operand::List(items) => items.as_slice(),
        single => std::slice::from_ref(single),
    };
    if list.len() != n {
        return Err(decoder.error(format!("{} registers, {n} wanted", list.len())));
    }
    list.iter().map(|item| decoder.to32(item)).collect()
}

/// The addresses that matter: those of the first eight lanes for each matrix.
fn row_addresses(turn: &mut Turn<'_>, at: At, n: usize) -> Result<Lanes64, crate::machine::Trouble> {
    all_lanes(turn)?;
    let whole = turn.mask;
    turn.mask = if n == 4 { Mask::MAX } else { (1 << (8 * n)) - 1 };
    let addresses = at.get(turn);
    if addresses.is_err() {
        turn.mask = whole;
    }
    Ok(addresses?)
}

fn load(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 2)?;
    let (n, trans) = matrices(&instruction.opcode);
    let to = registers(decoder, &instruction.operands[0], n)?;
    let at = At::decode(decoder, &instruction.operands[1])?;
    Ok(Run::Turn(Box::new(move |turn| {
        let whole = turn.mask;
        let addresses = row_addresses(turn, at, n)?;
        let rows = turn.load(Space::Shared, &addresses, 16, Order::Weak);
        turn.mask = whole;
        let rows = rows?;
        for (matrix, slot) in to.iter().enumerate() {
            let half = |lane: usize, half: usize| {
                let (row, col) = element(trans, lane, half);
                let bytes = &rows[8 * matrix + row];
                u32::from(u16::from_le_bytes([bytes[2 * col], bytes[2 * col + 1]]))
            };
            let values: Lanes32 = std::array::from_fn(|lane| half(lane, 0) | half(lane, 1) << 16);
            turn.registers().set32(*slot, whole, &values);
        }
        Ok(Outcome::Next)
    })))
}

fn store(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 2)?;
    let (n, trans) = matrices(&instruction.opcode);
    let at = At::decode(decoder, &instruction.operands[0])?;
    let from = registers(decoder, &instruction.operands[1], n)?;
    Ok(Run::Turn(Box::new(move |turn| {
        let whole = turn.mask;
        let mut rows = [[0; 16]; WARP];
        for (matrix, slot) in from.iter().enumerate() {
            let values = turn.registers().get32(Source32::Register(*slot), whole)?;
            for (lane, value) in values.iter().enumerate() {
                for half in 0..2 {
                    let (row, col) = element(trans, lane, half);
                    let bytes = ((value >> (16 * half)) as u16).to_le_bytes();
                    rows[8 * matrix + row][2 * col..2 * col + 2].copy_from_slice(&bytes);
                }
            }
        }
        let addresses = row_addresses(turn, at, n)?;
        let stored = turn.store(Space::Shared, &addresses, 16, (&rows, Order::Weak));
        turn.mask = whole;
        stored?;
        Ok(Outcome::Next)
    })))
}

fn mma(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 4)?;
    let k = if instruction.opcode.contains(".m16n8k16.") { 16 } else { 8 };
    let is_bf16 = instruction.opcode.contains(".bf16.");
    let to = registers(decoder, &instruction.operands[0], 4)?;
    let a = decoder.list32(&instruction.operands[1])?;
    let b = decoder.list32(&instruction.operands[2])?;
    let c = decoder.list32(&instruction.operands[3])?;
    if (a.len(), b.len(), c.len()) != (k / 4, k / 8, 4) {
        return Err(decoder.error("the lists have a wrong number of registers"));
    }
    let number =
        move |bits: u16| if is_bf16 { bf16::from_bits(bits).to_f32() } else { f16::from_bits(bits).to_f32() };
    Ok(Run::Turn(Box::new(move |turn| {
        all_lanes(turn)?;
        let registers = turn.registers();
        let (mut left, mut right) = ([[0.0_f32; 16]; 16], [[0.0_f32; 8]; 16]);
        for (idx, source) in a.iter().enumerate() {
            for (lane, pair) in registers.get32(*source, Mask::MAX)?.iter().enumerate() {
                for half in 0..2 {
                    let at = 2 * idx + half;
                    let place =
                        if k == 16 { fragment::m16n8k16_a(lane, at) } else { fragment::m16n8k8_a(lane, at) };
                    left[place.0][place.1] = number((pair >> (16 * half)) as u16);
                }
            }
        }
        for (idx, source) in b.iter().enumerate() {
            for (lane, pair) in registers.get32(*source, Mask::MAX)?.iter().enumerate() {
                for half in 0..2 {
                    let at = 2 * idx + half;
                    let place =
                        if k == 16 { fragment::m16n8k16_b(lane, at) } else { fragment::m16n8k8_b(lane, at) };
                    right[place.0][place.1] = number((pair >> (16 * half)) as u16);
                }
            }
        }
        let mut sums = [[0.0_f32; 8]; 16];
        for (idx, source) in c.iter().enumerate() {
            for (lane, bits) in registers.get32(*source, Mask::MAX)?.iter().enumerate() {
                let (row, col) = fragment::m16n8_d(lane, idx);
                sums[row][col] = f32::from_bits(*bits);
            }
        }
        for (sums, left) in sums.iter_mut().zip(&left) {
            for (left, right) in left.iter().zip(&right).take(k) {
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum += left * right;
                }
            }
        }
        for (idx, slot) in to.iter().enumerate() {
            let values: Lanes32 = std::array::from_fn(|lane| {
                let (row, col) = fragment::m16n8_d(lane, idx);
                sums[row][col].to_bits()
            });
            registers.set32(*slot, Mask::MAX, &values);
        }
        turn.cluster.counters.mma += 1;
        turn.cluster.counters.matrix_macs += (16 * 8 * k) as u64;
        Ok(Outcome::Next)
    })))
}
