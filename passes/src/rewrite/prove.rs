//! Every rewritten region is compared with its source where nothing rounds, before it is used.
//!
//! Both are made graphs of their own, with inputs for what they take from outside, and evaluated over GF(2⁶¹ − 1) on
//! five tokens with forced decisions. Widths are made smaller ([`super::widths`]), so that the check of a large layer costs
//! what that of a small one does; what cannot be made smaller is checked as it is, up to a limit.

use std::collections::BTreeMap;

use skipc_ir::attr::Shape;
use skipc_ir::interp::{self, Datum, Env, FlatBatch, Gf61, Number, Routing, Weights};
use skipc_ir::port::RoleText;
use skipc_ir::{
    Dim, Domain, Elem, Graph, Op, Origin, Port, Role, SetSym, Type, Value, random_score, stacked_name,
};
use smallvec::SmallVec;

use super::language::Head;
use super::widths::Widths;

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Equal, on this input.
    Equal,
    /// Different: the rewriting is wrong.
    Different,
    /// The region cannot be evaluated.
    Unknown,
}

/// Nodes with their operands, and those whose values are compared.
#[derive(Clone, Copy)]
pub(crate) struct Dag<'a> {
    pub(crate) nodes: &'a [(Head, SmallVec<[usize; 4]>)],
    pub(crate) roots: &'a [usize],
}

/// Numbers in weights of a form at most that is checked: a gigabyte of them in both forms, in the exact domain.
const MOST_NUMBERS: u64 = 1 << 26;

/// Compares two forms whose roots correspond.
pub(crate) fn compare(a: Dag<'_>, b: Dag<'_>) -> Verdict {
    let whole = Widths::default();
    let small = match (graph(a, &whole), graph(b, &whole)) {
        (Some(a), Some(b)) => Widths::of_graphs([&a, &b]),
        _ => return Verdict::Unknown,
    };
    let verdict = small.map_or(Verdict::Unknown, |widths| compare_at(a, b, &widths));
    match verdict {
        Verdict::Equal => Verdict::Equal,
        // Widths that become others may tie what was not tied; only those of the model show a difference.
        _ => compare_at(a, b, &whole),
    }
}

fn compare_at(a: Dag<'_>, b: Dag<'_>, widths: &Widths) -> Verdict {
    let run = |form| {
        let graph = graph(form, widths).filter(|graph| numbers_of(graph) <= MOST_NUMBERS)?;
        outputs::<Gf61>(&graph, 0)
    };
    match (run(a), run(b)) {
        (Some(a), Some(b)) if a == b => Verdict::Equal,
        (Some(_), Some(_)) => Verdict::Different,
        _ => Verdict::Unknown,
    }
}

/// How many numbers the weights of a graph have.
fn numbers_of(graph: &Graph) -> u64 {
    let product = |shape: &Shape| shape.0.iter().map(|size| u64::from(*size)).product::<u64>();
    let of = |value: Value| {
        if let Op::WeightStack { count, shape, .. } = graph.op(value) {
            return u64::from(*count) * product(shape);
        }
        if let Op::Weight { shape, .. } = graph.op(value) { product(shape) } else { 0 }
    };
    graph.values().map(of).fold(0, u64::saturating_add)
}

/// A graph of the form: what it takes from outside are inputs, its roots are results. `None` if it does not type.
fn graph(form: Dag<'_>, widths: &Widths) -> Option<Graph> {
    let (mut graph, origin) = (Graph::new("region"), Origin::default());
    let mut values: Vec<Value> = Vec::with_capacity(form.nodes.len());
    for (head, operands) in form.nodes {
        let operands: Vec<Value> = operands.iter().map(|operand| values[*operand]).collect();
        let op = match head {
            Head::Op(op) => widths.op(op),
            Head::Outside { idx, ty } => {
                Op::Input { port: Port::input(&format!("outside.{idx}"), widths.ty(ty)) }
            }
        };
        values.push(graph.add(op, &operands, &origin).ok()?);
    }
    for (idx, root) in form.roots.iter().enumerate() {
        let value = values[*root];
        let shown = match graph.ty(value) {
            Type::Set { .. } => graph.add(Op::Executed {}, &[value], &origin).ok()?,
            Type::Tensor { .. } | Type::Partition { .. } | Type::State { .. } => value,
        };
        graph.set_result(Role::Result { name: format!("root.{idx}") }, shown);
    }
    Some(graph)
}

/// A form as a graph of its own, to be evaluated on many inputs.
#[cfg(test)]
pub(crate) struct Standalone(Graph);

#[cfg(test)]
impl Standalone {
    pub(crate) fn new(form: Dag<'_>) -> Option<Standalone> {
        graph(form, &Widths::default()).map(Standalone)
    }

    /// The graph, to be evaluated on other inputs.
    pub(crate) fn graph(&self) -> &Graph {
        &self.0
    }

    /// The values of the roots on an input that depends on the seed.
    pub(crate) fn values<N: Domain>(&self, seed: u64) -> Option<interp::Results<N>> {
        outputs(&self.0, seed)
    }
}

/// Weights and inputs from their name and place.
struct Noise {
    sizes: BTreeMap<String, usize>,
    seed: u64,
}

impl Noise {
    fn of_graph(graph: &Graph, seed: u64) -> Noise {
        let sizes = graph.values().filter_map(|value| {
            let (Op::Weight { name, shape } | Op::WeightStack { name, shape, .. }) = graph.op(value) else {
                return None;
            };
            let count = if let Op::WeightStack { count, .. } = graph.op(value) { *count } else { 1 };
            let size = shape.0.iter().map(|size| *size as usize).product();
            Some((0..count).map(move |number| (stacked_name(&name.0, number), size)))
        });
        Noise { sizes: sizes.flatten().collect(), seed }
    }

