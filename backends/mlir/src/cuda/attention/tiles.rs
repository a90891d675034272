//! Tiles of rows of one head, from global to shared memory.

use skipc_plan::kernel::{Param, View};

use super::super::place;
use crate::code::{Code, I8, Int, SPtr, Steps};

/// How rows of one head lie in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    /// Rows.
    pub(super) rows: u32,
    /// Bytes from row to row.
    pub(super) pitch: u32,
    /// Bytes of a row that are filled: the columns of the head, then zeros.
    pub(super) filled: u32,
    /// Threads that copy.
    pub(super) threads: u32,
}

/// A head of an operand.
#[derive(Clone, Copy)]
pub(super) struct Head<'k, 'c> {
    pub(super) param: &'k Param,
    pub(super) view: View,
    /// Columns.
    pub(super) width: u32,
    /// Index of the head.
    pub(super) index: Int<'c>,
}

impl Tile {
    pub(super) fn bytes(self) -> u32 {
        self.rows * self.pitch
    }

    /// Begins to copy rows `from .. from + rows` of a head; rows from `end` on become zeros. There is
    /// at least one row before `end`, and `from` is one.
    pub(super) fn copy<'c>(
        self,
        code: &'c Code,
        head: Head<'_, 'c>,
        to: SPtr<'c>,
        (from, end): (Int<'c>, Int<'c>),
    ) {
        let element = head.param.dtype.size();
        let piece = place::piece_bytes(head.param.dtype, [head.param.cols, head.view.col, head.width]);
        let pieces = self.filled / piece;
        let total = self.rows * pieces;
        let copy = |number: Int<'c>| {
            let (row, byte) = (number / pieces, number % pieces * piece);
            let wanted = from + row;
            let present = wanted.lt(end) & byte.lt(head.width * element);
            // What is not present is not read, but its address has to be one.
            let start = place::row_start(code, head.param, head.view, present.select(wanted, from));
            let col = head.index * head.width + present.select(byte / element, 0u32);
            let source = place::along(start, head.param.dtype, col);
            to.at::<I8>(row * self.pitch + byte).copy_async(source, piece, present);
        };
        if piece < 16 {
            // Many small copies: a loop.
            code.each(Steps { from: code.thread(), to: total, step: self.threads }, copy);
            return;
        }
        for pass in 0..total.div_ceil(self.threads) {
            let number = code.thread() + pass * self.threads;
            if (pass + 1) * self.threads <= total {
                copy(number);
            } else {
                code.when(number.lt(total), || copy(number));
            }
        }
    }
}
