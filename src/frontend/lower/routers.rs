//! Routers, capacities, and what surrounds a node that is skipped.

use skipc_ir::attr::F64;
use skipc_ir::{Binary, Op, SetSym, Training, Unary, Value};

use super::nodes::{Branch, InBlock, Placed, Stream};
use super::{Ctx, Function, LowerError, Skipping, Tokens};
use crate::frontend::build::{self, Build, Shares};
use crate::frontend::spec::node::{Layers, Route, Unit};
use crate::frontend::spec::skip::{
    BranchScale, Branches, Capacity, Combine, Decide, Decider, Either, Generate, Input, Kv, Scope as Among,
    Scorer, Skip,
};
use crate::frontend::spec::stack::Repetition;
use crate::frontend::training::Ste;

/// A router and its place.
struct Scope<'a> {
    /// What its tensors are named for, such as `blocks.3.router`.
    name: String,
    /// Its place in the order in which blocks run.
    origin: String,
    /// Index of the block in that order, of a stack the first one of the repetition.
    block: usize,
    /// The norm in front of what it decides about.
    pre_norm: Option<String>,
    /// The stream that it looks at.
    seen: Value,
    /// What the spec says of it.
    skip: &'a Skip,
    /// The tokens that may execute, if not all may.
    outer: Option<Value>,
}

/// What a decision is about.
struct Wrapped<'m> {
    /// What runs for the tokens that execute, one after the other.
    executed: Vec<Placed<'m>>,
    /// What runs for the others.
    otherwise: Option<Placed<'m>>,
}

/// What a router with a weight compares.
enum Compares {
    /// Its score with a threshold.
    Score,
    /// Its probability with a threshold.
    Probability,
    /// Scores with each other.
    ScoresOf(Among),
}

/// What a router with a weight says of every token.
struct Scored {
    logits: Value,
    /// `f32[n, 1]`: the margin `z₁ − z₀` by which executing wins, the one logit, or the mean of the probabilities of channels.
    score: Value,
    /// `f32[n, 1]`, or `f32[n, D]` with channels.
    probability: Value,
}

/// What a router says of every token.
pub(super) struct Decision {
    /// Those that execute.
    pub(super) set: Value,
    pub(super) probability: Probability,
    /// `f32[n, 1]`, for routers with a weight: what the forced tokens do not change.
    pub(super) score: Option<Value>,
    /// What tokens are ranked by: the score, above which forced tokens stand.
    pub(super) rank: Option<Value>,
    /// `f32[n, 1]`: in training, the probability whose derivative stands for that of the decision.
    pub(super) soft: Option<Value>,
}

/// The stream on its way past a decision.
struct Passage {
    /// In front, over all tokens.
    x: Value,
    /// In front, over the rows of the branch.
    entry: Value,
    /// Behind, over the rows of the branch.
    h: Value,
    /// Behind, over all tokens.
    behind: Value,
    /// The probability that gets the gradient.
    soft: Value,
}

/// Probability of executing, or what else a change is multiplied by.
#[derive(Clone, Copy)]
pub(super) enum Probability {
    /// The same for every token.
    Constant(f64),
    /// `f32[n, 1]`, or `f32[n, D]` of a router with channels.
    Scored(Value),
}

/// What the change of a branch is multiplied by.
struct Weight {
    by: Probability,
    factor: f64,
}

impl Weight {
    fn is_one(&self) -> bool {
        self.factor == 1.0 && matches!(self.by, Probability::Constant(p) if p == 1.0)
    }
}

/// What the change of an executed token is multiplied by.
fn weight(either: &Either, decision: &Decision) -> Weight {
    let by = match (either.scale, decision.score) {
        (BranchScale::One, _) => Probability::Constant(1.0),
        (BranchScale::Score, Some(score)) => Probability::Scored(score),
        (BranchScale::Probability | BranchScale::ProbabilityLast | BranchScale::Score, _) => {
            decision.probability
        }
    };
    Weight { by, factor: either.factor }
}

/// The sets of the router of this index: of the tokens that execute and, under a capacity, of those that it asked for.
/// The latter come after the former of all routers.
pub(crate) fn sets(n_routers: u32, router: u32) -> [SetSym; 2] {
    [SetSym(router), SetSym(n_routers + router)]
}

