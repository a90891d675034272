//! Checks proofs without trusting what made them: by the source, the steps and the rules alone.

use egg::Id;

use super::explain::{Chain, Rewritten, Step};
use super::language::{EGraph, Head, Node, Typing};
use super::proof::Expr;
use super::rules::{self, Term, View};

/// What is wrong with a proof: always a fault of what made it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproved {
    /// The left side of a step is neither in the source nor in a right side before it.
    #[error("chain {chain}: the left side of `{rule}` is not there")]
    Left {
        /// The chain.
        chain: usize,
        /// The rule.
        rule: &'static str,
    },
    /// The rule does not make this right side of this left side.
    #[error("chain {chain}: `{rule}` does not make this of its left side")]
    Right {
        /// The chain.
        chain: usize,
        /// The rule.
        rule: &'static str,
    },
    /// The steps do not lead to the value.
    #[error("chain {chain}: the steps do not lead to the value")]
    Value {
        /// The chain.
        chain: usize,
    },
    /// The steps do not make the value equal to that of the source.
    #[error("chain {chain}: the value is not equal to that of the source")]
    Equal {
        /// The chain.
        chain: usize,
    },
}

/// Follows every chain from the source: each step's left side has to be there, its rule has to make its right side of
/// it, and at the end the value has to be there, and to be equal to what it is said to be equal to.
///
/// # Errors
/// The first fault.
pub fn check(rewritten: &Rewritten) -> Result<(), Unproved> {
    let source = SourceGraph::new(rewritten);
    let mut chains = rewritten.chains.iter().enumerate();
    chains.try_for_each(|chain| source.check(rewritten, chain))
}

/// Takes steps out of chains that lead to the same without them.
pub(super) fn shorten(rewritten: &mut Rewritten) {
    let source = SourceGraph::new(rewritten);
    let mut chains = std::mem::take(&mut rewritten.chains);
    for (idx, chain) in chains.iter_mut().enumerate() {
        if !(2..=MAX_SHORTENED).contains(&chain.steps.len()) {
            continue;
        }
        for step in (0..chain.steps.len()).rev() {
            let left_out = chain.steps.remove(step);
            if source.check(rewritten, (idx, chain)).is_err() {
                chain.steps.insert(step, left_out);
            }
        }
    }
    rewritten.chains = chains;
}

/// Steps of a chain, at most, for it to be shortened: that takes a time by the square of them. Shortened,
/// those of the models in `models/` have up to 3; `tests/rewrites.rs` prints how many.
const MAX_SHORTENED: usize = 24;

/// The e-graph of a source.
struct SourceGraph {
    egraph: EGraph,
    values: Vec<Id>,
}

impl SourceGraph {
    fn new(rewritten: &Rewritten) -> SourceGraph {
        let mut egraph = EGraph::new(Typing::default());
        let mut values: Vec<Id> = Vec::with_capacity(rewritten.nodes.len());
        for (head, operands) in &rewritten.nodes {
            let operands = operands.iter().map(|operand| values[*operand]).collect();
            values.push(egraph.add(Node { head: head.clone(), operands }));
        }
        egraph.rebuild();
        SourceGraph { egraph, values }
    }

    fn check(&self, rewritten: &Rewritten, (idx, chain): (usize, &Chain)) -> Result<(), Unproved> {
        let mut ctx = Ctx { egraph: self.egraph.clone(), values: &self.values };
        for step in chain.steps.iter().filter_map(|step| rewritten.applications.get(step)) {
            ctx.step(idx, step)?;
        }
        let value = ctx.find(&chain.expr).ok_or(Unproved::Value { chain: idx })?;
        match chain.same_as {
            Some(same) if ctx.egraph.find(self.values[same]) != value => Err(Unproved::Equal { chain: idx }),
            _ => Ok(()),
        }
    }
}

struct Ctx<'a> {
    egraph: EGraph,
    values: &'a [Id],
}

impl Ctx<'_> {
    fn step(&mut self, chain: usize, step: &Step) -> Result<(), Unproved> {
        let rule = step.rule;
        let left = self.find(&step.before).ok_or(Unproved::Left { chain, rule })?;
        if !self.makes(step) {
            return Err(Unproved::Right { chain, rule });
        }
        let right = self.add(&step.after);
        self.egraph.union(left, right);
        self.egraph.rebuild();
        Ok(())
    }

    /// Whether the rule makes the right side of the left side.
    fn makes(&self, step: &Step) -> bool {
        let (Some(rule), Some(node)) =
            (rules::all().find(|rule| rule.name == step.rule), self.node(&step.before))
        else {
            return false;
        };
        let Some((op, operands)) = node.view() else { return false };
        let mut terms = Vec::new();
        (rule.find)(&View::new(&self.egraph), op, operands, &mut terms);
        terms.iter().any(|term| self.is_same(term, &step.after))
    }

    fn is_same(&self, term: &Term, expr: &Expr) -> bool {
        match (term, expr) {
            (Term::Op(op, terms), Expr::Op(other, exprs)) => {
                op == other
                    && terms.len() == exprs.len()
                    && terms.iter().zip(exprs).all(|(term, expr)| self.is_same(term, expr))
            }
            (Term::Op(..), Expr::Value(_)) => false,
            (Term::Class(class), _) => self.find(expr) == Some(self.egraph.find(*class)),
        }
    }

    /// The class of an expression, if all of it is there.
    fn find(&self, expr: &Expr) -> Option<Id> {
        match expr {
            Expr::Value(idx) => Some(self.egraph.find(self.values[*idx])),
            Expr::Op(..) => self.egraph.lookup(self.node(expr)?),
        }
    }

    /// The outer node of an expression, if all below it is there.
    fn node(&self, expr: &Expr) -> Option<Node> {
        let Expr::Op(op, operands) = expr else { return None };
        let operands = operands.iter().map(|operand| self.find(operand)).collect::<Option<_>>();
        Some(Node { head: Head::Op(op.clone()), operands: operands? })
    }

    fn add(&mut self, expr: &Expr) -> Id {
        match expr {
            Expr::Value(idx) => self.values[*idx],
            Expr::Op(op, operands) => {
                let operands = operands.iter().map(|operand| self.add(operand)).collect();
                self.egraph.add(Node { head: Head::Op(op.clone()), operands })
            }
        }
    }
}
