//! Shared memory of a block: bytes, their shadow, and the mbarriers in them.

use std::collections::BTreeMap;

use super::fault::{FaultKind, Finding};
use super::mbarrier::Mbarrier;
use super::shadow::Shadow;

/// Where a block's own shared memory begins: above null, and so aligned that tiles can be.
pub(crate) const BASE: u64 = 1024;

/// Bits of an address within the shared memory of one block; the bits above name the block of a cluster, 0 the own.
pub(crate) const WINDOW: u32 = 24;

/// What memory holds before it is written: a NaN in every float type.
const POISON: u8 = 0xFF;

/// Shared memory of a block.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) bytes: Vec<u8>,
    pub(crate) shadow: Shadow,
    /// By offset.
    pub(crate) mbarriers: BTreeMap<u32, Mbarrier>,
}

impl Shared {
    pub(crate) fn new(bytes: usize, granule: u32) -> Self {
        Self { bytes: vec![POISON; bytes], shadow: Shadow::new(bytes, granule), mbarriers: BTreeMap::new() }
    }

    /// Offset of an address, of which the part that names a block has been taken away.
    #[inline]
    pub(crate) fn place(&self, lane: u32, address: u64, bytes: u32, align: u32) -> Result<usize, Finding> {
        let offset = address.wrapping_sub(BASE);
        if offset.saturating_add(u64::from(bytes)) > self.bytes.len() as u64 {
            let size = self.bytes.len();
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
        if !offset.is_multiple_of(u64::from(align)) {
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
                let what =
                    format!("bytes {offset}..{} of shared memory hold the mbarrier at {at}", offset + bytes);
                Err(Finding { kind: FaultKind::Barrier, lane, what })
            }
        }
    }
}
