//! Training on several ranks: those of a run against one process and against PyTorch in float64, and how runs end.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, Mutex};

use skipc::driver::backends::CpuBackend;
use skipc::train::interpreted;
use skipc::train::ranks::Ranks;

#[cfg(feature = "mpi")]
#[path = "ranks/processes.rs"]
mod processes;
#[path = "training/runs.rs"]
mod runs;

use runs::{Bounds, Builds, cases, compare, compiled_by, record_on};

const BOUNDS: Bounds = Bounds { loss: 2e-5, gradient: 2e-5, change: 1e-3 };

/// A rank that is a thread of this process.
struct Thread {
    rank: usize,
    desk: Arc<Desk>,
}

/// Where threads put what they give.
struct Desk {
    given: Mutex<Vec<Vec<u8>>>,
    all: Barrier,
}

impl Ranks for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.desk.given.lock().unwrap().len()
    }

    fn gather(&self, own: &[u8]) -> Vec<Vec<u8>> {
        self.desk.given.lock().unwrap()[self.rank] = own.to_vec();
        self.desk.all.wait();
        let given = self.desk.given.lock().unwrap().clone();
        self.desk.all.wait();
        given
    }
}

/// Runs a case on so many ranks, each with its own record below `folder`.
fn record_ranks(case: &Path, folder: &Path, size: usize, build: &(impl Builds + Sync)) {
    let desk = Arc::new(Desk { given: Mutex::new(vec![Vec::new(); size]), all: Barrier::new(size) });
    std::thread::scope(|scope| {
        for rank in 0..size {
            let ranks = Thread { rank, desk: Arc::clone(&desk) };
            scope.spawn(move || {
                let own = folder.join(rank.to_string());
                record_on::<f32>(case, (&own, &ranks), (false, build), |_| ());
            });
        }
    });
}

/// The smallest number of ranks, above one, that a case's rows can be shared among.
fn ranks_of(case: &Path) -> usize {
    let text = std::fs::read_to_string(case.join("train.toml")).unwrap();
    let batch = text.lines().find_map(|line| line.strip_prefix("batch = ")).unwrap();
    let batch: usize = batch.parse().unwrap();
    (2..=batch).find(|ranks| batch.is_multiple_of(*ranks)).unwrap()
}

/// Runs cases on ranks, of which each has to find what PyTorch finds for the whole batch, and all the same bytes.
fn runs_of(build: &(impl Builds + Sync), cases: impl Iterator<Item = PathBuf>) {
    for case in cases {
        let folder = tempfile::tempdir().unwrap();
        let size = ranks_of(&case);
        record_ranks(&case, folder.path(), size, build);
        compare(&case, &folder.path().join("0"), &BOUNDS);
        for file in ["steps.json", "wanted.npy", "gates.npy", "grads.safetensors", "after.safetensors"] {
            let read = |rank: usize| std::fs::read(folder.path().join(rank.to_string()).join(file)).unwrap();
            assert!((1..size).all(|rank| read(rank) == read(0)), "{}: {file}", case.display());
        }
    }
}

#[cfg(not(feature = "mpi"))]
#[test]
fn ranks_of_a_build_without_mpi_do_not_train_alone() {
    let folder = tempfile::tempdir().unwrap();
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/training/text");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_skipc"))
        .args(["--json", "train", "spec.toml", "--config", "train.toml", "-o"])
        .arg(folder.path().join("out"))
        .current_dir(case)
        .envs([("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "2")])
        .output()
        .unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((said["errors"][0]["code"].as_str(), output.status.code()), (Some("train::no_mpi"), Some(5)));
    assert!(!folder.path().join("out").exists(), "nothing has begun");
}

#[test]
fn ranks_on_the_interpreter_find_what_the_reference_finds() {
    runs_of(&interpreted::<f32>, cases().into_iter());
}

#[test]
fn ranks_by_cranelift_find_what_the_reference_finds() {
    runs_of(&compiled_by(CpuBackend::Cranelift, 1), cases().into_iter());
}

#[cfg(feature = "llvm")]
#[test]
fn ranks_by_llvm_find_what_the_reference_finds() {
    let some = |case: &PathBuf| ["dense-ste", "sparse-micro"].iter().any(|name| case.ends_with(name));
    runs_of(&compiled_by(CpuBackend::Llvm, 1), cases().into_iter().filter(some));
}
