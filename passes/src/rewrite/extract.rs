//! Which nodes of an e-graph to compute: the cheapest choice of one node for each class that the roots need, where a
//! class that several need is paid for once. Matmuls of one operand share a kernel, which is paid for once, too.
//!
//! The start is the better of the source itself and a greedy choice. From there branch and bound looks for joint
//! choices, which no greedy one makes: a matmul that is dearer by itself, but would share the kernel of others.
//! The search is bounded by steps, not by time, and says whether it came to an end, so that its result is the best
//! there is. Costs are whole picoseconds and ties go to the first, so that nothing depends on rounding or on history.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use egg::Id;

use super::cost::is_matmul;
use super::language::{EGraph, Node};

/// A way to have what is needed.
#[derive(Clone, Debug)]
pub(crate) struct Alternative {
    /// Picoseconds for the node alone, at least 1: of two equal choices the one with fewer nodes is better.
    cost: u64,
    /// What it needs, by number.
    operands: Vec<usize>,
    /// The node; `None` for a kernel, which is no value.
    pub(crate) node: Option<Node>,
}

/// What a choice may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// The value of a class.
    Value(Id),
    /// The kernel of all matmuls whose left operand is this class.
    Kernel(Id),
}

/// What nodes cost, in picoseconds.
pub(crate) trait Prices {
    /// Of a node; of a matmul without its kernel.
    fn node(&self, node: &Node) -> u64;
    /// Of the kernel of matmuls of this operand.
    fn kernel(&self, operand: Id) -> u64;
}

/// The left operand of a matmul, whose kernel it shares with other matmuls of it.
fn kernel_of(node: &Node) -> Option<Id> {
    let (op, operands) = node.view()?;
    operands.first().copied().filter(|_| is_matmul(op))
}

/// What these nodes cost together, each matmul of one operand in the kernel of the others.
pub(crate) fn cost_of(nodes: &[Node], prices: &dyn Prices) -> u64 {
    let kernels: BTreeSet<Id> = nodes.iter().filter_map(kernel_of).collect();
    let costs = nodes.iter().map(|node| prices.node(node));
    let costs = costs.chain(kernels.into_iter().map(|operand| prices.kernel(operand)));
    costs.fold(0u64, |sum, cost| sum.saturating_add(cost.saturating_add(1)))
}

/// What to choose from. All that may be needed has a number: values in the order of their ids, then kernels.
pub(crate) struct Problem {
    alternatives: Vec<Vec<Alternative>>,
    roots: Vec<usize>,
    number: BTreeMap<Need, usize>,
}

/// The alternative for each class that is needed, by its index.
pub(crate) type Choice = Vec<Option<usize>>;

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) choice: Choice,
    pub(crate) cost: u64,
    /// Whether nothing is cheaper.
    pub(crate) is_proved: bool,
    /// Steps that it took.
    pub(crate) n_steps: usize,
}

impl Problem {
    /// All ways to compute the roots.
    pub(crate) fn new(egraph: &EGraph, roots: &[Id], prices: &dyn Prices) -> Problem {
        let mut seen = BTreeSet::new();
        let mut waiting: Vec<Id> = roots.iter().map(|root| egraph.find(*root)).collect();
        while let Some(class) = waiting.pop() {
            if seen.insert(Need::Value(class)) {
                let nodes = || egraph[class].nodes.iter();
                waiting.extend(nodes().flat_map(|node| &node.operands).map(|operand| egraph.find(*operand)));
                seen.extend(nodes().filter_map(kernel_of).map(|operand| Need::Kernel(egraph.find(operand))));
            }
        }
        let number: BTreeMap<Need, usize> = seen.into_iter().zip(0..).collect();
        let value = |class: Id| number[&Need::Value(egraph.find(class))];
        let of_class = |(class, own): (Id, usize)| {
            let mut nodes: Vec<&Node> = egraph[class].nodes.iter().collect();
            nodes.sort();
            let alternatives = nodes.into_iter().map(|node| {
                let mut operands: Vec<usize> = node.operands.iter().map(|operand| value(*operand)).collect();
                operands.extend(kernel_of(node).map(|of| number[&Need::Kernel(egraph.find(of))]));
                operands.sort_unstable();
                operands.dedup();
                let cost = prices.node(node).saturating_add(1);
                Alternative { cost, operands, node: Some(node.clone()) }
            });
            undominated(alternatives.filter(|alternative| !alternative.operands.contains(&own)).collect())
        };
        let of = |(need, own): (&Need, &usize)| match need {
            Need::Value(class) => of_class((*class, *own)),
            Need::Kernel(operand) => {
                let cost = prices.kernel(*operand).saturating_add(1);
                vec![Alternative { cost, operands: vec![value(*operand)], node: None }]
            }
        };
        let alternatives = number.iter().map(of).collect();
        let mut roots: Vec<usize> = roots.iter().map(|root| value(*root)).collect();
        roots.sort_unstable();
        roots.dedup();
        Problem { alternatives, roots, number }
    }

