//! Model to graph: `route / gather / scatter` around whole layers. Obviously right, and slow; passes move the borders.
//!
//! Results: the logits `[n, vocab_size]` (or the stream `[n, D]` of a model without a head), the decisions of the routers in model order, and the choices of tokens in
//! each layer of experts, in the order in which layers run. Router N opens token set `cN`. Under
//! a capacity `cN` are the tokens that got a slot, and its result `wanted` says which ones the router wanted.

mod cache;
mod choices;
mod kept;
mod nodes;
mod routers;
mod training;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use skipc_artifact::program;
use skipc_ir::attr::{Name, Shape};
use skipc_ir::gradient::GradientError;
use skipc_ir::graph::Origin;
use skipc_ir::{Dim, Elem, Graph, Op, Port, Scoring, SetSym, Type, TypeError, Value, port};

use crate::frontend::build::{self, Build, Heads, LayerInput, TensorRole};
use crate::frontend::spec::model::Model;
use crate::frontend::spec::skip::Kv;
use crate::frontend::spec::stack::Repetition;
use crate::frontend::stream::{Head, Stream, StreamInput};
use cache::Cache;

pub(crate) use routers::{pending_set, sets};
pub use training::{
    Counting, Train, Trained, count_graph, gradient_graph, norm_graph, score_graph, update_graph,
};

/// How skipping is written down. The values are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipping {
    /// Layers run over the gathered rows of the executed tokens.
    Gathered,
    /// Layers run over all rows, and those of skipped tokens are thrown away.
    Masked,
}

/// When a step computes the keys and values of tokens that skip their layer. The values that others see are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyValues {
    /// When the token comes.
    #[default]
    Eager,
    /// When a token of the sequence next executes the layer, all that have waited in one batch, or when too many wait: the
    /// layer's weights are read for tokens that execute alone. The stream that each layer saw waits beside its keys.
    Lazy,
}

impl KeyValues {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            KeyValues::Eager => "eager",
            KeyValues::Lazy => "lazy",
        }
    }
}

/// The functions that a model is lowered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Function {
    /// Runs whole sequences, as the model was trained.
    Score,
    /// Continues sequences: routers that look at later tokens decide by their causal replacement. Models without such
    /// routers generate with the function that scores.
    Generate,
    /// Goes on with sequences whose earlier tokens are in caches; routers decide as for [`Function::Generate`].
    Step,
}

impl Function {
    /// All of them.
    pub const ALL: [Function; 3] = [Function::Score, Function::Generate, Function::Step];

    /// The function of this name.
    pub fn named(name: &str) -> Option<Function> {
        Function::ALL.into_iter().find(|function| function.name() == name)
    }

    /// Its name in the artefact.
    pub fn name(self) -> &'static str {
        match self {
            Function::Score => program::SCORE,
            Function::Generate => program::GENERATE,
            Function::Step => program::STEP,
        }
    }

    /// Those that a model needs.
    pub fn of(model: &Model) -> Vec<Function> {
        let needs = |function: &Function| match function {
            Function::Score => true,
            Function::Generate => model.can_generate() && !model.is_causal() && !model.keeps_prompts(),
            Function::Step => model.can_generate(),
        };
        Function::ALL.into_iter().filter(needs).collect()
    }
}

impl std::fmt::Display for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a model has no graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// A decision looks at later tokens, which generation does not have.
    #[error("{origin}: {what} looks at later tokens, so the model cannot generate")]
    LooksAhead {
        /// Where in the model, such as `blocks.3.router`.
        origin: String,
        /// What looks ahead.
        what: &'static str,
    },
    /// A decision inside of what another one decides about.
    #[error("{origin}: a decision inside of another one's rows has no graph")]
    Nested {
        /// Where in the model.
        origin: String,
    },
    /// A router reads a norm that its layer does not have.
    #[error("{origin}: there is no norm in front of what this decides about")]
    NoPreNorm {
        /// Where in the model.
        origin: String,
    },
    /// Something in front of a loss cannot be trained.
    #[error(transparent)]
    Gradient(#[from] GradientError),
    /// A node does not fit its operands: a fault of the compiler.
    #[error("{origin}: {error}")]
    Type {
        /// Where in the model.
        origin: String,
        /// What does not fit.
        error: TypeError,
    },
}

