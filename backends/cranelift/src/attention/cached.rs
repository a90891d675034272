//! Attention over a cache, row by row: the rows of the keys in sight are listed, and the rest is as for keys that follow each
//! other.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_artifact::program::PAGE_ROWS;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{CachedAttention, Kernel, Slot, View};

use super::row::QueryRow;
use super::{HeadRows, first_in_window, head_rows};
use crate::emit::Emitter;
use crate::error::Fault;
use crate::memory::PLAIN;

/// Rows of a tile.
pub(crate) const TILE_ROWS: u32 = 1;

/// Keys that a query can see.
fn most_keys(kernel: &Kernel, attention: &CachedAttention) -> u64 {
    let pages = kernel.params.get(attention.pages.0 as usize).map_or(0, |param| param.cols);
    u64::from(pages) * u64::from(PAGE_ROWS)
}

/// Bytes of scratch memory that a call needs: a score and a row number for each key.
pub(crate) fn scratch_bytes(kernel: &Kernel, attention: &CachedAttention) -> u64 {
    most_keys(kernel, attention) * 8
}

/// Emits the work on one query row.
pub(crate) fn emit_row(e: &mut Emitter<'_>, attention: &CachedAttention, row: Value) -> Result<(), Fault> {
    let CachedAttention { heads, kv_heads, width, scoring, k, v, .. } = *attention;
    let (list, count) = list_keys(e, attention, row)?;
    let (q, out) = (e.row(attention.q, row)?, e.dense_row(attention.out, row)?);
    QueryRow { heads, kv_heads, width, scoring, q, out, count }.emit(e, |e, kv_col| {
        let zero = e.int(0);
        let mut listed = |slot: Slot| -> Result<HeadRows, Fault> {
            Ok(HeadRows { list: Some(list), ..head_rows(e, View::dense(slot), kv_col, zero)? })
        };
        Ok((listed(k)?, listed(v)?))
    })
}

/// Writes the rows of the cache that a query sees, behind the scores; gives where they stand and how many they are.
fn list_keys(e: &mut Emitter<'_>, attention: &CachedAttention, row: Value) -> Result<(Value, Value), Fault> {
    let CachedAttention { scoring, q_pos, q_seq, pages, present, .. } = *attention;
    let sequence = e.load_index(q_seq, row)?;
    let pages = Pages::of(e, pages, sequence)?;
    let present = present.map(|present| e.pointer(present, DType::U8)).transpose()?;
    let behind_scores = most_keys(e.kernel, attention) as i64 * 4;
    let scratch = e.scratch;
    let list = e.ins().iadd_imm_s(scratch, behind_scores);
    let last = e.load_index(q_pos, row)?;
    let (zero, end) = (e.int(0), e.ins().iadd_imm_s(last, 1));
    let first = scoring.window.map_or(zero, |window| first_in_window(e, last, window));
    let count = e.fold(first, end, 1, &[zero], |e, position, count| {
        let key = pages.key(e, position);
        e.store_index(list, count[0], key);
        let one = match present {
            Some(present) => {
                let flag = e.element(present, key, 1);
                let flag = e.load_flag(flag, DType::U8);
                let is_there = e.ins().icmp_imm_u(IntCC::NotEqual, flag, 0);
                e.ins().uextend(I64, is_there)
            }
            None => e.int(1),
        };
        Ok(vec![e.ins().iadd(count[0], one)])
    })?;
    Ok((list, count[0]))
}

/// The pages of one sequence: the address of the first one's number.
#[derive(Clone, Copy)]
pub(crate) struct Pages(Value);

impl Pages {
    pub(crate) fn of(e: &mut Emitter<'_>, table: Slot, sequence: Value) -> Result<Pages, Fault> {
        e.pointer(table, DType::U32)?;
        e.row_address(View::dense(table), sequence).map(Pages)
    }

    /// The row of the cache that holds the token at a position.
    pub(crate) fn key(self, e: &mut Emitter<'_>, position: Value) -> Value {
        let page = e.ins().ushr_imm_u(position, i64::from(PAGE_ROWS.ilog2()));
        let page = e.element(self.0, page, 4);
        let page = e.ins().uload32(PLAIN, page, 0);
        let first = e.ins().imul_imm_s(page, i64::from(PAGE_ROWS));
        let within = e.ins().band_imm_s(position, i64::from(PAGE_ROWS) - 1);
        e.ins().iadd(first, within)
    }
}