    /// The numbers of kernels.
    pub(crate) fn kernels(&self) -> impl Iterator<Item = usize> + '_ {
        self.number.iter().filter(|(need, _)| matches!(need, Need::Kernel(_))).map(|(_, number)| *number)
    }

    /// How much there is to choose for.
    pub(crate) fn len(&self) -> usize {
        self.alternatives.len()
    }

    /// How many ways there are to compute a class.
    #[cfg(test)]
    pub(crate) fn n_alternatives(&self, class: usize) -> usize {
        self.alternatives[class].len()
    }

    /// The number of a class, if the roots can need it.
    pub(crate) fn number(&self, class: Id) -> Option<usize> {
        self.number.get(&Need::Value(class)).copied()
    }

    /// What a choice says about a class.
    pub(crate) fn chosen(&self, choice: &Choice, class: usize) -> Option<&Alternative> {
        choice[class].map(|idx| &self.alternatives[class][idx])
    }

    /// Index of the alternative that is this node.
    pub(crate) fn alternative(&self, class: usize, node: &Node) -> Option<usize> {
        self.alternatives[class].iter().position(|alternative| alternative.node.as_ref() == Some(node))
    }

    /// The classes that a choice needs, operands before users; `None` if a class has no choice or needs itself.
    pub(crate) fn order(&self, choice: &Choice) -> Option<Vec<usize>> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Begun,
            Done,
        }
        let mut marks = vec![Mark::New; self.alternatives.len()];
        let mut order = Vec::new();
        let mut waiting: Vec<(usize, usize)> = self.roots.iter().rev().map(|root| (*root, 0)).collect();
        while let Some((class, next)) = waiting.pop() {
            if next == 0 && marks[class] == Mark::Done {
                continue;
            }
            marks[class] = Mark::Begun;
            match self.chosen(choice, class)?.operands.get(next) {
                None => {
                    marks[class] = Mark::Done;
                    order.push(class);
                }
                Some(operand) => {
                    waiting.push((class, next + 1));
                    match marks[*operand] {
                        Mark::New => waiting.push((*operand, 0)),
                        Mark::Begun => return None,
                        Mark::Done => {}
                    }
                }
            }
        }
        Some(order)
    }

    /// The nodes of a choice, operands before users.
    pub(crate) fn nodes(&self, choice: &Choice) -> Option<Vec<Node>> {
        let order = self.order(choice)?.into_iter();
        Some(order.filter_map(|class| self.chosen(choice, class)?.node.clone()).collect())
    }

    /// The cost of all that a choice needs.
    pub(crate) fn cost(&self, choice: &Choice) -> Option<u64> {
        let costs = self.order(choice)?.into_iter().filter_map(|class| self.chosen(choice, class));
        Some(costs.fold(0u64, |sum, alternative| sum.saturating_add(alternative.cost)))
    }

    /// For each class the node that is cheapest with all that it needs, where what it needs twice is paid for once but
    /// what other classes need, too, is paid for anew.
    pub(crate) fn greedy(&self) -> Choice {
        let mut users: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.alternatives.len()];
        for (class, alternatives) in self.alternatives.iter().enumerate() {
            for operand in alternatives.iter().flat_map(|alternative| &alternative.operands) {
                users[*operand].insert(class);
            }
        }
        let mut best: Vec<Option<Greedy>> = vec![None; self.alternatives.len()];
        let mut waiting: VecDeque<usize> = (0..self.alternatives.len()).collect();
        let mut is_waiting = vec![true; self.alternatives.len()];
        while let Some(class) = waiting.pop_front() {
            is_waiting[class] = false;
            let mut is_better = false;
            for (idx, alternative) in self.alternatives[class].iter().enumerate() {
                let mut needs = BTreeMap::from([(class, alternative.cost)]);
                let is_possible = alternative.operands.iter().all(|operand| {
                    let known = best[*operand].as_ref().filter(|(.., needs)| !needs.contains_key(&class));
                    needs.extend(known.into_iter().flat_map(|(.., needs)| needs));
                    known.is_some()
                });
                let cost = needs.values().fold(0u64, |sum, cost| sum.saturating_add(*cost));
                if is_possible && best[class].as_ref().is_none_or(|(known, ..)| cost < *known) {
                    best[class] = Some((cost, idx, needs));
                    is_better = true;
                }
            }
            for user in users[class].iter().filter(|_| is_better) {
                if !std::mem::replace(&mut is_waiting[*user], true) {
                    waiting.push_back(*user);
                }
            }
        }
        best.into_iter().map(|best| best.map(|(_, idx, _)| idx)).collect()
    }

    /// Looks for something cheaper than `start`, in so many steps.
    pub(crate) fn search(&self, start: Choice, max_steps: usize) -> Option<Found> {
        let cost = self.cost(&start)?;
        let mut search = Search { problem: self, bound: Bound::new(self), best: (cost, start), n_steps: 0 };
        let is_proved = search.run(max_steps);
        let (cost, choice) = search.best;
        Some(Found { choice, cost, is_proved, n_steps: search.n_steps })
    }
}

