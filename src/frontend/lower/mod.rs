//! Model to graph: `route / gather / scatter` around whole layers. Obviously right, and slow; passes move the borders.
//!
//! Results: the logits `[n, vocab_size]`, and the decisions of the routers in model order. Router N opens token set `cN`. Under
//! a capacity `cN` are the tokens that got a slot, and its result `wanted` says which ones the router wanted.

mod nodes;
mod routers;

use skipc_artifact::program;
use skipc_ir::attr::{Name, Shape};
use skipc_ir::graph::Origin;
use skipc_ir::{Graph, Op, Port, TypeError, Value, port};

use crate::frontend::build::{self, Build, TensorRole};
use crate::frontend::spec::model::Model;
use crate::frontend::stream::Stream;

pub(crate) use routers::sets;

/// How skipping is written down. The values are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipping {
    /// Layers run over the gathered rows of the executed tokens.
    Gathered,
    /// Layers run over all rows, and those of skipped tokens are thrown away.
    Masked,
}

/// The functions that a model is lowered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Function {
    /// Runs whole sequences, as the model was trained.
    Score,
    /// Continues sequences: routers that look at later tokens decide by their causal replacement. Models without such
    /// routers generate with the function that scores.
    Generate,
}

impl Function {
    /// All of them.
    pub const ALL: [Function; 2] = [Function::Score, Function::Generate];

    /// Its name in the artefact.
    pub fn name(self) -> &'static str {
        match self {
            Function::Score => program::SCORE,
            Function::Generate => program::GENERATE,
        }
    }

    /// Those that a model needs.
    pub fn of(model: &Model) -> Vec<Function> {
        match model.can_generate() && !model.is_causal() {
            true => vec![Function::Score, Function::Generate],
            false => vec![Function::Score],
        }
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
    /// A node does not fit its operands: a fault of the compiler.
    #[error("{origin}: {error}")]
    Type {
        /// Where in the model.
        origin: String,
        /// What does not fit.
        error: TypeError,
    },
}

/// Lowers a resolved model.
///
/// # Errors
/// If the graph is to generate and a decision looks ahead.
pub fn lower(model: &Model, skipping: Skipping, function: Function) -> Result<Graph, LowerError> {
    let mut ctx = Ctx::new(model, skipping, function)?;
    ctx.at("embed");
    let (tokens, positions) = (ctx.tokens, ctx.all.positions);
    let mut x = build::embedding(&mut ctx, tokens, positions)?;
    for (idx, block) in model.blocks.iter().enumerate() {
        x = ctx.block(x, block, idx)?;
    }
    ctx.at("head");
    let logits = build::head(&mut ctx, x)?;
    let mut graph = ctx.graph;
    graph.set_result(port::Role::Logits, logits);
    for (router, gate) in (0..).zip(ctx.gates) {
        graph.set_result(port::Role::Decision { router }, gate.executed);
        if let Some(wanted) = gate.wanted {
            graph.set_result(port::Role::Wanted { router }, wanted);
        }
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
    graph: Graph,
    origin: Origin,
    all: Tokens,
    tokens: Value,
    gates: Vec<GateValues>,
}

impl<'a> Ctx<'a> {
    fn new(model: &'a Model, skipping: Skipping, function: Function) -> Result<Ctx<'a>, LowerError> {
        let mut graph = Graph::new(&model.name);
        let origin: Origin = "inputs".into();
        let mut input = |role| {
            graph
                .add(Op::Input { port: Port::of_tokens(role) }, &[], &origin)
                .map_err(|error| LowerError::Type { origin: origin.to_string(), error })
        };
        let tokens = input(port::Role::Tokens)?;
        let positions = input(port::Role::Positions)?;
        let sequences = input(port::Role::Sequences)?;
        let all = Tokens { set: None, positions, sequences };
        let n_routers = model.skips().count() as u32;
        Ok(Ctx { model, skipping, function, n_routers, graph, origin, all, tokens, gates: Vec::new() })
    }

    fn at(&mut self, origin: &str) {
        self.origin = origin.into();
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
        let shape = shape.iter().map(|size| u32::try_from(*size).unwrap_or(0)).collect();
        self.add(Op::Weight { name: Name::from(name), shape: Shape(shape) }, &[])
    }

    fn add(&mut self, op: impl Into<Op>, operands: &[Value]) -> Result<Value, LowerError> {
        let added = self.graph.add(op.into(), operands, &self.origin);
        added.map_err(|error| LowerError::Type { origin: self.origin.to_string(), error })
    }
}
