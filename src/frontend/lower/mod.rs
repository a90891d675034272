//! Model to graph: `route / gather / scatter` around whole layers. Obviously right, and slow; passes move the borders.
//!
//! Outputs: `logits` `[n, vocab_size]`, and `gate.N` for router N in model order. Router N opens token set `cN`. Under a
//! capacity `cN` are the tokens that got a slot, and `wanted.N` says which ones the router wanted.

mod layers;
mod routers;

use skipc_ir::attr::{F64, Name, Shape, Source};
use skipc_ir::graph::Origin;
use skipc_ir::{Binary, Graph, Op, TypeError, Value};

use crate::frontend::spec::model::{Block, Decide, Kv, Layer, Model, NormKind, Positions};

pub(crate) use routers::sets;

/// How skipping is written down. The values are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Layers run over the gathered rows of the executed tokens.
    Gathered,
    /// Layers run over all rows, and those of skipped tokens are thrown away.
    Masked,
}

/// What the graph is for.
pub use skipc_artifact::program::Purpose;

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
pub fn lower(model: &Model, form: Form, purpose: Purpose) -> Result<Graph, LowerError> {
    let mut ctx = Ctx::new(model, form, purpose)?;
    let mut x = ctx.embedding()?;
    for (idx, block) in model.blocks.iter().enumerate() {
        x = ctx.block(x, block, idx)?;
    }
    ctx.at("head");
    let x = ctx.norm(x, "norm")?;
    let head = if model.tie_embeddings { "embed.weight" } else { "lm_head.weight" };
    let head = ctx.weight(head, &[model.vocab_size, model.d_model])?;
    let logits = ctx.add(Op::Matmul {}, &[x, head])?;
    let mut graph = ctx.graph;
    graph.set_output("logits", logits);
    for (idx, gate) in ctx.gates.into_iter().enumerate() {
        graph.set_output(format!("gate.{idx}"), gate.executed);
        if let Some(wanted) = gate.wanted {
            graph.set_output(format!("wanted.{idx}"), wanted);
        }
    }
    Ok(graph)
}

/// Rows on which a layer runs, with what attention has to know of them.
#[derive(Clone, Copy)]
struct Tokens {
    /// The set, or `None` for all tokens.
    set: Option<Value>,
    positions: Value,
    sequences: Value,
}

/// Where layers run, and on which rows.
#[derive(Clone, Copy)]
struct Branch {
    /// Rows that are computed.
    rows: Tokens,
    /// Rows that are kept, if not all are.
    executed: Option<Tokens>,
    /// Which tokens are keys.
    kv: Kv,
}

impl Branch {
    fn all(rows: Tokens) -> Branch {
        Branch { rows, executed: None, kv: Kv::All }
    }
}

/// The masks of a router.
struct GateValues {
    executed: Value,
    /// What it wanted, if there is a capacity.
    wanted: Option<Value>,
}

struct Ctx<'a> {
    model: &'a Model,
    form: Form,
    purpose: Purpose,
    n_routers: u32,
    graph: Graph,
    origin: Origin,
    all: Tokens,
    tokens: Value,
    gates: Vec<GateValues>,
}

