//! Matmuls of a warp group: `wgmma` over operands in shared memory (PTX ISA 9.0, section 9.7.15).
//!
//! The unit owns the accumulators from the first instruction until its group has been waited for, which neither MLIR nor
//! LLVM knows: each piece of inline assembly here takes them and gives them back, so that nothing is computed with them
//! in between, and the fence that has to stand behind their last write is in one piece with the first of them.

use std::fmt::Write;

use super::Code;
use super::value::{Float, Long, SPtr};

/// Bytes of a row of an operand: 64 bf16 elements, swizzled.
pub(crate) const ROW_BYTES: u32 = 128;

/// Elements along `k` of one instruction.
const STEP: u32 = 16;

/// A matrix descriptor without its address (section 9.7.15.5.1): rows of 128 bytes with `k` along them, swizzled by 128
/// bytes (bits 63–62 are 1), groups of eight rows 1024 bytes apart (bits 45–32, in 16 bytes). The leading offset is not
/// used in this layout (bits 29–16 are 1), and tiles begin at multiples of 1024 bytes (bits 51–49 are 0).
const DESCRIPTOR: u64 = (1 << 62) | (((8 * ROW_BYTES as u64) >> 4) << 32) | (1 << 16);

impl<'c> SPtr<'c> {
    /// The descriptor of an operand that begins here, at a multiple of 1024 bytes.
    pub(crate) fn descriptor(self) -> Long<'c> {
        let address = self.address();
        ((address & 0x3FFFF) >> 4).to_long() | DESCRIPTOR
    }
}

impl Code {
    /// Begins to add `a · bᵀ` to the sums of a warp group and waits until at most this matmul is under way. `a` is 64×64,
    /// `b` `n`×64 (`n` a multiple of 8, at most 256), both bf16. Of 64×`n` sums in f32 a thread has `n / 2`: of row
    /// `16 w + l / 4`, for warp `w` of the group and lane `l`, columns `8 j + 2 (l % 4)` and the next are sums `4 j` and
    /// `4 j + 1`, and those of 8 rows below `4 j + 2` and `4 j + 3`.
    pub(crate) fn wgmma<'c>(&'c self, n: u32, [a, b]: [Long<'c>; 2], sums: Vec<Float<'c>>) -> Vec<Float<'c>> {
        debug_assert!(n.is_multiple_of(8) && n <= 256 && sums.len() == n as usize / 2);
        let registers: Vec<String> = (0..sums.len()).map(|idx| format!("${idx}")).collect();
        let registers = registers.join(", ");
        let mut asm =
            "{ .reg .pred p; .reg .b64 a, b; setp.ne.b32 p, 1, 0; wgmma.fence.sync.aligned; ".to_owned();
        let (first_a, first_b) = (sums.len(), sums.len() + 1);
        for step in 0..ROW_BYTES / 2 / STEP {
            // Descriptors count in 16 bytes.
            let along = step * STEP * 2 / 16;
            // Writing to a String does not fail.
            let _ = write!(
                asm,
                "add.s64 a, ${first_a}, {along}; add.s64 b, ${first_b}, {along}; \
                 wgmma.mma_async.sync.aligned.m64n{n}k16.f32.bf16.bf16 {{{registers}}}, a, b, p, 1, 1, 0, 0; "
            );
        }
        asm += "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 1; }";
        self.with_sums(&asm, &[a, b], sums)
    }

    /// The sums, when all matmuls of the warp group are done.
    pub(crate) fn wgmma_wait<'c>(&'c self, sums: Vec<Float<'c>>) -> Vec<Float<'c>> {
        self.with_sums("wgmma.wait_group.sync.aligned 0;", &[], sums)
    }

    /// Ends one of several ways through a kernel, each with sums of its own. It is no instruction, but LLVM does not put it
    /// together with another one, nor what stands before it: the last stores of two ways, done once, would take the sums of
    /// both from the same registers.
    pub(crate) fn stay_apart(&self) {
        self.stmt("llvm.inline_asm has_side_effects \"\", \"\" : () -> ()");
    }

    /// Inline assembly that changes the sums in their registers and reads other operands, which stand behind them.
    fn with_sums<'c>(&'c self, asm: &str, read: &[Long<'c>], sums: Vec<Float<'c>>) -> Vec<Float<'c>> {
        let n = sums.len();
        let constraints: Vec<String> = std::iter::repeat_n("=f".to_owned(), n)
            .chain(std::iter::repeat_n("l".to_owned(), read.len()))
            .chain((0..n).map(|idx| idx.to_string()))
            .collect();
        let operands: Vec<String> =
            read.iter().map(Long::to_string).chain(sums.iter().map(Float::to_string)).collect();
        let list = |ty: &str, n: usize| vec![ty; n].join(", ");
        let types = [vec!["i64"; read.len()], vec!["f32"; n]].concat().join(", ");
        let result = format!("!llvm.struct<({})>", list("f32", n));
        let changed: Float<'c> = self.op(format_args!(
            "llvm.inline_asm has_side_effects \"{asm}\", \"{}\" {} : ({types}) -> {result}",
            constraints.join(","),
            operands.join(", ")
        ));
        (0..n).map(|idx| self.op(format_args!("llvm.extractvalue {changed}[{idx}] : {result}"))).collect()
    }
}