/// The cheapest that a greedy choice knows for a class: cost with all that it needs, alternative, and what it needs
/// with the cost of each.
type Greedy = (u64, usize, BTreeMap<usize, u64>);

/// Without those that cost no less than another and need all that it needs.
fn undominated(alternatives: Vec<Alternative>) -> Vec<Alternative> {
    let is_worse = |idx: usize, than: usize| {
        let (a, b) = (&alternatives[idx], &alternatives[than]);
        let needs_all = b.operands.iter().all(|operand| a.operands.binary_search(operand).is_ok());
        let is_same = a.cost == b.cost && a.operands.len() == b.operands.len();
        needs_all && a.cost >= b.cost && (!is_same || than < idx)
    };
    let n = alternatives.len();
    let keep: Vec<bool> = (0..n).map(|idx| !(0..n).any(|than| than != idx && is_worse(idx, than))).collect();
    alternatives.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(alternative, _)| alternative).collect()
}

/// A lower bound for what is still to be paid.
struct Bound {
    /// The cheapest alternative of each class.
    least: Vec<u64>,
    /// The classes that no choice for a class can do without, as bits.
    needed: Vec<Vec<u64>>,
}

impl Bound {
    fn new(problem: &Problem) -> Bound {
        let n = problem.alternatives.len();
        let words = n.div_ceil(64);
        let least = problem.alternatives.iter();
        let least =
            least.map(|of| of.iter().map(|alternative| alternative.cost).min().unwrap_or(u64::MAX)).collect();
        // The greatest solution of: a class needs itself, and what all of its alternatives need.
        let mut needed = vec![vec![u64::MAX; words]; n];
        let mut is_stable = false;
        while !is_stable {
            is_stable = true;
            for class in 0..n {
                let mut all = vec![u64::MAX; words];
                for alternative in &problem.alternatives[class] {
                    for (word, all) in all.iter_mut().enumerate() {
                        let any =
                            alternative.operands.iter().fold(0, |any, operand| any | needed[*operand][word]);
                        *all &= any;
                    }
                }
                all[class / 64] |= 1 << (class % 64);
                if all != needed[class] {
                    needed[class] = all;
                    is_stable = false;
                }
            }
        }
        Bound { least, needed }
    }

