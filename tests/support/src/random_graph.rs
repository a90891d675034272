//! Random graphs, well-formed by construction: sets of sets, nodes that repeat others, dead nodes, and patterns that
//! passes look for, experts, and states that are looked at and go on changed. All ops of the table but those of training
//! and [`NOT_DRAWN`].

use skipc_ir::attr::{F64, Shape};
use skipc_ir::{
    Binary, Dim, Elem, Graph, Op, Origin, Port, Ranking, Role, RopeScaling, SetSym, Type, Unary, Value,
};

use crate::check_pass::PAGES;
use crate::random::Rng;

/// Rows of the embedding table: token ids are below it.
pub const VOCAB: u32 = 7;

/// Ops that random graphs lack: those that only rules make (folded and selected weights, the scales of norms, filled
/// tensors), selections by rank or by the capacity of one step, which generated models have, and what takes inputs or states of
/// one meaning: replayed choices, choices of earlier steps, rows that wait.
pub const NOT_DRAWN: [&str; 14] = [
    "fill",
    "weight_rows",
    "fold_gain",
    "fold_linear",
    "fold_bias",
    "inv_rms",
    "scale",
    "choose_or_replay",
    "limit_choices_after",
    "route_topk",
    "route_topk_among",
    "pending",
    "limit_first",
    "limit_best",
];

/// Experts that rows choose among.
const EXPERTS: u32 = 3;

/// Widths of tensors.
const WIDTHS: [u32; 4] = [1, 2, 4, 8];

/// The random graph of this seed. It has 3 to 6 results of any kind of tensor, among them rows of sets, and all states that
/// come in go out.
///
/// # Panics
/// If it builds a node that does not type: a fault of this module.
pub fn random_graph(seed: u64) -> Graph {
    let mut ctx = Gen::new(seed);
    for _ in 0..14 + ctx.rng.below(41) {
        // Not every op has operands in every graph; then this step adds nothing.
        ctx.step();
    }
    let tensors: Vec<Value> =
        ctx.graph.values().filter(|value| ctx.graph.ty(*value).as_tensor().is_some()).collect();
    for idx in 0..3 + ctx.rng.below(4) {
        // The later half is the more interesting one.
        let late = tensors.len() / 2;
        let value = tensors[late + ctx.rng.below(tensors.len() - late)];
        ctx.graph.set_result(Role::Result { name: format!("out.{idx}") }, value);
    }
    for (idx, state) in ctx.states.iter().enumerate() {
        ctx.graph.set_result(state_role(idx), *state);
    }
    ctx.graph
}

fn state_role(idx: usize) -> Role {
    Role::State { name: format!("state.{idx}") }
}

/// A random layer with a residual, under a route and without one. Results: `input` `x`; `dense` `F(x)` over all tokens;
/// `layer`, where only the rows of set `c0` go through `F`. Attention in `F` has the keys of all tokens, or with `active`
/// those of executed ones.
///
/// # Panics
/// If it builds a node that does not type: a fault of this module.
pub fn random_layer(seed: u64, active: bool) -> Graph {
    let mut ctx = Gen::new(seed);
    let all = ctx.last();
    let set = ctx.route(all);
    let rows = ctx.node(Op::Gather {}, &[all, set]);
    let (rng, n_weights) = (ctx.rng.clone(), ctx.n_weights);
    let dense = ctx.branch(all, all);
    // The same choices again, and with them the same weights.
    (ctx.rng, ctx.n_weights) = (rng, n_weights);
    let keys = if active { rows } else { all };
    let rows = ctx.branch(rows, keys);
    let layer = ctx.node(Op::Scatter {}, &[all, rows, set]);
    for (name, value) in [("input", all), ("dense", dense), ("layer", layer)] {
        ctx.graph.set_result(Role::Result { name: name.to_owned() }, value);
    }
    ctx.graph
}

struct Gen {
    rng: Rng,
    graph: Graph,
    origin: Origin,
    n_weights: u32,
    n_sets: u32,
    /// What each state has become so far.
    states: Vec<Value>,
}

impl Gen {
    fn new(seed: u64) -> Gen {
        let graph = Graph::new(format!("random {seed}"));
        let (rng, origin, states) = (Rng::new(seed), "start".into(), Vec::new());
        let mut ctx = Gen { rng, graph, origin, n_weights: 0, n_sets: 0, states };
        let tokens = ctx.node(Op::Input { port: Port::of_tokens(Role::Tokens) }, &[]);
        let table = ctx.weight(&[VOCAB, 4]);
        ctx.node(Op::Embed {}, &[table, tokens]);
        ctx
    }