/// Lowers a resolved model; steps compute keys and values when a token comes.
///
/// # Errors
/// If the graph is to generate and a decision looks ahead.
pub fn lower(model: &Model, skipping: Skipping, function: Function) -> Result<Graph, LowerError> {
    graph_of(Ctx::new(model, skipping, function, KeyValues::Eager)?)
}

/// The graph of [`Function::Step`], with keys and values computed when this says.
///
/// # Errors
/// As [`lower`].
pub fn lower_step(model: &Model, skipping: Skipping, key_values: KeyValues) -> Result<Graph, LowerError> {
    graph_of(Ctx::new(model, skipping, Function::Step, key_values)?)
}

fn graph_of(mut ctx: Ctx<'_>) -> Result<Graph, LowerError> {
    let logits = ctx.logits()?;
    let Ctx { mut graph, gates, choices, cache, .. } = ctx;
    graph.set_result(port::Role::Logits, logits);
    for (router, gate) in (0..).zip(gates) {
        graph.set_result(port::Role::Decision { router }, gate.executed);
        if let Some(wanted) = gate.wanted {
            graph.set_result(port::Role::Wanted { router }, wanted);
        }
    }
    for (layer, (of, choices)) in (0..).zip(choices) {
        graph.set_result(port::Role::Choices { layer, of }, choices);
    }
    for (role, state) in cache.into_iter().flat_map(|cache| cache.states) {
        graph.set_result(role, state);
    }
    Ok(graph)
}

/// The masks of a router.
struct GateValues {
    executed: Value,
    /// What it wanted, if there is a capacity.
    wanted: Option<Value>,
}

/// Rows of tokens with the place of each.
#[derive(Clone, Copy)]
struct Tokens {
    /// The set, or `None` for all tokens.
    set: Option<Value>,
    positions: Value,
    sequences: Value,
}

struct Ctx<'a> {
    model: &'a Model,
    skipping: Skipping,
    function: Function,
    n_routers: u32,
    /// Partitions so far.
    n_partitions: u32,
    graph: Graph,
    origin: Origin,
    all: Tokens,
    /// Their ids, or the rows in place of these.
    tokens: Value,
    gates: Vec<GateValues>,
    /// Of each layer of experts so far how many choices there are, and which each token got.
    choices: Vec<(u32, Value)>,
    /// Where the tokens lie in the caches, if the graph goes on with sequences.
    cache: Option<Cache>,
    /// The tokens that the last repetition of a nested stack executed.
    outer: Option<Value>,
    /// The probability and the last repetition of each token, once the router of a stack has chosen them.
    depth: Option<[Value; 2]>,
    /// Keys and values of the first repetition by layer, in a stack that keeps them: of all rows, or the caches of them.
    kept: Option<BTreeMap<String, [Value; 2]>>,
    /// Tensors that are states, since they train.
    trained: &'a [Trained],
    /// State and value of each of them so far, by name.
    parameters: IndexMap<String, (Value, Value)>,
    /// What training asks for, in a graph of training.
    training: Option<training::Setup<'a>>,
}

