//! The verifier of graphs. It collects everything it finds.
//!
//! Checked:
//! - no value depends on itself (`graph::cycle`);
//! - every node has the operands its op takes, and the type that `infer` gives it (`graph::type`, `operand`, `scope`, `arity`, `attribute`);
//! - every set symbol is opened by one node (`graph::set_twice`), and every `c…` in a type by some node (`graph::set_unopened`);
//! - all weights of one name have one shape (`graph::weight_shape`);
//! - all inputs of one name have one type (`graph::input_type`);
//! - each state comes in once and each value of it is used up once (`graph::state_twice`, `state_lost`), after all that look at
//!   it (`state_order`); what goes out under its name is its own last value (`state_name`, `state_type`);
//! - there is a result (`graph::no_output`), and every result is a tensor (`graph::output_kind`).
//!
//! Not checked:
//! - whether a backend can do it: that is [`legalize`](crate::legal::legalize);
//! - whether weights of these names exist, and what is in them: the frontend knows the file;
//! - whether integers are in range (ids, positions): the host checks its inputs before a step;
//! - whether a value is used at all: dead nodes are well-formed.

mod states;

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::attr::{Name, Shape};
use crate::graph::{Graph, Value};
use crate::op::{self, TypeError};
use crate::ops::{Op, Trait};
use crate::port::{Role, RoleText};
use crate::text::{NodeLocation, Numbering};
use crate::ty::{Dim, SetSym, Type};

/// What is known about a verified graph: the receipt of [`verify`], of use for that graph only.
#[derive(Clone, Debug)]
pub struct Facts {
    order: Vec<Value>,
    uses: Vec<u32>,
    sets: BTreeMap<SetSym, OpenSet>,
    sources: Vec<Option<Role>>,
}

/// A token set of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSet {
    /// The route that makes it.
    pub value: Value,
    /// The rows that it selects from.
    pub of: Dim,
}

impl Facts {
    /// All values, operands before users: [`Graph::order`].
    pub fn order(&self) -> &[Value] {
        &self.order
    }

    /// How often the value is an operand or a result; `add %1, %1` uses `%1` twice.
    pub fn n_uses(&self, value: Value) -> usize {
        self.uses[value.index()] as usize
    }

    /// All token sets, by symbol.
    pub fn sets(&self) -> impl Iterator<Item = (SetSym, OpenSet)> {
        self.sets.iter().map(|(sym, set)| (*sym, *set))
    }

    /// The token set of this symbol.
    pub fn set(&self, sym: SetSym) -> Option<OpenSet> {
        self.sets.get(&sym).copied()
    }

    /// For integers: the input that they are, or are rows of.
    pub fn source(&self, value: Value) -> Option<&Role> {
        self.sources[value.index()].as_ref()
    }
}