    fn numbers<N: Number>(&self, name: &str, len: usize) -> Vec<N> {
        let seed = name.bytes().fold(self.seed, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let number = |idx: usize| {
            // Not an integer, so that an exact domain draws from all of its elements.
            let bits = random_score(seed, 0, 0, idx as u64);
            N::from_f64(bits as f64 / f64::from(u32::MAX) - 0.3)
        };
        (0..len).map(number).collect()
    }
}

impl<N: Number> Weights<N> for Noise {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        self.sizes.get(name).map(|len| self.numbers(name, *len))
    }
}

/// Two of three rows of every set execute; which ones depends on the set and the seed.
struct TwoOfThree {
    seed: u64,
}

impl Routing for TwoOfThree {
    fn forced(&self, set: SetSym, n_rows: usize) -> Option<Vec<bool>> {
        let first = (u64::from(set.0) + self.seed % 3) as usize;
        Some((0..n_rows).map(|row| !(row + first).is_multiple_of(3)).collect())
    }
}

/// What the inputs of a region are made of.
struct Outside<'a> {
    batch: &'a FlatBatch,
    routing: &'a TwoOfThree,
    noise: &'a Noise,
    /// What each set of the graph selects from; one that only types speak of selects from all tokens.
    sets: BTreeMap<SetSym, Dim>,
    /// The set whose rows each complement leaves out: what follows from another set nobody forces.
    complements: BTreeMap<SetSym, SetSym>,
}

impl Outside<'_> {
    /// The rows of the batch that have this dimension. `depth` sets may lie one in the other.
    fn rows(&self, dim: Dim, depth: usize) -> Option<Vec<usize>> {
        match dim {
            Dim::Fixed(size) => Some((0..size as usize).collect()),
            Dim::Tokens => Some((0..self.batch.len()).collect()),
            // Regions have no states, but rows that were gathered from one: it has as many as there are tokens.
            Dim::Cached => Some((0..self.batch.len()).collect()),
            Dim::Count(set) => {
                let of = self.sets.get(&set).copied().unwrap_or(Dim::Tokens);
                let rows = self.rows(of, depth.checked_sub(1)?)?;
                let left_out = self.complements.get(&set).copied();
                let mask = self.routing.forced(left_out.unwrap_or(set), rows.len())?;
                let selected =
                    rows.into_iter().zip(mask).filter(|(_, executes)| *executes == left_out.is_none());
                Some(selected.map(|(row, _)| row).collect())
            }
        }
    }

    fn datum<N: Number>(&self, name: &str, ty: &Type) -> Option<Datum<N>> {
        let rows = |dim| self.rows(dim, self.sets.len() + 1);
        match ty {
            Type::Partition { sym, of, parts } => {
                let mask = self.routing.forced(*sym, rows(*of)?.len())?;
                Some(Datum::partition_of(&mask, *parts as usize))
            }
            Type::Set { sym, of } => {
                let of = rows(*of)?.len();
                let mask = self.routing.forced(*sym, of)?;
                Some(Datum::Set { rows: (0..of).filter(|row| mask[*row]).collect(), of })
            }
            // Regions have no states.
            Type::State { .. } => None,
            Type::Tensor { elem, .. } => {
                let (rows, cols) = (rows(ty.rows())?, ty.cols() as usize);
                match elem {
                    Elem::Real | Elem::F32 => {
                        Some(Datum::Real { cols, data: self.noise.numbers(name, rows.len() * cols) })
                    }
                    Elem::Int => {
                        let ints = rows.iter().map(|row| self.batch.positions[*row]);
                        Some(Datum::Ints(ints.flat_map(|int| std::iter::repeat_n(int, cols)).collect()))
                    }
                    Elem::Mask => Some(Datum::Mask(rows.iter().map(|row| !row.is_multiple_of(3)).collect())),
                }
            }
        }
    }
}

/// Whether what an input has is the batch's, or, of choices that are not replayed, what the interpreter has without it.
fn is_known(role: &Role) -> bool {
    matches!(role, Role::Tokens | Role::Positions | Role::Sequences | Role::Rows | Role::ForcedChoices { .. })
}

fn outputs<N: Domain>(graph: &Graph, seed: u64) -> Option<interp::Results<N>> {
    let (noise, routing) = (Noise::of_graph(graph, seed), TwoOfThree { seed });
    let batch = FlatBatch::from_sequences([&[0, 1, 1][..], &[1, 0][..]]);
    let sets = graph.values().filter_map(|value| graph.ty(value).as_rows());
    let complements = graph.values().filter_map(|value| {
        let Op::Complement { set } = graph.op(value) else { return None };
        Some((*set, graph.ty(*graph.operands(value).first()?).as_rows()?.0))
    });
    let (sets, complements) = (sets.collect(), complements.collect());
    let outside = Outside { batch: &batch, routing: &routing, noise: &noise, sets, complements };
    let (mut tensors, mut rows) = (BTreeMap::new(), Vec::new());
    for port in graph.signature().inputs {
        if port.role == Role::Rows {
            rows = noise.numbers("rows", batch.len() * port.ty.cols() as usize);
        }
        if !is_known(&port.role) {
            let name = RoleText(&port.role).to_string();
            tensors.insert(port.role.clone(), outside.datum(&name, &port.ty)?);
        }
    }
    let batch = FlatBatch { rows, ..batch.clone() };
    skipc_ir::run(graph, &Env { batch: &batch, tensors, weights: &noise, routing: &routing }).ok()
}