    fn node(&mut self, op: impl Into<Op>, operands: &[Value]) -> Value {
        let op = op.into();
        let name = op.name();
        self.graph.add(op, operands, &self.origin).unwrap_or_else(|error| panic!("random {name}: {error}"))
    }

    fn weight(&mut self, sizes: &[u32]) -> Value {
        self.n_weights += 1;
        let name = format!("w{}", self.n_weights);
        self.node(Op::Weight { name: name.as_str().into(), shape: Shape(sizes.to_vec()) }, &[])
    }

    fn last(&self) -> Value {
        self.graph.values().last().expect("a random graph starts with nodes")
    }

    /// A random value whose type is wanted; later ones are likelier.
    fn find(&mut self, wanted: impl Fn(&Type) -> bool) -> Option<Value> {
        let found: Vec<Value> = self.graph.values().filter(|value| wanted(self.graph.ty(*value))).collect();
        if found.is_empty() {
            return None;
        }
        let idx = self.rng.below(found.len()).max(self.rng.below(found.len()));
        Some(found[idx])
    }

    /// A random matrix of numbers whose rows are tokens.
    fn matrix(&mut self) -> Option<Value> {
        self.find(|ty| is_matrix(ty, |_| true))
    }

    fn set(&mut self) -> Option<(Value, SetSym, Dim)> {
        let value = self.find(|ty| matches!(ty, Type::Set { .. }))?;
        match *self.graph.ty(value) {
            Type::Set { sym, of } => Some((value, sym, of)),
            Type::Partition { .. } | Type::Tensor { .. } | Type::State { .. } => None,
        }
    }

    /// The input of this source, or its rows of the sets that lead to `rows`.
    fn ints(&mut self, role: Role, rows: Dim) -> Value {
        let Dim::Count(sym) = rows else { return self.node(Op::Input { port: Port::of_tokens(role) }, &[]) };
        let set = self.graph.values().find(|value| self.graph.op(*value).opens() == Some(sym));
        let set = set.expect("a set is opened before it has rows");
        let (_, of) = self.graph.ty(set).as_rows().expect("what is opened is a set or a partition");
        let all = self.ints(role, of);
        self.node(Op::Gather {}, &[all, set])
    }

    fn route(&mut self, x: Value) -> Value {
        let weight = self.weight(&[1, self.graph.ty(x).cols()]);
        let scores = self.node(Op::RouterLogits {}, &[x, weight]);
        let set = self.fresh_set();
        let at_least = F64::from(self.rng.signed_unit() / 2.0);
        self.node(Op::Route { set, at_least }, &[scores])
    }

    fn fresh_set(&mut self) -> SetSym {
        self.n_sets += 1;
        SetSym(self.n_sets - 1)
    }

    fn step(&mut self) -> Option<Value> {
        if self.rng.one_in(8) {
            self.origin = format!("step.{}", self.graph.len()).as_str().into();
        }
        match self.rng.below(21) {
            0 => self.matmul(),
            1 => self.norm(),
            2 => self.turn(),
            3 => self.attend(),
            4 | 5 => self.pointwise(),
            6 => self.scale(),
            7 => self.slice(),
            8 => self.open_set(),
            9 => self.gather(),
            10 => self.scatter(),
            11 => self.mask(),
            12 => self.repeat(),
            13 => self.sum_up(),
            14 => self.share_out(),
            15 => self.look_back(),
            16 => self.mean(),
            17 => self.set_of_sets(),
            18 => self.elements(),
            19 => self.experts(),
            _ => self.undo(),
        }
    }

    fn matmul(&mut self) -> Option<Value> {
        let x = self.matrix()?;
        let cols = self.graph.ty(x).cols();
        if self.rng.one_in(4) {
            let bias = self.weight(&[cols]);
            return Some(self.node(Op::AddBias {}, &[x, bias]));
        }
        let n_out = self.rng.pick(&WIDTHS)?;
        let weight = self.weight(&[n_out, cols]);
        let op = if self.rng.one_in(3) { Op::RouterLogits {} } else { Op::Matmul {} };
        Some(self.node(op, &[x, weight]))
    }

