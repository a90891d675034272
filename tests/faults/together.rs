//! Several processes at one file: two that write it, and one that cuts it short while another reads or runs it.

use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

use skipc_artifact::section::SectionKind;
use skipc_runtime::Model;
use skipc_testkit::random::Rng;

use super::inputs::{input, skipc};
use super::ledger::everything;
use super::outputs::{Outputs, Tree};

fn times() -> usize {
    if everything() { 200 } else { 20 }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Runs both of two commands that write one file, at once; it is that of one of them at any time.
fn at_once(commands: [&str; 2]) {
    let outputs = Outputs::with(&Tree::new());
    let place = |line: &str| {
        let out = outputs.path().join("out").display().to_string();
        words(&line.replace("IN", &input("").display().to_string()).replace("OUT", &out))
    };
    let commands = commands.map(place);
    let whole = commands.each_ref().map(|args| {
        assert!(skipc(args).stdout(Stdio::null()).status().unwrap().success(), "{args:?}");
        fs::read(outputs.path().join("out")).unwrap()
    });
    assert!(whole[0] != whole[1]);
    let mut of = [0; 2];
    for time in 0..times() {
        // Which begins takes turns.
        let mut order = [&commands[0], &commands[1]];
        order.rotate_left(time % 2);
        let children = order.map(|args| skipc(args).stdout(Stdio::null()).spawn().unwrap());
        let of_whom = || {
            let found = fs::read(outputs.path().join("out")).unwrap();
            whole.iter().position(|whole| *whole == found).expect("the file of neither")
        };
        for mut child in children {
            let status = loop {
                // Who reads meanwhile finds one of both, too.
                of_whom();
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                std::thread::sleep(Duration::from_micros(200));
            };
            assert!(status.success());
        }
        of[of_whom()] += 1;
        let mut files = outputs.tree();
        files.remove("out");
        assert!(files.is_empty(), "{:?}", files.keys());
    }
    println!("{of:?} times the last was the one or the other");
}

#[test]
fn two_compiles_write_one_file() {
    let compile = "--cpu-backend cranelift --cpu-levels native --max-tokens 128 -o OUT";
    at_once(
        ["w", "w2"]
            .map(|weights| format!("compile IN/spec.toml --weights IN/{weights} {compile}"))
            .each_ref()
            .map(String::as_str),
    );
}

#[test]
fn two_of_another_command_write_one_file() {
    at_once(["init IN/spec.toml -o OUT --seed 1", "init IN/spec.toml -o OUT --seed 2"]);
}

/// An artefact is copied and not mapped: nobody who writes to its file changes what was checked, or ends a process by `SIGBUS`.
#[test]
fn an_artefact_may_be_cut_short_while_it_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("m.skp");
    fs::copy(input("m.skp"), &path).unwrap();
    let model = Model::open(&path).unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    assert!(maps.contains("[stack]") && !maps.contains(path.to_str().unwrap()), "it is mapped");
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    let whole = Model::open(&input("m.skp")).unwrap();
    let code = |model: &Model| -> Vec<Vec<u8>> {
        let artifact = model.artifact();
        let code = artifact.sections().iter().filter(|entry| entry.kind == SectionKind::HostCode);
        code.map(|entry| artifact.section(&entry.name, entry.kind).unwrap().to_vec()).collect()
    };
    assert!(!code(&model).is_empty() && code(&model) == code(&whole));
}

/// Commands that read a file which is cut short meanwhile run it as it was, or refuse it.
#[test]
fn an_artefact_may_be_cut_short_while_it_is_read() {
    let mut rng = Rng::new(20_261_130);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let whole = fs::read(input("m.skp")).unwrap();
    let args = words(&format!("run {} --tokens {}", path("m.skp").display(), input("t.npy").display()));
    let mut ends = [0; 2];
    for _ in 0..times() {
        fs::write(path("m.skp"), &whole).unwrap();
        let child = skipc(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(rng.below(120_000) as u64));
        let length = rng.below(whole.len()) as u64;
        File::options().write(true).open(path("m.skp")).unwrap().set_len(length).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => ends[0] += 1,
            Some(1) => {
                assert!(said.starts_with("artifact::") || said.starts_with("run::io"), "{said}");
                ends[1] += 1;
            }
            _ => panic!("{}: {said}", output.status),
        }
    }
    println!("{} ran, {} were refused", ends[0], ends[1]);
}
