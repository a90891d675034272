//! Odd environments: a step and a compile give the same bytes in them, or an error with a code where the system has too little
//! of something.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use super::inputs::input;
use super::outputs::{Outputs, Tree};

/// What is made in each environment; `OUT` is a folder, `IN` that of inputs.
const COMMANDS: [&str; 2] = [
    "run IN/m.skp --tokens IN/t.npy --logits OUT/out",
    "compile IN/spec.toml --weights IN/w --cpu-backend cranelift --cpu-levels native --no-steps -o OUT/out",
];

/// Runs a command behind some words of the shell. Its file is removed before.
fn shell(before: &str, command: &str, out: &Path) -> (Output, Option<Vec<u8>>) {
    let _ = fs::remove_file(out.join("out"));
    let command =
        command.replace("IN", &input("").display().to_string()).replace("OUT", &out.display().to_string());
    let script = format!("{before} {} {command}", env!("CARGO_BIN_EXE_skipc"));
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    (output, fs::read(out.join("out")).ok())
}

#[test]
fn what_is_odd_changes_nothing() {
    let outputs = Outputs::with(&Tree::new());
    let out = outputs.path();
    for command in COMMANDS {
        let (output, wanted) = shell("exec", command, out);
        assert!(output.status.success() && wanted.is_some(), "{}", String::from_utf8_lossy(&output.stderr));
        for before in [
            "unset HOME; exec",
            "exec env -i",
            "export LC_ALL=tr_TR.UTF-8; exec",
            "export LANG=$(printf '\\377') LC_ALL=nonsense; exec",
            "export TZ=nonsense COLUMNS=1 TERM=dumb; exec",
            "export TMPDIR=/nowhere HOME=/nowhere; exec",
            "export RAYON_NUM_THREADS=1000 RUST_BACKTRACE=full; exec",
            "exec 0<&-; exec",
            "exec 1>&-; exec",
            "exec 2>&-; exec",
            "exec 0<&- 1>&- 2>&-; exec",
            "cd $(mktemp -d); rmdir \"$PWD\"; exec",
            "ulimit -c 0; ulimit -s 1024; exec",
            "ulimit -n 16; exec",
            "nice -n 19",
        ] {
            let (output, made) = shell(before, command, out);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{before}: {}: {said}", output.status);
            assert!(made == wanted, "{before}: {command} made another file");
        }
        for (mask, mode) in [("077", 0o600), ("027", 0o640), ("0777", 0)] {
            let (output, _) = shell(&format!("umask {mask}; exec"), command, out);
            assert!(output.status.success(), "{mask}: {}", String::from_utf8_lossy(&output.stderr));
            let file = out.join("out");
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, mode, "{mask}");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(fs::read(&file).ok() == wanted, "{mask}: another file");
        }
    }
}

/// Where there is too little of something, a command says so, or does without.
#[test]
fn what_is_scarce_is_an_error() {
    let outputs = Outputs::with(&Tree::new());
    let mut ends = [0; 3];
    for command in COMMANDS {
        let (_, wanted) = shell("exec", command, outputs.path());
        let memory = (2..=16).map(|step| format!("ulimit -v {}; exec", step << 15));
        let files = (3..=9).map(|files| format!("ulimit -n {files}; exec"));
        for before in memory.chain(files) {
            let (output, made) = shell(&before, command, outputs.path());
            let said = String::from_utf8_lossy(&output.stderr);
            match output.status.code() {
                Some(0) => {
                    assert!(made == wanted, "{before}: another file");
                    ends[0] += 1;
                }
                Some(1) => {
                    let code = said.split_whitespace().next().unwrap_or_default();
                    assert!(code.contains("::"), "{before}: {said}");
                    ends[1] += 1;
                }
                // The loader of the system has no room for the libraries of the compiler.
                Some(127) => ends[2] += 1,
                _ => panic!("{before}: {command}: {}: {said}", output.status),
            }
        }
    }
    println!("{} succeeded, {} failed with a code, {} were not loaded", ends[0], ends[1], ends[2]);
    assert!(ends[0] > 0 && ends[1] > 0, "{ends:?}");
}

#[test]
fn any_number_of_threads_is_taken_or_refused() {
    let outputs = Outputs::with(&Tree::new());
    let (_, wanted) = shell("exec", COMMANDS[0], outputs.path());
    for (threads, exit) in [
        ("1", 0),
        ("2", 0),
        ("3", 0),
        ("17", 0),
        ("256", 0),
        ("0", 1),
        ("100000", 1),
        ("1000000", 1),
        ("4294967296", 1),
        ("18446744073709551615", 1),
        ("18446744073709551616", 2),
        ("-1", 2),
        ("many", 2),
    ] {
        let (began, command) = (Instant::now(), format!("{} --threads={threads}", COMMANDS[0]));
        let (output, made) = shell("exec", &command, outputs.path());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{threads}: {said}");
        match exit {
            0 => assert!(made == wanted, "{threads}: another file"),
            1 => assert!(said.starts_with("run::threads") && made.is_none(), "{threads}: {said}"),
            _ => assert!(made.is_none(), "{threads}"),
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{threads}: {:?}", began.elapsed());
    }
}

/// A limit of the length of files (`ulimit -f`) ends a process by a signal of the system, as a kill does.
#[test]
fn a_limit_of_the_length_of_files_leaves_the_old_one() {
    let old = Tree::from([("out".to_owned(), b"as it was".to_vec())]);
    let outputs = Outputs::with(&old);
    for command in COMMANDS {
        // The shell makes the old file anew, since it was removed.
        let before = format!("printf 'as it was' > {}/out; ulimit -f 10; exec", outputs.path().display());
        let (output, found) = shell(&before, command, outputs.path());
        assert!(!output.status.success(), "{command}");
        assert_eq!(found.as_deref(), Some(&b"as it was"[..]), "{command}: {}", output.status);
        let (output, _) = shell("exec", command, outputs.path());
        assert!(output.status.success());
        let names: Vec<String> = outputs.tree().into_keys().collect();
        assert_eq!(names, ["out"]);
    }
}
