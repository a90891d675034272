//! How much is tried: a part of it in every test run, each and every point in a campaign, which enters what it did in a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What one test did over all runs.
#[derive(Default, Serialize, Deserialize)]
struct Entry {
    /// Points at which something was made to fail, or a process was killed.
    points: u64,
    /// Seconds of all runs.
    seconds: f64,
    runs: u64,
}

/// Tests run side by side.
static FILE: Mutex<()> = Mutex::new(());

/// Whether each and every point is tried.
pub(crate) fn everything() -> bool {
    match std::env::var("FAULTS").as_deref() {
        Err(_) => false,
        Ok("all") => true,
        Ok(other) => panic!("FAULTS: `{other}` is not `all`"),
    }
}

/// A number of the environment.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: `{text}` is not a number")))
}

/// Adds a run to the ledger that the environment names, if it does.
pub(crate) fn add(name: &str, points: u64, began: Instant) {
    let Some(path) = std::env::var_os("FAULTS_LEDGER") else { return };
    let path = Path::new(&path);
    let _alone = FILE.lock().unwrap();
    let mut all: BTreeMap<String, Entry> = fs::read_to_string(path)
        .map_or_else(|_| BTreeMap::new(), |text| serde_json::from_str(&text).unwrap());
    let entry = all.entry(name.to_owned()).or_default();
    entry.points += points;
    entry.seconds += began.elapsed().as_secs_f64().round();
    entry.runs += 1;
    fs::write(path, serde_json::to_string_pretty(&all).unwrap() + "\n").unwrap();
}