/// Why a graph is not well-formed: always the fault of who made it (a pass, the frontend, the author of a text).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The value depends on itself.
    #[error("the value depends on itself\n  {place}")]
    Cycle {
        /// One node for each value on a cycle or behind one.
        place: NodeLocation,
    },
    /// The operands do not fit the op.
    #[error("{error}\n  {place}")]
    Operands {
        /// The node.
        place: NodeLocation,
        /// What the type rule says.
        error: TypeError,
    },
    /// The type is not the one that follows from the operands.
    #[error("the value has another type than its operands give it, {inferred}\n  {place}")]
    Type {
        /// The node.
        place: NodeLocation,
        /// What the type rule gives.
        inferred: Type,
    },
    /// Two nodes open one set symbol.
    #[error("the token set {sym} is made twice; give one of the two another symbol\n  {place}\n  {first}")]
    SetTwice {
        /// The symbol.
        sym: SetSym,
        /// The second node.
        place: NodeLocation,
        /// The first.
        first: NodeLocation,
    },
    /// A type names a set that no node opens.
    #[error("no route of the graph makes the token set {sym}\n  {place}")]
    SetUnopened {
        /// The symbol.
        sym: SetSym,
        /// The node whose type it is in.
        place: NodeLocation,
    },
    /// Weights of one name have different shapes.
    #[error("the weight {:?} has the shape {:?} here and {:?} before\n  {place}", name.0, shape.0, before.0)]
    WeightShape {
        /// The weight.
        name: Name,
        /// The node.
        place: NodeLocation,
        /// Its shape.
        shape: Shape,
        /// The shape of an earlier node.
        before: Shape,
    },
    /// Inputs of one name have different types.
    #[error("`{}` has the type {ty} here and {before} before\n  {place}", RoleText(role))]
    InputType {
        /// The input.
        role: Role,
        /// The node.
        place: NodeLocation,
        /// Its type.
        ty: Type,
        /// The type of an earlier node.
        before: Type,
    },
    /// A state comes in twice, or a value of one is used up twice.
    #[error(
        "the state is used up twice; each value of it has one use that updates or returns it\n  {place}\n  {first}"
    )]
    StateTwice {
        /// The value, or the second input.
        place: NodeLocation,
        /// The first use, or the first input.
        first: String,
    },
    /// A value of a state is neither updated nor returned.
    #[error("the state is lost: nothing updates or returns this value of it\n  {place}")]
    StateLost {
        /// The value.
        place: NodeLocation,
    },
    /// A state is returned as something else, or something else as a state.
    #[error("`{}` should be {}\n  {place}", RoleText(role), kind_of(role))]
    StateType {
        /// The result.
        role: Role,
        /// The node.
        place: NodeLocation,
    },
    /// A state is returned under another name than it came in by.
    #[error("`{}` returns {}\n  {place}", RoleText(role), state_or_none(of.as_ref()))]
    StateName {
        /// The result.
        role: Role,
        /// The node.
        place: NodeLocation,
        /// The state that it is.
        of: Option<Role>,
    },
    /// A state is looked at where its value is gone.
    #[error("the state is updated before it is looked at\n  {place}\n  {reader}")]
    StateOrder {
        /// What updates it.
        place: NodeLocation,
        /// What looks at it, and needs the update.
        reader: NodeLocation,
    },
    /// The graph has no result.
    #[error("the graph returns nothing; end it with `return logits = %…`")]
    NoOutput,
    /// A result is not a tensor.
    #[error("`{}` is a token set; return `executed` of it\n  {place}", RoleText(role))]
    OutputKind {
        /// The result.
        role: Role,
        /// The node.
        place: NodeLocation,
    },
}

impl VerifyError {
    /// The word in `error[…]`.
    pub fn code(&self) -> &'static str {
        match self {
            VerifyError::Cycle { .. } => "graph::cycle",
            VerifyError::Operands { error, .. } => error.code(),
            VerifyError::Type { .. } => "graph::type",
            VerifyError::SetTwice { .. } => "graph::set_twice",
            VerifyError::SetUnopened { .. } => "graph::set_unopened",
            VerifyError::WeightShape { .. } => "graph::weight_shape",
            VerifyError::InputType { .. } => "graph::input_type",
            VerifyError::StateTwice { .. } => "graph::state_twice",
            VerifyError::StateLost { .. } => "graph::state_lost",
            VerifyError::StateType { .. } => "graph::state_type",
            VerifyError::StateName { .. } => "graph::state_name",
            VerifyError::StateOrder { .. } => "graph::state_order",
            VerifyError::NoOutput => "graph::no_output",
            VerifyError::OutputKind { .. } => "graph::output_kind",
        }
    }
}

fn kind_of(role: &Role) -> &'static str {
    match role.state_name() {
        Some(_) => "a state",
        None => "a tensor, not a state",
    }
}

fn state_or_none(role: Option<&Role>) -> String {
    role.map_or("no state".to_owned(), |role| format!("`{}`", RoleText(role)))
}

/// Checks the graph; see the module for what.
///
/// # Errors
/// All that is wrong with it, in the order of the checks and of the text form; the first 100.
pub fn verify(graph: &Graph) -> Result<Facts, Vec<VerifyError>> {
    let mut ctx = Ctx { graph, numbering: Numbering::new(graph), errors: Findings(Vec::new()) };
    let order = ctx.order();
    let sets = ctx.sets();
    ctx.nodes(&sets);
    ctx.weights();
    ctx.inputs();
    ctx.states();
    ctx.results();
    if !ctx.errors.0.is_empty() {
        return Err(ctx.errors.0);
    }
    let (uses, sources) = (count_uses(graph), find_sources(graph, &order));
    Ok(Facts { order, uses, sets, sources })
}

struct Ctx<'a> {
    graph: &'a Graph,
    numbering: Numbering,
    errors: Findings<VerifyError>,
}

/// Errors, up to a number that is printed; a hostile graph could have one for each of a million nodes.
pub(crate) struct Findings<E>(pub(crate) Vec<E>);

impl<E> Findings<E> {
    /// Errors that are kept.
    const MAX: usize = 100;

    pub(crate) fn push(&mut self, error: E) {
        if self.0.len() < Self::MAX {
            self.0.push(error);
        }
    }
}

