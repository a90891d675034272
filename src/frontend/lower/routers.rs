//! Routers, capacities, and what surrounds a layer that is skipped.

use skipc_ir::attr::F64;
use skipc_ir::{Binary, Op, SetSym, Unary, Value};

use super::{Branch, Ctx, Form, LowerError, Purpose, Tokens};
use crate::frontend::spec::model::{Gate, Generate, Input, Layer, Overflow, Router, Skip};

/// The router of a block or of one of its sub-layers.
pub(super) struct Scope<'a> {
    /// Its name, such as `blocks.3.router`.
    pub(super) router: String,
    /// Index of the block.
    pub(super) block: usize,
    /// What the spec says of it.
    pub(super) skip: &'a Skip,
}

/// What a router says of every token.
struct Decision {
    set: Value,
    probability: Probability,
}

/// Probability of executing.
enum Probability {
    /// The same for every token.
    Constant(f64),
    /// `f32[n, 1]`.
    Scored(Value),
}

/// A router's score of every token, `f32[n, 1]`, with the probability that it makes of it.
#[derive(Clone, Copy)]
struct Score {
    score: Value,
    probability: Value,
}

/// The sets of the router of this index: of the tokens that execute and, under a capacity, of those that it asked for.
/// The latter come after the former of all routers.
pub(crate) fn sets(n_routers: u32, router: u32) -> [SetSym; 2] {
    [SetSym(router), SetSym(n_routers + router)]
}

