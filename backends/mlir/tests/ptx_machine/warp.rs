//! What the 32 lanes of a warp do together.

use super::block::Block;
use super::instruction::{Op, Reg, Source};

/// Runs an instruction of all lanes of the warp that begins with thread `first`.
pub(crate) fn run(block: &mut Block<'_>, first: u32, op: &Op) -> Result<(), String> {
    match op {
        Op::Shuffle { to, value, lanes } => {
            let values: Vec<u64> = (0..32).map(|lane| block.value(first + lane, value)).collect();
            for lane in 0..32 {
                let from = lane ^ block.value(first + lane, lanes) as u32;
                set(block, first + lane, *to, values[(from & 31) as usize]);
            }
        }
        Op::Ballot { to, value } => {
            let bits = (0..32).fold(0, |bits, lane| bits | (block.value(first + lane, value) & 1) << lane);
            (0..32).for_each(|lane| set(block, first + lane, *to, bits));
        }
        Op::LoadMatrix { transposed, to, at } => {
            // Row r of matrix i comes from the address of lane 8 i + r.
            let mut matrices = [[[0_u16; 8]; 8]; 4];
            for lane in 0..32_u32 {
                let address = block.address(first + lane, at);
                let row = block.shared.read(first + lane, address, 16)?;
                let items = &mut matrices[lane as usize / 8][lane as usize % 8];
                for (item, bytes) in items.iter_mut().zip(row.chunks_exact(2)) {
                    *item = u16::from_le_bytes([bytes[0], bytes[1]]);
                }
            }
            for lane in 0..32_u32 {
                let (g, t) = (lane as usize / 4, lane as usize % 4 * 2);
                for (reg, matrix) in to.iter().zip(&matrices) {
                    let (low, high) = if *transposed {
                        (matrix[t][g], matrix[t + 1][g])
                    } else {
                        (matrix[g][t], matrix[g][t + 1])
                    };
                    set(block, first + lane, *reg, u64::from(low) | u64::from(high) << 16);
                }
            }
        }
        Op::Mma { to, a, b, c } => mma(block, first, to, [a, b, c]),
        op => return Err(format!("{op:?} is not for a warp")),
    }
    Ok(())
}

fn set(block: &mut Block<'_>, thread: u32, reg: Reg, value: u64) {
    block.threads[thread as usize].regs[reg] = value;
}

/// The two bf16 of a word.
fn halves(word: u64) -> [f64; 2] {
    [word << 16, word & 0xFFFF_0000].map(|bits| f64::from(f32::from_bits(bits as u32)))
}

/// `m16n8k16`, as the PTX manual lays out its fragments.
fn mma(block: &mut Block<'_>, first: u32, to: &[Reg], [a, b, c]: [&[Source]; 3]) {
    let (mut left, mut right) = ([[0.0; 16]; 16], [[0.0; 8]; 16]);
    for lane in 0..32 {
        let (g, t) = (lane as usize / 4, lane as usize % 4 * 2);
        for (idx, source) in a.iter().enumerate() {
            let (row, k) = (g + idx % 2 * 8, t + idx / 2 * 8);
            left[row][k..k + 2].copy_from_slice(&halves(block.value(first + lane, source)));
        }
        for (idx, source) in b.iter().enumerate() {
            let [low, high] = halves(block.value(first + lane, source));
            right[t + idx * 8][g] = low;
            right[t + idx * 8 + 1][g] = high;
        }
    }
    for lane in 0..32 {
        let (g, t) = (lane as usize / 4, lane as usize % 4 * 2);
        let start: Vec<u64> = c.iter().map(|source| block.value(first + lane, source)).collect();
        for (idx, (reg, start)) in to.iter().zip(start).enumerate() {
            let (row, col) = (g + idx / 2 * 8, t + idx % 2);
            let products = (0..16).map(|k| left[row][k] * right[k][col]);
            let sum = f64::from(f32::from_bits(start as u32)) + products.sum::<f64>();
            set(block, first + lane, *reg, u64::from((sum as f32).to_bits()));
        }
    }
}