impl<'a> Ctx<'a> {
    fn new(
        model: &'a Model,
        skipping: Skipping,
        function: Function,
        key_values: KeyValues,
    ) -> Result<Ctx<'a>, LowerError> {
        let mut graph = Graph::new(&model.name);
        let origin: Origin = "inputs".into();
        let mut input = |port| {
            graph
                .add(Op::Input { port }, &[], &origin)
                .map_err(|error| LowerError::Type { origin: origin.to_string(), error })
        };
        let tokens = input(match model.stream.input {
            StreamInput::Tokens => Port::of_tokens(port::Role::Tokens),
            StreamInput::Rows | StreamInput::Patches => {
                let cols = model.stream.row_columns().and_then(|cols| u32::try_from(cols).ok());
                let cols = Dim::Fixed(cols.unwrap_or(0));
                Port { role: port::Role::Rows, ty: Type::tensor(Elem::Real, &[Dim::Tokens, cols]) }
            }
        })?;
        let positions = input(Port::of_tokens(port::Role::Positions))?;
        let sequences = input(Port::of_tokens(port::Role::Sequences))?;
        let all = Tokens { set: None, positions, sequences };
        let n_routers = model.skips().count() as u32;
        let gates = Vec::new();
        let mut ctx = Ctx {
            model,
            skipping,
            function,
            n_routers,
            n_partitions: 0,
            graph,
            origin,
            all,
            tokens,
            gates,
            choices: Vec::new(),
            cache: None,
            outer: None,
            depth: None,
            kept: None,
            trained: &[],
            parameters: IndexMap::new(),
            training: None,
        };
        if function == Function::Step {
            ctx.cache = Some(ctx.cache(key_values)?);
        }
        Ok(ctx)
    }

    fn at(&mut self, origin: &str) {
        self.origin = origin.into();
    }

    /// An error unless whole sequences are scored, of what looks at later tokens and has no replacement.
    fn refuse_to_generate(&self, what: &'static str) -> Result<(), LowerError> {
        match self.function {
            Function::Score => Ok(()),
            Function::Generate | Function::Step => {
                Err(LowerError::LooksAhead { origin: self.origin.to_string(), what })
            }
        }
    }

    /// The whole model, from its tokens to the logits of the rows that are wanted.
    fn logits(&mut self) -> Result<Value, LowerError> {
        let model = self.model;
        self.at("embed");
        let (tokens, positions) = (self.tokens, self.all.positions);
        let mut x = build::embedding(self, tokens, positions)?;
        for repetition in model.repetitions() {
            x = self.repeated(x, &repetition)?;
        }
        self.at("head");
        if model.stream.head == Head::Pooled {
            self.refuse_to_generate("a pooled head")?;
        }
        let x = self.wanted_rows(x)?;
        build::head(self, x, self.all.sequences)
    }

    /// The stream behind blocks that run once.
    fn repeated(&mut self, x: Value, repetition: &Repetition<'_>) -> Result<Value, LowerError> {
        let Some(skip) = repetition.skip else {
            return repetition.blocks.iter().try_fold(x, |x, (place, block)| self.block(x, block, *place));
        };
        if repetition.number == 0 {
            let keeps = skip.either().is_some_and(|either| either.kv == Kv::First);
            (self.outer, self.depth, self.kept) = (None, None, keeps.then(BTreeMap::new));
        }
        let outer = self.outer;
        let x = self.repetition(x, repetition, skip, outer)?;
        if repetition.is_last {
            self.kept = None;
        }
        Ok(x)
    }
}

