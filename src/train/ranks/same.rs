//! What has to be the same on all ranks of a run.

use std::collections::{BTreeMap, BTreeSet};

use skipc_artifact::section::ContentHash;

use super::Ranks;
use crate::diagnostic::Diagnostic;
use crate::error::Error;

/// Facts of a rank: settings by their keys, and hashes by what they are of.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    settings: BTreeMap<String, String>,
    hashes: BTreeMap<String, String>,
}

impl Facts {
    /// Settings, such as `optimizer.lr`, and hashes, such as that of the data.
    pub fn new(settings: &BTreeMap<String, String>, hashes: &BTreeMap<String, String>) -> Facts {
        Facts { settings: settings.clone(), hashes: hashes.clone() }
    }

    /// Adds something with what it is called; what is shown where it differs.
    pub fn setting(&mut self, name: &str, value: String) {
        self.settings.insert(name.to_owned(), value);
    }

    /// Adds something too long to show.
    pub fn content(&mut self, name: &str, content: &[u8]) {
        self.hashes.insert(name.to_owned(), ContentHash::of(content).to_string());
    }

    /// Ends the run where ranks have other facts than the first. `name` is what a rank is called.
    ///
    /// # Errors
    /// `train::ranks_differ`, on every rank the same.
    pub fn agree(&self, ranks: &dyn Ranks, name: impl Fn(usize) -> String) -> Result<(), Error> {
        let own = serde_json::to_vec(&(&self.settings, &self.hashes));
        let own = own.map_err(|error| Error::internal("json::write", &error))?;
        let mut of_ranks = Vec::new();
        for text in ranks.gather(&own) {
            let read = serde_json::from_slice(&text);
            let (settings, hashes) = read.map_err(|error| Error::internal("json::write", &error))?;
            of_ranks.push(Facts { settings, hashes });
        }
        let Some((first, others)) = of_ranks.split_first() else { return Ok(()) };
        for (rank, other) in (1..).zip(others) {
            let differences = other.differences(first);
            if !differences.is_empty() {
                let message = format!("{} is not as {}: {}", name(rank), name(0), differences.join("; "));
                let help = "ranks train one model: give all of them the same binary, files and options";
                return Err(Diagnostic::new("train::ranks_differ", message).help(help).into());
            }
        }
        Ok(())
    }

    /// In words.
    fn differences(&self, first: &Facts) -> Vec<String> {
        let keys = |of: fn(&Facts) -> &BTreeMap<String, String>| -> BTreeSet<String> {
            of(self).keys().chain(of(first).keys()).cloned().collect()
        };
        let shown = |value: Option<&String>| value.map_or("absent", String::as_str).to_owned();
        let mut found = Vec::new();
        for key in keys(|facts| &facts.settings) {
            let (own, theirs) = (self.settings.get(&key), first.settings.get(&key));
            if own != theirs {
                found.push(format!("`{key}` is {}, and not {}", shown(own), shown(theirs)));
            }
        }
        for key in keys(|facts| &facts.hashes) {
            if self.hashes.get(&key) != first.hashes.get(&key) {
                found.push(format!("the {key} differs"));
            }
        }
        found
    }
}
