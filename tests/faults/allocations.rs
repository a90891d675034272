//! Every allocation fails in turn while an artefact is loaded and a step runs, alone and with all that follow it; and so do those
//! of a compile, in which LLVM asks for memory, too.
//!
//! Whoever asks, an allocation that is refused ends the command with exit code 1 and `memory::exhausted`, or with an error of
//! its own where memory is asked for as a whole (`run::memory`) or for threads (`run::threads`); the answer is never wrong, and
//! no file is left that is not whole. This is so for all that Rust code asks for, however little. What the C library and the
//! standard library ask for by themselves when a thread begins is not refused but ends in an abort with a message of theirs:
//! 12 KiB for the stack on which an overflow would be noticed, and less than 4 KiB for the thread's name and its destructors.
//! Where the C library cannot find the bounds of a stack, a crate below the reader of .npy files destroys what it never got: less
//! than 4 KiB as well, and the one crash that is known.

use std::time::Instant;

use super::commands::placed;
use super::inputs::skipc;
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

/// What allocates.
#[derive(Clone, Copy)]
struct Subject {
    args: &'static str,
    /// Whether it says the same each time, and not how long it took.
    says_same: bool,
}

const STEP: Subject =
    Subject { args: "run IN/m.skp --tokens IN/t.npy --threads 2 --logits OUT/l.npy", says_same: true };

const COMPILE: Subject = Subject {
    args: "compile IN/spec.toml --weights IN/w --cpu-levels native --max-tokens 128 --no-steps -o OUT/m.skp",
    says_same: false,
};

impl Subject {
    fn run(self, outputs: &Outputs, in_json: bool, fault: Fault) -> Ended {
        let mut args = placed(self.args, outputs.path());
        args.extend(in_json.then(|| "--json".to_owned()));
        run(&mut skipc(&args), outputs.path(), fault)
    }
}

/// Which allocations fail: those of at least so many bytes, each alone or with all after it, so many of them at most.
#[derive(Clone, Copy)]
struct Which {
    least: u64,
    and_after: bool,
    points: usize,
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

/// How many allocations failed, one in each run, and what was wrong.
fn each(subject: Subject, in_json: bool, which: Which) -> (u64, Vec<String>) {
    let Which { least, and_after, points } = which;
    let outputs = Outputs::with(&Tree::new());
    let wanted = subject.run(&outputs, in_json, Fault::Allocation { at: 0, least, and_after });
    assert!(wanted.status.success(), "{}", wanted.said());
    let whole = outputs.tree();
    let (mut found, mut crashes, mut refused) = (Vec::new(), 0, 0);
    let stride = (wanted.allocations as usize).div_ceil(points).max(1);
    for at in (1..=wanted.allocations).step_by(stride) {
        outputs.put(&Tree::new());
        let ended = subject.run(&outputs, in_json, Fault::Allocation { at, least, and_after });
        refused += u64::from(ended.failed > 0);
        let mut complaints = wrong(&Tree::new(), &whole, &outputs.tree(), true);
        let is_fine = match ended.status.code() {
            Some(0) => (ended.out == wanted.out || !subject.says_same) && outputs.tree() == whole,
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
    // Few bytes or many, one or all from there, an error as JSON or as text; and how many a test run tries.
    let large = [(LEAST, false, true, 1000), (LEAST, true, false, 24)];
    let all = [(0, false, false, 0), (0, true, true, 0), (0, false, true, 0)];
    for (least, and_after, in_json, points_of_a_test) in large.into_iter().chain(all) {
        if least >= LEAST || everything() {
            let tried = if everything() { usize::MAX } else { points_of_a_test };
            let (refused, complaints) = each(STEP, in_json, Which { least, and_after, points: tried });
            points += refused;
            found.extend(complaints);
        }
    }
    assert!(points > 100, "only {points} allocations");
    assert!(found.is_empty(), "{} wrong:\n{}", found.len(), found.join("\n"));
    ledger::add("allocations: run", points, began);
}

/// Small allocations of a compile are millions, of which a run takes seconds: the larger ones are LLVM's tables and ours.
#[test]
fn large_allocations_of_a_compile_may_fail() {
    let began = Instant::now();
    let points = if everything() { 400 } else { 8 };
    let of = |and_after, in_json| each(COMPILE, in_json, Which { least: 4 * LEAST, and_after, points });
    let ((alone, mut found), (and_after, more)) = (of(false, true), of(true, false));
    found.extend(more);
    assert!(found.is_empty(), "{} wrong:\n{}", found.len(), found.join("\n"));
    ledger::add("allocations: compile", alone + and_after, began);
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
