//! What later tokens of a sequence keep of its prompt: a decision by the mean of all tokens is taken once, in the step that has
//! the first of them, and that step has to have the whole prompt.
//!
//! What the first token got waits in a cache beside its keys, and attention in which the first token alone is present takes
//! it from there for every token: the softmax of one key is 1, exactly so with queries of zeros.

use skipc_ir::attr::F64;
use skipc_ir::{Op, Port, SetSym, Unary, Value};

use super::routers::{Decision, Probability};
use super::{Ctx, LowerError};
use crate::frontend::build::{Build, Shares};
use crate::frontend::spec::skip::BranchScale;

impl Ctx<'_> {
    /// The decision about the first token of each sequence, for all of its tokens, which are in `set`: of what the router says
    /// of the tokens of this step. `stream` is that in front of the router.
    pub(super) fn keep(
        &mut self,
        stream: Value,
        scale: BranchScale,
        own: Decision,
        set: SetSym,
    ) -> Result<Decision, LowerError> {
        let (Some(score), Probability::Scored(probability)) = (own.score, own.probability) else {
            return Ok(own);
        };
        let seen = (stream, self.first_tokens()?);
        let zeros = self.zeros(stream, 1)?;
        let ones = self.add(Unary::OneMinus, &[zeros])?;
        let ones = self.add(Op::Gather {}, &[ones, own.set])?;
        let decided = self.add(Op::Scatter {}, &[zeros, ones, own.set])?;
        let decided = self.of_first("decision", decided, seen.1)?;
        let set = self.add(Op::Route { set, at_least: F64::from(0.5) }, &[decided])?;
        Ok(match scale {
            BranchScale::One => Decision { set, ..own },
            BranchScale::Score => Decision { set, score: Some(self.kept(seen, "score", score)?), ..own },
            BranchScale::Probability | BranchScale::ProbabilityLast => {
                let probability = Probability::Scored(self.kept(seen, "probability", probability)?);
                Decision { set, probability, ..own }
            }
        })
    }

    /// `x` `f32[n, c]` of the first token of each sequence, rounded as the stream is.
    fn kept(&mut self, (stream, first): (Value, Value), what: &str, x: Value) -> Result<Value, LowerError> {
        let cols = self.graph.ty(x).cols();
        let zeros = self.zeros(stream, cols)?;
        let ones = self.add(Unary::OneMinus, &[zeros])?;
        let rounded = self.times(ones, x)?;
        self.of_first(what, rounded, first)
    }

    /// What sigmoids of a highway are taken of, of the first token of each sequence.
    pub(super) fn kept_shares(
        &mut self,
        stream: Value,
        (branch, carry): Shares<Value>,
    ) -> Result<Shares<Value>, LowerError> {
        let seen = (stream, self.first_tokens()?);
        let carry = carry.map(|carry| self.kept(seen, "carry", carry)).transpose()?;
        Ok((self.kept(seen, "branch", branch)?, carry))
    }

    /// Zeros of the stream's elements, so many columns.
    fn zeros(&mut self, stream: Value, cols: u32) -> Result<Value, LowerError> {
        let columns = self.add(Op::Slice { start: 0, len: cols }, &[stream])?;
        self.add(Unary::Scale(F64::from(0.0)), &[columns])
    }

    /// Which tokens so far are the first of their sequences.
    fn first_tokens(&mut self) -> Result<Value, LowerError> {
        let positions = self.all.positions;
        let nobody = Op::RouteRandom { set: self.fresh_set(), seed: 0, block: 0, limit: 0 };
        let nobody = self.add(nobody, &[positions])?;
        let first = Op::WithFirst { set: self.fresh_set(), first: 1 };
        let first = self.add(first, &[nobody, positions])?;
        let first = self.add(Op::Executed {}, &[first])?;
        let [_, first] = self.stored_as(Port::prompt_state, &self.prompt_state("first"), first, None)?;
        Ok(first)
    }

    /// The row of `x` `real[n, c]` of the first token of each sequence, in f32.
    fn of_first(&mut self, what: &str, x: Value, first: Value) -> Result<Value, LowerError> {
        let heads = self.graph.ty(x).cols();
        // Queries of zeros: the one score is 0.
        let q = self.add(Unary::Scale(F64::from(0.0)), &[x])?;
        let [_, cache] = self.stored_as(Port::prompt_state, &self.prompt_state(what), x, None)?;
        let Some(pages) = self.pages() else { return Ok(x) };
        let op = Op::CachedAttention { heads, kv_heads: heads, scale: None, cap: None, window: None };
        let operands = [q, cache, cache, self.all.positions, self.all.sequences, pages, first];
        let kept = self.add(op, &operands)?;
        self.add(Op::Widen {}, &[kept])
    }

    fn prompt_state(&self, what: &str) -> String {
        format!("prompt.{what}.{}", self.gates.len())
    }
}