impl Ctx<'_> {
    fn place(&self, value: Value) -> NodeLocation {
        self.numbering.place(self.graph, value)
    }

    fn order(&mut self) -> Vec<Value> {
        let order = self.graph.order();
        for value in &self.numbering.values()[order.len()..] {
            self.errors.push(VerifyError::Cycle { place: self.place(*value) });
        }
        order
    }

    fn sets(&mut self) -> BTreeMap<SetSym, OpenSet> {
        let mut sets: BTreeMap<SetSym, OpenSet> = BTreeMap::new();
        for value in self.numbering.values() {
            let (Some(sym), Some((_, of))) = (self.graph.op(*value).opens(), self.graph.ty(*value).as_rows())
            else {
                continue;
            };
            if let Some(first) = sets.get(&sym) {
                let (place, first) = (self.place(*value), self.place(first.value));
                self.errors.push(VerifyError::SetTwice { sym, place, first });
            } else {
                sets.insert(sym, OpenSet { value: *value, of });
            }
        }
        sets
    }

    fn nodes(&mut self, sets: &BTreeMap<SetSym, OpenSet>) {
        let graph = self.graph;
        for value in self.numbering.values() {
            let operands = graph.operands(*value);
            let types: SmallVec<[&Type; 8]> = operands.iter().map(|operand| graph.ty(*operand)).collect();
            match op::infer(graph.op(*value), &types) {
                Err(error) => self.errors.push(VerifyError::Operands { place: self.place(*value), error }),
                Ok(inferred) if inferred != *graph.ty(*value) => {
                    self.errors.push(VerifyError::Type { place: self.place(*value), inferred });
                }
                Ok(_) => {}
            }
            for dim in dims(graph.ty(*value)) {
                if let Dim::Count(sym) = dim
                    && !sets.contains_key(&sym)
                {
                    self.errors.push(VerifyError::SetUnopened { sym, place: self.place(*value) });
                }
            }
        }
    }

    fn weights(&mut self) {
        let mut shapes: BTreeMap<&Name, &Shape> = BTreeMap::new();
        for value in self.numbering.values() {
            let (Op::Weight { name, shape } | Op::WeightStack { name, shape, .. }) = self.graph.op(*value)
            else {
                continue;
            };
            let before = *shapes.entry(name).or_insert(shape);
            if before != shape {
                self.errors.push(VerifyError::WeightShape {
                    name: name.clone(),
                    place: self.place(*value),
                    shape: shape.clone(),
                    before: before.clone(),
                });
            }
        }
    }

    fn inputs(&mut self) {
        let mut types: BTreeMap<&Role, &Type> = BTreeMap::new();
        for value in self.numbering.values() {
            let Op::Input { port } = self.graph.op(*value) else { continue };
            let before = *types.entry(&port.role).or_insert(&port.ty);
            if *before != port.ty {
                self.errors.push(VerifyError::InputType {
                    role: port.role.clone(),
                    place: self.place(*value),
                    ty: port.ty.clone(),
                    before: before.clone(),
                });
            }
        }
    }

    fn results(&mut self) {
        if self.graph.n_results() == 0 {
            self.errors.push(VerifyError::NoOutput);
        }
        for (role, value) in self.graph.results() {
            if self.graph.ty(value).as_rows().is_some() {
                let place = self.place(value);
                self.errors.push(VerifyError::OutputKind { role: role.clone(), place });
            }
        }
    }
}

fn dims(ty: &Type) -> SmallVec<[Dim; 2]> {
    match ty {
        Type::Tensor { dims, .. } | Type::State { dims, .. } => dims.clone(),
        Type::Set { sym, of } | Type::Partition { sym, of, .. } => {
            SmallVec::from_slice(&[Dim::Count(*sym), *of])
        }
    }
}

fn count_uses(graph: &Graph) -> Vec<u32> {
    let mut uses = vec![0; graph.bound()];
    let operands = graph.values().flat_map(|value| graph.operands(value));
    for value in operands.chain(graph.results().map(|(_, value)| value)) {
        uses[value.index()] += 1;
    }
    uses
}

