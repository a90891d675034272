//! Smaller widths for the check of a rewriting: what holds for them holds for those of the model.
//!
//! Widths that an op ties together, as a slice does its operand's and its own, are one group; each group is divided by what its
//! own widths have in common, so that a model of 4096 columns and hidden layers of 10923 is as small as one of 11008. Groups
//! stay apart: no width of one becomes that of another.

use std::collections::{BTreeMap, BTreeSet};

use skipc_ir::attr::Shape;
use skipc_ir::{Dim, Graph, Op, Type};

/// What each width becomes; others stay as they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Widths {
    smaller: BTreeMap<u32, u32>,
}

/// Sizes that count routers' columns and the like: never divided.
const SMALL: u32 = 8;

/// What a width is at least: few columns hide what mixes them up, and ids of the check's tokens are below it.
const LEAST: u32 = 5;

impl Widths {
    /// As small as the forms allow, which both of these have; `None` if there is nothing to gain.
    pub(super) fn of_graphs(graphs: [&Graph; 2]) -> Option<Widths> {
        let mut ties = Ties::default();
        graphs.into_iter().for_each(|graph| ties.add(graph));
        let mut smaller = BTreeMap::new();
        let mut taken: BTreeSet<u32> = ties.counts.clone();
        for group in ties.groups() {
            let unit = group.unit.max(1);
            let sizes = |factor: u32| group.sizes.iter().map(move |size| (*size, size / unit * factor));
            // With the unit as the factor all is as it was.
            let is_free =
                |factor: &u32| sizes(*factor).all(|(_, small)| small >= LEAST && !taken.contains(&small));
            let factor = (1..unit).find(is_free).unwrap_or(unit);
            smaller.extend(sizes(factor));
            taken.extend(sizes(factor).map(|(_, small)| small));
        }
        smaller.iter().any(|(size, small)| small < size).then_some(Widths { smaller })
    }

    fn of(&self, size: u32) -> u32 {
        self.smaller.get(&size).copied().unwrap_or(size)
    }

    pub(super) fn ty(&self, ty: &Type) -> Type {
        match ty {
            Type::Tensor { elem, dims } => {
                let dims: Vec<Dim> = dims.iter().map(|dim| self.dim(*dim)).collect();
                Type::tensor(*elem, &dims)
            }
            Type::Set { .. } | Type::Partition { .. } | Type::State { .. } => ty.clone(),
        }
    }

    fn dim(&self, dim: Dim) -> Dim {
        match dim {
            Dim::Fixed(size) => Dim::Fixed(self.of(size)),
            _ => dim,
        }
    }

    pub(super) fn op(&self, op: &Op) -> Op {
        match op {
            Op::Weight { name, shape } => {
                let shape = Shape(shape.0.iter().map(|size| self.of(*size)).collect());
                Op::Weight { name: name.clone(), shape }
            }
            Op::WeightStack { name, count, shape } => {
                let shape = Shape(shape.0.iter().map(|size| self.of(*size)).collect());
                Op::WeightStack { name: name.clone(), count: *count, shape }
            }
            Op::Fill { value, shape } => {
                let shape = Shape(shape.0.iter().map(|size| self.of(*size)).collect());
                Op::Fill { value: *value, shape }
            }
            Op::Slice { start, len } => Op::Slice { start: self.of(*start), len: self.of(*len) },
            Op::WeightRows { start, len } => Op::WeightRows { start: self.of(*start), len: self.of(*len) },
            Op::Rope { heads, theta, turned, scaling } => {
                let turned = turned.map(|turned| self.of(turned));
                Op::Rope { heads: *heads, theta: *theta, turned, scaling: *scaling }
            }
            // Their attributes are no widths: heads, groups and experts are counts.
            Op::Input { .. }
            | Op::FoldGain {}
            | Op::FoldLinear {}
            | Op::FoldBias {}
            | Op::OffsetGain { .. }
            | Op::Embed {}
            | Op::Matmul {}
            | Op::RouterLogits {}
            | Op::GroupedMatmul {}
            | Op::AddBias {}
            | Op::RmsNorm { .. }
            | Op::InvRms { .. }
            | Op::LayerNorm { .. }
            | Op::Attention { .. }
            | Op::CachedAttention { .. }
            | Op::ClassToken {}
            | Op::RepeatRow {}
            | Op::Conv {}
            | Op::CachedConv {}
            | Op::SequenceMean {}
            | Op::Unary(_)
            | Op::Binary(_)
            | Op::ScaleRows {}
            | Op::ScaleElements {}
            | Op::Widen {}
            | Op::ForceFirst { .. }
            | Op::Complement { .. }
            | Op::WithFirst { .. }
            | Op::Within { .. }
            | Op::Choose { .. }
            | Op::ChooseOrReplay { .. }
            | Op::HashChoice { .. }
            | Op::LimitChoices { .. }
            | Op::LimitChoicesAfter { .. }
            | Op::ShareChoices { .. }
            | Op::Partition { .. }
            | Op::Route { .. }
            | Op::RouteRandom { .. }
            | Op::RouteTopK { .. }
            | Op::RouteTopKAmong { .. }
            | Op::LimitFirst { .. }
            | Op::LimitFirstAfter { .. }
            | Op::Pending { .. }
            | Op::StoreRows {}
            | Op::AddRows {}
            | Op::LimitBest { .. }
            | Op::Gather {}
            | Op::Scatter {}
            | Op::Executed {}
            | Op::FillMask { .. }
            | Op::Training(_) => op.clone(),
        }
    }
}