    fn norm(&mut self) -> Option<Value> {
        let x = self.matrix()?;
        let (cols, eps) = (self.graph.ty(x).cols(), F64::from(1e-3));
        let groups = (cols.is_multiple_of(2) && self.rng.one_in(4)).then_some(2);
        let width = cols / groups.unwrap_or(1);
        let mut gain = self.weight(&[width]);
        if self.rng.one_in(4) {
            gain = self.node(Op::OffsetGain { by: F64::from(1.0) }, &[gain]);
        }
        if self.rng.one_in(2) {
            return Some(self.node(Op::RmsNorm { eps, groups }, &[x, gain]));
        }
        let bias = self.weight(&[width]);
        Some(self.node(Op::LayerNorm { eps, groups }, &[x, gain, bias]))
    }

    fn turn(&mut self) -> Option<Value> {
        let x = self.find(|ty| is_matrix(ty, |cols| cols.is_multiple_of(2)))?;
        let (rows, cols) = (self.graph.ty(x).rows(), self.graph.ty(x).cols());
        let heads = self.rng.pick(if cols.is_multiple_of(4) { &[1, 2] } else { &[1] })?;
        let positions = self.ints(Role::Positions, rows);
        let turned = ((cols / heads) > 2 && self.rng.one_in(3)).then_some(2);
        let linear = RopeScaling::Linear { factor: F64::from(4.0) };
        let scaling = self.rng.one_in(4).then_some(linear);
        Some(self.node(Op::Rope { heads, theta: F64::from(100.0), turned, scaling }, &[x, positions]))
    }

    /// Attributes of attention: mostly none.
    fn scoring(&mut self) -> (Option<F64>, Option<F64>, Option<u32>) {
        let scale = self.rng.one_in(5).then(|| F64::from(0.7));
        let cap = self.rng.one_in(5).then(|| F64::from(3.0));
        (scale, cap, self.rng.one_in(4).then(|| 1 + self.rng.below(4) as u32))
    }

    fn attend(&mut self) -> Option<Value> {
        let q = self.find(|ty| is_matrix(ty, |cols| cols.is_multiple_of(4)))?;
        let of = self.matrix()?;
        let (heads, kv_heads) = self.rng.pick(&[(1, 1), (2, 1), (2, 2), (4, 2)])?;
        Some(self.attention(q, of, heads, kv_heads))
    }

    /// Attention of `q` over keys and values of `of`.
    fn attention(&mut self, q: Value, of: Value, heads: u32, kv_heads: u32) -> Value {
        let (q_rows, k_rows) = (self.graph.ty(q).rows(), self.graph.ty(of).rows());
        let kv_cols = self.graph.ty(q).cols() / heads * kv_heads;
        let cols = self.graph.ty(of).cols();
        let weights = [self.weight(&[kv_cols, cols]), self.weight(&[kv_cols, cols])];
        let [k, v] = weights.map(|weight| self.node(Op::Matmul {}, &[of, weight]));
        let q_pos = self.ints(Role::Positions, q_rows);
        let q_seq = self.ints(Role::Sequences, q_rows);
        let k_pos = self.ints(Role::Positions, k_rows);
        let k_seq = self.ints(Role::Sequences, k_rows);
        let (scale, cap, window) = self.scoring();
        let ahead = self.rng.one_in(4).then(|| 1 + self.rng.below(4) as u32);
        let op = Op::Attention { heads, kv_heads, scale, cap, window, ahead };
        self.node(op, &[q, k, v, q_pos, q_seq, k_pos, k_seq])
    }

    /// A convolution over the rows of any matrix, for these or for those of another.
    fn convolve(&mut self) -> Option<Value> {
        let x = self.find(|ty| is_matrix(ty, |_| true) && !is_f32(ty))?;
        let like = self.matrix()?;
        let [rows, of] = [x, like].map(|x| self.graph.ty(x).rows());
        let taps = self.rng.pick(&[1, 2, 3, 5])?;
        let weight = self.weight(&[self.graph.ty(x).cols(), taps]);
        let [q_pos, k_pos] = [of, rows].map(|rows| self.ints(Role::Positions, rows));
        let [q_seq, k_seq] = [of, rows].map(|rows| self.ints(Role::Sequences, rows));
        Some(self.node(Op::Conv {}, &[x, weight, q_pos, q_seq, k_pos, k_seq]))
    }

