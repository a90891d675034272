//! What a kernel did, in numbers that do not depend on the schedule.

use std::fmt;

use super::decode::Kind;

/// Counts of one launch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Blocks that ran.
    pub blocks: u64,
    /// Instructions of warps, in the order of [`Kind::ALL`].
    pub warp_instructions: [u64; Kind::ALL.len()],
    /// Instructions of threads: those of warps times the lanes that took part.
    pub thread_instructions: u64,
    /// Bytes that threads loaded from global memory.
    pub global_loaded: u64,
    /// Bytes that threads stored to global memory.
    pub global_stored: u64,
    /// Requests of warps to global memory.
    pub global_requests: u64,
    /// Sectors of 32 bytes that these requests touched.
    pub global_sectors: u64,
    /// Bytes that threads loaded from shared memory.
    pub shared_loaded: u64,
    /// Bytes that threads stored to shared memory.
    pub shared_stored: u64,
    /// Requests of warps to shared memory, each of up to 128 bytes that can be served at once.
    pub shared_requests: u64,
    /// Further passes that the 32 banks needed for them: bank conflicts.
    pub bank_conflicts: u64,
    /// Bytes copied from global to shared memory beside the threads, by `cp.async` and bulk copies.
    pub copied_in: u64,
    /// Bytes copied from shared to global memory by bulk copies.
    pub copied_out: u64,
    /// `mma.sync` of warps.
    pub mma: u64,
    /// `wgmma.mma_async` of warps: four for each warp group.
    pub wgmma: u64,
    /// Multiply-adds of both.
    pub matrix_macs: u64,
    /// Arrivals of warps at barriers for threads.
    pub barriers: u64,
    /// Phases of mbarriers that completed.
    pub mbarrier_phases: u64,
}

impl Counters {
    /// The kinds of instructions that warps executed, with how many of each.
    pub fn kinds(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.into_iter().zip(self.warp_instructions).filter(|(_, n)| *n > 0)
    }

    /// Sectors for each request to global memory, 4 to 16 where all of each is used.
    pub fn sectors_per_request(&self) -> f64 {
        self.global_sectors as f64 / self.global_requests.max(1) as f64
    }

    /// Notes the addresses of a request to global memory.
    pub(crate) fn global_request(&mut self, addresses: impl Iterator<Item = u64>, bytes: u32) {
        let mut sectors = [0_u64; 64];
        let mut n = 0;
        for address in addresses {
            let last = (address + u64::from(bytes) - 1) / 32;
            for sector in address / 32..=last {
                // Lanes next to each other touch the same sector: the newest is looked at first.
                if !sectors[..n].iter().rev().any(|known| *known == sector) && n < sectors.len() {
                    sectors[n] = sector;
                    n += 1;
                }
            }
        }
        self.global_requests += 1;
        self.global_sectors += n as u64;
    }

    /// Notes the addresses of a request to shared memory: vectors of 8 and 16 bytes go in two and four parts.
    pub(crate) fn shared_request(&mut self, addresses: &[u64], bytes: u32) {
        let lanes = (32 / (bytes as usize / 4).max(1)).max(1);
        for part in addresses.chunks(lanes) {
            let passes = passes(part, bytes);
            self.shared_requests += 1;
            self.bank_conflicts += u64::from(passes.saturating_sub(1));
        }
    }
}

/// Passes over the 32 banks of 4 bytes: in each, a bank gives one word.
fn passes(addresses: &[u64], bytes: u32) -> u32 {
    let mut words: [[u64; 8]; 32] = [[u64::MAX; 8]; 32];
    let mut counts = [0_usize; 32];
    for address in addresses {
        for word in address / 4..=(address + u64::from(bytes) - 1) / 4 {
            let bank = (word % 32) as usize;
            let n = counts[bank];
            if !words[bank][..n.min(8)].contains(&word) {
                words[bank][n.min(7)] = word;
                counts[bank] += 1;
            }
        }
    }
    counts.iter().copied().max().unwrap_or(0).max(1) as u32
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "blocks                  {}", self.blocks)?;
        for (kind, n) in self.kinds() {
            writeln!(f, "warp instructions       {n} {}", kind.name())?;
        }
        writeln!(f, "thread instructions     {}", self.thread_instructions)?;
        writeln!(f, "global bytes            {} loaded, {} stored", self.global_loaded, self.global_stored)?;
        let per = self.sectors_per_request();
        writeln!(f, "global requests         {}, {per:.2} sectors each", self.global_requests)?;
        writeln!(f, "shared bytes            {} loaded, {} stored", self.shared_loaded, self.shared_stored)?;
        writeln!(
            f,
            "shared requests         {}, {} bank conflicts",
            self.shared_requests, self.bank_conflicts
        )?;
        writeln!(f, "asynchronous copies     {} bytes in, {} bytes out", self.copied_in, self.copied_out)?;
        writeln!(
            f,
            "matrix operations       {} mma, {} wgmma, {} MACs",
            self.mma, self.wgmma, self.matrix_macs
        )?;
        write!(
            f,
            "barriers                {} arrivals of warps, {} mbarrier phases",
            self.barriers, self.mbarrier_phases
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(addresses: impl Iterator<Item = u64>, bytes: u32) -> (u64, u64) {
        let mut counters = Counters::default();
        counters.shared_request(&addresses.collect::<Vec<_>>(), bytes);
        (counters.shared_requests, counters.bank_conflicts)
    }

    #[test]
    fn banks_conflict_where_lanes_want_different_words_of_one() {
        assert_eq!(shared((0..32).map(|lane| lane * 4), 4), (1, 0));
        assert_eq!(shared((0..32).map(|_| 64), 4), (1, 0), "one word for all is not a conflict");
        assert_eq!(shared((0..32).map(|lane| lane * 8), 4), (1, 1));
        assert_eq!(shared((0..32).map(|lane| lane * 128), 4), (1, 31));
        assert_eq!(shared((0..32).map(|lane| lane * 16), 16), (4, 0));
        assert_eq!(shared((0..32).map(|lane| lane * 128), 16), (4, 28));
    }

    #[test]
    fn sectors_are_counted_once_a_request() {
        let mut counters = Counters::default();
        counters.global_request((0..32).map(|lane| lane * 4), 4);
        assert_eq!(counters.global_sectors, 4);
        counters.global_request((0..32).map(|lane| lane * 32), 4);
        assert_eq!((counters.global_requests, counters.global_sectors), (2, 36));
    }
}
