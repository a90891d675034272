//! What was done over all runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::driver::Counts;

/// Of one target.
#[derive(Default, Serialize, Deserialize)]
struct Entry {
    /// Inputs of all runs.
    inputs: u64,
    /// Seconds of all runs, on one thread each.
    seconds: f64,
    /// Outcomes of the run that had most.
    outcomes: usize,
    /// Most KiB that an input took.
    most_kib: u64,
    /// Longest time of an input, in milliseconds.
    longest_ms: u64,
    /// Seeds of the runs, so that the next takes another.
    seeds: Vec<u64>,
}

/// Tests run side by side.
static FILE: Mutex<()> = Mutex::new(());

/// Adds a run.
pub(crate) fn add(path: &Path, name: &str, (seed, seconds): (u64, f64), counts: &Counts) {
    let _alone = FILE.lock().unwrap();
    let mut all: BTreeMap<String, Entry> = fs::read_to_string(path)
        .map_or_else(|_| BTreeMap::new(), |text| serde_json::from_str(&text).unwrap());
    let entry = all.entry(name.to_owned()).or_default();
    assert!(!entry.seeds.contains(&seed), "{name}: the ledger has seed {seed}; take another by FUZZ_SEED");
    entry.inputs += counts.inputs;
    entry.seconds += seconds;
    entry.outcomes = entry.outcomes.max(counts.outcomes);
    entry.most_kib = entry.most_kib.max(counts.most_bytes >> 10);
    entry.longest_ms = entry.longest_ms.max(counts.longest.as_millis() as u64);
    entry.seeds.push(seed);
    fs::write(path, serde_json::to_string_pretty(&all).unwrap() + "\n").unwrap();
}