    /// The mean of each sequence's rows, for each of them; sometimes behind a class token. As often a convolution.
    fn mean(&mut self) -> Option<Value> {
        if self.rng.one_in(2) {
            return self.convolve();
        }
        let mut x = self.matrix()?;
        if self.rng.one_in(2) {
            let class = self.weight(&[1, self.graph.ty(x).cols()]);
            let positions = self.ints(Role::Positions, self.graph.ty(x).rows());
            x = self.node(Op::ClassToken {}, &[x, class, positions]);
        }
        let sequences = self.ints(Role::Sequences, self.graph.ty(x).rows());
        Some(self.node(Op::SequenceMean {}, &[x, sequences]))
    }

    fn pointwise(&mut self) -> Option<Value> {
        let x = self.matrix()?;
        let op = match self.rng.below(11) {
            0 => Unary::Gelu,
            1 => Unary::Relu,
            2 => Unary::Relu2,
            3 => Unary::Silu,
            4 => Unary::Sigmoid,
            5 => Unary::OneMinus,
            6 => Unary::GeluErf,
            7 => Unary::Tanh,
            binary => {
                let ty = self.graph.ty(x).clone();
                let other = self.find(|other| *other == ty)?;
                let op = Binary::ALL[binary - 8];
                return Some(self.node(op, &[x, other]));
            }
        };
        Some(self.node(op, &[x]))
    }

    fn scale(&mut self) -> Option<Value> {
        let scale = self.find(|ty| is_matrix(ty, |cols| cols == 1))?;
        let rows = self.graph.ty(scale).rows();
        let x = self.find(|ty| is_matrix(ty, |_| true) && ty.rows() == rows)?;
        Some(self.node(Op::ScaleRows {}, &[x, scale]))
    }

    fn slice(&mut self) -> Option<Value> {
        let x = self.matrix()?;
        let cols = self.graph.ty(x).cols() as usize;
        let start = if self.rng.one_in(3) { 0 } else { self.rng.below(cols) };
        let len = if self.rng.one_in(3) { cols - start } else { 1 + self.rng.below(cols - start) };
        Some(self.node(Op::Slice { start: start as u32, len: len as u32 }, &[x]))
    }

    fn open_set(&mut self) -> Option<Value> {
        let scores = self.find(|ty| is_matrix(ty, |cols| cols == 1) && is_f32(ty));
        if let (Some(scores), false) = (scores, self.rng.one_in(3)) {
            let (set, at_least) = (self.fresh_set(), F64::from(self.rng.signed_unit() / 2.0));
            return Some(self.node(Op::Route { set, at_least }, &[scores]));
        }
        let rows = self.matrix().map(|x| self.graph.ty(x).rows())?;
        let places = match self.rng.one_in(3) {
            true => vec![self.ints(Role::Tokens, rows)],
            false => vec![self.ints(Role::Positions, rows), self.ints(Role::Sequences, rows)],
        };
        let (set, block) = (self.fresh_set(), self.rng.below(3) as u32);
        let op = Op::RouteRandom { set, seed: self.rng.bits() % 5, block, limit: 1 << 31 };
        Some(self.node(op, &places))
    }

    /// A set that others make: its complement, the first rows with it, what two have in common.
    fn set_of_sets(&mut self) -> Option<Value> {
        let (wanted, _, of) = self.set()?;
        match self.rng.below(3) {
            0 => {
                let set = self.fresh_set();
                Some(self.node(Op::Complement { set }, &[wanted]))
            }
            1 => {
                let positions = self.ints(Role::Positions, of);
                let (set, first) = (self.fresh_set(), self.rng.below(3) as u32);
                Some(self.node(Op::WithFirst { set, first }, &[wanted, positions]))
            }
            _ => {
                let outer = self.find(|ty| matches!(ty, Type::Set { of: rows, .. } if *rows == of))?;
                let set = self.fresh_set();
                Some(self.node(Op::Within { set }, &[wanted, outer]))
            }
        }
    }