fn find_sources(graph: &Graph, order: &[Value]) -> Vec<Option<Role>> {
    let mut sources = vec![None; graph.bound()];
    for value in order {
        let op = graph.op(*value);
        sources[value.index()] = if let Op::Input { port } = op {
            Some(port.role.clone())
        } else if op.has(Trait::Copies) {
            let operands = graph.operands(*value);
            let mut copied = operands.iter().filter(|operand| graph.ty(**operand).as_rows().is_none());
            let source = copied.next().and_then(|operand| sources[operand.index()].clone());
            source.filter(|source| copied.all(|operand| sources[operand.index()].as_ref() == Some(source)))
        } else if matches!(op, Op::StoreRows {}) {
            // What earlier steps left in a cache is of the kind that this one stores.
            graph.operands(*value).get(1).and_then(|rows| sources[rows.index()].clone())
        } else {
            None
        };
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::Unary;
    use crate::text::parse;

    const SETS: &str = r#"graph "g" {
  %0 = input {port=tokens}
  %1 = weight {name="t", shape=[9, 1]}
  %2 = embed %1, %0
  %3 = weight {name="rw", shape=[1, 1]}
  %4 = router_logits %2, %3
  %5 = route %4 {set=c0, at_least=0.0}
  %6 = gather %2, %5
  %7 = relu %6 @"blocks.0"
  %8 = scatter %2, %7, %5
  return result "out" = %8, result "also" = %8
}"#;

    fn graph() -> (Graph, Vec<Value>) {
        let graph = parse(SETS).expect("a right text");
        let values = graph.order();
        (graph, values)
    }

    fn codes(graph: &Graph) -> Vec<&'static str> {
        verify(graph).expect_err("a wrong graph").iter().map(VerifyError::code).collect()
    }

    #[test]
    fn facts_are_about_the_graph() {
        let (graph, values) = graph();
        let facts = verify(&graph).expect("a right graph");
        assert_eq!(facts.order(), values);
        let uses: Vec<usize> = values.iter().map(|value| facts.n_uses(*value)).collect();
        assert_eq!(uses, [1, 1, 3, 1, 1, 2, 1, 1, 2]);
        assert_eq!(facts.set(SetSym(0)), Some(OpenSet { value: values[5], of: Dim::Tokens }));
        assert_eq!(facts.sets().count(), 1);
        assert_eq!(facts.source(values[0]), Some(&Role::Tokens));
        assert_eq!(facts.source(values[2]), None);
    }

    #[test]
    fn a_cycle_is_found_with_all_behind_it() {
        let (mut graph, values) = graph();
        // `relu` of itself: the use of the gathered rows is now a use of what is made of them.
        graph.replace(values[6], values[7]).expect("one type");
        let errors = verify(&graph).expect_err("a cycle");
        let shown: Vec<String> = errors.iter().map(VerifyError::to_string).collect();
        assert_eq!(
            shown,
            [
                "the value depends on itself\n  %7 = relu %7 : real[c0, 1]  (blocks.0)",
                "the value depends on itself\n  %8 = scatter %2, %7, %5 : real[n, 1]"
            ]
        );
        assert_eq!(codes(&graph), ["graph::cycle"; 2]);
    }

    #[test]
    fn types_are_inferred_again() {
        let (mut graph, values) = graph();
        *graph.damage(values[2]).1 = Type::tensor(crate::Elem::F32, &[Dim::Tokens, Dim::Fixed(1)]);
        // The embedding itself; and `scatter`, whose base and rows now differ.
        assert_eq!(codes(&graph), ["graph::type", "graph::type", "graph::operand"]);
        let (mut graph, values) = self::graph();
        *graph.damage(values[1]).0 = Op::Unary(Unary::Relu);
        assert_eq!(codes(&graph), ["graph::arity"]);
    }

    #[test]
    fn a_set_that_nobody_opens_is_found() {
        let (mut graph, values) = graph();
        let (op, ty) = graph.damage(values[5]);
        op.rename_sets(&BTreeMap::from([(SetSym(0), SetSym(4))]));
        ty.rename_sets(&BTreeMap::from([(SetSym(0), SetSym(4))]));
        let found = codes(&graph);
        assert!(found.contains(&"graph::set_unopened"), "{found:?}");
        assert!(found.contains(&"graph::type"), "{found:?}");
    }

    #[test]
    fn renaming_sets_keeps_a_graph_right() {
        let (mut graph, values) = graph();
        graph.rename_sets(&BTreeMap::from([(SetSym(0), SetSym(4))]));
        let facts = verify(&graph).expect("a right graph");
        assert_eq!(facts.set(SetSym(4)).map(|set| set.value), Some(values[5]));
        assert_eq!(graph.fresh_set(), SetSym(0));
        graph.rename_sets(&BTreeMap::from([(SetSym(4), SetSym(0))]));
        assert_eq!(graph.fresh_set(), SetSym(1));
    }
}
