//! What is run: tokens and forced decisions, the same for all forms.

use skipc_artifact::manifest::Manifest;
use skipc_artifact::section::ContentHash;
use skipc_ir::random_score;
use skipc_runtime::batch::row_columns;
use skipc_runtime::trace::{self, Decider, Recipe};
use skipc_runtime::{Batch, Trace};

use super::Subject;
use crate::error::Error;
use crate::frontend::spec::random;

/// Sets of inputs that take turns, so that no cache or branch predictor learns one of them by heart.
pub const SETS: usize = 3;

/// Seed of tokens and decisions; set number N has the N-th one after it.
const SEED: u64 = 17;

/// The inputs of a bench.
pub struct Workload {
    model: String,
    spec_hash: ContentHash,
    /// What tokens are drawn for.
    vocab_size: u32,
    /// Columns of the rows, if the model takes these.
    cols: Option<u32>,
    lengths: Vec<u32>,
    deciders: Vec<Decider>,
}

/// How many tokens run.
pub(super) struct Executed {
    /// Tokens of the step.
    pub(super) tokens: u32,
    /// Tokens that each router executes, in model order.
    pub(super) routers: Vec<u32>,
}

impl Workload {
    pub(super) fn new(subjects: &[Subject], tokens: u32) -> Workload {
        let function = subjects.first().map(|subject| subject.function());
        let max_positions = function.map_or(1, |function| function.max_positions).max(1);
        let mut lengths = vec![max_positions; (tokens / max_positions) as usize];
        lengths.extend(Some(tokens % max_positions).filter(|rest| *rest > 0));
        let manifest = subjects.first().map(|subject| subject.artefact().artifact().manifest());
        let (model, spec_hash) = match manifest {
            Some(Manifest { model, spec_hash, .. }) => (model.clone(), *spec_hash),
            None => (String::new(), ContentHash::of(&[])),
        };
        let vocab_size = function.map_or(1, |function| function.vocab_size);
        let cols = function.and_then(row_columns);
        Workload { model, spec_hash, vocab_size, cols, lengths, deciders: deciders(subjects) }
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Lengths of the sequences.
    pub fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    /// How many routers decide, those that are constant left out.
    pub fn n_deciding(&self) -> usize {
        self.deciders.iter().filter(|decider| !matches!(decider, Decider::Constant(_))).count()
    }

    /// The sets of inputs of a density: every router that decides executes exactly this share of the tokens, but for
    /// rounding.
    ///
    /// # Errors
    /// If it is no density.
    pub(super) fn batches(&self, density: f64) -> Result<Vec<Batch>, Error> {
        (0..SETS as u64).map(|set| self.batch(density, SEED + set)).collect()
    }

    fn batch(&self, density: f64, seed: u64) -> Result<Batch, Error> {
        let recipe = Recipe { densities: vec![density; self.n_deciding()], skew: 0.0, seed };
        let decided =
            Trace::generated((&self.model, self.spec_hash), &self.deciders, self.lengths.clone(), recipe)?;
        let n = decided.n_tokens();
        let (lengths, routing) = (self.lengths.clone(), Some(decided.gates));
        if let Some(cols) = self.cols {
            let rows = random::rows(seed, n as usize, cols as usize);
            return Ok(Batch { routing, ..Batch::of_rows(rows, lengths) });
        }
        let token = |place: u64| (random_score(seed, 0, 0, place) % u64::from(self.vocab_size)) as u32;
        Ok(Batch { tokens: (0..n).map(token).collect(), lengths, routing, ..Batch::default() })
    }

    /// What the batches of a density execute, which is the same for all of them.
    pub(super) fn executed(&self, batches: &[Batch]) -> Executed {
        let routing = batches.first().and_then(|batch| batch.routing.as_deref()).unwrap_or_default();
        let count = |mask: &Vec<u8>| mask.iter().map(|bit| u32::from(*bit)).sum();
        Executed { tokens: self.lengths.iter().sum(), routers: routing.iter().map(count).collect() }
    }
}

/// What decides in all forms at once: where one of them has found routers to be equal, decisions have to be.
fn deciders(subjects: &[Subject]) -> Vec<Decider> {
    let all: Vec<Vec<Decider>> = subjects.iter().map(|subject| trace::deciders(&subject.routers())).collect();
    let n_routers = all.iter().map(Vec::len).max().unwrap_or(0);
    let decider = |router: usize| {
        let mut of_forms = all.iter().filter_map(|deciders| deciders.get(router).copied());
        let same = of_forms.clone().find(|decider| matches!(decider, Decider::SameAs(_)));
        same.or_else(|| of_forms.next()).unwrap_or(Decider::Free)
    };
    (0..n_routers).map(decider).collect()
}
