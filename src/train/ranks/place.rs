//! Which rank of how many a process is, as what started it says by variables of the environment.

use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};

/// A rank of several, or of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// What started it.
    pub by: Launcher,
}

/// What starts several processes of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// An MPI by way of PMI: `mpirun` of MPICH and its relatives, `srun --mpi=pmi2`.
    Pmi,
    /// PyTorch's.
    Torchrun,
    /// Slurm's.
    Srun,
}

impl Launcher {
    const ALL: [Launcher; 4] = [Launcher::OpenMpi, Launcher::Pmi, Launcher::Torchrun, Launcher::Srun];

    /// The variables that have rank and number of ranks.
    fn variables(self) -> [&'static str; 2] {
        match self {
            Launcher::OpenMpi => ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"],
            Launcher::Pmi => ["PMI_RANK", "PMI_SIZE"],
            Launcher::Torchrun => ["RANK", "WORLD_SIZE"],
            Launcher::Srun => ["SLURM_PROCID", "SLURM_NTASKS"],
        }
    }
}

/// What is wrong with how ranks were started.
pub(super) fn wrong(message: String, help: String) -> Error {
    Error::new(ErrorKind::Request, Diagnostic::new("train::ranks", message).help(help))
}

impl Place {
    /// What variables say of this process; nothing if it was started by itself. Slurm's count where no other is set: `mpirun`
    /// and `torchrun` leave them as they were for whatever started them.
    ///
    /// # Errors
    /// `train::ranks` where variables contradict each other or are no numbers, and for ranks of `torchrun`, which starts no MPI.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Place>, Error> {
        let mut places: Vec<Place> = Vec::new();
        for by in Launcher::ALL {
            if by == Launcher::Srun && (!places.is_empty() || is_batch_script(&variable)) {
                continue;
            }
            places.extend(read(by, &variable)?);
        }
        let Some(first) = places.first().copied() else { return Ok(None) };
        if let Some(other) = places.iter().find(|other| (other.rank, other.size) != (first.rank, first.size))
        {
            let said = |place: &Place| {
                let [rank, size] = place.by.variables();
                format!("{rank}={} and {size}={}", place.rank, place.size)
            };
            let message = format!("{} contradict {}", said(&first), said(other));
            let help = "start ranks by one launcher, and unset what another has left in the environment";
            return Err(wrong(message, help.to_owned()));
        }
        if first.by == Launcher::Torchrun && first.size > 1 {
            let message = format!(
                "torchrun started this as rank {} of {}, and ranks of skipc find each other by MPI, which it does not start",
                first.rank, first.size
            );
            let help = format!("write `mpirun -n {} skipc train …`, or `srun --mpi=pmix …`", first.size);
            return Err(wrong(message, help));
        }
        Ok(Some(first))
    }
}

/// The script of a batch job has a rank, too, as the only process of a step that has no number.
fn is_batch_script(variable: &impl Fn(&str) -> Option<String>) -> bool {
    variable("SLURM_STEP_ID").is_none() && variable("SLURM_PROCID").is_some_and(|rank| rank == "0")
}

fn read(by: Launcher, variable: &impl Fn(&str) -> Option<String>) -> Result<Option<Place>, Error> {
    let names = by.variables();
    let number = |name: &str| match variable(name) {
        None => Ok(None),
        Some(text) => text.parse::<usize>().map(Some).map_err(|_| {
            let help = "it is set by what starts ranks; unset it to train in one process".to_owned();
            wrong(format!("the variable {name} is `{text}`, and should be a number"), help)
        }),
    };
    let (rank, size) = match names.map(&variable) {
        [Some(_), Some(_)] => (number(names[0])?, number(names[1])?),
        // A number of tasks stands in the environment of every job; RANK may be anybody's.
        _ if matches!(by, Launcher::Srun | Launcher::Torchrun) => (None, None),
        [None, None] => (None, None),
        [rank, _] => {
            let (there, missing) = if rank.is_some() { (names[0], names[1]) } else { (names[1], names[0]) };
            let help = "start ranks by `mpirun -n 2 skipc train …`, which sets both".to_owned();
            return Err(wrong(format!("the variable {there} is set, and {missing} is not"), help));
        }
    };
    let (Some(rank), Some(size)) = (rank, size) else { return Ok(None) };
    if rank >= size {
        let message = format!("{}={rank} is no rank of {}={size}: ranks count from 0", names[0], names[1]);
        return Err(wrong(message, "start ranks by `mpirun -n 2 skipc train …`, which sets both".to_owned()));
    }
    Ok(Some(Place { rank, size, by }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(variables: &[(&str, &str)]) -> Result<Option<Place>, String> {
        let value =
            |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        Place::from_environment(value).map_err(|error| error.to_string())
    }

    fn ranks(variables: &[(&str, &str)]) -> Option<(usize, usize, Launcher)> {
        place(variables).unwrap().map(|place| (place.rank, place.size, place.by))
    }

    #[test]
    fn a_process_knows_its_place_by_what_started_it() {
        assert_eq!(ranks(&[]), None);
        let open_mpi = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "4")];
        assert_eq!(ranks(&open_mpi), Some((1, 4, Launcher::OpenMpi)));
        assert_eq!(ranks(&[("PMI_RANK", "0"), ("PMI_SIZE", "2")]), Some((0, 2, Launcher::Pmi)));
        let slurm = [("SLURM_PROCID", "2"), ("SLURM_NTASKS", "3"), ("SLURM_STEP_ID", "0")];
        assert_eq!(ranks(&slurm), Some((2, 3, Launcher::Srun)));
        assert_eq!(ranks(&[("RANK", "0"), ("WORLD_SIZE", "1")]), Some((0, 1, Launcher::Torchrun)));
    }

    #[test]
    fn what_slurm_says_of_others_counts_for_nothing() {
        // The script of a batch job.
        assert_eq!(ranks(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "3")]), None);
        // A shell of an allocation.
        assert_eq!(ranks(&[("SLURM_NTASKS", "3")]), None);
        // What srun started is mpirun's helper on this host.
        let started = [
            ("SLURM_PROCID", "1"),
            ("SLURM_NTASKS", "2"),
            ("SLURM_STEP_ID", "0"),
            ("OMPI_COMM_WORLD_RANK", "5"),
            ("OMPI_COMM_WORLD_SIZE", "8"),
        ];
        assert_eq!(ranks(&started), Some((5, 8, Launcher::OpenMpi)));
    }

    #[test]
    fn what_cannot_be_is_said() {
        let two = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")];
        for (further, wanted) in [
            (&[("PMI_RANK", "0"), ("PMI_SIZE", "2")][..], "contradict PMI_RANK=0 and PMI_SIZE=2"),
            (&[("RANK", "1"), ("WORLD_SIZE", "3")], "contradict RANK=1 and WORLD_SIZE=3"),
        ] {
            let said = place(&[&two[..], further].concat()).unwrap_err();
            assert!(said.contains(wanted), "{said}");
        }
        for (variables, wanted) in [
            (&two[..1], "OMPI_COMM_WORLD_SIZE is not"),
            (&[("PMI_RANK", "2"), ("PMI_SIZE", "2")], "is no rank of"),
            (&[("PMI_RANK", "one"), ("PMI_SIZE", "2")], "`one`"),
            (&[("RANK", "1"), ("WORLD_SIZE", "2")], "torchrun started this as rank 1 of 2"),
        ] {
            let said = place(variables).unwrap_err();
            assert!(said.contains(wanted), "{said}");
        }
    }
}