impl Build for Ctx<'_> {
    type Value = Value;
    type Error = LowerError;

    fn stream(&self) -> Stream {
        self.model.stream
    }

    fn parameter(&mut self, name: &str, _: TensorRole, shape: &[usize]) -> Result<Value, LowerError> {
        // The frontend bounds all sizes far below u32; a size that is not would be refused as a wrong shape.
        let shape: Vec<u32> = shape.iter().map(|size| u32::try_from(*size).unwrap_or(0)).collect();
        if let Some(parameter) = self.trained_parameter(name, &shape)? {
            return Ok(parameter);
        }
        self.add(Op::Weight { name: Name::from(name), shape: Shape(shape) }, &[])
    }

    fn stack(
        &mut self,
        name: &str,
        _: TensorRole,
        count: usize,
        shape: &[usize],
    ) -> Result<Value, LowerError> {
        let shape = shape.iter().map(|size| u32::try_from(*size).unwrap_or(0)).collect();
        let count = u32::try_from(count).unwrap_or(0);
        self.add(Op::WeightStack { name: Name::from(name), count, shape: Shape(shape) }, &[])
    }

    fn fresh_set(&mut self) -> SetSym {
        self.n_partitions += 1;
        routers::partition_set(self.n_routers, self.n_partitions - 1)
    }

    fn scored(&mut self, sums: Value) -> Result<Value, LowerError> {
        match self.training {
            Some(_) => self.add(Op::Widen {}, &[sums]),
            None => Ok(sums),
        }
    }

    fn sequence_mean(&mut self, x: Value) -> Result<Value, LowerError> {
        self.add(Op::SequenceMean {}, &[x, self.all.sequences])
    }

    fn kept(&self, name: &str) -> Option<[Value; 2]> {
        self.kept.as_ref()?.get(name).copied()
    }

    fn attend(
        &mut self,
        name: &str,
        heads: Heads,
        qkv: [Value; 3],
        input: LayerInput<Value>,
    ) -> Result<Value, LowerError> {
        if heads.scoring.ahead.is_some() {
            self.refuse_to_generate("attention with `mask = \"full\"`")?;
        }
        match self.cache.is_some() {
            true => self.attend_cached(name, heads, qkv, input),
            false => {
                let ([q, k, v], LayerInput { rows, seen, .. }) = (qkv, input);
                if let Some(kept) = &mut self.kept {
                    kept.entry(name.to_owned()).or_insert([k, v]);
                }
                let Heads { queries, keys, scoring: Scoring { scale, cap, window, ahead } } = heads;
                let (heads, kv_heads) = (queries as u32, keys as u32);
                let op = Op::Attention { heads, kv_heads, scale, cap, window, ahead };
                let [q_seq, k_seq] = [rows, seen].map(|rows| rows.sequences.unwrap_or(self.all.sequences));
                self.add(op, &[q, k, v, rows.positions, q_seq, seen.positions, k_seq])
            }
        }
    }

    fn choices_so_far(&mut self, index: Value, set: Option<Value>) -> Result<Option<Vec<Value>>, LowerError> {
        self.cached_choices(index, set)
    }

    fn replayed_choices(
        &mut self,
        of: usize,
        places: usize,
        set: Option<Value>,
    ) -> Result<Value, LowerError> {
        self.input_of_choices(of, places, set)
    }

    fn report_choices(
        &mut self,
        of: usize,
        index: (Value, u32, u32),
        input: LayerInput<Value>,
    ) -> Result<(), LowerError> {
        self.note_choices(of, index, input)
    }

    fn convolve(&mut self, [x, weight]: [Value; 2], input: LayerInput<Value>) -> Result<Value, LowerError> {
        if self.cache.is_some() {
            return self.convolve_cached([x, weight], input);
        }
        let LayerInput { rows, seen, .. } = input;
        let [q_seq, k_seq] = [rows, seen].map(|rows| rows.sequences.unwrap_or(self.all.sequences));
        self.add(Op::Conv {}, &[x, weight, rows.positions, q_seq, seen.positions, k_seq])
    }

    fn all_places(&self) -> [Value; 2] {
        [self.all.positions, self.all.sequences]
    }

    fn ids(&mut self, set: Option<Value>) -> Result<Value, LowerError> {
        match set {
            Some(set) => self.add(Op::Gather {}, &[self.tokens, set]),
            None => Ok(self.tokens),
        }
    }

    fn add(&mut self, op: impl Into<Op>, operands: &[Value]) -> Result<Value, LowerError> {
        let added = self.graph.add(op.into(), operands, &self.origin);
        added.map_err(|error| LowerError::Type { origin: self.origin.to_string(), error })
    }
}
