//! Sub-layers: attention and feed-forward.

use skipc_ir::attr::F64;
use skipc_ir::{Binary, Op, Unary, Value};

use super::{Branch, Ctx, LowerError, Tokens};
use crate::frontend::spec::model::{Activation, Kv, Layer, LayerKind, Positions};

/// Widths of an attention layer.
struct Heads {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Ctx<'_> {
    /// What the sub-layer adds to the rows `h`.
    pub(super) fn layer(
        &mut self,
        h: Value,
        branch: Branch,
        stream: Value,
        name: &str,
        layer: &Layer,
    ) -> Result<Value, LowerError> {
        match layer.kind {
            LayerKind::Attention { heads, kv_heads, head_dim } => {
                let rows = branch.rows;
                let (kv_from, kv_rows) = match (branch.kv, branch.executed, rows.set) {
                    (Kv::Active, Some(executed), Some(_)) => (h, executed),
                    (Kv::Active, Some(executed @ Tokens { set: Some(set), .. }), None) => {
                        (self.add(Op::Gather {}, &[h, set])?, executed)
                    }
                    _ => (stream, self.all),
                };
                self.attention(h, rows, kv_from, kv_rows, name, &Heads { heads, kv_heads, head_dim })
            }
            LayerKind::Ffn { d_ff, activation } => self.ffn(h, name, d_ff, activation),
        }
    }

    fn attention(
        &mut self,
        h: Value,
        rows: Tokens,
        kv_from: Value,
        kv_rows: Tokens,
        name: &str,
        widths: &Heads,
    ) -> Result<Value, LowerError> {
        let Heads { heads, kv_heads, head_dim } = *widths;
        let d = self.model.d_model;
        let norm = format!("{name}.norm");
        let queries = self.norm(h, &norm)?;
        let keys = if kv_from == h { queries } else { self.norm(kv_from, &norm)? };
        let mut q = self.linear(queries, &format!("{name}.q_proj"), heads * head_dim, d)?;
        let mut k = self.linear(keys, &format!("{name}.k_proj"), kv_heads * head_dim, d)?;
        let v = self.linear(keys, &format!("{name}.v_proj"), kv_heads * head_dim, d)?;
        if let Positions::Rope { theta } = self.model.positions {
            q = self.rope(q, rows, heads, theta)?;
            k = self.rope(k, kv_rows, kv_heads, theta)?;
        }
        let op = Op::Attention { heads: heads as u32, kv_heads: kv_heads as u32 };
        let (q_pos, q_seq) = (rows.positions, rows.sequences);
        let (k_pos, k_seq) = (kv_rows.positions, kv_rows.sequences);
        let mixed = self.add(op, &[q, k, v, q_pos, q_seq, k_pos, k_seq])?;
        self.linear(mixed, &format!("{name}.o_proj"), d, heads * head_dim)
    }

    fn rope(&mut self, x: Value, rows: Tokens, heads: usize, theta: f64) -> Result<Value, LowerError> {
        let op = Op::Rope { heads: heads as u32, theta: F64::from(theta) };
        self.add(op, &[x, rows.positions])
    }

    fn ffn(
        &mut self,
        h: Value,
        name: &str,
        d_ff: usize,
        activation: Activation,
    ) -> Result<Value, LowerError> {
        let d = self.model.d_model;
        let normed = self.norm(h, &format!("{name}.norm"))?;
        let up = self.linear(normed, &format!("{name}.up_proj"), d_ff, d)?;
        let inner = if activation.is_gated() {
            let gate = self.linear(normed, &format!("{name}.gate_proj"), d_ff, d)?;
            let op = if activation == Activation::SwiGlu { Unary::Silu } else { Unary::Gelu };
            let gate = self.add(op, &[gate])?;
            self.add(Binary::Mul, &[gate, up])?
        } else {
            let op = if activation == Activation::Relu { Unary::Relu } else { Unary::Gelu };
            self.add(op, &[up])?
        };
        self.linear(inner, &format!("{name}.down_proj"), d, d_ff)
    }
}
