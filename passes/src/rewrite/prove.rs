//! Every rewritten region is compared with its source where nothing rounds, before it is used.
//!
//! Both are made graphs of their own, with stand-ins for what they take from outside, and evaluated over GF(2⁶¹ − 1) on
//! five tokens with forced decisions. Widths are divided by what they all have in common, so that the check of a large
//! layer costs what that of a small one does; what does not divide is checked as it is.

use std::collections::BTreeMap;

use skipc_ir::attr::Shape;
use skipc_ir::interp::{self, Batch, Env, Gf61, Number, Routing, Weights};
use skipc_ir::{Dim, Elem, Graph, Name, Op, Origin, SetSym, Type, TypeError, Value, random_score};
use smallvec::SmallVec;

use super::language::Head;

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Equal, on this input.
    Equal,
    /// Different: the rewriting is wrong.
    Different,
    /// There is no stand-in for what the region takes from outside, or it cannot be evaluated.
    Unknown,
}

/// Nodes with their operands, and those whose values are compared.
#[derive(Clone, Copy)]
pub(crate) struct Form<'a> {
    pub(crate) nodes: &'a [(Head, SmallVec<[usize; 4]>)],
    pub(crate) roots: &'a [usize],
}

/// Compares two forms whose roots correspond.
pub(crate) fn compare(a: Form<'_>, b: Form<'_>) -> Verdict {
    let whole = Widths { unit: 0 };
    let small = common_unit(a, whole).map(|unit| Widths { unit });
    let verdict = small.map_or(Verdict::Unknown, |widths| compare_at(a, b, widths));
    match verdict {
        Verdict::Equal => Verdict::Equal,
        // Remainders that add up to another whole unit would make a difference that is none.
        _ => compare_at(a, b, whole),
    }
}

fn compare_at(a: Form<'_>, b: Form<'_>, widths: Widths) -> Verdict {
    let run = |form| graph(form, widths).and_then(|graph| outputs::<Gf61>(&graph, 0));
    match (run(a), run(b)) {
        (Some(a), Some(b)) if a == b => Verdict::Equal,
        (Some(_), Some(_)) => Verdict::Different,
        _ => Verdict::Unknown,
    }
}

/// How sizes are made smaller: a size is so many units and a remainder, and becomes the sum of both.
#[derive(Clone, Copy)]
struct Widths {
    /// 0 leaves sizes alone.
    unit: u32,
}

impl Widths {
    fn of(self, size: u32) -> u32 {
        size.checked_div(self.unit).map_or(size, |units| units + size % self.unit)
    }

    fn ty(self, ty: &Type) -> Type {
        match ty {
            Type::Tensor { elem, dims } => {
                let dims: Vec<Dim> = dims.iter().map(|dim| self.dim(*dim)).collect();
                Type::tensor(*elem, &dims)
            }
            Type::Set { .. } => ty.clone(),
        }
    }

    fn dim(self, dim: Dim) -> Dim {
        match dim {
            Dim::Fixed(size) => Dim::Fixed(self.of(size)),
            _ => dim,
        }
    }

    fn op(self, op: &Op) -> Op {
        match op {
            Op::Weight { name, shape } => {
                let shape = Shape(shape.0.iter().map(|size| self.of(*size)).collect());
                Op::Weight { name: name.clone(), shape }
            }
            Op::Slice { start, len } => Op::Slice { start: self.of(*start), len: self.of(*len) },
            Op::WeightRows { start, len } => Op::WeightRows { start: self.of(*start), len: self.of(*len) },
            // Their attributes are no widths: heads and groups are counts.
            Op::Input { .. }
            | Op::FoldGain {}
            | Op::FoldBias {}
            | Op::CentreRows {}
            | Op::Embed {}
            | Op::Matmul {}
            | Op::RouterLogits {}
            | Op::AddBias {}
            | Op::RmsNorm { .. }
            | Op::InvRms { .. }
            | Op::InvStd { .. }
            | Op::LayerNorm { .. }
            | Op::Rope { .. }
            | Op::Attention { .. }
            | Op::Unary(_)
            | Op::Binary(_)
            | Op::ScaleRows {}
            | Op::Route { .. }
            | Op::RouteRandom { .. }
            | Op::RouteTopK { .. }
            | Op::LimitFirst { .. }
            | Op::LimitBest { .. }
            | Op::Gather {}
            | Op::Scatter {}
            | Op::Executed {}
            | Op::FillMask { .. } => op.clone(),
        }
    }
}

