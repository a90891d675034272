//! What routers should decide, by the definition of each, where scores are known up to an error.
//!
//! A decision is certain if it is the same for all scores within their errors; else the token is a near tie. Exact
//! scores leave no near ties: then this is a second implementation of every selection rule.

use skipc::frontend::lower::Function;
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::skip::{Capacity, Decider, Generate, Overflow, Scope, Skip};
use skipc_ir::Rounding;
use skipc_ir::interp::FlatBatch;
use skipc_testkit::approx::UNIT;

/// What a token should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Should {
    Execute,
    Skip,
    /// Either: a score is nearer to a border than its error.
    Either,
}

/// A score and its error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Score {
    pub(crate) value: f64,
    pub(crate) error: f64,
}

/// What a router should want, and what it should execute.
pub(crate) struct Decision {
    pub(crate) wanted: Vec<Should>,
    pub(crate) executed: Vec<Should>,
}

/// A router of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RouterOf<'a> {
    pub(crate) skip: &'a Skip,
    pub(crate) block: usize,
    /// The router among whose tokens alone it chooses, if there is one.
    pub(crate) outer: Option<usize>,
}

/// All routers, in model order.
pub(crate) fn routers(model: &Model) -> Vec<RouterOf<'_>> {
    let mut found = Vec::new();
    for repetition in model.repetitions() {
        if let Some((skip, (place, _))) = repetition.skip.zip(repetition.blocks.first()) {
            let is_nested = repetition.number > 0 && skip.either().is_some_and(|either| either.nested);
            let outer = is_nested.then(|| found.len() - 1);
            found.push(RouterOf { skip, block: place.run, outer });
        }
        for (place, block) in repetition.blocks {
            found.extend(block.skips().map(|skip| RouterOf { skip, block: place.run, outer: None }));
        }
    }
    found
}

/// The decision of each router, where it is the same for every token: also of one that decides as such a router does.
pub(crate) fn constants(routers: &[RouterOf<'_>]) -> Vec<Option<bool>> {
    let twins = |router: &RouterOf<'_>| {
        let key = router.key()?;
        routers.iter().filter(|other| other.key() == Some(key)).find_map(RouterOf::constant)
    };
    routers.iter().map(|router| router.constant().or_else(|| twins(router))).collect()
}

