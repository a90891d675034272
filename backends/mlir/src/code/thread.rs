//! Threads: who they are, how they meet, and what a warp does together.

use super::Code;
use super::value::{Bool, F32, Float, Fragment, I32, Int, SPtr, Ty, Val};

/// Types that can be exchanged between the lanes of a warp.
pub(crate) trait Lane: Ty {}
impl Lane for I32 {}
impl Lane for F32 {}

impl Code {
    /// Index of the thread in its block.
    pub(crate) fn thread(&self) -> Int<'_> {
        self.op("nvvm.read.ptx.sreg.tid.x : i32")
    }

    /// Index of the block along the rows.
    pub(crate) fn block_x(&self) -> Int<'_> {
        self.op("nvvm.read.ptx.sreg.ctaid.x : i32")
    }

    /// Blocks along the rows.
    pub(crate) fn grid_x(&self) -> Int<'_> {
        self.op("nvvm.read.ptx.sreg.nctaid.x : i32")
    }

    /// Index of the block along the columns or heads.
    pub(crate) fn block_y(&self) -> Int<'_> {
        self.op("nvvm.read.ptx.sreg.ctaid.y : i32")
    }

    /// Blocks along the columns or heads.
    pub(crate) fn grid_y(&self) -> Int<'_> {
        self.op("nvvm.read.ptx.sreg.nctaid.y : i32")
    }

    /// All threads of the block meet here and see each other's shared memory.
    pub(crate) fn barrier(&self) {
        self.stmt("nvvm.barrier0");
    }

    /// One bit for each lane for which the condition holds. All lanes take part.
    pub(crate) fn ballot<'c>(&'c self, condition: Bool<'c>) -> Int<'c> {
        let all = self.int(u32::MAX);
        self.op(format_args!("nvvm.vote.sync ballot {all}, {condition} -> i32"))
    }

    /// The value of the lane whose index differs in the bits of `mask`. All lanes take part.
    fn shuffle_xor<'c, T: Lane>(&'c self, value: Val<'c, T>, mask: u32) -> Val<'c, T> {
        let (all, mask, clamp) = (self.int(u32::MAX), self.int(mask), self.int(31));
        self.op(format_args!("nvvm.shfl.sync bfly {all}, {value}, {mask}, {clamp} : {0} -> {0}", T::NAME))
    }

    /// Folds the values of groups of `lanes` lanes (a power of two); each lane gets the result.
    pub(crate) fn reduce<'c, T: Lane>(
        &'c self,
        value: Val<'c, T>,
        lanes: u32,
        fold: impl Fn(Val<'c, T>, Val<'c, T>) -> Val<'c, T>,
    ) -> Val<'c, T> {
        self.reduce_between(value, (1, lanes), fold)
    }

    /// Folds the values of the lanes of a warp that have the same place in their group of `lanes` lanes (a power of two);
    /// each lane gets the result.
    pub(crate) fn reduce_groups<'c, T: Lane>(
        &'c self,
        value: Val<'c, T>,
        lanes: u32,
        fold: impl Fn(Val<'c, T>, Val<'c, T>) -> Val<'c, T>,
    ) -> Val<'c, T> {
        self.reduce_between(value, (lanes, 32), fold)
    }

    /// Folds over the bits of a lane's index from `least` up to, but not including, `end`.
    fn reduce_between<'c, T: Lane>(
        &'c self,
        value: Val<'c, T>,
        (least, end): (u32, u32),
        fold: impl Fn(Val<'c, T>, Val<'c, T>) -> Val<'c, T>,
    ) -> Val<'c, T> {
        let mut value = value;
        let mut distance = end / 2;
        while distance >= least {
            value = fold(value, self.shuffle_xor(value, distance));
            distance /= 2;
        }
        value
    }

    /// Four 8×8 matrices of 16-bit elements. Lane `8 i + r` names the address of row `r` of matrix
    /// `i`; lane `4 g + t` gets, as word `i`, elements `2 t` and `2 t + 1` of row `g` of matrix `i`.
    pub(crate) fn load_matrices<'c>(&'c self, row: SPtr<'c>) -> [Int<'c>; 4] {
        self.matrices(row, "row")
    }

    /// As [`Code::load_matrices`], each matrix transposed.
    pub(crate) fn load_matrices_transposed<'c>(&'c self, row: SPtr<'c>) -> [Int<'c>; 4] {
        self.matrices(row, "col")
    }

    fn matrices<'c>(&'c self, row: SPtr<'c>, layout: &str) -> [Int<'c>; 4] {
        let loaded: Val<'c, Fragment> = self.op(format_args!(
            "nvvm.ldmatrix {row} {{num = 4 : i32, layout = #nvvm.mma_layout<{layout}>, \
             shape = #nvvm.ld_st_matrix_shape<m = 8, n = 8>, \
             eltType = #nvvm.ld_st_matrix_elt_type<b16>}} : (!llvm.ptr<3>) -> {}",
            Fragment::NAME
        ));
        [0, 1, 2, 3]
            .map(|idx| self.op(format_args!("llvm.extractvalue {loaded}[{idx}] : {}", Fragment::NAME)))
    }

    /// `c + a · b` over bf16: `a` is 16×16, `b` 16×8, `c` 16×8 in f32. With `g = lane / 4`,
    /// `t = lane % 4`:
    /// - `a`: words (row g, k 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8);
    /// - `b`: words (k 2t, column g), (2t + 8, g);
    /// - `c`: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
    pub(crate) fn mma<'c>(&'c self, a: [Int<'c>; 4], b: [Int<'c>; 2], c: [Float<'c>; 4]) -> [Float<'c>; 4] {
        const RESULT: &str = "!llvm.struct<(f32, f32, f32, f32)>";
        let ([a0, a1, a2, a3], [b0, b1], [c0, c1, c2, c3]) = (a, b, c);
        let result: Float<'c> = self.op(format_args!(
            "nvvm.mma.sync A[{a0}, {a1}, {a2}, {a3}] B[{b0}, {b1}] C[{c0}, {c1}, {c2}, {c3}] \
             {{layoutA = #nvvm.mma_layout<row>, layoutB = #nvvm.mma_layout<col>, \
             multiplicandAPtxType = #nvvm.mma_type<bf16>, multiplicandBPtxType = #nvvm.mma_type<bf16>, \
             shape = #nvvm.shape<m = 16, n = 8, k = 16>}} : (i32, i32, f32) -> {RESULT}"
        ));
        [0, 1, 2, 3].map(|idx| self.op(format_args!("llvm.extractvalue {result}[{idx}] : {RESULT}")))
    }
}
