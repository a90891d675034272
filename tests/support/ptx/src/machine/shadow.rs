//! Beside each piece of memory: who wrote it last, who read it since. An access that is not ordered after those that it
//! conflicts with is a race.

use smallvec::SmallVec;

use super::clock::{AccessKind, Agent, Stamp, View};
use crate::registers::Mask;

/// Most reads of a piece, none ordered before another, that are told apart: more than the warps of a cluster.
const CROWD: usize = 1024;

/// One piece of memory.
#[derive(Debug, Clone)]
struct Granule {
    write: Stamp,
    /// Reads since, none of which is ordered before another.
    reads: SmallVec<[Stamp; 1]>,
    /// There have been more of them; no write is ordered behind these.
    crowded: bool,
    /// The last instruction that read it as memory which nobody writes, counted from 1; 0 if none did.
    non_coherent: u32,
}

impl Granule {
    fn fresh() -> Self {
        Self { write: Stamp::NEVER, reads: SmallVec::new(), crowded: false, non_coherent: 0 }
    }
}

/// An access that is being made.
pub(crate) struct Access<'v> {
    pub(crate) stamp: Stamp,
    /// The warp whose instruction makes it; its lanes.
    pub(crate) issuer: (Agent, Mask),
    /// What those lanes know.
    pub(crate) view: &'v View,
}

impl Access<'_> {
    /// Whether an earlier access of the generic proxy comes before in the order of the very thread.
    #[inline]
    fn follows(&self, earlier: &Stamp) -> bool {
        matches!(earlier.kind, AccessKind::Generic | AccessKind::Atomic | AccessKind::NonCoherent)
            && earlier.cluster == self.stamp.cluster
            && (earlier.agent, earlier.lanes) == self.issuer
    }

    #[inline]
    fn both_atomic(&self, earlier: &Stamp) -> bool {
        earlier.kind == AccessKind::Atomic && self.stamp.kind == AccessKind::Atomic
    }

    /// Whether a write is not ordered before this; if so, what is missing.
    #[inline]
    pub(crate) fn unordered(&self, write: &Stamp) -> Option<Missing> {
        if self.stamp.kind.is_async_proxy() && !write.kind.is_async_proxy() {
            let known = || self.view.known.covers(write) || self.follows(write);
            let missing = || if known() { Missing::ProxyFence } else { Missing::Order };
            return (!self.view.fenced.covers(write)).then(missing);
        }
        let ordered = self.view.known.covers(write) || self.follows(write) || self.both_atomic(write);
        (!ordered).then_some(Missing::Order)
    }
}

/// What two accesses lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Anything that orders them.
    Order,
    /// They are ordered, only not for the async proxy.
    ProxyFence,
    /// One is a load of memory that nobody writes while the kernel runs, the other a write.
    Coherence,
}

/// Why an access is wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conflict {
    /// First byte of the piece.
    pub(crate) offset: usize,
    /// The earlier access; in another cluster if `elsewhere`.
    pub(crate) earlier: Stamp,
    /// Whether the earlier access was a write.
    pub(crate) wrote: bool,
    /// The earlier access is of another cluster.
    pub(crate) elsewhere: bool,
    pub(crate) missing: Missing,
}

/// What is wrong with a read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ReadProblem {
    Conflict(Conflict),
    /// Nothing was ever written there.
    Uninitialised {
        offset: usize,
    },
}

/// Pieces beside a stretch of memory.
#[derive(Debug)]
pub(crate) struct Shadow {
    granules: Vec<Granule>,
    /// Bytes of a piece, a power of two: the least that any instruction of the kernel touches, so that two accesses
    /// conflict exactly if they share a piece.
    shift: u32,
}

impl Shadow {
    pub(crate) fn new(bytes: usize, granule: u32) -> Self {
        let shift = granule.trailing_zeros();
        Self { granules: vec![Granule::fresh(); bytes.div_ceil(1 << shift)], shift }
    }

    #[inline]
    fn pieces(&self, offset: usize, bytes: usize) -> std::ops::RangeInclusive<usize> {
        offset >> self.shift..=(offset + bytes - 1) >> self.shift
    }

