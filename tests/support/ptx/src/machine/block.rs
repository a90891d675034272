//! A block: its warps, its shared memory, its barriers.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::barrier::Barrier;
use super::clock::Stamp;
use super::fault::{FaultKind, Finding};
use super::shared::Shared;
use super::warp::Warp;
use crate::registers::Mask;

/// Warps of a warp group (PTX ISA section 9.7.15).
pub(crate) const WARP_GROUP: usize = 4;

#[derive(Debug)]
pub(crate) struct Block {
    /// Place in the grid.
    pub(crate) at: [u32; 3],
    pub(crate) warps: Vec<Warp>,
    pub(crate) shared: Shared,
    pub(crate) barriers: [Barrier; 16],
    /// Instructions that the warps of each warp group execute together: which, and what they have to agree on.
    collectives: Vec<Vec<(u32, u64)>>,
    /// Operands that the first warp of a group has read for all, by group and position, with how many still want them.
    operands: BTreeMap<(usize, usize), (Rc<SharedOperand>, usize)>,
}

/// An operand that all warps of a group read.
#[derive(Debug)]
pub(crate) struct SharedOperand {
    pub(crate) values: Vec<f32>,
    /// The writes that it is made of, each once, with an offset that it wrote.
    pub(crate) writes: Vec<(usize, Stamp)>,
}

impl Block {
    pub(crate) fn new(at: [u32; 3], warps: Vec<Warp>, shared: Shared) -> Self {
        let collectives = vec![Vec::new(); warps.len().div_ceil(WARP_GROUP)];
        Self {
            at,
            warps,
            shared,
            barriers: std::array::from_fn(|_| Barrier::default()),
            collectives,
            operands: BTreeMap::new(),
        }
    }

    /// Notes that a warp executes an instruction that its whole warp group has to, with the same `key`. Tells how many
    /// it had executed before.
    pub(crate) fn collective(
        &mut self,
        warp: usize,
        mask: Mask,
        at: u32,
        key: u64,
    ) -> Result<usize, Finding> {
        if mask != Mask::MAX {
            let what = format!("lanes {:#010x} of the warp are not there", !mask);
            return Err(Finding::new(FaultKind::Divergence, mask, what));
        }
        if !self.warps.len().is_multiple_of(WARP_GROUP) && warp / WARP_GROUP == self.warps.len() / WARP_GROUP
        {
            return Err(Finding::new(
                FaultKind::Divergence,
                mask,
                "the last warp group of the block has not 4 warps",
            ));
        }
        let state = &mut self.warps[warp];
        let position = state.collective;
        state.collective += 1;
        let log = &mut self.collectives[warp / WARP_GROUP];
        match log.get(position) {
            None => log.push((at, key)),
            Some((known, _)) if *known != at => {
                let what = "the warps of a warp group execute different instructions here";
                return Err(Finding::new(FaultKind::Divergence, mask, what));
            }
            Some((_, known)) if *known != key => {
                let what = "the warps of a warp group execute it with different operands";
                return Err(Finding::new(FaultKind::Divergence, mask, what));
            }
            Some(_) => {}
        }
        Ok(position)
    }

    /// How many instructions all warps of a warp group have executed together.
    pub(crate) fn reached(&self, group: usize) -> usize {
        let warps = self.warps[group * WARP_GROUP..].iter().take(WARP_GROUP);
        warps.map(|warp| warp.collective).min().unwrap_or(0)
    }

    /// An operand that another warp of the group has read.
    pub(crate) fn take_operand(&mut self, group: usize, position: usize) -> Option<Rc<SharedOperand>> {
        let (operand, wanted) = self.operands.get_mut(&(group, position))?;
        *wanted -= 1;
        let operand = Rc::clone(operand);
        if *wanted == 0 {
            self.operands.remove(&(group, position));
        }
        Some(operand)
    }

    /// Keeps an operand for the other warps of the group.
    pub(crate) fn keep_operand(
        &mut self,
        group: usize,
        position: usize,
        operand: Rc<SharedOperand>,
    ) -> Rc<SharedOperand> {
        self.operands.insert((group, position), (Rc::clone(&operand), WARP_GROUP - 1));
        operand
    }

    /// A warp that has not executed what others of its group have, if there is one: the warp and the instruction.
    pub(crate) fn left_behind(&self) -> Option<(usize, u32)> {
        self.warps.iter().enumerate().find_map(|(idx, warp)| {
            let log = &self.collectives[idx / WARP_GROUP];
            log.get(warp.collective).map(|(at, _)| (idx, *at))
        })
    }
}