/// Whether the columns of an op's result are choices of experts.
fn is_choice(op: &Op) -> bool {
    matches!(
        op,
        Op::Choose { .. }
            | Op::ChooseOrReplay { .. }
            | Op::HashChoice { .. }
            | Op::LimitChoices { .. }
            | Op::LimitChoicesAfter { .. }
            | Op::ShareChoices { .. }
    )
}

/// Which widths belong together.
#[derive(Default)]
struct Ties {
    /// The group of each width, by an index that leads to another until it leads to itself.
    index: BTreeMap<u32, usize>,
    parent: Vec<usize>,
    /// What the widths of a group are multiples of, as its ops want it: halves of heads.
    units: Vec<u32>,
    /// Sizes that stay as they are.
    counts: BTreeSet<u32>,
}

/// Widths that change together.
struct Group {
    sizes: Vec<u32>,
    unit: u32,
}

impl Ties {
    fn add(&mut self, graph: &Graph) {
        for value in graph.values() {
            let (op, ty) = (graph.op(value), graph.ty(value));
            let operands = graph.operands(value);
            let cols = |idx: usize| operands.get(idx).map_or(0, |operand| graph.ty(*operand).cols());
            if let Some((_, dims)) = ty.as_tensor() {
                for dim in dims {
                    if let Dim::Fixed(size) = dim {
                        self.size(*size);
                    }
                }
            }
            let rows = |ty: &Type| if let Dim::Fixed(rows) = ty.rows() { rows } else { 0 };
            if let Op::Slice { start, len } = op {
                self.tie(&[cols(0), *start, *len]);
            }
            if let Op::WeightRows { start, len } = op {
                self.tie(&[operands.first().map_or(0, |weight| rows(graph.ty(*weight))), *start, *len]);
            }
            // However small: a head that is divided further has no halves.
            if let Op::Rope { heads, turned, .. } = op {
                let group = self.tie(&[ty.cols(), turned.unwrap_or(0)]);
                self.divide(group, ty.cols() / heads / 2);
                self.divide(group, turned.unwrap_or(0) / 2);
            }
            if let Op::RmsNorm { groups: Some(groups), .. } | Op::LayerNorm { groups: Some(groups), .. } = op
            {
                let group = self.tie(&[ty.cols()]);
                self.divide(group, ty.cols() / groups);
            }
            if let Op::Attention { heads, .. } = op {
                let group = self.tie(&[ty.cols(), cols(0), cols(1), cols(2)]);
                self.divide(group, ty.cols() / heads);
            }
            // Inputs that a row of a convolution takes.
            if let Op::Conv {} | Op::CachedConv {} = op {
                self.keep(cols(1));
            }
            // A score for each choice, and columns for each that is taken.
            if is_choice(op) {
                [cols(0), ty.cols()].into_iter().for_each(|count| self.keep(count));
            }
            if let (Op::Slice { start, len }, Some(choices)) = (op, operands.first())
                && is_choice(graph.op(*choices))
            {
                [*start, *len].into_iter().for_each(|count| self.keep(count));
            }
            if let Op::WeightStack { count, shape, .. } = op {
                self.keep(*count);
                if let [first, _] = shape.0.as_slice() {
                    self.tie(&[*first, rows(ty)]);
                }
            }
            if let (Op::GroupedMatmul {}, Some(weight)) = (op, operands.get(1)) {
                self.tie(&[ty.cols(), rows(graph.ty(*weight))]);
            }
        }
    }

