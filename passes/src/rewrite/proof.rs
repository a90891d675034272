//! Proofs: from the log of a saturation to the rule applications that lead from the source to a form.
//!
//! The log is replayed beside a [`Congruence`], in which every application is an equation between terms: its left side
//! with the nodes that the rule looked at, its right side as the rule made it. Operands that a rule did not look into
//! stand as the oldest term that is equal to them, which is a value of the source where there is one. The proof of a
//! node is then what it takes, going backwards, for the node and for all left sides to be there.

use std::collections::{BTreeMap, BTreeSet};

use egg::Id;
use skipc_ir::Op;
use smallvec::SmallVec;

use super::congruence::{Congruence, Term};
use super::language::{EGraph, Head, Node};
use super::prove::Dag;
use super::region::Region;
use super::rules::{self, Rule, View};
use super::saturate::{self, Firing};

/// An expression over values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expr {
    /// A value, by its number.
    Value(usize),
    /// An op over expressions.
    Op(Op, Vec<Expr>),
}

/// One application of a rule, over values of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Application {
    /// The rule, by its index.
    pub(crate) rule: usize,
    /// Left side.
    pub(crate) before: Expr,
    /// Right side.
    pub(crate) after: Expr,
}

/// How a node of a form came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Derivation {
    /// The node, by its index in the form.
    pub(crate) node: usize,
    /// The node over values of the source, where there are some.
    pub(crate) expr: Expr,
    /// The value of the source that it is equal to.
    pub(crate) same_as: Option<usize>,
    /// The applications by their numbers, in order.
    pub(crate) steps: Vec<usize>,
}

/// Derivations of all nodes of a form that the source does not have, and the applications that they share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Derivations {
    pub(crate) applications: BTreeMap<usize, Application>,
    pub(crate) of: Vec<Derivation>,
}

/// Why a term is there.
#[derive(Clone, Debug)]
enum Made {
    /// The source has it, as this node.
    Region(usize),
    /// These applications made it, the first before all others.
    By(Vec<usize>),
    /// It has the head of that term, and operands that are equal.
    Like(Term),
}

/// An application, over terms.
struct Step {
    rule: usize,
    left: Expr,
    right: Expr,
    left_term: Term,
}

struct Proof {
    terms: Congruence,
    made: Vec<Made>,
    steps: Vec<Step>,
    /// A term of each class of the e-graph, by the ids that classes have had.
    of_class: BTreeMap<Id, Term>,
}

/// The derivations of the nodes of a form: heads and operands, operands first, and where each root of the source is.
///
/// `None` if the form does not follow from the log, which would be a fault of the log.
pub(crate) fn derive(
    source: &Region,
    rules: &[&Rule],
    log: &[Vec<Firing>],
    form: Dag<'_>,
) -> Option<Derivations> {
    let mut proof = Proof {
        terms: Congruence::default(),
        made: Vec::new(),
        steps: Vec::new(),
        of_class: BTreeMap::new(),
    };
    let (mut egraph, classes) = saturate::begin(source);
    let mut values: Vec<Term> = Vec::with_capacity(source.nodes.len());
    for (idx, (head, operands)) in source.nodes.iter().enumerate() {
        let operands: SmallVec<[Term; 4]> = operands.iter().map(|operand| values[*operand]).collect();
        values.push(proof.add(head, &operands, Made::Region(idx)));
        proof.of_class.entry(classes[idx]).or_insert(values[idx]);
    }
    for round in log {
        proof.round(&mut egraph, rules, round)?;
    }
    proof.derivations(&values, source, form)
}

impl Proof {
    fn add(&mut self, head: &Head, operands: &[Term], made: Made) -> Term {
        let term = self.terms.add(head, operands);
        if term == self.made.len() {
            self.made.push(made);
        }
        term
    }

    /// Adds a term that has the head of one that is there, and operands that are equal to its.
    fn add_like(&mut self, head: &Head, operands: &[Term]) -> Option<Term> {
        let like = self.terms.find(head, operands)?;
        Some(self.add(head, operands, Made::Like(like)))
    }

    /// The oldest term of a class of the e-graph.
    fn oldest(&self, egraph: &EGraph, class: Id) -> Option<Term> {
        self.of_class.get(&egraph.find(class)).map(|term| self.terms.oldest(*term))
    }