    /// What the open classes will cost at least.
    fn of(&self, choice: &Choice, open: &[usize]) -> u64 {
        let words = self.needed.first().map_or(0, Vec::len);
        let mut sum = 0u64;
        for word in 0..words {
            let mut bits = open.iter().fold(0, |any, class| any | self.needed[*class][word]);
            while bits != 0 {
                let class = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if choice.get(class).is_some_and(Option::is_none) {
                    sum = sum.saturating_add(self.least[class]);
                }
            }
        }
        sum
    }
}

/// A class whose alternatives are tried one after the other.
struct Frame {
    class: usize,
    /// Alternatives that are still to be tried, last one first.
    left: Vec<usize>,
    /// Other classes that need a choice.
    open: Vec<usize>,
    /// What the choices above cost.
    paid: u64,
}

struct Search<'a> {
    problem: &'a Problem,
    bound: Bound,
    best: (u64, Choice),
    n_steps: usize,
}

impl Search<'_> {
    /// Returns whether all was searched. The stack is a list, so that the depth of a graph is no matter.
    fn run(&mut self, max_steps: usize) -> bool {
        let problem = self.problem;
        let mut choice: Choice = vec![None; problem.alternatives.len()];
        let mut stack = Vec::new();
        stack.extend(self.enter(&choice, problem.roots.clone(), 0));
        while let Some(frame) = stack.last_mut() {
            choice[frame.class] = None;
            let Some(idx) = frame.left.pop() else {
                stack.pop();
                continue;
            };
            if self.n_steps == max_steps {
                return false;
            }
            self.n_steps += 1;
            let alternative = &problem.alternatives[frame.class][idx];
            if reaches(problem, &choice, &alternative.operands, frame.class) {
                continue;
            }
            choice[frame.class] = Some(idx);
            let mut open = frame.open.clone();
            for operand in &alternative.operands {
                if choice[*operand].is_none() && !open.contains(operand) {
                    open.push(*operand);
                }
            }
            let paid = frame.paid.saturating_add(alternative.cost);
            stack.extend(self.enter(&choice, open, paid));
        }
        true
    }

    /// The next class to choose for: one with the fewest alternatives. None if nothing is open, or nothing cheaper
    /// than the best can come of it.
    fn enter(&mut self, choice: &Choice, mut open: Vec<usize>, paid: u64) -> Option<Frame> {
        if paid.saturating_add(self.bound.of(choice, &open)) >= self.best.0 {
            return None;
        }
        let alternatives = &self.problem.alternatives;
        let next =
            (0..open.len()).min_by_key(|idx| (alternatives[open[*idx]].len(), usize::MAX - open[*idx]));
        let Some(next) = next else {
            self.best = (paid, choice.clone());
            return None;
        };
        let class = open.swap_remove(next);
        let mut left: Vec<usize> = (0..alternatives[class].len()).collect();
        left.sort_by_key(|idx| std::cmp::Reverse((alternatives[class][*idx].cost, *idx)));
        Some(Frame { class, left, open, paid })
    }
}

/// Whether the chosen nodes lead from one of these classes to `wanted`.
fn reaches(problem: &Problem, choice: &Choice, from: &[usize], wanted: usize) -> bool {
    let mut seen = vec![false; choice.len()];
    let mut waiting = from.to_vec();
    while let Some(class) = waiting.pop() {
        if class == wanted {
            return true;
        }
        if !std::mem::replace(&mut seen[class], true) {
            waiting.extend(problem.chosen(choice, class).into_iter().flat_map(|chosen| &chosen.operands));
        }
    }
    false
}
