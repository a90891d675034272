//! What was compared, and what was found.

use std::collections::BTreeMap;

/// Counts of a run over many subjects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Subjects checked.
    pub(crate) models: u64,
    /// How often each check compared two results.
    pub(crate) comparisons: BTreeMap<String, u64>,
    /// Subjects for which there is no plan, by the planner's reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Subjects by the options that they use.
    pub(crate) options: BTreeMap<String, u64>,
    /// Free decisions of f32 forms.
    pub(crate) decisions: u64,
    /// Those nearer to a border than the error of their score.
    pub(crate) near_ties: u64,
    /// Choices of experts in f32 forms.
    pub(crate) choices: u64,
    /// Those of forms in which rounding may have decided one, which are not compared.
    pub(crate) near_choices: u64,
    /// Logits held to their bound.
    pub(crate) bounded: u64,
    /// Logits without a finite bound.
    pub(crate) unbounded: u64,
    /// Largest share of its bound that a logit used.
    pub(crate) worst_share: f64,
    /// All that was wrong.
    pub(crate) findings: Vec<Finding>,
}

/// Something that no rounding explains.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// The subject's seed.
    pub(crate) seed: u64,
    /// The check that saw it.
    pub(crate) check: String,
    /// What it saw.
    pub(crate) detail: String,
}

impl Tally {
    /// Adds what another run counted.
    pub(crate) fn add(&mut self, other: Tally) {
        self.models += other.models;
        for (to, from) in [
            (&mut self.comparisons, other.comparisons),
            (&mut self.refused, other.refused),
            (&mut self.options, other.options),
        ] {
            from.into_iter().for_each(|(key, count)| *to.entry(key).or_default() += count);
        }
        self.decisions += other.decisions;
        self.near_ties += other.near_ties;
        self.choices += other.choices;
        self.near_choices += other.near_choices;
        self.bounded += other.bounded;
        self.unbounded += other.unbounded;
        self.worst_share = self.worst_share.max(other.worst_share);
        self.findings.extend(other.findings);
    }

    /// Counts a comparison.
    pub(crate) fn compared(&mut self, check: &str) {
        match self.comparisons.get_mut(check) {
            Some(count) => *count += 1,
            None => _ = self.comparisons.insert(check.to_owned(), 1),
        }
    }
}
