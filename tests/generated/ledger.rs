//! The ledger of long runs: what was checked, by which commit, and that nothing was left unexplained.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::campaign::Campaign;
use crate::subject::GENERATOR;
use crate::tally::Tally;

/// All runs.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ledger {
    /// In the order in which they ended.
    pub(crate) runs: Vec<Entry>,
}

/// One run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// What was checked.
    pub(crate) commit: String,
    /// Version of the generator: the same seeds give the same subjects only under the same version.
    pub(crate) generator: u32,
    /// First seed.
    pub(crate) from: u64,
    /// Seeds end before this one.
    pub(crate) to: u64,
    /// Subjects checked.
    pub(crate) models: u64,
    /// Compiled code ran for every so many of them.
    pub(crate) code_every: u64,
    /// Pairs of results that were compared, by check.
    pub(crate) comparisons: BTreeMap<String, u64>,
    /// Subjects that the planner refused, by reason: only their graphs were checked.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Free decisions of f32 forms that were held against the rules.
    pub(crate) decisions: u64,
    /// Those too near to a border for f32.
    pub(crate) near_ties: u64,
    /// Logits of f32 forms held to their bounds.
    pub(crate) logits: u64,
    /// Logits of ill-conditioned rows, which have no bound.
    pub(crate) ill_conditioned: u64,
    /// Largest share of its bound that a logit used.
    pub(crate) worst_share: f64,
    /// Differences that nothing explains.
    pub(crate) unexplained: u64,
    /// How long it took.
    pub(crate) seconds: u64,
    /// Threads that worked on it.
    pub(crate) threads: usize,
    /// `release` or `dev`.
    pub(crate) profile: String,
}

impl Entry {
    /// The entry of a run that is over.
    pub(crate) fn of(campaign: &Campaign, tally: &Tally, commit: String, seconds: u64) -> Entry {
        let mut comparisons = BTreeMap::new();
        for (check, count) in &tally.comparisons {
            // Which decisions were forced is a detail.
            let check = check.split(" (").next().unwrap_or(check).to_owned();
            *comparisons.entry(check).or_default() += count;
        }
        Entry {
            commit,
            generator: GENERATOR,
            from: campaign.from,
            to: campaign.from + tally.models,
            models: tally.models,
            code_every: campaign.code_every,
            comparisons,
            refused: tally.refused.clone(),
            decisions: tally.decisions,
            near_ties: tally.near_ties,
            logits: tally.bounded,
            ill_conditioned: tally.unbounded,
            worst_share: (tally.worst_share * 1000.0).ceil() / 1000.0,
            unexplained: tally.findings.len() as u64,
            seconds,
            threads: campaign.threads,
            profile: if cfg!(debug_assertions) { "dev" } else { "release" }.to_owned(),
        }
    }
}

impl Ledger {
    /// Reads the ledger; empty if there is none.
    pub(crate) fn read(path: &Path) -> Ledger {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            }
            Err(_) => Ledger::default(),
        }
    }

    /// Writes it, whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut text = serde_json::to_string_pretty(self).map_err(std::io::Error::other)?;
        text.push('\n');
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let new = path.with_extension("new");
        std::fs::write(&new, text)?;
        std::fs::rename(new, path)
    }
}