    /// What deciders compute in f32: numbers widened, multiplied with others, scores of the first rows forced, a row for all.
    fn elements(&mut self) -> Option<Value> {
        if let (Some(scores), true) =
            (self.find(|ty| is_matrix(ty, |cols| cols == 1) && is_f32(ty)), self.rng.one_in(4))
        {
            let positions = self.ints(Role::Positions, self.graph.ty(scores).rows());
            let first = self.rng.below(3) as u32;
            return Some(self.node(Op::ForceFirst { first }, &[scores, positions]));
        }
        let x = self.matrix()?;
        let (rows, cols) = (self.graph.ty(x).rows(), self.graph.ty(x).cols());
        let scale = match self.rng.one_in(2) {
            true => {
                let row = self.weight(&[cols]);
                self.node(Op::RepeatRow {}, &[row, x])
            }
            false => {
                let like = self.find(|ty| is_matrix(ty, |n| n == cols) && ty.rows() == rows)?;
                self.node(Op::Widen {}, &[like])
            }
        };
        Some(self.node(Op::ScaleElements {}, &[x, scale]))
    }

    /// What experts give the rows that choose them, put over others.
    fn experts(&mut self) -> Option<Value> {
        let x = self.matrix()?;
        let (rows, cols) = (self.graph.ty(x).rows(), self.graph.ty(x).cols());
        let index = self.choice(x);
        let (set, first) = (self.fresh_set(), self.rng.below(2) as u32);
        let partition = self.node(Op::Partition { set, first, parts: EXPERTS - first }, &[index]);
        let chosen = self.node(Op::Gather {}, &[x, partition]);
        self.n_weights += 1;
        let (name, n_out) = (format!("e{}.*", self.n_weights), self.rng.pick(&WIDTHS)?);
        let (count, shape) = (EXPERTS - first, Shape(vec![n_out, cols]));
        let weight = self.node(Op::WeightStack { name: name.as_str().into(), count, shape }, &[]);
        let given = self.node(Op::GroupedMatmul {}, &[chosen, weight, partition]);
        let base = Type::tensor(Elem::Real, &[rows, Dim::Fixed(n_out)]);
        match self.find(|ty| *ty == base) {
            Some(base) => Some(self.node(Op::Scatter {}, &[base, given, partition])),
            None => Some(given),
        }
    }

    /// The expert that each row of `x` takes, or none: by its id, by a router, or of those one with places left.
    fn choice(&mut self, x: Value) -> Value {
        let (rows, k) = (self.graph.ty(x).rows(), EXPERTS);
        if self.rng.one_in(4) {
            let ids = self.ints(Role::Tokens, rows);
            let (seed, block) = (self.rng.bits() % 5, self.rng.below(3) as u32);
            let op = Op::HashChoice { experts: EXPERTS, seed, block, n_ids: VOCAB };
            let choice = self.node(op, &[ids]);
            return self.node(Op::Slice { start: 1, len: 1 }, &[choice]);
        }
        let weight = self.weight(&[EXPERTS, self.graph.ty(x).cols()]);
        let logits = self.node(Op::RouterLogits {}, &[x, weight]);
        let (sigmoid, normalise) = (self.rng.one_in(2), self.rng.one_in(2));
        let (scale, ranks) = (F64::from(1.0), self.rng.pick(&[Ranking::Score, Ranking::Turn]));
        let choices = self.node(Op::Choose { k, sigmoid, normalise, scale, ranks }, &[logits]);
        let [mut index, ranks] = [k, 2 * k].map(|start| self.node(Op::Slice { start, len: k }, &[choices]));
        let [positions, sequences] = [Role::Positions, Role::Sequences].map(|role| self.ints(role, rows));
        let group_size = 1 + self.rng.below(4) as u32;
        match self.rng.below(3) {
            0 => {}
            1 => {
                let op = Op::LimitChoices { group_size, slots: self.rng.below(3) as u32, experts: EXPERTS };
                index = self.node(op, &[index, positions, sequences, ranks]);
            }
            _ => {
                let op = Op::ShareChoices { top_k: 1, group_size: self.rng.one_in(2).then_some(group_size) };
                index = self.node(op, &[index, ranks, positions, sequences, positions, sequences]);
            }
        }
        let start = self.rng.below(k as usize) as u32;
        self.node(Op::Slice { start, len: 1 }, &[index])
    }

    fn gather(&mut self) -> Option<Value> {
        let (set, _, of) = self.set()?;
        let has_rows = |elem, dims: &[Dim]| elem != Elem::Int || dims.len() == 1;
        let x = self
            .find(|ty| ty.as_tensor().is_some_and(|(elem, dims)| has_rows(elem, dims)) && ty.rows() == of)?;
        Some(self.node(Op::Gather {}, &[x, set]))
    }

