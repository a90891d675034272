//! Which page of a cache holds a token.

use skipc_artifact::program::PAGE_ROWS;
use skipc_plan::kernel::{Kernel, Slot, View};

use super::place;
use crate::code::{Code, GPtr, I32, Int};

/// Where the pages of a sequence are listed.
#[derive(Clone, Copy)]
pub(super) struct Pages<'c>(GPtr<'c>);

impl<'c> Pages<'c> {
    pub(super) fn of(code: &'c Code, kernel: &Kernel, table: Slot, sequence: Int<'c>) -> Self {
        Pages(place::row_start(code, kernel.param(table), View::dense(table), sequence))
    }

    /// The row of the cache that holds the token at a position.
    pub(super) fn key(self, position: Int<'c>) -> Int<'c> {
        let page = self.0.at::<I32>(position / PAGE_ROWS).load::<I32>();
        page * PAGE_ROWS + position % PAGE_ROWS
    }
}
