//! Ranks joined by MPI. It moves bytes and adds nothing up: what its own sums add in which order depends on its version, on the
//! number of elements and on where ranks run.

use std::mem::ManuallyDrop;
use std::ops::Range;

use ::mpi::Threading;
use ::mpi::datatype::{Partition, PartitionMut};
use ::mpi::environment::Universe;
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::{Communicator, CommunicatorCollectives};

use super::place::wrong;
use super::{Place, Ranks, share};
use crate::error::Error;

/// Numbers that are summed at once: 16 MiB, and as much for what other ranks send of them.
const BLOCK: usize = 1 << 22;

/// Bytes that all ranks together give in a call.
const GATHERED: usize = 1 << 30;

/// Memory with an address.
static NOTHING: [u8; 1] = [0];

/// All processes that MPI has started together.
pub(super) struct Mpi {
    // MPI ends when all ranks end it, for which a rank that fails must not wait.
    universe: ManuallyDrop<Universe>,
    world: SimpleCommunicator,
    rank: usize,
    size: usize,
}

impl Mpi {
    /// Joins the other ranks. Everything else is called on the same thread.
    ///
    /// # Errors
    /// `train::ranks` if MPI knows nothing of the ranks that the environment tells of.
    pub(super) fn open(place: Place) -> Result<Mpi, Error> {
        let help = || {
            format!(
                "start ranks by the MPI that skipc was built with, `mpirun -n {} skipc train …` or `srun --mpi=pmix …`; it is {}",
                place.size,
                library()
            )
        };
        let Some((universe, _)) = ::mpi::initialize_with_threading(Threading::Funneled) else {
            return Err(wrong("MPI was begun before".to_owned(), help()));
        };
        let world = universe.world();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        let opened = Mpi { universe: ManuallyDrop::new(universe), world, rank, size };
        if (rank, size) == (place.rank, place.size) {
            return Ok(opened);
        }
        let message = format!(
            "the environment says that this is rank {} of {}, and MPI that it is rank {rank} of {size}",
            place.rank, place.size
        );
        Err(wrong(message, help()))
    }

    /// Ends MPI, when all ranks do.
    pub(super) fn close(self) {
        drop(ManuallyDrop::into_inner(self.universe));
    }

    fn sum_block(&self, block: &mut [f32]) {
        let shares: Vec<Range<usize>> =
            (0..self.size).map(|rank| share(block.len(), rank, self.size)).collect();
        let counts: Vec<i32> = shares.iter().map(|share| share.len() as i32).collect();
        let begins: Vec<i32> = shares.iter().map(|share| share.start as i32).collect();
        let own = shares[self.rank].len();
        let mut of_ranks = vec![0.0f32; own * self.size];
        {
            let given = Partition::new(&*block, counts.as_slice(), begins.as_slice());
            let begins: Vec<i32> = (0..self.size).map(|rank| (rank * own) as i32).collect();
            let mut taken = PartitionMut::new(&mut of_ranks[..], vec![own as i32; self.size], begins);
            self.world.all_to_all_varcount_into(&given, &mut taken);
        }
        let (sums, others) = of_ranks.split_at_mut(own);
        for of_rank in others.chunks_exact(own.max(1)) {
            sums.iter_mut().zip(of_rank).for_each(|(sum, value)| *sum += value);
        }
        let mut all = PartitionMut::new(block, counts, begins);
        self.world.all_gather_varcount_into(&*sums, &mut all);
    }
}

/// The MPI that is linked, in one line.
fn library() -> String {
    let said = ::mpi::environment::library_version().unwrap_or_default();
    said.split([',', '\n']).next().unwrap_or_default().trim().to_owned()
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
        let mut lengths = vec![0u64; self.size];
        self.world.all_gather_into(&(own.len() as u64), &mut lengths[..]);
        let mut all = vec![Vec::new(); self.size];
        // Counts of MPI are 32 bits wide, and those of all ranks are added up.
        let most = (GATHERED / self.size).max(1);
        let longest = lengths.iter().copied().max().unwrap_or_default() as usize;
        for begin in (0..longest).step_by(most) {
            let within = |length: usize| length.saturating_sub(begin).min(most);
            let counts: Vec<i32> = lengths.iter().map(|length| within(*length as usize) as i32).collect();
            let own = if own.len() > begin { &own[begin..][..within(own.len())] } else { &[] };
            for (all, piece) in all.iter_mut().zip(self.gather_block(own, &counts)) {
                all.extend(piece);
            }
        }
        all
    }

    fn sum(&self, values: &mut [f32]) {
        for block in values.chunks_mut(BLOCK) {
            self.sum_block(block);
        }
    }
}

impl Mpi {
    /// What each rank gives, so many bytes of each.
    fn gather_block(&self, own: &[u8], counts: &[i32]) -> Vec<Vec<u8>> {
        let mut end = 0;
        let begins: Vec<i32> = counts
            .iter()
            .map(|count| {
                end += count;
                end - count
            })
            .collect();
        let mut all = vec![0u8; end as usize];
        {
            // An empty slice of bytes may begin at address 1, which means something to MPI.
            let own = if own.is_empty() { &NOTHING[..0] } else { own };
            let mut taken = PartitionMut::new(&mut all[..], counts, begins.as_slice());
            self.world.all_gather_varcount_into(own, &mut taken);
        }
        let piece = |(begin, count): (&i32, &i32)| all[*begin as usize..][..*count as usize].to_vec();
        begins.iter().zip(counts).map(piece).collect()
    }
}
