//! Matrix operations of a warp group that are under way (PTX ISA section 9.7.15): the registers that they own until they
//! are waited for, in one warp.

use crate::isa::fragment;
use crate::registers::{Lanes32, Mask, Registers};

/// Rows of the accumulator that one warp holds.
pub(crate) const ROWS: usize = 16;

/// Accumulators of one warp that an operation owns: 16 rows of `n` columns in f32.
#[derive(Debug, Clone)]
pub(crate) struct Tile {
    pub(crate) slots: Vec<u32>,
    pub(crate) values: Vec<f32>,
    /// The group of the last operation on them, from 1.
    group: u32,
}

impl Tile {
    /// Of the values of the warp's registers.
    pub(crate) fn gather(slots: Vec<u32>, registers: &[Lanes32]) -> Self {
        let n = 2 * slots.len();
        let mut values = vec![0.0; ROWS * n];
        for (idx, register) in registers.iter().enumerate() {
            for (lane, bits) in register.iter().enumerate() {
                // The first warp of the group holds the first 16 rows.
                let (row, col) = fragment::wgmma_d(lane, idx);
                values[row * n + col] = f32::from_bits(*bits);
            }
        }
        Self { slots, values, group: 0 }
    }

    /// Sums that begin with nothing.
    pub(crate) fn zero(slots: Vec<u32>) -> Self {
        Self { values: vec![0.0; ROWS * 2 * slots.len()], slots, group: 0 }
    }

    fn register(&self, idx: usize) -> Lanes32 {
        let n = 2 * self.slots.len();
        std::array::from_fn(|lane| {
            let (row, col) = fragment::wgmma_d(lane, idx);
            self.values[row * n + col].to_bits()
        })
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Wgmma {
    /// For each group that was committed: how many instructions the warp had executed with its group.
    committed: Vec<u32>,
    completed: u32,
    /// Operations since the last commit.
    open: bool,
    /// A fence has come.
    fenced: bool,
    tiles: Vec<Tile>,
    /// Registers of A that operations still read, with their group.
    reading: Vec<(u32, u32)>,
}

impl Wgmma {
    /// The group that is open now, from 1.
    pub(crate) fn group(&self) -> u32 {
        self.committed.len() as u32 + 1
    }

    /// Takes accumulators out of flight, if exactly these are.
    pub(crate) fn take(&mut self, slots: &[u32]) -> Option<Tile> {
        let idx = self.tiles.iter().position(|tile| tile.slots == slots)?;
        Some(self.tiles.swap_remove(idx))
    }

    /// Lets an operation own its accumulators, and read registers, until the open group is complete.
    pub(crate) fn put(&mut self, registers: &mut Registers, tile: Tile, reads: impl Iterator<Item = u32>) {
        let group = self.group();
        for slot in &tile.slots {
            registers.unset32(*slot, Mask::MAX);
        }
        self.reading.extend(reads.map(|slot| (slot, group)));
        self.tiles.push(Tile { group, ..tile });
        self.open = true;
    }

    pub(crate) fn fence(&mut self) {
        self.fenced = true;
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced
    }

    pub(crate) fn commit(&mut self, position: u32) {
        self.committed.push(position);
        self.open = false;
    }

    /// The group that is complete when all but the last `left` are, and what its warps have to have executed for that;
    /// none if there is nothing to wait for.
    pub(crate) fn waits_for(&self, left: u32) -> Option<(u32, u32)> {
        let group =
            (self.committed.len() as u32).checked_sub(left).filter(|group| *group > self.completed)?;
        Some((group, self.committed[group as usize - 1]))
    }

    /// Gives the registers of all groups up to `group` back.
    pub(crate) fn complete(&mut self, registers: &mut Registers, group: u32) {
        self.completed = self.completed.max(group);
        for tile in self.tiles.extract_if(.., |tile| tile.group <= group) {
            for (idx, slot) in tile.slots.iter().enumerate() {
                registers.complete32(*slot, Mask::MAX, &tile.register(idx));
            }
        }
        self.reading.retain(|(_, of)| *of > group);
    }

    /// Whether an operation that is under way owns a register.
    pub(crate) fn owns(&self, slot: u32) -> bool {
        self.tiles.iter().any(|tile| tile.slots.contains(&slot))
    }

    /// A register that an operation still reads or owns and that was written since the last fence: behind the operation,
    /// since none begins with such registers.
    pub(crate) fn overwritten(&self, registers: &Registers) -> Option<u32> {
        let owned = self.tiles.iter().flat_map(|tile| tile.slots.iter().copied());
        self.reading.iter().map(|(slot, _)| *slot).chain(owned).find(|slot| registers.is_fresh(*slot))
    }

    /// Whether anything is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.open || !self.tiles.is_empty()
    }
}

/// `tile += a · b` for 16 rows, `n` columns and `k` products: `a` is `[16][k]`, `b` is `[k][n]`.
pub(crate) fn multiply(tile: &mut [f32], a: &[[f32; 16]; ROWS], b: &[f32], n: usize) {
    /// Columns whose sums stay in registers.
    const COLS: usize = 32;
    for (sums, a) in tile.chunks_exact_mut(n).zip(a) {
        let mut start = 0;
        while start + COLS <= n {
            let mut acc = [0.0_f32; COLS];
            acc.copy_from_slice(&sums[start..start + COLS]);
            for (k, a) in a.iter().enumerate() {
                let row = &b[k * n + start..k * n + start + COLS];
                for (sum, b) in acc.iter_mut().zip(row) {
                    *sum += a * b;
                }
            }
            sums[start..start + COLS].copy_from_slice(&acc);
            start += COLS;
        }
        for col in start..n {
            let products = a.iter().enumerate().map(|(k, a)| a * b[k * n + col]);
            sums[col] = products.fold(sums[col], |sum, product| sum + product);
        }
    }
}
