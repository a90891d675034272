//! Model to graph: `route / gather / scatter` around whole layers. Obviously right, and slow; passes move the borders.
//!
//! Outputs: `logits` `[n, vocab_size]`, and `gate.N` for router N in model order. Router N opens token set `cN`.

mod layers;
mod routers;

use skipc_ir::attr::{F64, Name, Shape, Source};
use skipc_ir::graph::Origin;
use skipc_ir::{Graph, Op, TypeError, Value};

use crate::spec::model::{Block, Decide, Layer, Model, NormKind, Positions, Skip};

/// Why a model has no graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// The model is right, but the compiler cannot do this yet.
    #[error("{origin}: {what} is not implemented yet")]
    Unsupported {
        /// Where in the model, such as `blocks.3`.
        origin: String,
        /// What it asks for.
        what: String,
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
/// If it asks for something that is not implemented.
pub fn lower(model: &Model) -> Result<Graph, LowerError> {
    let mut ctx = Ctx::new(model)?;
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
        graph.set_output(format!("gate.{idx}"), gate);
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

struct Ctx<'a> {
    model: &'a Model,
    graph: Graph,
    origin: Origin,
    all: Tokens,
    tokens: Value,
    gates: Vec<Value>,
}

impl<'a> Ctx<'a> {
    fn new(model: &'a Model) -> Result<Ctx<'a>, LowerError> {
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
        Ok(Ctx { model, graph, origin, all, tokens, gates: Vec::new() })
    }

    fn at(&mut self, origin: &str) {
        self.origin = origin.into();
    }

    fn add(&mut self, op: Op, operands: &[Value]) -> Result<Value, LowerError> {
        let added = self.graph.add(op, operands, &self.origin);
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
        self.add(Op::Add {}, &[x, positions])
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
                None => self.body(x, self.all, x, &name, layers, layer_idx, None)?,
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

    /// Sub-layers with their residuals over the rows `h` of `rows`. `base` is the stream over all tokens, of which
    /// `h` are rows: where keys and values are those of all tokens, they come from it.
    #[expect(clippy::too_many_arguments, reason = "private, called twice; a struct would only rename them")]
    fn body(
        &mut self,
        mut h: Value,
        rows: Tokens,
        base: Value,
        block: &str,
        layers: &[Layer],
        first_idx: usize,
        skip: Option<&Skip>,
    ) -> Result<Value, LowerError> {
        let mut stream = base;
        for (offset, layer) in layers.iter().enumerate() {
            let name = format!("{block}.layers.{}", first_idx + offset);
            self.at(&name);
            if offset > 0 {
                // Later sub-layers see what the earlier ones made of the executed tokens.
                stream = match rows.set {
                    Some(set) => self.add(Op::Scatter {}, &[base, h, set])?,
                    None => h,
                };
            }
            let change = self.layer(h, rows, stream, &name, layer, skip)?;
            h = self.add(Op::Add {}, &[h, change])?;
        }
        Ok(h)
    }
}