    fn scatter(&mut self) -> Option<Value> {
        let (set, sym, of) = self.set()?;
        let rows = self.find(|ty| is_matrix(ty, |_| true) && ty.rows() == Dim::Count(sym))?;
        let (elem, _) = self.graph.ty(rows).as_tensor()?;
        let ty = Type::tensor(elem, &[of, Dim::Fixed(self.graph.ty(rows).cols())]);
        let base = self.find(|other| *other == ty)?;
        Some(self.node(Op::Scatter {}, &[base, rows, set]))
    }

    fn mask(&mut self) -> Option<Value> {
        if self.rng.one_in(3) {
            let like = self.matrix()?;
            let value = self.rng.one_in(2);
            return Some(self.node(Op::FillMask { value }, &[like]));
        }
        let (set, ..) = self.set()?;
        Some(self.node(Op::Executed {}, &[set]))
    }

    /// A node that some other is too; routes get a set of their own, and some another threshold.
    fn repeat(&mut self) -> Option<Value> {
        let set_only = self.rng.one_in(3);
        // A state is used up once, so that nothing may be made of one again.
        let value = self.find(|ty| !ty.is_state() && (!set_only || ty.as_tensor().is_none()))?;
        let operands = self.graph.operands(value);
        if operands.iter().any(|operand| self.graph.ty(*operand).is_state()) {
            return None;
        }
        let mut op = self.graph.op(value).clone();
        if op.opens().is_some() {
            op = op.with_set(self.fresh_set());
        }
        if let Op::Route { at_least, .. } = &mut op
            && self.rng.one_in(3)
        {
            // The same scores, and nearly the same decision.
            *at_least += 0.25;
        }
        Some(self.node(op, &operands))
    }

    /// The place in `states` of one of this type: one that is there, or another that comes in.
    fn state(&mut self, elem: Elem, dims: &[Dim]) -> usize {
        let ty = Type::State { elem, dims: dims.into() };
        let known = self.states.iter().position(|state| *self.graph.ty(*state) == ty);
        if let (Some(idx), true) = (known, self.rng.one_in(2)) {
            return idx;
        }
        let idx = self.states.len();
        let state = self.node(Op::Input { port: Port { role: state_role(idx), ty } }, &[]);
        self.states.push(state);
        idx
    }

    /// Rows on a running sum.
    fn sum_up(&mut self) -> Option<Value> {
        let x = self.matrix()?;
        let idx = self.state(Elem::F32, &[Dim::Fixed(1), Dim::Fixed(self.graph.ty(x).cols())]);
        self.states[idx] = self.node(Op::AddRows {}, &[self.states[idx], x]);
        Some(self.states[idx])
    }

    /// A capacity whose groups go on from step to step, and what was wanted for the next.
    fn share_out(&mut self) -> Option<Value> {
        let (wanted, _, of) = self.set()?;
        let [positions, sequences, places] =
            [Role::Positions, Role::Sequences, Role::Places].map(|role| self.ints(role, of));
        let (pages, idx) = (self.pages(), self.state(Elem::Mask, &[Dim::Cached]));
        let before = self.states[idx];
        let (set, group_size, slots) =
            (self.fresh_set(), 1 + self.rng.below(4) as u32, self.rng.below(3) as u32);
        let op = Op::LimitFirstAfter { set, group_size, slots };
        let limited = self.node(op, &[wanted, positions, sequences, before, pages]);
        let decisions = self.node(Op::Executed {}, &[wanted]);
        self.states[idx] = self.node(Op::StoreRows {}, &[before, decisions, places]);
        Some(limited)
    }

