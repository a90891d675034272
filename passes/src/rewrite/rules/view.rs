//! What rules see of an e-graph.

use std::cell::RefCell;
use std::collections::BTreeSet;

use egg::Id;
use skipc_ir::{Op, Type};

use super::super::language::{EGraph, Node};
use super::{Rule, Term};

/// The e-graph as rules see it while they search.
pub(crate) struct View<'a> {
    pub(crate) egraph: &'a EGraph,
    /// Where it matters what a rule looks at.
    lens: Option<Lens>,
}

/// What a rule looks at, and what it is not shown: so that one can find out which nodes it needs to fire.
#[derive(Debug, Default)]
pub(crate) struct Lens {
    /// Class and place of the nodes that were shown.
    seen: RefCell<BTreeSet<(Id, usize)>>,
    /// Class and place of the nodes that are not.
    hidden: BTreeSet<(Id, usize)>,
}

impl View<'_> {
    /// The nodes of a class.
    pub(crate) fn nodes(&self, class: Id) -> impl Iterator<Item = (&Op, &[Id])> {
        let nodes = self.egraph[class].nodes.iter().enumerate();
        nodes.filter(move |(idx, _)| self.is_shown(class, *idx)).filter_map(|(_, node)| node.view())
    }

    fn is_shown(&self, class: Id, idx: usize) -> bool {
        let Some(lens) = &self.lens else { return true };
        let place = (self.egraph.find(class), idx);
        let is_shown = !lens.hidden.contains(&place);
        if is_shown {
            lens.seen.borrow_mut().insert(place);
        }
        is_shown
    }

    /// The nodes besides its own that a rule needs to find this right side for a node: as few as it takes, each as
    /// class and place. Without any one of them the rule finds something else, or nothing.
    pub(crate) fn needed(&mut self, rule: &Rule, node: &Node, term: &Term) -> Vec<(Id, usize)> {
        self.lens = Some(Lens::default());
        let finds = |view: &View<'_>| {
            let mut terms = Vec::new();
            if let Some((op, operands)) = node.view() {
                (rule.find)(view, op, operands, &mut terms);
            }
            terms.contains(term)
        };
        finds(self);
        let seen = self.lens.take().unwrap_or_default().seen.into_inner();
        let (mut hidden, mut needed) = (BTreeSet::new(), Vec::new());
        for place in seen.into_iter().rev() {
            hidden.insert(place);
            self.lens = Some(Lens { seen: RefCell::default(), hidden });
            let is_needed = !finds(self);
            hidden = self.lens.take().unwrap_or_default().hidden;
            if is_needed {
                hidden.remove(&place);
                needed.push(place);
            }
        }
        needed.reverse();
        needed
    }

    /// The type of a class. Every class has one: nodes are typed before they are added.
    pub(crate) fn ty(&self, class: Id) -> Option<&Type> {
        self.egraph[class].data.as_ref()
    }

    pub(crate) fn new(egraph: &EGraph) -> View<'_> {
        View { egraph, lens: None }
    }
}
