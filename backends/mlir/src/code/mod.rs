//! Writing kernels: typed values, structured control flow, and the text they become.
//!
//! A [`Code`] collects one kernel. Its methods and the operators of [`Val`] append operations of
//! MLIR's LLVM and NVVM dialects; control flow takes closures, so that blocks nest as the Rust code
//! does and a value that is used outside the block it was made in is refused by MLIR's verifier.
//!
//! Integers stand for sizes and places: `/`, `%` and `>>` are unsigned, comparisons are signed, and
//! nothing wraps in a kernel of a verified plan.

mod cluster;
mod flow;
pub(crate) mod math;
mod mbarrier;
mod memory;
mod thread;
mod value;
mod wgmma;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::{Display, Write};

pub(crate) use flow::{Carry, Steps};
pub(crate) use math::Arith;
pub(crate) use memory::Access;
use value::Ty;
pub(crate) use value::{
    BF16, Bool, CPtr, F32, Float, GPtr, I8, I32, I64, Int, Long, Operand, Ptr, SPtr, V2, V4, Val, pack_bf16,
    unpack_bf16,
};
pub(crate) use wgmma::ROW_BYTES;

/// Name of the block's dynamic shared memory; one for all kernels of a module.
const SHARED_SYMBOL: &str = "shared_memory";

/// Bytes of which the start of shared memory is a multiple: those of eight swizzled rows (PTX ISA 9.0, section
/// 9.7.15.5.1).
const SHARED_ALIGNMENT: u32 = 1024;

/// What the blocks of a kernel are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks {
    /// Threads of a block.
    pub(crate) threads: u32,
    /// How many blocks a multiprocessor should hold, which bounds the registers.
    pub(crate) at_once: u32,
    /// Blocks side by side that are a cluster; 1 where there are none.
    pub(crate) cluster: u32,
}

/// One kernel while it is written.
pub(crate) struct Code {
    text: RefCell<String>,
    values: Cell<u32>,
    blocks: Cell<u32>,
    params: u32,
    /// Values that stand for parameters now, by parameter.
    shifted: RefCell<BTreeMap<u32, u32>>,
}

impl Code {
    /// Begins a kernel of `params` global pointers.
    pub(crate) fn new(params: u32) -> Self {
        Self {
            text: RefCell::default(),
            values: Cell::new(params),
            blocks: Cell::new(0),
            params,
            shifted: RefCell::default(),
        }
    }

    /// A parameter. The caller has checked the index against the kernel's parameters.
    pub(crate) fn param(&self, index: u32) -> GPtr<'_> {
        debug_assert!(index < self.params);
        Val::new(self, self.shifted.borrow().get(&index).copied().unwrap_or(index))
    }

    /// Writes what `body` does with other pointers for these parameters.
    pub(crate) fn with_params<'c>(&'c self, pointers: &[(u32, GPtr<'c>)], body: impl FnOnce()) {
        let others = pointers.iter().map(|(index, pointer)| (*index, pointer.id)).collect();
        let before = self.shifted.replace(others);
        body();
        self.shifted.replace(before);
    }

    /// The start of the block's dynamic shared memory, aligned for swizzled tiles.
    pub(crate) fn shared(&self) -> SPtr<'_> {
        self.op(format_args!("llvm.mlir.addressof @{SHARED_SYMBOL} : !llvm.ptr<3>"))
    }

    /// The kernel as an MLIR function, whose blocks are of this form.
    ///
    /// Of the parameters that `is_read_only` names, nothing that is written while the kernel runs lies behind them: their loads
    /// may move past stores, and become `ld.global.nc`. Those that are written say nothing about others, because threads of a
    /// block exchange what they wrote around barriers.
    pub(crate) fn finish(self, symbol: &str, blocks: Blocks, is_read_only: impl Fn(u32) -> bool) -> String {
        let param = |idx: u32| {
            let reads = if is_read_only(idx) { ", llvm.noalias, llvm.readonly" } else { "" };
            format!("%{idx}: !llvm.ptr<1> {{llvm.align = 16 : i64{reads}}}")
        };
        let params: Vec<String> = (0..self.params).map(param).collect();
        let Blocks { threads, at_once, cluster } = blocks;
        let cluster = match cluster {
            1 => String::new(),
            blocks => format!(", nvvm.cluster_dim = array<i32: 1, {blocks}, 1>"),
        };
        format!(
            "llvm.func @{symbol}({}) attributes {{nvvm.kernel, nvvm.reqntid = array<i32: {threads}, 1, 1>, \
             nvvm.minctasm = {at_once} : i32{cluster}}} {{\n{}  llvm.return\n}}\n",
            params.join(", "),
            self.text.into_inner()
        )
    }

    /// A module of kernels that were written by [`Code::finish`].
    pub(crate) fn module(kernels: &[String]) -> String {
        format!(
            "llvm.mlir.global external @{SHARED_SYMBOL}() {{addr_space = 3 : i32, alignment = {SHARED_ALIGNMENT} : i64}} \
             : !llvm.array<0 x i8>\n{}",
            kernels.concat()
        )
    }

    /// Appends an operation with a result.
    pub(crate) fn op<T: Ty>(&self, op: impl Display) -> Val<'_, T> {
        let id = self.next_value();
        self.line(format_args!("  %{id} = {op}"));
        Val::new(self, id)
    }

    /// Appends an operation without a result.
    pub(crate) fn stmt(&self, op: impl Display) {
        self.line(format_args!("  {op}"));
    }

    fn line(&self, line: impl Display) {
        // Writing to a String does not fail.
        let _ = writeln!(self.text.borrow_mut(), "{line}");
    }

    fn next_value(&self) -> u32 {
        let id = self.values.get();
        self.values.set(id + 1);
        id
    }

    fn next_block(&self) -> u32 {
        let id = self.blocks.get();
        self.blocks.set(id + 1);
        id
    }
}