    /// Notes a read of memory that has to be written first.
    #[inline]
    pub(crate) fn read_initialised(
        &mut self,
        offset: usize,
        bytes: usize,
        access: &Access<'_>,
    ) -> Result<(), ReadProblem> {
        for piece in self.pieces(offset, bytes) {
            if self.granules[piece].write.time == 0 {
                return Err(ReadProblem::Uninitialised { offset: piece << self.shift });
            }
            self.read_piece(piece, access).map_err(ReadProblem::Conflict)?;
        }
        Ok(())
    }

    /// The last write of the piece at an offset.
    pub(crate) fn last_write(&self, offset: usize) -> Stamp {
        self.granules[offset >> self.shift].write
    }

    /// Notes a read.
    #[inline]
    pub(crate) fn read(&mut self, offset: usize, bytes: usize, access: &Access<'_>) -> Result<(), Conflict> {
        self.pieces(offset, bytes).try_for_each(|piece| self.read_piece(piece, access))
    }

    #[inline]
    fn read_piece(&mut self, piece: usize, access: &Access<'_>) -> Result<(), Conflict> {
        let stamp = &access.stamp;
        let granule = &mut self.granules[piece];
        let is_non_coherent = stamp.kind == AccessKind::NonCoherent;
        if granule.write.time != 0 {
            let missing = access.unordered(&granule.write).or(is_non_coherent.then_some(Missing::Coherence));
            if let Some(missing) = missing {
                let earlier = granule.write;
                return Err(self.conflict(piece, access, (earlier, true), missing));
            }
        }
        if is_non_coherent {
            granule.non_coherent = stamp.at + 1;
        }
        match granule.reads.as_mut_slice() {
            [] => granule.reads.push(*stamp),
            [only] if (only.cluster, only.agent, only.time) == (stamp.cluster, stamp.agent, stamp.time) => {
                only.lanes |= stamp.lanes;
            }
            _ => keep_read(granule, access),
        }
        Ok(())
    }

    /// Notes a write.
    #[inline]
    pub(crate) fn write(&mut self, offset: usize, bytes: usize, access: &Access<'_>) -> Result<(), Conflict> {
        for piece in self.pieces(offset, bytes) {
            let granule = &mut self.granules[piece];
            if granule.write.time != 0
                && let Some(missing) = access.unordered(&granule.write)
            {
                let earlier = granule.write;
                return Err(self.conflict(piece, access, (earlier, true), missing));
            }
            // A read never needs a proxy fence behind it: the writer only has to know that it is over.
            let open = |read: &&Stamp| {
                !access.follows(read) && !access.view.known.covers(read) && !access.both_atomic(read)
            };
            let mut read = granule.reads.iter().find(open).copied();
            if granule.crowded && read.is_none() {
                read = granule.reads.first().copied();
            }
            if let Some(read) = read {
                return Err(self.conflict(piece, access, (read, false), Missing::Order));
            }
            if let Some(at) = granule.non_coherent.checked_sub(1) {
                let read = Stamp { kind: AccessKind::NonCoherent, at, ..access.stamp };
                return Err(self.conflict(piece, access, (read, false), Missing::Coherence));
            }
            granule.reads.clear();
            granule.write = access.stamp;
        }
        Ok(())
    }

    #[cold]
    fn conflict(
        &self,
        piece: usize,
        access: &Access<'_>,
        (earlier, wrote): (Stamp, bool),
        missing: Missing,
    ) -> Conflict {
        let elsewhere = earlier.cluster != access.stamp.cluster;
        Conflict { offset: piece << self.shift, earlier, wrote, elsewhere, missing }
    }
}

/// Adds a read to those that are not ordered before it.
fn keep_read(granule: &mut Granule, access: &Access<'_>) {
    let stamp = &access.stamp;
    if granule.crowded {
        return;
    }
    let reads = &mut granule.reads;
    reads.retain(|read| !(access.follows(read) || access.view.known.covers(read)));
    let of = |read: &Stamp| (read.cluster, read.agent, read.time);
    let n_reads = reads.len();
    match reads.iter_mut().find(|read| of(read) == of(stamp)) {
        Some(same) => same.lanes |= stamp.lanes,
        None if n_reads < CROWD => reads.push(*stamp),
        None => granule.crowded = true,
    }
}