    /// Replays a round: reads all that fired in the e-graph as it was, then adds it.
    fn round(&mut self, egraph: &mut EGraph, rules: &[&Rule], round: &[Firing]) -> Option<()> {
        let first = self.steps.len();
        let mut view = View::new(egraph);
        for Firing { rule, class, node, term } in round {
            let node = view.egraph[*class].nodes.get(*node)?;
            let mut inner: BTreeMap<Id, Vec<&Node>> = BTreeMap::new();
            for (class, idx) in view.needed(rules[*rule], node, term) {
                inner.entry(class).or_default().push(view.egraph[class].nodes.get(idx)?);
            }
            let left = self.left(view.egraph, node, &inner)?;
            let right = self.right(view.egraph, term)?;
            let left_term = self.add_left(&left)?;
            self.steps.push(Step { rule: *rule, left, right, left_term });
        }
        for (idx, Firing { class, term, .. }) in (first..).zip(round) {
            let right = self.steps[idx].right.clone();
            let (new, right) = self.add_right(egraph, term, &right, idx)?;
            egraph.union(*class, new);
            self.terms.unite(self.steps[idx].left_term, right, idx);
        }
        egraph.rebuild();
        Some(())
    }

    /// A node with those in the place of its operands that the rule looked at.
    fn left(&self, egraph: &EGraph, node: &Node, inner: &BTreeMap<Id, Vec<&Node>>) -> Option<Expr> {
        let (op, operands) = node.view()?;
        let mut n_used: BTreeMap<Id, usize> = BTreeMap::new();
        let exprs = operands.iter().map(|operand| {
            let class = egraph.find(*operand);
            let Some((nodes, last)) = inner.get(&class).and_then(|nodes| Some((nodes, nodes.last()?))) else {
                return Some(Expr::Value(self.oldest(egraph, class)?));
            };
            let n_used = n_used.entry(class).or_default();
            let node = nodes.get(*n_used).unwrap_or(last);
            *n_used += 1;
            // A class may lie within itself.
            let mut inner = inner.clone();
            inner.remove(&class);
            self.left(egraph, node, &inner)
        });
        let exprs: Option<Vec<Expr>> = exprs.collect();
        Some(Expr::Op(op.clone(), exprs?))
    }

    fn right(&self, egraph: &EGraph, term: &rules::Term) -> Option<Expr> {
        match term {
            rules::Term::Class(class) => Some(Expr::Value(self.oldest(egraph, *class)?)),
            rules::Term::Op(op, operands) => {
                let operands: Option<Vec<Expr>> =
                    operands.iter().map(|operand| self.right(egraph, operand)).collect();
                Some(Expr::Op(op.clone(), operands?))
            }
        }
    }

    fn add_left(&mut self, left: &Expr) -> Option<Term> {
        match left {
            Expr::Value(term) => Some(*term),
            Expr::Op(op, operands) => {
                let operands: Option<Vec<Term>> =
                    operands.iter().map(|operand| self.add_left(operand)).collect();
                self.add_like(&Head::Op(op.clone()), &operands?)
            }
        }
    }

    /// Adds a right side, to the e-graph as saturation did.
    fn add_right(
        &mut self,
        egraph: &mut EGraph,
        term: &rules::Term,
        right: &Expr,
        step: usize,
    ) -> Option<(Id, Term)> {
        match (term, right) {
            (rules::Term::Class(class), Expr::Value(term)) => Some((egraph.find(*class), *term)),
            (rules::Term::Op(op, terms), Expr::Op(_, exprs)) => {
                let both = terms.iter().zip(exprs);
                let both = both.map(|(term, expr)| self.add_right(egraph, term, expr, step));
                let both: Option<Vec<(Id, Term)>> = both.collect();
                let (ids, operands): (SmallVec<[Id; 4]>, Vec<Term>) = both?.into_iter().unzip();
                let head = Head::Op(op.clone());
                let term = self.add(&head, &operands, Made::By(Vec::new()));
                if let Made::By(steps) = &mut self.made[term] {
                    steps.push(step);
                }
                let node = Node { head, operands: ids };
                let class = egraph.lookup(node.clone()).unwrap_or_else(|| egraph.add(node));
                self.of_class.entry(class).or_insert(term);
                Some((class, term))
            }
            _ => None,
        }
    }

