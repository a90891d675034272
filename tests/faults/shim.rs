//! Runs commands with the library of `shim.c` in them, which lets chosen calls fail.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// After so long a command counts as one that does not end.
const PATIENCE: Duration = Duration::from_secs(60);

/// System calls of which the library keeps the kind, as there.
const CALLS: usize = 1024;

/// Words of its page before those.
const WORDS: usize = 9;

/// What happens to a call of the system that changes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// `ENOSPC`, and so all that follow: a disk that is full stays it.
    NoSpace,
    /// `EIO`, once.
    InputOutput,
    /// `EDQUOT`, once.
    Quota,
    /// The process is killed before it.
    Killed,
}

impl How {
    pub(crate) const ALL: [How; 4] = [How::NoSpace, How::InputOutput, How::Quota, How::Killed];

    fn error(self) -> u64 {
        match self {
            How::NoSpace => 28,
            How::InputOutput => 5,
            How::Quota => 122,
            How::Killed => 0,
        }
    }

    /// What the system calls it.
    pub(crate) fn said(self) -> &'static str {
        match self {
            How::NoSpace => "No space left on device",
            How::InputOutput => "Input/output error",
            How::Quota => "Disk quota exceeded",
            How::Killed => "",
        }
    }
}

/// What fails; calls count from 1.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    None,
    File { at: u64, how: How },
    Allocation { at: u64, least: u64, and_after: bool },
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
    /// The kinds of the calls that changed files, in order.
    pub(crate) files: Vec<u64>,
    /// How many allocations there were.
    pub(crate) allocations: u64,
    /// How many calls failed.
    pub(crate) failed: u64,
}

impl Ended {
    pub(crate) fn is_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }

    /// The error that was said, as JSON or as text.
    pub(crate) fn said(&self) -> String {
        format!("{}{}", self.err, self.out)
    }
}

/// The library, compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    &LIBRARY
        .get_or_init(|| {
            let folder = TempDir::new().unwrap();
            let library = folder.path().join("shim.so");
            let cc = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "tests/faults/shim.c", "-o"];
            assert!(Command::new("cc").args(cc).arg(&library).status().unwrap().success());
            (folder, library)
        })
        .1
}

/// Whether this system lets a process watch its own calls. Where it does not, tests of files say so and pass.
pub(crate) fn is_possible() -> bool {
    static POSSIBLE: OnceLock<bool> = OnceLock::new();
    *POSSIBLE.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let (ended, is_in_place) = watched(&mut Command::new("true"), folder.path(), Fault::None);
        assert!(ended.status.success());
        if !is_in_place {
            println!("skipped: the system takes no filter of system calls (seccomp)");
        }
        is_in_place
    })
}

/// Runs a command to its end; calls count that are about files below `folder`.
pub(crate) fn run(command: &mut Command, folder: &Path, fault: Fault) -> Ended {
    watched(command, folder, fault).0
}

fn watched(command: &mut Command, folder: &Path, fault: Fault) -> (Ended, bool) {
    let scratch = TempDir::new().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let mut page = [0; WORDS + CALLS];
    match fault {
        Fault::None => {}
        Fault::File { at, how } => {
            (page[0], page[2], page[3]) = (at, how.error(), u64::from(how == How::NoSpace));
        }
        Fault::Allocation { at, least, and_after } => {
            (page[1], page[3], page[4]) = (at, u64::from(and_after), least);
        }
    }
    let bytes: Vec<u8> = page.iter().flat_map(|word: &u64| word.to_ne_bytes()).collect();
    fs::write(path("page"), bytes).unwrap();
    command
        .env("LD_PRELOAD", library())
        .env("FAULTS_PAGE", path("page"))
        .env("FAULTS_FOLDER", folder)
        .stdin(Stdio::null())
        .stdout(File::create(path("out")).unwrap())
        .stderr(File::create(path("err")).unwrap());
    let status = wait(command, PATIENCE);
    let words: Vec<u64> =
        fs::read(path("page")).unwrap().as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
    let text = |name: &str| String::from_utf8_lossy(&fs::read(path(name)).unwrap()).into_owned();
    let kept = (words[6] as usize).min(CALLS);
    let ended = Ended {
        status,
        out: text("out"),
        err: text("err"),
        files: words[WORDS..WORDS + kept].to_vec(),
        allocations: words[7],
        failed: words[8],
    };
    (ended, words[5] == 1)
}

/// Waits for the end of a command, which has to come.
#[track_caller]
pub(crate) fn wait(command: &mut Command, patience: Duration) -> ExitStatus {
    let (begun, mut child) = (Instant::now(), command.spawn().unwrap());
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status,
            None if begun.elapsed() > patience => {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{command:?} does not end");
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
