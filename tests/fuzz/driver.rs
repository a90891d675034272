//! Draws inputs for a target and looks at what becomes of them.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use skipc_testkit::random::Rng;

use super::count::most_bytes;
use super::ledger;
use super::mutations::Mutation;

/// Longest that an input may take; code of tests is not that of a release.
const LONGEST: Duration = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });

/// After so long an input counts as one that does not end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Most bytes that an input may take, beside [`BYTES_PER_BYTE`] for each of its own.
const MOST_BYTES: u64 = 64 << 20;
const BYTES_PER_BYTE: u64 = 1 << 10;

/// Most inputs that are kept for mutation.
const KEPT: usize = 2048;

/// Longest input that is made.
const LENGTH: usize = 1 << 20;

/// Reads an input.
type Reader = dyn Fn(&[u8]) -> String + Send;

/// Something that reads what others made.
pub(crate) struct Target {
    /// Real inputs.
    pub(crate) seeds: Vec<Vec<u8>>,
    /// How others are made of them.
    pub(crate) mutations: &'static [Mutation],
    /// Reads one, and says in a few words what became of it: codes of errors, or what is in it.
    pub(crate) read: Box<Reader>,
}

/// An input that is being read, for the thread that waits for its end.
type Current = Mutex<Option<(Instant, Vec<u8>)>>;

/// Runs a target for the seconds of the environment.
pub(crate) fn fuzz(name: &str, target: &Target) {
    let (seconds, seed) = (setting("FUZZ_SECONDS", 2.0), setting("FUZZ_SEED", 0));
    let (current, is_over) = (Current::default(), AtomicBool::new(false));
    let counts = std::thread::scope(|scope| {
        scope.spawn(|| watch(name, &current, &is_over));
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let counts = catch_unwind(AssertUnwindSafe(|| run(name, target, (seed, until), &current)));
        is_over.store(true, Ordering::Relaxed);
        counts
    });
    let counts = counts.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    println!(
        "{name}: {} inputs, {} outcomes, at most {} KiB",
        counts.inputs,
        counts.outcomes,
        counts.most_bytes >> 10
    );
    assert!(counts.inputs > target.seeds.len() as u64, "{name}: only {} inputs", counts.inputs);
    assert!(counts.outcomes > 3, "{name}: only {} outcomes: mutations reach nothing", counts.outcomes);
    if let Some(path) = std::env::var_os("FUZZ_LEDGER") {
        ledger::add(path.as_ref(), name, (seed, seconds), &counts);
    }
}

/// A number of the environment.
fn setting<T: FromStr>(name: &str, default: T) -> T {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}: `{text}` is not such a number"))
    })
}

/// What a run did.
pub(crate) struct Counts {
    pub(crate) inputs: u64,
    pub(crate) outcomes: usize,
    pub(crate) most_bytes: u64,
    pub(crate) longest: Duration,
}

fn run(name: &str, target: &Target, (seed, until): (u64, Instant), current: &Current) -> Counts {
    let mut rng =
        Rng::new(seed ^ name.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(257) + u64::from(byte)));
    let mut kept = target.seeds.clone();
    let mut outcomes = BTreeSet::new();
    let mut counts = Counts { inputs: 0, outcomes: 0, most_bytes: 0, longest: Duration::ZERO };
    loop {
        let idx = counts.inputs as usize;
        let input = match kept.get(idx).filter(|_| idx < target.seeds.len()) {
            Some(seed) => seed.clone(),
            None if Instant::now() >= until => break,
            None => mutated(&mut rng, target, &kept),
        };
        let begun = Instant::now();
        *current.lock().unwrap() = Some((begun, input.clone()));
        let (read, bytes) = most_bytes(|| catch_unwind(AssertUnwindSafe(|| (target.read)(&input))));
        let took = begun.elapsed();
        *current.lock().unwrap() = None;
        let keep = |what: String| panic!("{name}: {what}; the input is {}", keep(name, &input).display());
        let outcome = read.unwrap_or_else(|_| keep("a panic".into()));
        if took > LONGEST {
            keep(format!("{:.1} seconds", took.as_secs_f64()));
        }
        if bytes > MOST_BYTES + BYTES_PER_BYTE * input.len() as u64 {
            keep(format!("{} MiB of memory for {} bytes", bytes >> 20, input.len()));
        }
        counts.inputs += 1;
        counts.most_bytes = counts.most_bytes.max(bytes);
        counts.longest = counts.longest.max(took);
        if outcomes.insert(outcome) && idx >= target.seeds.len() {
            match kept.len() < KEPT {
                true => kept.push(input),
                false => {
                    let at = target.seeds.len() + rng.below(KEPT - target.seeds.len());
                    kept[at] = input;
                }
            }
        }
    }
    counts.outcomes = outcomes.len();
    counts
}

fn mutated(rng: &mut Rng, target: &Target, kept: &[Vec<u8>]) -> Vec<u8> {
    let mut input = kept[rng.below(kept.len())].clone();
    // Mostly one change, seldom many.
    let mut times = 1;
    while rng.one_in(3) && times < 16 {
        times += 1;
    }
    for _ in 0..times {
        let mutation = target.mutations[rng.below(target.mutations.len())];
        let other = &kept[rng.below(kept.len())];
        input = mutation(rng, &input, other);
        input.truncate(LENGTH);
    }
    input
}

/// Writes an input that breaks a promise.
fn keep(name: &str, input: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("skipc-fuzz-{name}-{}", blake3::hash(input).to_hex()));
    // Without the file the message is still worth saying.
    let _ = fs::write(&path, input);
    path
}

/// Ends the process for an input that does not end.
fn watch(name: &str, current: &Current, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
        let current = current.lock().unwrap();
        if let Some((begun, input)) = current.as_ref().filter(|(begun, _)| begun.elapsed() > PATIENCE) {
            let path = keep(name, input);
            eprintln!(
                "{name}: no end after {} s; the input is {}",
                begun.elapsed().as_secs(),
                path.display()
            );
            std::process::abort();
        }
    }
}