    /// The group of a size, unless it is a count.
    fn size(&mut self, size: u32) -> Option<usize> {
        if size <= SMALL {
            self.counts.insert(size);
            return None;
        }
        let next = self.parent.len();
        let index = *self.index.entry(size).or_insert(next);
        if index == next {
            self.parent.push(next);
            self.units.push(0);
        }
        Some(self.root(index))
    }

    fn root(&self, mut index: usize) -> usize {
        while self.parent[index] != index {
            index = self.parent[index];
        }
        index
    }

    /// Makes one group of those of these sizes.
    fn tie(&mut self, sizes: &[u32]) -> Option<usize> {
        let groups: Vec<usize> = sizes.iter().filter_map(|size| self.size(*size)).collect();
        let (first, others) = groups.split_first()?;
        for other in others {
            let (into, from) = (self.root(*first), self.root(*other));
            self.parent[from] = into;
            self.units[into] = gcd(self.units[into], self.units[from]);
        }
        Some(self.root(*first))
    }

    /// A number of things.
    fn keep(&mut self, size: u32) {
        let group = self.tie(&[size]);
        self.divide(group, 1);
    }

    fn divide(&mut self, group: Option<usize>, size: u32) {
        if let Some(group) = group {
            self.units[group] = gcd(self.units[group], size);
        }
    }

    /// The groups, by their smallest width.
    fn groups(&self) -> Vec<Group> {
        let mut groups: BTreeMap<usize, Group> = BTreeMap::new();
        for (size, index) in &self.index {
            let root = self.root(*index);
            let group =
                groups.entry(root).or_insert_with(|| Group { sizes: Vec::new(), unit: self.units[root] });
            group.sizes.push(*size);
            group.unit = gcd(group.unit, *size);
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        groups.sort_by_key(|group| group.sizes.first().copied());
        groups
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use skipc_ir::text::parse;

    use super::*;

    /// What the widths of a layer become.
    fn smaller(width: u32, heads: u32, hidden: u32) -> Vec<u32> {
        let text = format!(
            "graph \"layer\" {{\n%p = input {{port=positions}}\n%x = input {{port=input \"x\"}} : real[n, {width}]\n\
             %r = rope %x, %p {{heads={heads}, theta=10000.0}}\n%up = weight {{name=\"up\", shape=[{hidden}, {width}]}}\n\
             %h = matmul %r, %up\n%one = weight {{name=\"one\", shape=[1, {hidden}]}}\n%z = router_logits %h, %one\n\
             return logits = %h, result \"z\" = %z\n}}"
        );
        let graph = parse(&text).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
        let widths = Widths::of_graphs([&graph, &graph]);
        [width, hidden, 1].map(|size| widths.as_ref().map_or(size, |widths| widths.of(size))).to_vec()
    }

    #[test]
    fn widths_without_a_common_factor_are_small_too() {
        // 32 heads of two halves, and any other width.
        assert_eq!(smaller(4096, 32, 11008), [64, 5, 1]);
        assert_eq!(smaller(4096, 32, 10923), [64, 5, 1]);
        assert_eq!(smaller(64, 32, 10923), [64, 5, 1], "heads of two columns are as small as they get");
        assert_eq!(smaller(6, 3, 11), [6, 5, 1], "what counts stays");
    }
}
