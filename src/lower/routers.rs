//! Routers, and what surrounds a layer that is skipped.

use skipc_ir::attr::F64;
use skipc_ir::{Op, SetSym, Value};

use super::{Ctx, LowerError, Tokens};
use crate::spec::model::{Gate, Input, Layer, Router, Skip};

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
    /// Probability of executing, `f32[n, 1]`; routers without a score have none.
    probability: Option<Value>,
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
        self.refuse_unimplemented(scope)?;
        match scope.skip.router {
            Router::Always => {
                self.constant_gate(scope, true)?;
                self.body(x, self.all, x, block, layers, first_idx, None)
            }
            Router::Never => {
                self.constant_gate(scope, false)?;
                Ok(x)
            }
            Router::Highway => {
                let score = self.score(seen, scope, block, first_idx)?;
                self.constant_gate(scope, true)?;
                let y = self.body(x, self.all, x, block, layers, first_idx, None)?;
                self.at(&scope.router);
                let gate = self.add(Op::Sigmoid {}, &[score])?;
                let rest = self.add(Op::OneMinus {}, &[gate])?;
                let y = self.add(Op::ScaleRows {}, &[y, gate])?;
                let x = self.add(Op::ScaleRows {}, &[x, rest])?;
                self.add(Op::Add {}, &[y, x])
            }
            _ => {
                let decision = self.decide(seen, scope, block, first_idx)?;
                self.skipped(x, &decision, scope, block, layers, first_idx)
            }
        }
    }

    /// Gathers the rows of the set, runs the layers, scatters them back.
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
        let gate = self.add(Op::Executed {}, &[set])?;
        self.gates.push(gate);
        let rows = Tokens {
            set: Some(set),
            positions: self.add(Op::Gather {}, &[self.all.positions, set])?,
            sequences: self.add(Op::Gather {}, &[self.all.sequences, set])?,
        };
        let entry = self.add(Op::Gather {}, &[x, set])?;
        let mut h = self.body(entry, rows, x, block, layers, first_idx, Some(scope.skip))?;
        self.at(&scope.router);
        if let (Gate::Scaled, Some(probability)) = (scope.skip.gate, decision.probability) {
            let change = self.add(Op::Sub {}, &[h, entry])?;
            let probability = self.add(Op::Gather {}, &[probability, set])?;
            let change = self.add(Op::ScaleRows {}, &[change, probability])?;
            h = self.add(Op::Add {}, &[entry, change])?;
        }
        self.add(Op::Scatter {}, &[x, h, set])
    }

    fn decide(
        &mut self,
        seen: Value,
        scope: &Scope<'_>,
        block: &str,
        first_idx: usize,
    ) -> Result<Decision, LowerError> {
        let skip = scope.skip;
        let set = SetSym(self.gates.len() as u32);
        if skip.router == Router::Random {
            self.at(&scope.router);
            let op = Op::RouteRandom {
                set,
                seed: skip.seed,
                block: scope.block as u32,
                limit: (skip.density * 2f64.powi(32)) as u64,
            };
            let set = self.add(op, &[self.all.positions, self.all.sequences])?;
            return Ok(Decision { set, probability: None });
        }
        let score = self.score(seen, scope, block, first_idx)?;
        let probability = self.add(Op::Sigmoid {}, &[score])?;
        let (score, at_least) = match skip.router {
            Router::Gumbel => (score, 0.0),
            _ => (probability, skip.threshold),
        };
        let set = self.add(Op::Route { set, at_least: F64::from(at_least) }, &[score])?;
        Ok(Decision { set, probability: Some(probability) })
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
        self.add(Op::Sub {}, &[executes, skips])
    }

    fn constant_gate(&mut self, scope: &Scope<'_>, value: bool) -> Result<(), LowerError> {
        self.at(&scope.router);
        let gate = self.add(Op::FillMask { value }, &[self.tokens])?;
        self.gates.push(gate);
        Ok(())
    }

    fn refuse_unimplemented(&self, scope: &Scope<'_>) -> Result<(), LowerError> {
        let skip = scope.skip;
        let what = if skip.router == Router::TopK {
            "router = \"topk\""
        } else if skip.capacity().is_some() && skip.router.is_hard() {
            "a capacity (group_size)"
        } else if skip.router == Router::Random && skip.gate == Gate::Scaled {
            "gate = \"scaled\" with router = \"random\""
        } else {
            return Ok(());
        };
        Err(LowerError::Unsupported { origin: scope.router.clone(), what: what.to_owned() })
    }
}