/// Sizes that count routers' columns and the like: never divided.
const SMALL: u32 = 8;

/// What all widths of a form are multiples of, halves of heads included; `None` if there is nothing to gain.
fn common_unit(form: Form<'_>, whole: Widths) -> Option<u32> {
    let graph = graph(form, whole)?;
    let mut unit = 0;
    let divide = |unit: &mut u32, size: u32| {
        if size > SMALL {
            *unit = gcd(*unit, size);
        }
    };
    for value in graph.values() {
        let ty = graph.ty(value);
        if let Some((_, dims)) = ty.as_tensor() {
            dims.iter().for_each(|dim| {
                if let Dim::Fixed(size) = dim {
                    divide(&mut unit, *size)
                }
            });
        }
        let op = graph.op(value);
        if let Op::Slice { start, len } | Op::WeightRows { start, len } = op {
            [*start, *len].into_iter().for_each(|size| divide(&mut unit, size));
        }
        // However small: a head that is divided further has no halves.
        if let Op::Rope { heads, .. } = op {
            unit = gcd(unit, ty.cols() / heads / 2);
        }
        if let Op::Attention { heads, .. } = op {
            unit = gcd(unit, ty.cols() / heads);
        }
    }
    (unit > 1).then_some(unit)
}

fn gcd(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// A graph of the form, its roots as outputs; `None` if it does not type or has no stand-in.
fn graph(form: Form<'_>, widths: Widths) -> Option<Graph> {
    let mut ctx = Ctx { graph: Graph::new("region"), origin: "".into(), sets: BTreeMap::new(), n_weights: 0 };
    ctx.declare_sets(form);
    let mut values: Vec<Value> = Vec::with_capacity(form.nodes.len());
    for (head, operands) in form.nodes {
        let value = match head {
            Head::Op(op) => {
                let operands: Vec<Value> = operands.iter().map(|operand| values[*operand]).collect();
                ctx.add(widths.op(op), &operands).ok()?
            }
            Head::Outside { idx, ty } => ctx.stand_in(*idx, &widths.ty(ty))?,
        };
        if let Some(set) = ctx.graph.op(value).opens() {
            ctx.sets.insert(set, Set::Made(value));
        }
        values.push(value);
    }
    for (idx, root) in form.roots.iter().enumerate() {
        let value = values[*root];
        let shown = match ctx.graph.ty(value) {
            Type::Set { .. } => ctx.add(Op::Executed {}, &[value]).ok()?,
            Type::Tensor { .. } => value,
        };
        ctx.graph.set_output(format!("root.{idx}"), shown);
    }
    Some(ctx.graph)
}

/// A set that stand-ins may need.
#[derive(Clone, Copy)]
enum Set {
    /// Of the rows of this dimension; comes from outside and is not made yet.
    Wanted(Dim),
    Made(Value),
}

struct Ctx {
    graph: Graph,
    origin: Origin,
    sets: BTreeMap<SetSym, Set>,
    n_weights: usize,
}

impl Ctx {
    fn add(&mut self, op: Op, operands: &[Value]) -> Result<Value, TypeError> {
        self.graph.add(op, operands, &self.origin)
    }

    /// Sets that come from outside, or that only types speak of.
    fn declare_sets(&mut self, form: Form<'_>) {
        for (head, _) in form.nodes {
            let Head::Outside { ty, .. } = head else { continue };
            match ty {
                Type::Set { sym, of } => {
                    self.sets.insert(*sym, Set::Wanted(*of));
                }
                Type::Tensor { .. } => {
                    if let Dim::Count(sym) = ty.rows() {
                        self.sets.entry(sym).or_insert(Set::Wanted(Dim::Tokens));
                    }
                }
            }
        }
    }

    fn weight(&mut self, rows: u32, cols: u32) -> Option<Value> {
        self.n_weights += 1;
        let name = Name::from(format!("outside.{}", self.n_weights).as_str());
        self.add(Op::Weight { name, shape: Shape(vec![rows, cols]) }, &[]).ok()
    }

    fn input(&mut self, source: skipc_ir::attr::Source) -> Option<Value> {
        self.add(Op::Input { source }, &[]).ok()
    }

    /// A value of this type that is computed from weights and tokens of its own.
    fn stand_in(&mut self, idx: u32, ty: &Type) -> Option<Value> {
        match ty {
            Type::Set { sym, .. } => self.set(*sym),
            Type::Tensor { elem, dims } => {
                let all = self.all_rows(idx, *elem, ty.cols())?;
                self.gathered(all, *dims.first()?)
            }
        }
    }

    /// All tokens' rows.
    fn all_rows(&mut self, idx: u32, elem: Elem, cols: u32) -> Option<Value> {
        use skipc_ir::attr::Source;
        match elem {
            Elem::Int => self.input(Source::Positions),
            Elem::Real | Elem::F32 => {
                // One table a stand-in, the same in both forms.
                self.n_weights = 2 * idx as usize;
                let table = self.weight(N_IDS, cols)?;
                let tokens = self.input(Source::Tokens)?;
                let x = self.add(Op::Embed {}, &[table, tokens]).ok()?;
                if elem == Elem::Real {
                    return Some(x);
                }
                let weight = self.weight(cols, cols)?;
                self.add(Op::RouterLogits {}, &[x, weight]).ok()
            }
            Elem::Mask => None,
        }
    }

    /// The rows of `x` that are of this dimension, through the sets that lead to it, outermost first.
    fn gathered(&mut self, x: Value, rows: Dim) -> Option<Value> {
        let (mut path, mut rows) = (Vec::new(), rows);
        while let Dim::Count(sym) = rows {
            let set = self.set(sym)?;
            path.push(set);
            let Type::Set { of, .. } = self.graph.ty(set) else { return None };
            rows = *of;
        }
        let mut x = x;
        while let Some(set) = path.pop() {
            x = self.add(Op::Gather {}, &[x, set]).ok()?;
        }
        Some(x)
    }

    /// The set of this symbol, made with those that it selects from.
    fn set(&mut self, sym: SetSym) -> Option<Value> {
        let (mut missing, mut next) = (Vec::new(), sym);
        while let Set::Wanted(of) = *self.sets.get(&next)? {
            missing.push((next, of));
            match of {
                Dim::Count(outer) if missing.len() <= self.sets.len() => next = outer,
                _ => break,
            }
        }
        while let Some((sym, of)) = missing.pop() {
            let all = self.all_rows(FIRST_SET_STAND_IN + sym.0, Elem::F32, 1)?;
            let scores = match of {
                Dim::Count(outer) => match *self.sets.get(&outer)? {
                    Set::Made(outer) => self.add(Op::Gather {}, &[all, outer]).ok()?,
                    Set::Wanted(_) => return None,
                },
                _ => all,
            };
            let made = self.add(Op::Route { set: sym, at_least: 0.0.into() }, &[scores]).ok()?;
            self.sets.insert(sym, Set::Made(made));
        }
        match *self.sets.get(&sym)? {
            Set::Made(value) => Some(value),
            Set::Wanted(_) => None,
        }
    }
}

/// Where the numbers of stand-ins for scores begin, far from those for values.
const FIRST_SET_STAND_IN: u32 = 1 << 20;

/// Ids that the tokens of a check have: few enough for the smallest vocabulary.
const N_IDS: u32 = 2;

/// A form as a graph of its own, to be evaluated on many inputs.
#[cfg(test)]
pub(crate) struct Standalone(Graph);

#[cfg(test)]
impl Standalone {
    pub(crate) fn new(form: Form<'_>) -> Option<Standalone> {
        graph(form, Widths { unit: 0 }).map(Standalone)
    }

    /// The values of the roots on an input that depends on the seed.
    pub(crate) fn values<N: Number>(&self, seed: u64) -> Option<interp::Outputs<N>> {
        outputs(&self.0, seed)
    }
}

/// Weights from their name and place.
struct Noise {
    sizes: BTreeMap<String, usize>,
    seed: u64,
}

impl<N: Number> Weights<N> for Noise {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        let seed = name.bytes().fold(self.seed, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let number = |idx: usize| {
            // Not an integer, so that an exact domain draws from all of its elements.
            let bits = random_score(seed, 0, 0, idx as u64);
            N::from_f64(bits as f64 / f64::from(u32::MAX) - 0.3)
        };
        self.sizes.get(name).map(|len| (0..*len).map(number).collect())
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

fn outputs<N: Number>(graph: &Graph, seed: u64) -> Option<interp::Outputs<N>> {
    let sizes = graph.values().filter_map(|value| {
        let Op::Weight { name, shape } = graph.op(value) else { return None };
        Some((name.0.to_string(), shape.0.iter().map(|size| *size as usize).product()))
    });
    let weights = Noise { sizes: sizes.collect(), seed };
    let batch = Batch::from_sequences([&[0, 1, 1][..], &[1, 0][..]]);
    interp::run(graph, &Env { batch: &batch, weights: &weights, routing: &TwoOfThree { seed } }).ok()
}