    fn derivations(
        &mut self,
        values: &[Term],
        source: &Region,
        Dag { nodes, roots }: Dag<'_>,
    ) -> Option<Derivations> {
        let mut derivations = Derivations::default();
        let mut terms: Vec<Term> = Vec::with_capacity(nodes.len());
        for (node, (head, operands)) in nodes.iter().enumerate() {
            let operands: SmallVec<[Term; 4]> =
                operands.iter().map(|operand| self.terms.oldest(terms[*operand])).collect();
            let term = self.add_like(head, &operands)?;
            terms.push(term);
            let Head::Op(op) = head else { continue };
            if matches!(self.made[term], Made::Region(_)) {
                continue;
            }
            let oldest = self.terms.oldest(term);
            let steps = self.steps_to(term, oldest);
            let operands = operands.iter().map(|operand| self.expr(*operand)).collect();
            let same_as = match &self.made[oldest] {
                Made::Region(idx) => Some(*idx),
                Made::By(_) | Made::Like(_) => None,
            };
            let expr = Expr::Op(op.clone(), operands);
            derivations.of.push(Derivation { node, expr, same_as, steps: steps.into_iter().collect() });
        }
        // A result may have become another value that was there.
        for (node, root) in roots.iter().zip(&source.roots) {
            let (term, root_term) = (terms[*node], values[*root]);
            if let (Made::Region(idx), true) = (&self.made[term], term != root_term) {
                let steps = self.steps_to(term, root_term).into_iter().collect();
                let (expr, same_as) = (Expr::Value(*idx), Some(*root));
                derivations.of.push(Derivation { node: *node, expr, same_as, steps });
            }
        }
        for step in derivations.of.iter().flat_map(|derivation| &derivation.steps) {
            derivations.applications.entry(*step).or_insert_with(|| self.application(&self.steps[*step]));
        }
        Some(derivations)
    }

    /// The applications that it takes for a term to be there, and to be equal to another.
    fn steps_to(&self, term: Term, equal: Term) -> BTreeSet<usize> {
        let mut steps = BTreeSet::new();
        self.terms.reasons(term, equal, &mut steps);
        let mut seen: BTreeMap<Term, usize> = BTreeMap::new();
        let mut done = BTreeSet::new();
        // Terms, each with the application before which it has to be there.
        let mut waiting = vec![(term, self.steps.len()), (equal, self.steps.len())];
        loop {
            while let Some((term, before)) = waiting.pop() {
                if seen.get(&term).is_some_and(|known| *known <= before) {
                    continue;
                }
                seen.insert(term, before);
                let operands = self.terms.term(term).1;
                waiting.extend(operands.iter().map(|operand| (*operand, before)));
                match &self.made[term] {
                    Made::Region(_) => {}
                    // One that is needed anyway is as good as the first.
                    Made::By(makers) if makers.iter().any(|step| *step < before && steps.contains(step)) => {}
                    Made::By(makers) => steps.extend(makers.first()),
                    Made::Like(like) => {
                        waiting.push((*like, before));
                        for (own, other) in operands.iter().zip(self.terms.term(*like).1) {
                            self.terms.reasons(*own, *other, &mut steps);
                        }
                    }
                }
            }
            let Some(step) = steps.difference(&done).last().copied() else { return steps };
            done.insert(step);
            let mut needed = vec![self.steps[step].left_term];
            values(&self.steps[step].right, &mut needed);
            waiting.extend(needed.into_iter().map(|term| (term, step)));
        }
    }

    fn application(&self, step: &Step) -> Application {
        Application {
            rule: step.rule,
            before: self.of_source(&step.left),
            after: self.of_source(&step.right),
        }
    }

    /// An expression over terms as one over values of the source.
    fn of_source(&self, expr: &Expr) -> Expr {
        match expr {
            Expr::Value(term) => self.expr(*term),
            Expr::Op(op, operands) => {
                Expr::Op(op.clone(), operands.iter().map(|operand| self.of_source(operand)).collect())
            }
        }
    }

    /// A term over values of the source.
    fn expr(&self, term: Term) -> Expr {
        match (&self.made[term], self.terms.term(term)) {
            (Made::Region(idx), _) => Expr::Value(*idx),
            (_, (Head::Op(op), operands)) => {
                Expr::Op(op.clone(), operands.iter().map(|operand| self.expr(*operand)).collect())
            }
            // Only the source has values from outside.
            (_, (Head::Outside { idx, .. }, _)) => Expr::Value(*idx as usize),
        }
    }
}

/// The values of an expression.
fn values(expr: &Expr, into: &mut Vec<usize>) {
    match expr {
        Expr::Value(value) => into.push(*value),
        Expr::Op(_, operands) => operands.iter().for_each(|operand| values(operand, into)),
    }
}
