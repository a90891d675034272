//! Where the lanes of a warp meet again after a branch on which they part.
//!
//! That place is the branch's immediate post-dominator: the nearest instruction that every path from the branch to the
//! end of the kernel goes through. It is found over basic blocks with the iterative algorithm of Cooper, Harvey and
//! Kennedy ("A Simple, Fast Dominance Algorithm", 2001), run from the end of the kernel against the direction of flow.

use crate::syntax::{Instruction, Kernel, Operand};

/// Facts about the flow of control of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// For a guarded branch, by index of the instruction: the instruction where its paths meet. The number of
    /// instructions if they only meet at the end of the kernel, or if no path leads there; the same for instructions
    /// that are no guarded branch.
    ///
    /// Paths that never end are not counted as paths. Lanes that take one do not come to the meeting place.
    pub join: Vec<usize>,
}

/// Finds where paths meet.
///
/// Takes time in proportion to the number of blocks, times the length of the loops that branches lead back through.
pub fn analyse(kernel: &Kernel) -> Flow {
    let instructions = &kernel.instructions;
    let blocks = Blocks::new(instructions);
    let meets = blocks.post_dominators();
    let mut join = vec![instructions.len(); instructions.len()];
    for (block, &end) in blocks.ends.iter().enumerate() {
        let last = end - 1;
        if instructions[last].guard.is_some() && target(&instructions[last]).is_some() {
            join[last] = meets[block].map_or(instructions.len(), |to| blocks.start(to));
        }
    }
    Flow { join }
}

/// Where a branch goes to; `None` for other instructions.
fn target(instruction: &Instruction) -> Option<usize> {
    match (instruction.opcode.as_str(), instruction.operands.first()) {
        ("bra" | "bra.uni", Some(Operand::Label(to))) => Some(*to),
        _ => None,
    }
}

/// Whether lanes end here.
fn ends_lanes(instruction: &Instruction) -> bool {
    matches!(instruction.opcode.as_str(), "ret" | "ret.uni" | "exit" | "trap")
}

/// Basic blocks; the one behind the last stands for the end of the kernel.
struct Blocks {
    /// One past the last instruction of each block. No block is empty, but the one that stands for the end, which is
    /// left out here.
    ends: Vec<usize>,
    /// Blocks that may come next.
    next: Vec<[Option<usize>; 2]>,
}

impl Blocks {
    fn new(instructions: &[Instruction]) -> Self {
        let n = instructions.len();
        let mut is_start = vec![false; n + 1];
        for (idx, instruction) in instructions.iter().enumerate() {
            let to = target(instruction);
            if let Some(to) = to {
                is_start[to.min(n)] = true;
            }
            is_start[idx + 1] |= to.is_some() || ends_lanes(instruction);
        }
        let ends: Vec<usize> = (1..=n).filter(|&idx| idx == n || is_start[idx]).collect();
        let mut block_of = vec![ends.len(); n + 1];
        let mut start = 0;
        for (block, &end) in ends.iter().enumerate() {
            block_of[start..end].fill(block);
            start = end;
        }
        let next = ends.iter().map(|&end| {
            let last = &instructions[end - 1];
            let falls =
                (last.guard.is_some() || (target(last).is_none() && !ends_lanes(last))).then_some(end);
            let jumps = if ends_lanes(last) { Some(n) } else { target(last) };
            [falls, jumps].map(|to| to.map(|to| block_of[to.min(n)]))
        });
        Self { next: next.collect(), ends }
    }

    /// First instruction of a block.
    fn start(&self, block: usize) -> usize {
        block.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// The immediate post-dominator of each block, `None` if no path leads from it to the end.
    fn post_dominators(&self) -> Vec<Option<usize>> {
        let end = self.ends.len();
        let order = self.backward_order();
        // Ranks grow towards the end, as the algorithm wants numbers that grow towards the root.
        let mut rank = vec![0; end + 1];
        for (idx, &block) in order.iter().enumerate() {
            rank[block] = idx;
        }
        let mut meets = vec![None; end + 1];
        meets[end] = Some(end);
        let mut changed = true;
        while changed {
            changed = false;
            for &block in order.iter().rev().filter(|&&block| block != end) {
                let known = self.next[block].into_iter().flatten().filter(|&next| meets[next].is_some());
                let found = known.reduce(|left, right| meet(&meets, &rank, left, right));
                changed |= found != meets[block];
                meets[block] = found;
            }
        }
        meets
    }

    /// Blocks from which a path leads to the end, in post-order of a walk from there against the flow.
    fn backward_order(&self) -> Vec<usize> {
        let end = self.ends.len();
        let mut before = vec![Vec::new(); end + 1];
        for (block, next) in self.next.iter().enumerate() {
            for &to in next.iter().flatten() {
                before[to].push(block);
            }
        }
        let mut seen = vec![false; end + 1];
        seen[end] = true;
        let (mut order, mut path) = (Vec::new(), vec![(end, 0)]);
        while let Some((block, at)) = path.last_mut() {
            match before[*block].get(*at) {
                Some(&to) => {
                    *at += 1;
                    if !std::mem::replace(&mut seen[to], true) {
                        path.push((to, 0));
                    }
                }
                None => {
                    order.push(*block);
                    path.pop();
                }
            }
        }
        order
    }
}

/// The nearest block that post-dominates both, as far as is known.
fn meet(meets: &[Option<usize>], rank: &[usize], mut left: usize, mut right: usize) -> usize {
    while left != right {
        let lower = if rank[left] < rank[right] { &mut left } else { &mut right };
        // Both have a post-dominator, and following them ends at the end of the kernel, which has the highest rank.
        *lower = meets[*lower].unwrap_or(*lower);
    }
    left
}
