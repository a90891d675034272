//! Every call of the system that changes a file fails in turn, or is the last before the process is killed.
//!
//! Those are: opening a file to write, writing, changing its length, mode or owner, syncing, renaming and linking, making a
//! folder. Closing is not among them: what is closed was synced before, and so nothing is lost by it.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::commands::{WRITERS, Writer};
use super::inputs::skipc;
use super::ledger::{self, everything};
use super::outputs::{Outputs, Tree, earlier, is_temporary, wrong};
use super::shim::{Ended, Fault, How, is_possible, run};

/// Codes of errors of files.
const CODES: [&str; 4] = ["artifact::io", "run::io", "io::file", "io::dump"];

pub(super) fn command(writer: &Writer, outputs: &Outputs, fault: Fault) -> Ended {
    let mut command = skipc(&writer.args(outputs.path()));
    run(command.env("TMPDIR", outputs.temporary()), outputs.path(), fault)
}

/// The calls that fail: all of them, or the first and the last of each kind.
fn points(calls: &[u64]) -> Vec<u64> {
    let all = 1..=calls.len() as u64;
    if everything() {
        return all.collect();
    }
    let ends = all.filter(|at| {
        let (before, rest) = calls.split_at(*at as usize - 1);
        !before.contains(&rest[0]) || !rest[1..].contains(&rest[0])
    });
    ends.collect()
}

/// A text without spaces and lines.
fn words(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != '│').collect()
}

/// What is wrong with how a command ended at whose call something happened.
pub(super) fn complaints(writer: &Writer, how: How, ended: &Ended, out: &Path) -> Vec<String> {
    let (mut found, said) = (Vec::new(), ended.said());
    match how {
        How::Killed => {
            if !ended.is_killed() {
                found.push(format!("was not killed: {}", ended.status));
            }
        }
        _ => {
            let has_code = CODES.iter().any(|code| said.starts_with(code));
            let is_fine = match ended.status.code() {
                Some(1) => has_code,
                // A verdict stays one where what it is about cannot be written.
                Some(other) => other == writer.exit && other != 0,
                None => false,
            };
            if !is_fine {
                found.push(format!("{}, with the code of an error of files: {has_code}", ended.status));
            }
            // Long messages are broken into lines.
            let text = words(&said);
            if !text.contains(&words(&format!("{}/", out.display()))) || text.contains(".skipc-") {
                found.push("the message does not name the file".to_owned());
            }
            if !text.contains(&words(how.said())) {
                found.push("the message does not have the system's reason".to_owned());
            }
        }
    }
    if !found.is_empty() {
        found.push(said.chars().take(400).collect());
    }
    found
}

/// A command at whose calls something happens, one after the other.
struct Loop<'w> {
    writer: &'w Writer,
    outputs: Outputs,
    before: Tree,
    whole: Tree,
    points: u64,
    found: Vec<String>,
}

impl Loop<'_> {
    fn new(writer: &Writer) -> Loop<'_> {
        let outputs = Outputs::with(&Tree::new());
        let ended = command(writer, &outputs, Fault::None);
        assert_eq!(ended.status.code(), Some(writer.exit), "{}: {}", writer.name, ended.said());
        let whole = outputs.tree();
        assert!(!whole.is_empty() && !whole.keys().any(|name| is_temporary(name)), "{}", writer.name);
        let before = if writer.replaces { earlier(&whole) } else { Tree::new() };
        Loop { writer, outputs, before, whole, points: 0, found: Vec::new() }
    }

    fn at(&mut self, at: u64, how: How) {
        let (writer, outputs) = (self.writer, &self.outputs);
        self.points += 1;
        outputs.put(&self.before);
        let ended = command(writer, outputs, Fault::File { at, how });
        let mut found = complaints(writer, how, &ended, outputs.path());
        found.extend(wrong(&self.before, &self.whole, &outputs.tree(), how == How::Killed));
        if ended.failed == 0 {
            found.push("nothing happened".to_owned());
        }
        if how == How::Killed && writer.replaces {
            // The next one does not mind, and leaves nothing of it.
            let next = command(writer, outputs, Fault::None);
            if next.status.code() != Some(writer.exit) {
                found.push(format!("the next ends with {}: {}", next.status, next.said()));
            }
            let nothing = Tree::new();
            found.extend(wrong(&nothing, &self.whole, &outputs.tree(), false));
        }
        let place = format!("{}, {how:?} at call {at}", writer.name);
        self.found.extend(found.into_iter().map(|found| format!("{place}: {found}")));
    }
}

#[test]
fn each_call_that_changes_a_file_may_fail() {
    if !is_possible() {
        return;
    }
    let (mut turn, mut found) = (0, Vec::new());
    for writer in WRITERS {
        let mut each = Loop::new(writer);
        each.outputs.put(&each.before);
        let calls = command(writer, &each.outputs, Fault::None).files;
        let began = Instant::now();
        let mut points = points(&calls);
        if writer.is_slow && !everything() {
            points = vec![1, calls.len() as u64];
        }
        for at in points {
            turn += 1;
            let one_of_them = How::ALL[turn % How::ALL.len()];
            for how in How::ALL.into_iter().filter(|how| everything() || *how == one_of_them) {
                each.at(at, how);
            }
        }
        println!("{}: {} calls, {} faults", writer.name, calls.len(), each.points);
        if each.found.is_empty() {
            ledger::add(&format!("calls: {}", writer.name), each.points, began);
        }
        found.append(&mut each.found);
    }
    assert!(found.is_empty(), "{} wrong:\n{}", found.len(), found.join("\n"));
}

/// Commands of the system that write in place are seen to leave a part, a temporary file, and an old file that is gone.
#[test]
fn files_that_are_written_in_place_are_found() {
    if !is_possible() {
        return;
    }
    let whole = Tree::from([("a".to_owned(), b"whole\n".to_vec())]);
    let outputs = Outputs::with(&earlier(&whole));
    let out = outputs.path();
    let shell = |script: &str, how: How, at: u64| {
        outputs.put(&earlier(&whole));
        let script = script.replace("OUT", &out.display().to_string());
        let ended = run(Command::new("sh").args(["-c", &script]), out, Fault::File { at, how });
        (ended.failed, wrong(&earlier(&whole), &whole, &outputs.tree(), false))
    };
    // The shell opens, which makes the file empty, and writes.
    assert_eq!(shell("echo whole > OUT/a", How::Killed, 3), (0, Vec::new()));
    assert_eq!(shell("echo whole > OUT/a", How::Killed, 2), (1, vec!["a is a part: 0 bytes".to_owned()]));
    assert_eq!(shell("echo whole > OUT/a", How::InputOutput, 2).1.len(), 1);
    assert_eq!(shell("echo whole > OUT/.skipc-x", How::Killed, 2).1, [".skipc-x is left over"]);
    assert_eq!(wrong(&earlier(&whole), &whole, &Tree::new(), true), ["a is gone"]);
}
