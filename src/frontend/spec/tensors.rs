//! Which tensors a model needs, by the names of the reference's state dict.

use super::model::{Block, LayerKind, Model, NormKind, Positions, Skip};

/// A tensor that a model needs.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Its name in the file.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its extents, outermost first; weights of projections are `[out, in]`.
    pub shape: Vec<usize>,
}

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// The stream that each token begins with.
    Embedding,
    /// What is added to it at each position.
    Positions,
    /// Scale of a norm.
    Gain,
    /// Shift of a norm.
    Shift,
    /// Weight of the router of this skip.
    Router(Skip),
    /// Bias of a router.
    RouterBias,
    /// Projection whose result is added to the stream.
    ToStream,
    /// Any other projection.
    Projection,
}

/// The tensors that a model needs, in the order in which they are used.
pub fn tensors(model: &Model) -> Vec<TensorSpec> {
    let mut list = List { model, tensors: Vec::new() };
    let d = model.d_model;
    list.add(Role::Embedding, "embed.weight", &[model.vocab_size, d]);
    if model.positions == Positions::Learned {
        list.add(Role::Positions, "positions.weight", &[model.max_positions, d]);
    }
    for (idx, block) in model.blocks.iter().enumerate() {
        list.block(&format!("blocks.{idx}"), block);
    }
    list.norm("norm");
    if !model.tie_embeddings {
        list.add(Role::Projection, "lm_head.weight", &[model.vocab_size, d]);
    }
    list.tensors
}

struct List<'m> {
    model: &'m Model,
    tensors: Vec<TensorSpec>,
}

impl List<'_> {
    fn add(&mut self, role: Role, name: impl Into<String>, shape: &[usize]) {
        self.tensors.push(TensorSpec { name: name.into(), role, shape: shape.to_vec() });
    }

    fn norm(&mut self, prefix: &str) {
        self.add(Role::Gain, format!("{prefix}.weight"), &[self.model.d_model]);
        if self.model.norm.kind == NormKind::LayerNorm {
            self.add(Role::Shift, format!("{prefix}.bias"), &[self.model.d_model]);
        }
    }

    fn router(&mut self, prefix: &str, skip: Option<&Skip>) {
        let Some((skip, rows)) = skip.and_then(|skip| Some((skip, skip.router.weight_rows()?))) else {
            return;
        };
        self.add(Role::Router(*skip), format!("{prefix}.weight"), &[rows, self.model.d_model]);
        if skip.bias {
            self.add(Role::RouterBias, format!("{prefix}.bias"), &[rows]);
        }
    }

    fn block(&mut self, prefix: &str, block: &Block) {
        let d = self.model.d_model;
        self.router(&format!("{prefix}.router"), block.skip.as_ref());
        for (idx, layer) in block.layers.iter().enumerate() {
            self.router(&format!("{prefix}.layer_routers.{idx}"), layer.skip.as_ref());
            let prefix = format!("{prefix}.layers.{idx}");
            self.norm(&format!("{prefix}.norm"));
            match layer.kind {
                LayerKind::Attention { heads, kv_heads, head_dim } => {
                    self.add(Role::Projection, format!("{prefix}.q_proj.weight"), &[heads * head_dim, d]);
                    self.add(Role::Projection, format!("{prefix}.k_proj.weight"), &[kv_heads * head_dim, d]);
                    self.add(Role::Projection, format!("{prefix}.v_proj.weight"), &[kv_heads * head_dim, d]);
                    self.add(Role::ToStream, format!("{prefix}.o_proj.weight"), &[d, heads * head_dim]);
                }
                LayerKind::Ffn { d_ff, activation } => {
                    self.add(Role::Projection, format!("{prefix}.up_proj.weight"), &[d_ff, d]);
                    if activation.is_gated() {
                        self.add(Role::Projection, format!("{prefix}.gate_proj.weight"), &[d_ff, d]);
                    }
                    self.add(Role::ToStream, format!("{prefix}.down_proj.weight"), &[d, d_ff]);
                }
            }
        }
    }
}
