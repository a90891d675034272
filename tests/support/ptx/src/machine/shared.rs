//! Shared memory of a block: bytes, their shadow, and the mbarriers in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fault::{FaultKind, Finding};
use super::mbarrier::Mbarrier;
use super::order::Release;
use super::shadow::Shadow;

/// Where a block's own shared memory begins: above null, and so aligned that tiles can be.
pub(crate) const BASE: u64 = 1024;

/// Bits of an address within the shared memory of one block; the bits above name the block of a cluster, 0 the own.
pub(crate) const WINDOW: u32 = 24;

/// Bytes between variables, which belong to none: so what runs over the end of one is not in the next. A multiple of all
/// that depends on an address: banks, alignments, swizzles.
pub(crate) const GAP: u64 = 1024;

/// Most variables with gaps between them: with all that a block may have, they end below 2^18, as far as matrix
/// descriptors reach.
pub(crate) const MOST_APART: usize = 27;

/// Where the variables in shared memory lie.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    /// Offset, bytes and name of those with a size, in order.
    pub(crate) variables: Vec<(u64, u64, String)>,
    /// Where dynamic shared memory begins.
    pub(crate) dynamic: u64,
    /// Bytes behind each variable.
    pub(crate) gap: u64,
}

impl Rooms {
    /// An offset as the kernel knows it, without the bytes between variables.
    pub(crate) fn own(&self, offset: u64) -> u64 {
        let before = match offset >= self.dynamic {
            true => self.variables.len(),
            false => self.variables.partition_point(|(begin, ..)| *begin <= offset).saturating_sub(1),
        };
        offset.saturating_sub(self.gap * before as u64)
    }

    /// What is wrong with an access to bytes that all there is has.
    fn check(&self, offset: u64, bytes: u64) -> Option<String> {
        if offset >= self.dynamic {
            return None;
        }
        let after = self.variables.partition_point(|(begin, ..)| *begin <= offset);
        let (begin, size, name) = self.variables.get(after.checked_sub(1)?)?;
        let within = offset - begin;
        (within + bytes > *size)
            .then(|| format!("bytes {within}..{} of `{name}`, which has {size}", within + bytes))
    }
}

/// What memory holds before it is written: a NaN in every float type.
const POISON: u8 = 0xFF;

/// Shared memory of a block.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) bytes: Vec<u8>,
    pub(crate) shadow: Shadow,
    /// By offset.
    pub(crate) mbarriers: BTreeMap<u32, Mbarrier>,
    /// What strong writes have released, by offset.
    pub(crate) releases: BTreeMap<usize, Vec<Release>>,
    rooms: Arc<Rooms>,
}

impl Shared {
    pub(crate) fn new(bytes: usize, granule: u32, rooms: Arc<Rooms>) -> Self {
        let (bytes, shadow) = (vec![POISON; bytes], Shadow::new(bytes, granule));
        Self { bytes, shadow, mbarriers: BTreeMap::new(), releases: BTreeMap::new(), rooms }
    }

    /// Offset of an address, of which the part that names a block has been taken away.
    #[inline]
    pub(crate) fn place(&self, lane: u32, address: u64, bytes: u32, align: u32) -> Result<usize, Finding> {
        let offset = address.wrapping_sub(BASE);
        if offset.saturating_add(u64::from(bytes)) > self.bytes.len() as u64 {
            let (offset, size) = (self.rooms.own(offset), self.rooms.own(self.bytes.len() as u64));
            let what = if address < BASE {
                format!("shared address {address:#x} lies below the block's shared memory")
            } else {
                format!(
                    "bytes {offset}..{} of shared memory, which has {size}",
                    offset.saturating_add(u64::from(bytes))
                )
            };
            return Err(Finding { kind: FaultKind::OutOfBounds, lane, what });
        }
        if let Some(what) = self.rooms.check(offset, u64::from(bytes)) {
            return Err(Finding { kind: FaultKind::OutOfBounds, lane, what });
        }
        if !offset.is_multiple_of(u64::from(align)) {
            let offset = self.rooms.own(offset);
            let what = format!("byte {offset} of shared memory is not aligned to {align} bytes");
            return Err(Finding { kind: FaultKind::Misaligned, lane, what });
        }
        Ok(offset as usize)
    }

    /// Fails if bytes that are to be written or read as data hold an mbarrier.
    #[inline]
    pub(crate) fn spare_mbarriers(&self, lane: u32, offset: usize, bytes: usize) -> Result<(), Finding> {
        if self.mbarriers.is_empty() {
            return Ok(());
        }
        let from = (offset as u32).saturating_sub(7);
        match self.mbarriers.range(from..(offset + bytes) as u32).next() {
            None => Ok(()),
            Some((at, _)) => {
                let [from, at] = [offset as u64, u64::from(*at)].map(|offset| self.rooms.own(offset));
                let what = format!(
                    "bytes {from}..{} of shared memory hold the mbarrier at {at}",
                    from + bytes as u64
                );
                Err(Finding { kind: FaultKind::Barrier, lane, what })
            }
        }
    }
}
