//! The ranks of a run from its first call to its last: how they find each other, who they are, and how they end.

use serde::{Deserialize, Serialize};
use skipc_runtime::threads::Threads;

use super::{Alone, Place, Ranks};
use crate::error::Error;
#[cfg(not(feature = "mpi"))]
use crate::{diagnostic::Diagnostic, error::ErrorKind};

/// Says an error to the user, by whichever thread calls it.
pub type Report = Box<dyn Fn(&Error) + Send + Sync>;

/// The process of a rank.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    /// The host that it runs on.
    pub(super) host: String,
    /// Its number there.
    pub(super) process: u32,
    /// The processors that it may run on, as Linux lists them.
    processors: String,
}

/// All ranks of a run, as one of them sees them.
pub struct Team {
    joined: Joined,
    /// By rank; none where there is one process.
    members: Vec<Member>,
}

enum Joined {
    Alone,
    #[cfg(feature = "mpi")]
    Mpi(super::mpi::Mpi, super::watch::Watch),
}

impl Team {
    /// Joins the other ranks, if there are any. From then on the process ends when a rank dies or fails, and `report` says why
    /// if no rank has: once for the run.
    ///
    /// # Errors
    /// `train::no_mpi` in a build that has no means to join others; `train::ranks` where they do not find each other.
    pub fn join(place: Option<Place>, report: Report) -> Result<Team, Error> {
        match place {
            Some(place) if place.size > 1 => Team::of_several(place, report),
            _ => Ok(Team { joined: Joined::Alone, members: Vec::new() }),
        }
    }

    #[cfg(feature = "mpi")]
    fn of_several(place: Place, report: Report) -> Result<Team, Error> {
        let mpi = super::mpi::Mpi::open(place)?;
        let text =
            serde_json::to_vec(&Member::own()).map_err(|error| Error::internal("json::write", &error))?;
        let read = |text: Vec<u8>| {
            serde_json::from_slice(&text).map_err(|error| Error::internal("json::write", &error))
        };
        let members = mpi.gather(&text).into_iter().map(read).collect::<Result<Vec<Member>, Error>>()?;
        let watch = super::watch::Watch::begin(&mpi, members.clone(), report)?;
        Ok(Team { joined: Joined::Mpi(mpi, watch), members })
    }

    #[cfg(not(feature = "mpi"))]
    fn of_several(place: Place, _: Report) -> Result<Team, Error> {
        let message = format!(
            "this is rank {} of {}, and this skipc was built without the feature `mpi`: each would train alone, and all would write one folder",
            place.rank, place.size
        );
        let help = "build it by `cargo build --release --features cuda,mpi`, or start one process";
        Err(Error::new(ErrorKind::Unsupported, Diagnostic::new("train::no_mpi", message).help(help)))
    }

    /// What a step needs of them.
    pub fn ranks(&self) -> &dyn Ranks {
        match &self.joined {
            Joined::Alone => &Alone,
            #[cfg(feature = "mpi")]
            Joined::Mpi(mpi, _) => mpi,
        }
    }

    /// What a rank is called.
    pub fn name(&self, rank: usize) -> String {
        match self.members.get(rank) {
            Some(member) => member.name(rank),
            None => format!("rank {rank}"),
        }
    }

    /// Threads of this rank: the processors that it may run on, shared with the ranks that may run on just these.
    pub fn threads(&self) -> usize {
        let own = self.members.get(self.ranks().rank());
        let beside = self.members.iter().filter(|member| own.is_some_and(|own| own.shares(member))).count();
        (Threads::available() / beside.max(1)).max(1)
    }

    /// Ends a run that all ranks have finished; waits for those that have not.
    pub fn leave(self) {
        match self.joined {
            Joined::Alone => {}
            #[cfg(feature = "mpi")]
            Joined::Mpi(mpi, watch) => {
                mpi.gather(&[]);
                watch.end();
                mpi.close();
            }
        }
    }

    /// Ends all other ranks, because this one has failed, and gives the error as this rank says it. Where another has failed
    /// before, that one says why, and this process ends here.
    #[must_use]
    pub fn fail(&self, error: Error) -> Error {
        match &self.joined {
            Joined::Alone => error,
            #[cfg(feature = "mpi")]
            Joined::Mpi(mpi, watch) => {
                watch.ask_to_speak();
                // What is wrong on the first rank is as a rule wrong on all.
                if mpi.rank() == 0 { error } else { error.of(&self.name(mpi.rank())) }
            }
        }
    }
}

impl Member {
    #[cfg(feature = "mpi")]
    fn own() -> Member {
        let host = ::mpi::environment::processor_name().unwrap_or_default();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let processors = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let processors = processors.unwrap_or_default().trim().to_owned();
        Member { host, process: std::process::id(), processors }
    }

    /// What a rank is called.
    pub(super) fn name(&self, rank: usize) -> String {
        format!("rank {rank} (process {} on {})", self.process, self.host)
    }

    fn shares(&self, other: &Member) -> bool {
        (&self.host, &self.processors) == (&other.host, &other.processors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_that_may_run_on_the_same_processors_share_them() {
        let member = |host: &str, processors: &str| Member {
            host: host.into(),
            process: 1,
            processors: processors.into(),
        };
        assert!(member("a", "0-7").shares(&member("a", "0-7")));
        assert!(!member("a", "0-7").shares(&member("a", "8-15")));
        assert!(!member("a", "0-7").shares(&member("b", "0-7")));
    }
}
