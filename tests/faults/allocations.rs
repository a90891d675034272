//! Every allocation fails in turn while an artefact is loaded and a step runs, alone and with all that follow it.
//!
//! Whoever asks, an allocation that is refused ends the command with exit code 1 and `memory::exhausted`, or with an error of
//! its own where memory is asked for as a whole (`run::memory`) or for threads (`run::threads`); the answer is never wrong, and
//! no file is left that is not whole. This is so for all that Rust code asks for, however little. What the C library and the
//! standard library ask for by themselves when a thread begins is not refused but ends in an abort with a message of theirs:
//! 12 KiB for the stack on which an overflow would be noticed, and less than 4 KiB for the thread's name and its destructors.
//! Where the C library cannot find the bounds of a stack, a crate below the reader of .npy files destroys what it never got: less
//! than 4 KiB as well, and the one crash that is known.

use std::time::Instant;

use super::inputs::{input, skipc};
use super::ledger::{self, everything};
use super::outputs::{Outputs, Tree, wrong};
use super::shim::{Ended, Fault, run};

/// Below so many bytes only a campaign lets allocations fail.
const LEAST: u64 = 4096;

const CODES: [&str; 3] = ["memory::exhausted", "run::memory", "run::threads"];

/// What is said before an abort that is not ours.
const ABORTS: [&str; 4] = [
    "failed to allocate an alternative stack",
    // The same, where there is no memory for the way back from the panic either; `skipc` says nothing of panics by itself.
    "fatal runtime error: failed to initiate panic",
    "failed to register TLS destructor",
    "memory allocation of ",
];

/// Crashes of a run over all allocations: the first look at a stack asks for memory so often.
const CRASHES: usize = 2;

fn step(outputs: &Outputs, in_json: bool, fault: Fault) -> Ended {
    let path = |name: &str| input(name).display().to_string();
    let logits = outputs.path().join("l.npy").display().to_string();
    let mut args = ["run", &path("m.skp"), "--tokens", &path("t.npy"), "--threads", "2", "--logits", &logits]
        .map(str::to_owned)
        .to_vec();
    args.extend(in_json.then(|| "--json".to_owned()));
    run(&mut skipc(&args), outputs.path(), fault)
}

/// Whether an error with one of the codes was said. Before `main` nobody has looked whether it should be JSON.
fn has_code(ended: &Ended, in_json: bool, least: u64) -> bool {
    let in_text = || CODES.iter().any(|code| ended.err.contains(code));
    let json: Option<serde_json::Value> = serde_json::from_str(&ended.out).ok();
    match json.as_ref().map(|said| said["errors"][0]["code"].as_str().unwrap_or_default()) {
        Some(code) => in_json && CODES.contains(&code),
        None => (!in_json || least < LEAST) && in_text(),
    }
}

/// Whether a process ended by what it did to memory, which the C library may have noticed.
fn is_crash(ended: &Ended) -> bool {
    ended.err.is_empty() || ["free(): ", "munmap_chunk(): "].iter().any(|said| ended.err.starts_with(said))
}

/// Fails every `stride`th allocation of at least so many bytes, and says what was wrong.
fn each(least: u64, and_after: bool, in_json: bool, stride: usize) -> (u64, Vec<String>) {
    let outputs = Outputs::with(&Tree::new());
    let wanted = step(&outputs, in_json, Fault::Allocation { at: 0, least, and_after });
    assert!(wanted.status.success(), "{}", wanted.said());
    let whole = outputs.tree();
    let (mut found, mut crashes, mut refused) = (Vec::new(), 0, 0);
    for at in (1..=wanted.allocations).step_by(stride) {
        outputs.put(&Tree::new());
        let ended = step(&outputs, in_json, Fault::Allocation { at, least, and_after });
        refused += u64::from(ended.failed > 0);
        let mut complaints = wrong(&Tree::new(), &whole, &outputs.tree(), true);
        let is_fine = match ended.status.code() {
            Some(0) => ended.out == wanted.out && outputs.tree() == whole,
            Some(1) => has_code(&ended, in_json, least),
            Some(_) => false,
            None if least < LEAST && is_crash(&ended) => {
                crashes += 1;
                crashes <= CRASHES
            }
            None => ABORTS.iter().any(|said| ended.err.contains(said)),
        };
        if !is_fine {
            complaints.push(format!("{}: {:.300}", ended.status, ended.said()));
        }
        let place = format!("allocation {at} of {least} bytes or more (and all after it: {and_after})");
        found.extend(complaints.into_iter().map(|found| format!("{place}: {found}")));
    }
    // The count varies a little, with what threads do first.
    let all = wanted.allocations / stride as u64;
    assert!(refused + 16 > all, "{refused} of {all} were refused");
    println!("{refused} allocations of {least} bytes or more were refused");
    (refused, found)
}

#[test]
fn each_allocation_may_fail() {
    let (began, mut points, mut found) = (Instant::now(), 0, Vec::new());
    // Few bytes or many, one or all from there, an error as JSON or as text; and how many a test run leaves out.
    let large = [(LEAST, false, true, 1), (LEAST, true, false, 8)];
    let all = [(0, false, false, 1), (0, true, true, 1), (0, false, true, 1)];
    for (least, and_after, in_json, left_out) in large.into_iter().chain(all) {
        if least >= LEAST || everything() {
            let stride = if everything() { 1 } else { left_out };
            let (refused, complaints) = each(least, and_after, in_json, stride);
            points += refused;
            found.extend(complaints);
        }
    }
    assert!(points > 100, "only {points} allocations");
    assert!(found.is_empty(), "{} wrong:\n{}", found.len(), found.join("\n"));
    ledger::add("allocations: run", points, began);
}

/// The library refuses: without memory for what it is given the shell does not go on.
#[test]
fn the_system_has_no_memory_where_the_library_says_so() {
    let outputs = Outputs::with(&Tree::new());
    let mut command = std::process::Command::new("sh");
    let command = command.args(["-c", "text=$(printf %100000s x); echo done"]);
    let wanted = run(command, outputs.path(), Fault::None);
    assert!(wanted.status.success() && wanted.out == "done\n" && wanted.allocations > 0);
    let refused = run(command, outputs.path(), Fault::Allocation { at: 1, least: 1 << 16, and_after: false });
    assert!(refused.failed == 1 && refused.said() != wanted.said(), "{}: {}", refused.status, refused.said());
}