impl RouterOf<'_> {
    /// The decision, where it is the same for every token.
    pub(crate) fn constant(&self) -> Option<bool> {
        match self.skip.decider() {
            Some(Decider::Never) if self.forced() == 0 => Some(false),
            // A highway.
            None => Some(true),
            Some(Decider::Always) if self.skip.capacity().is_none() => Some(true),
            _ => None,
        }
    }

    /// Decisions of routers with the same key are the same whatever the numbers; `None` if scores decide.
    pub(crate) fn key(&self) -> Option<(bool, usize, u64, u64, usize, [usize; 2])> {
        let by_id = matches!(self.skip.decider(), Some(Decider::Hash { .. }));
        let (seed, limit) = match self.skip.decider() {
            Some(Decider::Random { seed } | Decider::Hash { seed }) => (seed, limit(self.skip.density)),
            Some(Decider::Always) => (0, limit(1.0)),
            Some(Decider::Never) => (0, 0),
            _ => return None,
        };
        let slots = |capacity: Capacity| (capacity.group_size, capacity.slots(self.skip.density));
        let slots = self.skip.capacity().map_or((0, 0), slots);
        Some((by_id, self.block, seed, limit, self.forced(), [slots.0, slots.1]))
    }

    /// How many tokens of each sequence are forced.
    fn forced(&self) -> usize {
        self.skip.either().map_or(0, |either| either.force_first)
    }

    /// What it should decide. `scores` are what it compares, and what it ranks by where a capacity goes by score; `gates`
    /// what the routers before it decided.
    pub(crate) fn should(
        &self,
        function: Function,
        (batch, gates): (&FlatBatch, &[Vec<bool>]),
        scores: &[Option<Vec<Score>>; 2],
    ) -> Decision {
        let n = batch.len();
        let may = |row: usize| self.outer.is_none_or(|outer| gates[outer][row]);
        let wanted: Vec<Should> = match (self.constant(), &scores[0]) {
            (Some(value), _) => vec![if value { Should::Execute } else { Should::Skip }; n],
            (None, None) => (0..n).map(|row| self.drawn(batch, row)).collect(),
            (None, Some(scores)) => self.by_score(function, (batch, &may), scores),
        };
        let wanted: Vec<Should> = wanted
            .into_iter()
            .enumerate()
            .map(|(row, should)| if may(row) { should } else { Should::Skip })
            .collect();
        let Some(capacity) = self.skip.capacity().filter(|_| self.constant().is_none()) else {
            return Decision { executed: wanted.clone(), wanted };
        };
        let group = |row: usize| (batch.sequences[row], batch.positions[row] as usize / capacity.group_size);
        let ranks = scores[1].as_ref().filter(|_| capacity.overflow == Overflow::Score);
        let executed = (0..n)
            .map(|row| {
                let rivals = (0..n).filter(|other| *other != row && group(*other) == group(row));
                let ahead = rivals.map(|other| match ranks {
                    Some(ranks) => both(wanted[other], is_ahead((other, ranks[other]), (row, ranks[row]))),
                    None if other < row => wanted[other],
                    None => Should::Skip,
                });
                both(wanted[row], fewer_than(capacity.slots(self.skip.density), ahead))
            })
            .collect();
        Decision { wanted, executed }
    }

    fn drawn(&self, batch: &FlatBatch, row: usize) -> Should {
        if (batch.positions[row] as usize) < self.forced() {
            return Should::Execute;
        }
        let (seed, sequence, id) = match self.skip.decider() {
            Some(Decider::Random { seed }) => (seed, batch.sequences[row], batch.positions[row]),
            Some(Decider::Hash { seed }) => (seed, 0, batch.tokens[row]),
            Some(Decider::Never) => return Should::Skip,
            _ => return Should::Execute,
        };
        let drawn = skipc_ir::random_score(seed, self.block as u32, sequence as u64, id as u64);
        if drawn < limit(self.skip.density) { Should::Execute } else { Should::Skip }
    }

    fn by_score(
        &self,
        function: Function,
        (batch, may): (&FlatBatch, &dyn Fn(usize) -> bool),
        scores: &[Score],
    ) -> Vec<Should> {
        let threshold = match self.skip.decider() {
            Some(Decider::Sigmoid { threshold, .. }) => threshold,
            Some(Decider::TopK {
                generate: Generate::Threshold(threshold) | Generate::Predictor { threshold, .. },
                ..
            }) if function == Function::Generate => threshold,
            Some(Decider::TopK { scope, round, .. }) => {
                return (0..scores.len())
                    .map(|row| of_the_best((self.skip.density, round, scope), (batch, may), scores, row))
                    .collect();
            }
            // The last repetition of a token.
            Some(Decider::Depth { repetition, .. }) => repetition as f64,
            _ => 0.0,
        };
        // Kernels compare with the threshold as f32.
        let stored = f64::from(threshold as f32);
        scores
            .iter()
            .map(|score| {
                let error = if score.error == 0.0 { 0.0 } else { score.error + UNIT * threshold };
                let least = if score.error == 0.0 { threshold } else { stored };
                match score.value - least {
                    over if over >= error && (error == 0.0 || over > error) => Should::Execute,
                    over if over < -error => Should::Skip,
                    _ => Should::Either,
                }
            })
            .collect()
    }
}

fn of_the_best(
    (density, round, scope): (f64, Rounding, Scope),
    (batch, may): (&FlatBatch, &dyn Fn(usize) -> bool),
    scores: &[Score],
    row: usize,
) -> Should {
    let competes = |other: &usize| scope == Scope::Batch || batch.sequences[*other] == batch.sequences[row];
    let rivals: Vec<usize> = (0..scores.len()).filter(competes).collect();
    let wanted = density * rivals.len() as f64;
    let k = match round {
        Rounding::Up => wanted.ceil(),
        Rounding::Down => wanted.floor(),
    };
    let k = (k as usize).max(1);
    let others = rivals.into_iter().filter(|other| *other != row && may(*other));
    fewer_than(k, others.map(|other| is_ahead((other, scores[other]), (row, scores[row]))))
}

fn limit(density: f64) -> u64 {
    (density * 4_294_967_296.0) as u64
}

/// Whether row `a` ranks before row `b`.
fn is_ahead(a: (usize, Score), b: (usize, Score)) -> Should {
    // Forced tokens have scores of +∞.
    let (over, error) = match a.1.value == b.1.value && a.1.value.is_infinite() {
        true => (0.0, 0.0),
        false => (a.1.value - b.1.value, a.1.error + b.1.error),
    };
    if over > error || (error == 0.0 && over == 0.0 && a.0 < b.0) {
        Should::Execute
    } else if over < -error || error == 0.0 {
        Should::Skip
    } else {
        Should::Either
    }
}

fn both(a: Should, b: Should) -> Should {
    match (a, b) {
        (Should::Skip, _) | (_, Should::Skip) => Should::Skip,
        (Should::Execute, Should::Execute) => Should::Execute,
        _ => Should::Either,
    }
}

fn fewer_than(most: usize, these: impl Iterator<Item = Should>) -> Should {
    let (mut certain, mut possible) = (0, 0);
    for should in these {
        certain += usize::from(should == Should::Execute);
        possible += usize::from(should != Should::Skip);
    }
    if certain >= most {
        Should::Skip
    } else if possible < most {
        Should::Execute
    } else {
        Should::Either
    }
}