    /// Attention over a cache of keys, which are values, too, and now hold these rows, or a convolution of them.
    fn look_back(&mut self) -> Option<Value> {
        let x = self.find(|ty| {
            is_matrix(ty, |_| true) && ty.as_tensor().is_some_and(|(elem, _)| elem == Elem::Real)
        })?;
        let (rows, cols) = (self.graph.ty(x).rows(), self.graph.ty(x).cols());
        let idx = self.state(Elem::Real, &[Dim::Cached, Dim::Fixed(cols)]);
        let [positions, sequences, places] =
            [Role::Positions, Role::Sequences, Role::Places].map(|role| self.ints(role, rows));
        let (pages, stored) = (self.pages(), self.node(Op::StoreRows {}, &[self.states[idx], x, places]));
        self.states[idx] = stored;
        if self.rng.one_in(3) {
            let taps = self.rng.pick(&[1, 2, 3, 5])?;
            let weight = self.weight(&[cols, taps]);
            return Some(self.node(Op::CachedConv {}, &[stored, weight, positions, sequences, pages]));
        }
        let (scale, cap, window) = self.scoring();
        let op = Op::CachedAttention { heads: 1, kv_heads: 1, scale, cap, window };
        Some(self.node(op, &[x, stored, stored, positions, sequences, pages]))
    }

    fn pages(&mut self) -> Value {
        let ty = Type::tensor(Elem::Int, &[Dim::Tokens, Dim::Fixed(PAGES)]);
        self.node(Op::Input { port: Port { role: Role::Pages, ty } }, &[])
    }

    /// Rows into a set and back, or back and in again.
    fn undo(&mut self) -> Option<Value> {
        let (set, sym, of) = self.set()?;
        if self.rng.one_in(2) {
            let x = self.find(|ty| is_matrix(ty, |_| true) && ty.rows() == of)?;
            let rows = self.node(Op::Gather {}, &[x, set]);
            let rows = if self.rng.one_in(2) { rows } else { self.node(Unary::Relu, &[rows]) };
            return Some(self.node(Op::Scatter {}, &[x, rows, set]));
        }
        let back = self.scatter()?;
        if self.rng.one_in(2) {
            // Rows of some set, maybe another, over those of the first.
            let rows_of = self.graph.ty(back).rows();
            let wanted = |ty: &Type| matches!(ty, Type::Set { of, .. } if *of == rows_of);
            let over = self.find(wanted)?;
            let rows = self.node(Op::Gather {}, &[back, over]);
            let rows = self.node(Unary::OneMinus, &[rows]);
            return Some(self.node(Op::Scatter {}, &[back, rows, over]));
        }
        let Dim::Count(other) = self.graph.ty(self.graph.operands(back)[1]).rows() else { return None };
        let set = if other == sym { set } else { self.graph.operands(back)[2] };
        Some(self.node(Op::Gather {}, &[back, set]))
    }

    /// The residual branch `x + F(x)` of 1 to 4 random sub-layers; keys and values come from `keys`.
    fn branch(&mut self, x: Value, keys: Value) -> Value {
        let mut x = x;
        for _ in 0..1 + self.rng.below(4) {
            let gain = self.weight(&[4]);
            let u = self.node(Op::RmsNorm { eps: F64::from(1e-5), groups: None }, &[x, gain]);
            let y = match self.rng.below(3) {
                0 => {
                    let positions = self.ints(Role::Positions, self.graph.ty(u).rows());
                    let q = self.node(
                        Op::Rope { heads: 2, theta: F64::from(100.0), turned: None, scaling: None },
                        &[u, positions],
                    );
                    self.attention(q, keys, 2, 1)
                }
                1 => {
                    let (up, down) = (self.weight(&[8, 4]), self.weight(&[4, 8]));
                    let h = self.node(Op::Matmul {}, &[u, up]);
                    let h = self.node(Unary::Gelu, &[h]);
                    self.node(Op::Matmul {}, &[h, down])
                }
                _ => {
                    let (gate, up) = (self.weight(&[4, 4]), self.weight(&[4, 4]));
                    let gate = self.node(Op::Matmul {}, &[u, gate]);
                    let gate = self.node(Unary::Silu, &[gate]);
                    let up = self.node(Op::Matmul {}, &[u, up]);
                    self.node(Binary::Mul, &[gate, up])
                }
            };
            x = self.node(Binary::Add, &[x, y]);
        }
        x
    }
}

fn is_matrix(ty: &Type, cols: impl Fn(u32) -> bool) -> bool {
    match ty.as_tensor() {
        Some((Elem::Real | Elem::F32, &[rows, Dim::Fixed(n_cols)])) => rows.is_token_rows() && cols(n_cols),
        _ => false,
    }
}

fn is_f32(ty: &Type) -> bool {
    matches!(ty.as_tensor(), Some((Elem::F32, _)))
}
