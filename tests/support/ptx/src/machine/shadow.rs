//! Beside each piece of memory: who wrote it last, who read it since. An access that is not ordered after those that it
//! conflicts with is a race.

use smallvec::SmallVec;

use super::clock::{AccessKind, Agent, Stamp, View};
use crate::registers::Mask;

/// One piece of memory.
#[derive(Debug, Clone)]
struct Granule {
    write: Stamp,
    /// Reads since, none of which is ordered before another.
    reads: SmallVec<[Stamp; 1]>,
    /// The cluster that these accesses are of.
    cluster: u32,
    /// Another cluster has read it as well.
    read_elsewhere: bool,
}

impl Granule {
    fn fresh() -> Self {
        Self { write: Stamp::NEVER, reads: SmallVec::new(), cluster: 0, read_elsewhere: false }
    }
}

/// An access that is being made.
pub(crate) struct Access<'v> {
    pub(crate) stamp: Stamp,
    /// The warp whose instruction makes it; its lanes.
    pub(crate) issuer: (Agent, Mask),
    /// What those lanes know.
    pub(crate) view: &'v View,
    pub(crate) cluster: u32,
}

impl Access<'_> {
    /// Whether an earlier access of the generic proxy comes before in the order of the very thread.
    #[inline]
    fn follows(&self, earlier: &Stamp) -> bool {
        matches!(earlier.kind, AccessKind::Generic | AccessKind::Atomic)
            && (earlier.agent, earlier.lanes) == self.issuer
    }

    #[inline]
    fn both_atomic(&self, earlier: &Stamp) -> bool {
        earlier.kind == AccessKind::Atomic && self.stamp.kind == AccessKind::Atomic
    }

    /// Whether a write is not ordered before this; if so, whether only a proxy fence is missing.
    #[inline]
    pub(crate) fn unordered(&self, write: &Stamp) -> Option<bool> {
        if self.stamp.kind.is_async_proxy() && !write.kind.is_async_proxy() {
            let known = || self.view.known.covers(write) || self.follows(write);
            return (!self.view.fenced.covers(write)).then(known);
        }
        let ordered = self.view.known.covers(write) || self.follows(write) || self.both_atomic(write);
        (!ordered).then_some(false)
    }
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
    /// It is ordered before, only not for the async proxy.
    pub(crate) proxy: bool,
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
        let Access { stamp, cluster, .. } = access;
        let granule = &mut self.granules[piece];
        if granule.cluster != *cluster {
            if granule.write.time != 0 {
                return Err(self.conflict(piece, |granule| granule.write, true, true));
            }
            granule.read_elsewhere |= !granule.reads.is_empty();
            granule.reads.clear();
            granule.cluster = *cluster;
        }
        if granule.write.time != 0
            && let Some(proxy) = access.unordered(&granule.write)
        {
            return Err(Conflict { proxy, ..self.conflict(piece, |granule| granule.write, true, false) });
        }
        match granule.reads.as_mut_slice() {
            [] => granule.reads.push(*stamp),
            [only] if only.agent == stamp.agent && only.time == stamp.time => only.lanes |= stamp.lanes,
            _ => keep_read(&mut granule.reads, access),
        }
        Ok(())
    }

    /// Notes a write.
    #[inline]
    pub(crate) fn write(&mut self, offset: usize, bytes: usize, access: &Access<'_>) -> Result<(), Conflict> {
        for piece in self.pieces(offset, bytes) {
            let granule = &mut self.granules[piece];
            if granule.cluster != access.cluster || granule.read_elsewhere {
                self.write_after_others(piece, access)?;
            }
            let granule = &mut self.granules[piece];
            if granule.write.time != 0
                && let Some(proxy) = access.unordered(&granule.write)
            {
                return Err(Conflict { proxy, ..self.conflict(piece, |granule| granule.write, true, false) });
            }
            // A read never needs a proxy fence behind it: the writer only has to know that it is over.
            let open = |read: &&Stamp| {
                !access.follows(read) && !access.view.known.covers(read) && !access.both_atomic(read)
            };
            if let Some(read) = granule.reads.iter().find(open).copied() {
                return Err(self.conflict(piece, |_| read, false, false));
            }
            granule.reads.clear();
            granule.write = access.stamp;
            granule.cluster = access.cluster;
        }
        Ok(())
    }

    #[cold]
    fn write_after_others(&mut self, piece: usize, access: &Access<'_>) -> Result<(), Conflict> {
        let granule = &mut self.granules[piece];
        if granule.write.time != 0 && !access.both_atomic(&granule.write) {
            return Err(self.conflict(piece, |granule| granule.write, true, true));
        }
        if granule.read_elsewhere || !granule.reads.is_empty() {
            let read = |granule: &Granule| granule.reads.first().copied().unwrap_or(Stamp::NEVER);
            return Err(self.conflict(piece, read, false, true));
        }
        granule.write = Stamp::NEVER;
        Ok(())
    }

    #[cold]
    fn conflict(
        &self,
        piece: usize,
        earlier: impl Fn(&Granule) -> Stamp,
        wrote: bool,
        elsewhere: bool,
    ) -> Conflict {
        let earlier = earlier(&self.granules[piece]);
        Conflict { offset: piece << self.shift, earlier, wrote, elsewhere, proxy: false }
    }
}

/// Adds a read to those that are not ordered before it.
fn keep_read(reads: &mut SmallVec<[Stamp; 1]>, access: &Access<'_>) {
    let stamp = &access.stamp;
    reads.retain(|read| !(access.follows(read) || access.view.known.covers(read)));
    match reads.iter_mut().find(|read| read.agent == stamp.agent && read.time == stamp.time) {
        Some(same) => same.lanes |= stamp.lanes,
        None => reads.push(*stamp),
    }
}