impl<'a> Ctx<'a> {
    fn new(model: &'a Model, form: Form, purpose: Purpose) -> Result<Ctx<'a>, LowerError> {
        let mut graph = Graph::new(&model.name);
        let origin: Origin = "inputs".into();
        let mut input = |source| {
            graph
                .add(Op::Input { source }, &[], &origin)
                .map_err(|error| LowerError::Type { origin: origin.to_string(), error })
        };
        let tokens = input(Source::Tokens)?;
        let positions = input(Source::Positions)?;
        let sequences = input(Source::Sequences)?;
        let all = Tokens { set: None, positions, sequences };
        let n_routers = model.skips().count() as u32;
        Ok(Ctx { model, form, purpose, n_routers, graph, origin, all, tokens, gates: Vec::new() })
    }

    fn at(&mut self, origin: &str) {
        self.origin = origin.into();
    }

    fn add(&mut self, op: impl Into<Op>, operands: &[Value]) -> Result<Value, LowerError> {
        let added = self.graph.add(op.into(), operands, &self.origin);
        added.map_err(|error| LowerError::Type { origin: self.origin.to_string(), error })
    }

    fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Value, LowerError> {
        // The frontend bounds all sizes far below u32; a size that is not would be refused as a wrong shape.
        let shape = shape.iter().map(|size| u32::try_from(*size).unwrap_or(0)).collect();
        self.add(Op::Weight { name: Name::from(name), shape: Shape(shape) }, &[])
    }

    fn linear(&mut self, x: Value, name: &str, out: usize, inner: usize) -> Result<Value, LowerError> {
        let weight = self.weight(&format!("{name}.weight"), &[out, inner])?;
        self.add(Op::Matmul {}, &[x, weight])
    }

    fn norm(&mut self, x: Value, name: &str) -> Result<Value, LowerError> {
        let d = self.model.d_model;
        let gain = self.weight(&format!("{name}.weight"), &[d])?;
        let eps = F64::from(self.model.norm.eps);
        match self.model.norm.kind {
            NormKind::RmsNorm => self.add(Op::RmsNorm { eps }, &[x, gain]),
            NormKind::LayerNorm => {
                let bias = self.weight(&format!("{name}.bias"), &[d])?;
                self.add(Op::LayerNorm { eps }, &[x, gain, bias])
            }
        }
    }

    fn embedding(&mut self) -> Result<Value, LowerError> {
        self.at("embed");
        let model = self.model;
        let table = self.weight("embed.weight", &[model.vocab_size, model.d_model])?;
        let x = self.add(Op::Embed {}, &[table, self.tokens])?;
        if model.positions != Positions::Learned {
            return Ok(x);
        }
        let table = self.weight("positions.weight", &[model.max_positions, model.d_model])?;
        let positions = self.add(Op::Embed {}, &[table, self.all.positions])?;
        self.add(Binary::Add, &[x, positions])
    }

    fn block(&mut self, x: Value, block: &Block, idx: usize) -> Result<Value, LowerError> {
        let name = format!("blocks.{idx}");
        if let Some(skip) = &block.skip {
            let scope = routers::Scope { router: format!("{name}.router"), block: idx, skip };
            return self.routed(x, x, &scope, &name, &block.layers, 0);
        }
        let (entry, mut x) = (x, x);
        for (layer_idx, layer) in block.layers.iter().enumerate() {
            let layers = std::slice::from_ref(layer);
            x = match &layer.skip {
                None => self.body(x, Branch::all(self.all), x, &name, layers, layer_idx)?,
                Some(skip) => {
                    let router = format!("{name}.layer_routers.{layer_idx}");
                    let seen = if skip.decide == Decide::Entry { entry } else { x };
                    self.routed(
                        x,
                        seen,
                        &routers::Scope { router, block: idx, skip },
                        &name,
                        layers,
                        layer_idx,
                    )?
                }
            };
        }
        Ok(x)
    }

    /// Sub-layers with their residuals over the rows `h` of the branch. `base` is the stream over all tokens, of which
    /// `h` are rows: where keys and values are those of all tokens, they come from it.
    fn body(
        &mut self,
        mut h: Value,
        branch: Branch,
        base: Value,
        block: &str,
        layers: &[Layer],
        first_idx: usize,
    ) -> Result<Value, LowerError> {
        let mut stream = base;
        for (offset, layer) in layers.iter().enumerate() {
            let name = format!("{block}.layers.{}", first_idx + offset);
            self.at(&name);
            if offset > 0 {
                // Later sub-layers see what the earlier ones made of the executed tokens.
                stream = self.keep_executed(base, h, branch)?;
                if branch.rows.set.is_none() {
                    h = stream;
                }
            }
            let change = self.layer(h, branch, stream, &name, layer)?;
            h = self.add(Binary::Add, &[h, change])?;
        }
        Ok(h)
    }

    /// The stream over all tokens: rows `h` of the branch where a token executes, else those of `base`.
    fn keep_executed(&mut self, base: Value, h: Value, branch: Branch) -> Result<Value, LowerError> {
        let Some(set) = branch.executed.and_then(|executed| executed.set) else { return Ok(h) };
        let rows = match branch.rows.set {
            Some(_) => h,
            None => self.add(Op::Gather {}, &[h, set])?,
        };
        self.add(Op::Scatter {}, &[base, rows, set])
    }
}
