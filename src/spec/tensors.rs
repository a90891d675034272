//! Which tensors a model needs, by the names of the reference's state dict.

use super::model::{Block, LayerKind, Model, NormKind, Positions, Skip};

/// A tensor that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name in the file.
    pub name: String,
    /// Its extents, outermost first; weights of projections are `[out, in]`.
    pub shape: Vec<usize>,
}

/// The tensors that a model needs, in the order in which they are used.
pub fn tensors(model: &Model) -> Vec<TensorSpec> {
    let mut list = List { model, tensors: Vec::new() };
    let d = model.d_model;
    list.add("embed.weight", &[model.vocab_size, d]);
    if model.positions == Positions::Learned {
        list.add("positions.weight", &[model.max_positions, d]);
    }
    for (idx, block) in model.blocks.iter().enumerate() {
        list.block(&format!("blocks.{idx}"), block);
    }
    list.norm("norm");
    if !model.tie_embeddings {
        list.add("lm_head.weight", &[model.vocab_size, d]);
    }
    list.tensors
}

struct List<'m> {
    model: &'m Model,
    tensors: Vec<TensorSpec>,
}

impl List<'_> {
    fn add(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.tensors.push(TensorSpec { name: name.into(), shape: shape.to_vec() });
    }

    fn norm(&mut self, prefix: &str) {
        self.add(format!("{prefix}.weight"), &[self.model.d_model]);
        if self.model.norm.kind == NormKind::LayerNorm {
            self.add(format!("{prefix}.bias"), &[self.model.d_model]);
        }
    }

    fn router(&mut self, prefix: &str, skip: Option<&Skip>) {
        let Some((skip, rows)) = skip.and_then(|skip| Some((skip, skip.router.weight_rows()?))) else {
            return;
        };
        self.add(format!("{prefix}.weight"), &[rows, self.model.d_model]);
        if skip.bias {
            self.add(format!("{prefix}.bias"), &[rows]);
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
                    self.add(format!("{prefix}.q_proj.weight"), &[heads * head_dim, d]);
                    self.add(format!("{prefix}.k_proj.weight"), &[kv_heads * head_dim, d]);
                    self.add(format!("{prefix}.v_proj.weight"), &[kv_heads * head_dim, d]);
                    self.add(format!("{prefix}.o_proj.weight"), &[d, heads * head_dim]);
                }
                LayerKind::Ffn { d_ff, activation } => {
                    self.add(format!("{prefix}.up_proj.weight"), &[d_ff, d]);
                    if activation.is_gated() {
                        self.add(format!("{prefix}.gate_proj.weight"), &[d_ff, d]);
                    }
                    self.add(format!("{prefix}.down_proj.weight"), &[d, d_ff]);
                }
            }
        }
    }
}