/// The set of the rows that wait for the router of this index, behind that of the rows whose logits are wanted.
pub(crate) fn pending_set(n_routers: u32, router: u32) -> SetSym {
    SetSym(2 * n_routers + 1 + router)
}

/// The set of the tokens that the router of this index leaves out, behind those of the rows that wait for routers. A nested
/// router, which has no branch for them, has under this symbol what it would take of all tokens.
fn left_out_set(n_routers: u32, router: u32) -> SetSym {
    SetSym(3 * n_routers + 1 + router)
}

/// A partition of rows among experts: behind all sets of routers.
pub(super) fn partition_set(n_routers: u32, number: u32) -> SetSym {
    SetSym(4 * n_routers + 1 + number)
}

impl Ctx<'_> {
    /// The stream `x` behind a route.
    pub(super) fn route(
        &mut self,
        x: Value,
        route: &Route,
        unit: Unit,
        within: InBlock,
    ) -> Result<Value, LowerError> {
        let skip = &route.skip;
        let from_entry = skip.scorer().is_some_and(|scorer| scorer.decide == Decide::Entry);
        let first = route.executed.first_layer();
        let scope = Scope {
            name: unit.router(within.block.weights),
            origin: unit.router(within.block.run),
            block: within.block.run,
            pre_norm: first.and_then(|layer| layer.pre_norm(within.layers, within.block.weights)),
            seen: if from_entry { within.entry } else { x },
            skip,
            outer: None,
        };
        let otherwise = route.otherwise.as_deref();
        let other = InBlock { layers: Layers::Otherwise(unit), layer: 0, ..within };
        let wrapped = Wrapped {
            executed: within.sequence(&route.executed),
            otherwise: otherwise.map(|node| (node, other)),
        };
        self.choice(x, &scope, &wrapped)
    }

    /// The stream behind a repetition of a stack, by the decision over it. `outer` are the tokens that may execute, if not
    /// all may.
    pub(super) fn repetition(
        &mut self,
        x: Value,
        repetition: &Repetition<'_>,
        skip: &Skip,
        outer: Option<Value>,
    ) -> Result<Value, LowerError> {
        let at = |place| InBlock { block: place, layers: Layers::Block, layer: 0, entry: x };
        let blocks = || repetition.blocks.iter().map(|(place, block)| (at(*place), &block.body));
        let first = blocks().next();
        let scope = Scope {
            name: repetition.router(),
            origin: repetition.router(),
            block: first.map_or(0, |(within, _)| within.block.run),
            pre_norm: first.and_then(|(within, body)| {
                body.first_layer().and_then(|layer| layer.pre_norm(Layers::Block, within.block.weights))
            }),
            seen: x,
            skip,
            outer,
        };
        let executed = blocks().flat_map(|(within, body)| within.sequence(body)).collect();
        self.choice(x, &scope, &Wrapped { executed, otherwise: None })
    }

    /// The stream behind a choice.
    fn choice(&mut self, x: Value, scope: &Scope<'_>, wrapped: &Wrapped<'_>) -> Result<Value, LowerError> {
        match &scope.skip.combine {
            Combine::Highway(highway) => {
                if highway.scorer.steps.is_pooled() && !highway.scorer.prefill {
                    self.refuse_to_look_ahead(&scope.name, "a share by the mean of a sequence")?;
                }
                let seen = self.read(scope, highway.scorer)?;
                let shares = build::highway(self, (scope.skip, highway), &scope.name, seen)?;
                let shares = match highway.scorer.prefill && self.function == Function::Step {
                    true => self.kept_shares(scope.seen, shares)?,
                    false => shares,
                };
                self.constant_gate(scope, true)?;
                let y = self.dense(x, wrapped)?;
                self.at(&scope.origin);
                self.mixed(x, y, shares)
            }
            Combine::Either(Either { decider: Decider::Never, force_first: 0, .. })
                if wrapped.otherwise.is_none() =>
            {
                self.constant_gate(scope, false)?;
                self.note_no_choices(&wrapped.executed)?;
                Ok(x)
            }
            Combine::Either(Either {
                decider: Decider::Always,
                capacity: None,
                factor: 1.0,
                branches: Branches::Either,
                ..
            }) => {
                self.constant_gate(scope, true)?;
                self.dense(x, wrapped)
            }
            Combine::Either(either) => {
                let decision = self.decide(scope, either)?;
                let n_mixing = wrapped.executed.iter().map(|(node, _)| node.n_mixing()).sum();
                self.note_mixing(decision.set, n_mixing);
                self.branches(x, &decision, (scope, either), wrapped)
            }
        }
    }

    /// The executed branch over all tokens.
    fn dense(&mut self, x: Value, wrapped: &Wrapped<'_>) -> Result<Value, LowerError> {
        Ok(self.ends(Stream { all: x, rows: x }, &wrapped.executed, Branch::all(self.all))?[1])
    }

    /// `σ(z)·y + (1−σ(z))·x`, or with a share of x of its own.
    fn mixed(&mut self, x: Value, y: Value, (branch, carry): Shares<Value>) -> Result<Value, LowerError> {
        let gate = self.add(Unary::Sigmoid, &[branch])?;
        if self.ste().is_some() && carry.is_none() {
            // The same, where the gate's gradient is not the difference of two products with rounded rows.
            let change = self.added(y, x)?;
            let change = self.times(change, gate)?;
            return self.add(Binary::Add, &[x, change]);
        }
        let rest = match carry {
            Some(carry) => self.add(Unary::Sigmoid, &[carry])?,
            None => self.add(Unary::OneMinus, &[gate])?,
        };
        let y = self.times(y, gate)?;
        let x = self.times(x, rest)?;
        self.add(Binary::Add, &[y, x])
    }

    /// Each row of `x` times its number in `by` `f32[rows, 1]`, or each element times its own in `f32[rows, D]`.
    pub(super) fn times(&mut self, x: Value, by: Value) -> Result<Value, LowerError> {
        let has_channels = self.graph.ty(by).cols() > 1;
        self.add(if has_channels { Op::ScaleElements {} } else { Op::ScaleRows {} }, &[x, by])
    }

    /// Runs each branch for its rows; rows without a branch keep their bytes.
    ///
    /// Gathered: over the rows of the set. Masked: over all rows, of which those of the set are kept.
    fn branches(
        &mut self,
        x: Value,
        decision: &Decision,
        (scope, either): (&Scope<'_>, &Either),
        wrapped: &Wrapped<'_>,
    ) -> Result<Value, LowerError> {
        self.at(&scope.origin);
        let (entry, branch) = self.branch(x, decision.set, either.kv)?;
        let [before, after] = self.ends(Stream { all: x, rows: entry }, &wrapped.executed, branch)?;
        self.at(&scope.origin);
        let weight = weight(either, decision);
        let mut h = match (either.branches, either.scale) {
            (Branches::Add, _) => self.weighted(entry, after, branch.rows, weight)?,
            (_, BranchScale::ProbabilityLast) => self.scaled([before, after], branch.rows, weight)?,
            (_, _) => self.scaled([entry, after], branch.rows, weight)?,
        };
        let Some((otherwise, inside)) = wrapped.otherwise else {
            let behind = self.keep_executed(x, h, branch)?;
            self.note_stream_behind(decision.set, behind);
            return match (either.scale, decision.soft) {
                (BranchScale::One, Some(soft)) => {
                    let passage = Passage { x, entry, h, behind, soft };
                    self.straight_through(passage, wrapped, branch)
                }
                _ => Ok(behind),
            };
        };
        if either.branches == Branches::Sum {
            let light = self.node(Stream { all: x, rows: x }, otherwise, Branch::all(self.all), inside)?;
            self.at(&scope.origin);
            let change = self.add(Binary::Sub, &[h, entry])?;
            let rows = match branch.rows.set {
                Some(set) => self.add(Op::Gather {}, &[light, set])?,
                None => light,
            };
            h = self.add(Binary::Add, &[rows, change])?;
            return self.keep_executed(light, h, branch);
        }
        let set = left_out_set(self.n_routers, self.gates.len().saturating_sub(1) as u32);
        let left_out = self.add(Op::Complement { set }, &[decision.set])?;
        self.note_left_out(left_out)?;
        let (entry, other) = self.branch(x, left_out, either.kv)?;
        let [before, after] =
            self.ends(Stream { all: x, rows: entry }, &inside.sequence(otherwise), other)?;
        self.at(&scope.origin);
        let g = match (either.scale, self.rest(either, &decision.probability)?) {
            (BranchScale::ProbabilityLast, rest) => self.scaled([before, after], other.rows, rest)?,
            (BranchScale::Probability, rest) => self.scaled([entry, after], other.rows, rest)?,
            (BranchScale::One | BranchScale::Score, _) => after,
        };
        // Each row is of one of the sets, so that nothing of `x` is left.
        let executed = self.keep_executed(x, h, branch)?;
        self.keep_executed(executed, g, other)
    }

    /// The rows of `x` on which the branch of a set runs, and the branch.
    fn branch(&mut self, x: Value, set: Value, kv: Kv) -> Result<(Value, Branch), LowerError> {
        let executed = Tokens {
            set: Some(set),
            positions: self.add(Op::Gather {}, &[self.all.positions, set])?,
            sequences: self.add(Op::Gather {}, &[self.all.sequences, set])?,
        };
        let (entry, rows) = match self.skipping {
            Skipping::Gathered => (self.add(Op::Gather {}, &[x, set])?, executed),
            Skipping::Masked => (x, self.all),
        };
        Ok((entry, Branch { rows, executed: Some(executed), kv, would_be: false }))
    }

    /// What the change of a token that does not execute is multiplied by.
    fn rest(&mut self, either: &Either, probability: &Probability) -> Result<Weight, LowerError> {
        let by = match *probability {
            Probability::Constant(p) => Probability::Constant(1.0 - p),
            Probability::Scored(p) => Probability::Scored(self.add(Unary::OneMinus, &[p])?),
        };
        Ok(Weight { by, factor: either.factor })
    }

    /// `x + w · (y − x)` over the rows of the branch.
    fn scaled(&mut self, [x, y]: [Value; 2], rows: Tokens, weight: Weight) -> Result<Value, LowerError> {
        if weight.is_one() {
            return Ok(y);
        }
        let change = self.added(y, x)?;
        self.weighted(x, change, rows, weight)
    }

    /// `x + w · change` over the rows of the branch.
    fn weighted(
        &mut self,
        x: Value,
        change: Value,
        rows: Tokens,
        weight: Weight,
    ) -> Result<Value, LowerError> {
        let change = match weight.by {
            _ if weight.is_one() => change,
            Probability::Constant(p) => self.add(Unary::Scale(F64::from(p * weight.factor)), &[change])?,
            Probability::Scored(p) => {
                let p = match weight.factor {
                    1.0 => p,
                    factor => self.add(Unary::Scale(F64::from(factor)), &[p])?,
                };
                let p = match rows.set {
                    Some(set) => self.add(Op::Gather {}, &[p, set])?,
                    None => p,
                };
                self.times(change, p)?
            }
        };
        self.add(Binary::Add, &[x, change])
    }

    /// The stream behind a decision, in training: the forward value stays, and the router gets a gradient of what executing
    /// changes, or would change.
    fn straight_through(
        &mut self,
        passage: Passage,
        wrapped: &Wrapped<'_>,
        branch: Branch,
    ) -> Result<Value, LowerError> {
        let Passage { x, entry, h, behind, soft } = passage;
        let (Some(ste), Some(executed)) = (self.ste(), branch.executed) else { return Ok(behind) };
        let base = match ste {
            Ste::Dense => {
                let branch = Branch { rows: self.all, would_be: true, ..branch };
                let [_, would_be] = self.ends(Stream { all: x, rows: x }, &wrapped.executed, branch)?;
                let change = self.added(would_be, x)?;
                return self.add(Training::StraightThrough {}, &[behind, soft, change]);
            }
            Ste::Sparse => self.add(Unary::Scale(F64::from(-1.0)), &[x])?,
            Ste::ActiveOnly => self.add(Training::ZerosLike {}, &[x])?,
        };
        let change = self.added(h, entry)?;
        let branch = Branch { executed: Some(executed), ..branch };
        let value = self.keep_executed(base, change, branch)?;
        self.add(Training::StraightThrough {}, &[behind, soft, value])
    }

    /// Takes the router's decision and, where there is one, the capacity's. Sets the outputs `gate` and `wanted`.
    fn decide(&mut self, scope: &Scope<'_>, either: &Either) -> Result<Decision, LowerError> {
        let router = self.gates.len() as u32;
        let [own, asked] = sets(self.n_routers, router);
        let set = if either.capacity.is_some() { asked } else { own };
        // The highest of those that may execute do; other routers look at each token alone.
        let is_ranked = matches!(either.decider, Decider::TopK { .. }) && self.function == Function::Score;
        let outer = scope.outer.filter(|_| !is_ranked);
        let free = outer.map_or(set, |_| left_out_set(self.n_routers, router));
        let mut decision = self.choose(scope, either, free)?;
        if let Some(outer) = outer {
            decision.set = self.add(Op::Within { set }, &[decision.set, outer])?;
        }
        let (mut wanted, asked_set) = (None, decision.set);
        if let Some(capacity) = either.capacity {
            wanted = Some(self.add(Op::Executed {}, &[decision.set])?);
            decision.set = self.limit(scope, capacity, &decision, own)?;
        }
        let executed = self.add(Op::Executed {}, &[decision.set])?;
        self.note_decisions(decision.set, executed);
        self.note_rate(scope.skip, (asked_set, decision.soft));
        self.gates.push(super::GateValues { executed, wanted });
        self.outer = either.nested.then_some(decision.set);
        Ok(decision)
    }

    /// What the router wants: the tokens in `set` to execute.
    fn choose(&mut self, scope: &Scope<'_>, either: &Either, set: SetSym) -> Result<Decision, LowerError> {
        if self.function != Function::Step || !scope.skip.keeps_prompts() {
            return self.choose_now(scope, either, set);
        }
        let own = self.fresh_set();
        let decision = self.choose_now(scope, either, own)?;
        self.keep(scope.seen, either.scale, decision, set)
    }

    /// What the router wants by the tokens that there are.
    fn choose_now(
        &mut self,
        scope: &Scope<'_>,
        either: &Either,
        set: SetSym,
    ) -> Result<Decision, LowerError> {
        let density = scope.skip.density;
        let route = |at_least: f64| Op::Route { set, at_least: F64::from(at_least) };
        let mut predicted = None;
        let (scorer, op, compares) = match either.decider {
            Decider::Random { .. } | Decider::Hash { .. } | Decider::Always | Decider::Never => {
                return self.choose_unseen(scope, either, set);
            }
            Decider::Depth { scorer, repetition, .. } => {
                return self.depth(scope, scorer, (set, repetition));
            }
            Decider::Gumbel(scorer) => (scorer, route(0.0), Compares::Score),
            Decider::Sigmoid { scorer, threshold } => (scorer, route(threshold), Compares::Probability),
            Decider::TopK { scorer, generate: Generate::Threshold(threshold), .. }
                if self.function != Function::Score =>
            {
                (scorer, route(threshold), Compares::Probability)
            }
            Decider::TopK { scorer, generate: Generate::Predictor { threshold, steps }, .. }
                if self.function != Function::Score =>
            {
                predicted = Some(steps);
                (scorer, route(threshold), Compares::Probability)
            }
            Decider::TopK { scorer, scope: among, round, .. } => {
                self.refuse_to_look_ahead(&scope.name, "top-k")?;
                let share = F64::from(density);
                let op = match scope.outer {
                    Some(_) => Op::RouteTopKAmong { set, share, round },
                    None => Op::RouteTopK { set, share, round },
                };
                (scorer, op, Compares::ScoresOf(among))
            }
        };
        if scorer.steps.is_pooled() && !scorer.prefill {
            self.refuse_to_look_ahead(&scope.name, "a decision by the mean of a sequence")?;
        }
        let seen = self.read(scope, scorer)?;
        let Scored { logits, score, probability } = self.score(scope, scorer, seen)?;
        let mut soft = self.training.is_some().then_some(probability);
        let by = match predicted {
            Some(steps) => build::predictor(self, &steps, &scope.name, seen)?,
            None => score,
        };
        let set = match compares {
            Compares::Score => {
                let score = self.less_margin(by)?;
                let score = match self.noisy(logits)? {
                    Some(noisy) => {
                        soft = Some(noisy.probability);
                        noisy.score
                    }
                    None => score,
                };
                let score = self.forced(either, score)?;
                self.add(op, &[score])?
            }
            Compares::Probability => {
                let score = self.less_margin(by)?;
                let score = self.forced(either, score)?;
                let probability = match scorer.channels && predicted.is_none() {
                    // A mean of probabilities is one.
                    true => score,
                    false => self.add(Unary::Sigmoid, &[score])?,
                };
                self.add(op, &[probability])?
            }
            Compares::ScoresOf(among) => {
                let score = self.forced(either, by)?;
                let mut operands: Vec<Value> = std::iter::once(score).chain(scope.outer).collect();
                if among == Among::Sequence {
                    operands.push(self.all.sequences);
                }
                self.add(op, &operands)?
            }
        };
        let rank = Some(self.forced(either, score)?);
        Ok(Decision { set, probability: Probability::Scored(probability), score: Some(score), rank, soft })
    }

    /// What a router wants that has no weight, and the forced tokens.
    fn choose_unseen(
        &mut self,
        scope: &Scope<'_>,
        either: &Either,
        set: SetSym,
    ) -> Result<Decision, LowerError> {
        let (density, places) = (scope.skip.density, [self.all.positions, self.drawn_for()]);
        let first = u32::try_from(either.force_first).unwrap_or(u32::MAX);
        let drawn = if first == 0 { set } else { self.fresh_set() };
        let mut decision = match either.decider {
            Decider::Random { .. } if self.training.is_some() => self.draw_anew(scope, drawn)?,
            Decider::Random { seed } => self.draw(scope, (drawn, seed), density, &places)?,
            Decider::Hash { seed } => self.draw(scope, (drawn, seed), density, &[self.tokens])?,
            // Routers that always or never execute are random ones that draw but one result.
            Decider::Never => self.draw(scope, (drawn, 0), 0.0, &places)?,
            Decider::Always
            | Decider::Gumbel(_)
            | Decider::Sigmoid { .. }
            | Decider::TopK { .. }
            | Decider::Depth { .. } => self.draw(scope, (drawn, 0), 1.0, &places)?,
        };
        if first > 0 {
            let op = Op::WithFirst { set, first };
            decision.set = self.add(op, &[decision.set, self.all.positions])?;
        }
        Ok(decision)
    }

    /// The tokens that get to this repetition of a stack, by a choice that the first one makes for all.
    fn depth(
        &mut self,
        scope: &Scope<'_>,
        scorer: Scorer,
        (set, repetition): (SetSym, usize),
    ) -> Result<Decision, LowerError> {
        let [p, last] = match self.depth {
            Some(chosen) => chosen,
            None => {
                let seen = self.read(scope, scorer)?;
                let logits = build::router(self, scope.skip, scorer, &scope.name, seen)?;
                let highest =
                    Op::Choose { k: 1, sigmoid: false, normalise: false, scale: F64::from(1.0), ranks: None };
                let chosen = self.add(highest, &[logits])?;
                let mut column = |start| self.add(Op::Slice { start, len: 1 }, &[chosen]);
                [column(0)?, column(1)?]
            }
        };
        self.depth = Some([p, last]);
        let set = self.add(Op::Route { set, at_least: F64::from(repetition as f64) }, &[last])?;
        Ok(Decision { set, probability: Probability::Scored(p), score: None, rank: None, soft: None })
    }

    /// The scores, of which those of the first tokens of a sequence stand above all others if these are forced.
    fn forced(&mut self, either: &Either, score: Value) -> Result<Value, LowerError> {
        match u32::try_from(either.force_first).unwrap_or(u32::MAX) {
            0 => Ok(score),
            first => self.add(Op::ForceFirst { first }, &[score, self.all.positions]),
        }
    }

    /// A share `density` of the tokens, drawn for these integers of each.
    fn draw(
        &mut self,
        scope: &Scope<'_>,
        (set, seed): (SetSym, u64),
        density: f64,
        by: &[Value],
    ) -> Result<Decision, LowerError> {
        self.at(&scope.origin);
        let limit = (density * 2f64.powi(32)) as u64;
        let op = Op::RouteRandom { set, seed, block: scope.block as u32, limit };
        let set = self.add(op, by)?;
        Ok(Decision { set, probability: Probability::Constant(density), score: None, rank: None, soft: None })
    }

    /// In training, a share of the tokens that is another at every step.
    fn draw_anew(&mut self, scope: &Scope<'_>, set: SetSym) -> Result<Decision, LowerError> {
        self.at(&scope.origin);
        let (density, router) = (scope.skip.density, self.gates.len());
        let drawn = self.drawn(&format!("drawn {router}"), 1)?;
        let set = self.add(Op::Route { set, at_least: F64::from(1.0) }, &[drawn])?;
        Ok(Decision { set, probability: Probability::Constant(density), score: None, rank: None, soft: None })
    }

    /// The set `own` of those tokens that the router wants and that get a slot.
    fn limit(
        &mut self,
        scope: &Scope<'_>,
        capacity: Capacity,
        wants: &Decision,
        own: SetSym,
    ) -> Result<Value, LowerError> {
        let (group_size, slots) = (capacity.group_size as u32, capacity.slots(scope.skip.density) as u32);
        let (positions, sequences) = (self.all.positions, self.all.sequences);
        match wants.rank.filter(|_| scope.skip.fills_by_score()) {
            Some(score) => {
                self.refuse_to_look_ahead(&scope.name, "capacity by score")?;
                let op = Op::LimitBest { set: own, group_size, slots };
                self.add(op, &[wants.set, score, positions, sequences])
            }
            // All scores are equal, so the earlier tokens win; or there is nothing to win.
            None => match self.wanted_before(wants.set)? {
                Some([before, pages]) => {
                    let op = Op::LimitFirstAfter { set: own, group_size, slots };
                    self.add(op, &[wants.set, positions, sequences, before, pages])
                }
                None => {
                    let op = Op::LimitFirst { set: own, group_size, slots };
                    self.add(op, &[wants.set, positions, sequences])
                }
            },
        }
    }

    /// What a router with a weight says of every token.
    fn score(&mut self, scope: &Scope<'_>, scorer: Scorer, seen: Value) -> Result<Scored, LowerError> {
        let logits = build::router(self, scope.skip, scorer, &scope.name, seen)?;
        if scorer.channels {
            let probability = self.add(Unary::Sigmoid, &[logits])?;
            let d = self.model.stream.d_model;
            return Ok(Scored { logits, score: build::mean(self, probability, d)?, probability });
        }
        let is_two = matches!(scope.skip.decider(), Some(Decider::Gumbel(_)));
        let score = if is_two { self.margin(logits)? } else { logits };
        Ok(Scored { logits, score, probability: self.add(Unary::Sigmoid, &[score])? })
    }

    /// `z₁ − z₀` of logits `f32[n, 2]`.
    pub(super) fn margin(&mut self, logits: Value) -> Result<Value, LowerError> {
        let skips = self.add(Op::Slice { start: 0, len: 1 }, &[logits])?;
        let executes = self.add(Op::Slice { start: 1, len: 1 }, &[logits])?;
        self.add(Binary::Sub, &[executes, skips])
    }

    /// What the router reads.
    fn read(&mut self, scope: &Scope<'_>, scorer: Scorer) -> Result<Value, LowerError> {
        self.at(&scope.origin);
        match (scorer.input, &scope.pre_norm) {
            (Input::Normed, Some(norm)) => self.norm(scope.seen, norm),
            (Input::Normed, None) => Err(LowerError::NoPreNorm { origin: scope.name.clone() }),
            (Input::Raw, _) => Ok(scope.seen),
        }
    }

    fn constant_gate(&mut self, scope: &Scope<'_>, value: bool) -> Result<(), LowerError> {
        self.at(&scope.origin);
        let executed = self.add(Op::FillMask { value }, &[self.tokens])?;
        self.gates.push(super::GateValues { executed, wanted: None });
        Ok(())
    }

    pub(super) fn refuse_to_look_ahead(&self, origin: &str, what: &'static str) -> Result<(), LowerError> {
        match self.function {
            Function::Score => Ok(()),
            Function::Generate | Function::Step => {
                Err(LowerError::LooksAhead { origin: origin.to_owned(), what })
            }
        }
    }
}