impl Ctx<'_> {
    /// Runs `layers` for the tokens of `x` that the router chooses after looking at `seen`.
    pub(super) fn routed(
        &mut self,
        x: Value,
        seen: Value,
        scope: &Scope<'_>,
        block: &str,
        layers: &[Layer],
        first_idx: usize,
    ) -> Result<Value, LowerError> {
        match scope.skip.router {
            Router::Always if scope.skip.capacity().is_none() => {
                self.constant_gate(scope, true)?;
                self.body(x, Branch::all(self.all), x, block, layers, first_idx)
            }
            Router::Never => {
                self.constant_gate(scope, false)?;
                Ok(x)
            }
            Router::Highway => {
                let score = self.score(seen, scope, block, first_idx)?;
                self.constant_gate(scope, true)?;
                let y = self.body(x, Branch::all(self.all), x, block, layers, first_idx)?;
                self.at(&scope.router);
                let gate = self.add(Unary::Sigmoid, &[score])?;
                let rest = self.add(Unary::OneMinus, &[gate])?;
                let y = self.add(Op::ScaleRows {}, &[y, gate])?;
                let x = self.add(Op::ScaleRows {}, &[x, rest])?;
                self.add(Binary::Add, &[y, x])
            }
            _ => {
                let decision = self.decide(seen, scope, block, first_idx)?;
                self.skipped(x, &decision, scope, block, layers, first_idx)
            }
        }
    }

    /// Runs the layers for the rows of the set; the others keep their bytes.
    ///
    /// Gathered: over the rows of the set. Masked: over all rows, of which those of the set are kept.
    fn skipped(
        &mut self,
        x: Value,
        decision: &Decision,
        scope: &Scope<'_>,
        block: &str,
        layers: &[Layer],
        first_idx: usize,
    ) -> Result<Value, LowerError> {
        let set = decision.set;
        self.at(&scope.router);
        let executed = Tokens {
            set: Some(set),
            positions: self.add(Op::Gather {}, &[self.all.positions, set])?,
            sequences: self.add(Op::Gather {}, &[self.all.sequences, set])?,
        };
        let (entry, rows) = match self.form {
            Form::Gathered => (self.add(Op::Gather {}, &[x, set])?, executed),
            Form::Masked => (x, self.all),
        };
        let branch = Branch { rows, executed: Some(executed), kv: scope.skip.kv };
        let mut h = self.body(entry, branch, x, block, layers, first_idx)?;
        self.at(&scope.router);
        if scope.skip.gate == Gate::Scaled {
            h = self.scaled(entry, h, rows, &decision.probability)?;
        }
        self.keep_executed(x, h, branch)
    }

    /// `x + p · (y − x)` over the rows of the branch.
    fn scaled(
        &mut self,
        x: Value,
        y: Value,
        rows: Tokens,
        probability: &Probability,
    ) -> Result<Value, LowerError> {
        if matches!(probability, Probability::Constant(p) if *p == 1.0) {
            return Ok(y);
        }
        let change = self.add(Binary::Sub, &[y, x])?;
        let change = match *probability {
            Probability::Constant(p) => self.add(Unary::Scale(F64::from(p)), &[change])?,
            Probability::Scored(p) => {
                let p = match rows.set {
                    Some(set) => self.add(Op::Gather {}, &[p, set])?,
                    None => p,
                };
                self.add(Op::ScaleRows {}, &[change, p])?
            }
        };
        self.add(Binary::Add, &[x, change])
    }

    /// Takes the router's decision and, where there is one, the capacity's. Sets the outputs `gate` and `wanted`.
    fn decide(
        &mut self,
        seen: Value,
        scope: &Scope<'_>,
        block: &str,
        first_idx: usize,
    ) -> Result<Decision, LowerError> {
        let skip = scope.skip;
        let [own, asked] = sets(self.n_routers, self.gates.len() as u32);
        let limited = skip.capacity();
        let set = if limited.is_some() { asked } else { own };
        let score = match skip.router {
            Router::Random | Router::Always => None,
            _ => {
                let score = self.score(seen, scope, block, first_idx)?;
                Some(Score { score, probability: self.add(Unary::Sigmoid, &[score])? })
            }
        };
        self.at(&scope.router);
        let mut set = self.choose(scope, score, set)?;
        let mut wanted = None;
        if let Some(capacity) = limited {
            wanted = Some(self.add(Op::Executed {}, &[set])?);
            let (group_size, slots) = (capacity.group_size as u32, capacity.slots as u32);
            let (positions, sequences) = (self.all.positions, self.all.sequences);
            set = match (capacity.overflow, score) {
                (Overflow::Score, Some(Score { score, .. })) if skip.fills_by_score() => {
                    self.refuse_to_look_ahead(scope, "capacity by score")?;
                    let op = Op::LimitBest { set: own, group_size, slots };
                    self.add(op, &[set, score, positions, sequences])?
                }
                // All scores are equal, so the earlier tokens win; or there is nothing to win.
                _ => {
                    self.add(Op::LimitFirst { set: own, group_size, slots }, &[set, positions, sequences])?
                }
            };
        }
        let executed = self.add(Op::Executed {}, &[set])?;
        self.gates.push(super::GateValues { executed, wanted });
        let probability = match score {
            Some(score) => Probability::Scored(score.probability),
            None if skip.router == Router::Random => Probability::Constant(skip.density),
            None => Probability::Constant(1.0),
        };
        Ok(Decision { set, probability })
    }

    /// The set of tokens that the router wants to execute.
    fn choose(&mut self, scope: &Scope<'_>, score: Option<Score>, set: SetSym) -> Result<Value, LowerError> {
        let (skip, all) = (scope.skip, self.all);
        let Some(Score { score, probability }) = score else {
            // A router that always executes is the random one that never draws a skip.
            let density = if skip.router == Router::Always { 1.0 } else { skip.density };
            let limit = (density * 2f64.powi(32)) as u64;
            let op = Op::RouteRandom { set, seed: skip.seed, block: scope.block as u32, limit };
            return self.add(op, &[all.positions, all.sequences]);
        };
        let at_least = match skip.router {
            Router::Gumbel => return self.add(Op::Route { set, at_least: F64::from(0.0) }, &[score]),
            Router::TopK if self.purpose == Purpose::Score || skip.generate != Generate::Threshold => {
                self.refuse_to_look_ahead(scope, "top-k")?;
                let op = Op::RouteTopK { set, share: F64::from(skip.density) };
                return self.add(op, &[score, all.sequences]);
            }
            _ => F64::from(skip.threshold),
        };
        self.add(Op::Route { set, at_least }, &[probability])
    }

    /// The router's score `f32[n, 1]`: the margin `z₁ − z₀` by which executing wins, or the one logit.
    fn score(
        &mut self,
        seen: Value,
        scope: &Scope<'_>,
        block: &str,
        first_idx: usize,
    ) -> Result<Value, LowerError> {
        self.at(&scope.router);
        let rows = scope.skip.router.weight_rows().unwrap_or(1);
        let input = match scope.skip.input {
            Input::Normed => self.norm(seen, &format!("{block}.layers.{first_idx}.norm"))?,
            Input::Raw => seen,
        };
        let weight = self.weight(&format!("{}.weight", scope.router), &[rows, self.model.d_model])?;
        let mut logits = self.add(Op::RouterLogits {}, &[input, weight])?;
        if scope.skip.bias {
            let bias = self.weight(&format!("{}.bias", scope.router), &[rows])?;
            logits = self.add(Op::AddBias {}, &[logits, bias])?;
        }
        if rows == 1 {
            return Ok(logits);
        }
        let skips = self.add(Op::Slice { start: 0, len: 1 }, &[logits])?;
        let executes = self.add(Op::Slice { start: 1, len: 1 }, &[logits])?;
        self.add(Binary::Sub, &[executes, skips])
    }

    fn constant_gate(&mut self, scope: &Scope<'_>, value: bool) -> Result<(), LowerError> {
        self.at(&scope.router);
        let executed = self.add(Op::FillMask { value }, &[self.tokens])?;
        self.gates.push(super::GateValues { executed, wanted: None });
        Ok(())
    }

    fn refuse_to_look_ahead(&self, scope: &Scope<'_>, what: &'static str) -> Result<(), LowerError> {
        match self.purpose {
            Purpose::Score => Ok(()),
            Purpose::Generate => Err(LowerError::LooksAhead { origin: scope.router.clone(), what }),
        }
    }
}
