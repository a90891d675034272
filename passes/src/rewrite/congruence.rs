//! Which terms are equal, and why: congruence closure that remembers a reason for each union.
//!
//! An e-graph forgets which of the equal operands a node was made with; here terms keep theirs. Terms that a reason
//! made equal are joined by an edge, as are terms that are equal because their operands are; each class is a tree of
//! such edges. The path between two terms of a tree never changes once it is there, so what is asked for at the end is
//! answered with what was known when the two became equal.

use std::collections::BTreeSet;

use indexmap::{IndexMap, IndexSet};
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::language::Head;

/// A term, by its place among all terms.
pub(crate) type Term = usize;

/// Why two terms that an edge joins are equal.
#[derive(Clone, Copy, Debug)]
enum Reason {
    /// Someone said so: the number that was given.
    Said(usize),
    /// Same head, equal operands.
    Operands,
}

/// Head, by number, and operands: terms, or their classes.
type Shape = (usize, SmallVec<[usize; 4]>);

/// Terms and what is known about their equality.
#[derive(Debug, Default)]
pub(crate) struct Congruence {
    heads: IndexSet<Head, FxBuildHasher>,
    terms: IndexSet<Shape, FxBuildHasher>,
    /// Class of each term. A class has the number of one of its terms.
    class: Vec<usize>,
    members: Vec<Vec<Term>>,
    /// Terms that have an operand in the class.
    users: Vec<Vec<Term>>,
    /// The first term with this head and operands of these classes.
    by_classes: IndexMap<Shape, Term, FxBuildHasher>,
    /// The edge of each term towards the root of its tree.
    edges: Vec<Option<(Term, Reason)>>,
}

impl Congruence {
    /// Head and operands of a term.
    pub(crate) fn term(&self, term: Term) -> (&Head, &[Term]) {
        let (head, operands) = &self.terms[term];
        (&self.heads[*head], operands)
    }

    /// Whether two terms are equal.
    pub(crate) fn are_equal(&self, a: Term, b: Term) -> bool {
        self.class[a] == self.class[b]
    }

    /// The oldest term that is equal to this one.
    pub(crate) fn oldest(&self, term: Term) -> Term {
        self.members[self.class[term]].iter().copied().min().unwrap_or(term)
    }

    /// The term of this head and exactly these operands.
    pub(crate) fn exact(&self, head: &Head, operands: &[Term]) -> Option<Term> {
        self.terms.get_index_of(&(self.heads.get_index_of(head)?, operands.into()))
    }

    /// A term of this head and operands that are equal to these.
    pub(crate) fn find(&self, head: &Head, operands: &[Term]) -> Option<Term> {
        let head = self.heads.get_index_of(head)?;
        let classes = operands.iter().map(|operand| self.class[*operand]).collect();
        self.by_classes.get(&(head, classes)).copied()
    }

    /// Adds a term, if it is not there.
    pub(crate) fn add(&mut self, head: &Head, operands: &[Term]) -> Term {
        if let Some(term) = self.exact(head, operands) {
            return term;
        }
        let equal = self.find(head, operands);
        let (head, _) = self.heads.insert_full(head.clone());
        let (term, _) = self.terms.insert_full((head, operands.into()));
        self.class.push(term);
        self.members.push(vec![term]);
        self.users.push(Vec::new());
        self.edges.push(None);
        for operand in operands {
            self.users[self.class[*operand]].push(term);
        }
        match equal {
            Some(equal) => self.join(term, equal, Reason::Operands),
            None => {
                self.by_classes.insert(self.classes(term), term);
            }
        }
        term
    }

    /// Makes two terms equal, for the reason of this number.
    pub(crate) fn unite(&mut self, a: Term, b: Term, reason: usize) {
        self.join(a, b, Reason::Said(reason));
    }

    fn classes(&self, term: Term) -> Shape {
        let (head, operands) = &self.terms[term];
        (*head, operands.iter().map(|operand| self.class[*operand]).collect())
    }

    fn join(&mut self, a: Term, b: Term, reason: Reason) {
        let mut waiting = vec![(a, b, reason)];
        while let Some((a, b, reason)) = waiting.pop() {
            let (mut small, mut large) = (self.class[a], self.class[b]);
            if small == large {
                continue;
            }
            self.make_root(a);
            self.edges[a] = Some((b, reason));
            if self.members[small].len() > self.members[large].len() {
                (small, large) = (large, small);
            }
            let (moved, users) =
                (std::mem::take(&mut self.members[small]), std::mem::take(&mut self.users[small]));
            for member in &moved {
                self.class[*member] = large;
            }
            self.members[large].extend(moved);
            for user in &users {
                let known = *self.by_classes.entry(self.classes(*user)).or_insert(*user);
                if !self.are_equal(known, *user) {
                    waiting.push((*user, known, Reason::Operands));
                }
            }
            self.users[large].extend(users);
        }
    }

    /// Turns the edges between a term and the root of its tree around.
    fn make_root(&mut self, term: Term) {
        let mut before: Option<(Term, Reason)> = None;
        let mut at = Some(term);
        while let Some(here) = at {
            let edge = std::mem::replace(&mut self.edges[here], before);
            before = edge.map(|(_, reason)| (here, reason));
            at = edge.map(|(next, _)| next);
        }
    }

    /// The numbers of the reasons for which two terms are equal.
    pub(crate) fn reasons(&self, a: Term, b: Term, reasons: &mut BTreeSet<usize>) {
        let mut seen = BTreeSet::new();
        let mut waiting = vec![(a, b)];
        while let Some((a, b)) = waiting.pop() {
            if a == b || !seen.insert((a.min(b), a.max(b))) {
                continue;
            }
            let (mut from_a, mut from_b) = (self.to_root(a), self.to_root(b));
            while from_a.last() == from_b.last() && from_a.pop().is_some() {
                from_b.pop();
            }
            for term in from_a.into_iter().chain(from_b) {
                match self.edges[term] {
                    Some((_, Reason::Said(reason))) => {
                        reasons.insert(reason);
                    }
                    Some((next, Reason::Operands)) => {
                        let (own, other) = (self.term(term).1, self.term(next).1);
                        waiting.extend(own.iter().copied().zip(other.iter().copied()));
                    }
                    None => {}
                }
            }
        }
    }

    fn to_root(&self, term: Term) -> Vec<Term> {
        std::iter::successors(Some(term), |term| self.edges[*term].map(|(next, _)| next)).collect()
    }
}
