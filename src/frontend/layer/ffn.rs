//! Feed-forward layers.

use serde::Serialize;
use skipc_ir::{Binary, Unary};

use super::{LayerKind, Surroundings};
use crate::frontend::build::{Build, LayerInput, TensorRole};
use crate::frontend::language::limits;
use crate::frontend::language::read::{Ctx, Fields};
use crate::frontend::language::words::{Word, text, words};

/// Up (and gate) projection, activation, down projection, no biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ffn {
    /// Inner width.
    pub d_ff: usize,
    /// Between the projections.
    pub activation: Activation,
}

/// Activation of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `gelu(up)`, tanh form.
    Gelu,
    /// `max(up, 0)`.
    Relu,
    /// `max(up, 0)²`.
    Relu2,
    /// `silu(gate) · up`.
    SwiGlu,
    /// `gelu(gate) · up`, tanh form.
    GeGlu,
}

words! {
    Activation { Gelu = "gelu", Relu = "relu", Relu2 = "relu2", SwiGlu = "swiglu", GeGlu = "geglu" }
}

impl LayerKind for Ffn {
    const WHAT: &'static str = "an ffn layer";
    const KEYS: &'static [&'static str] = &["kind", "d_ff", "activation", "skip"];

    fn read(ctx: &mut Ctx<'_>, fields: Fields<'_>, _: Surroundings) -> Option<Ffn> {
        let d_ff = ctx.required(fields, "d_ff", "d_ff = 384");
        let d_ff = d_ff.and_then(|entry| ctx.count(entry, 1..=limits::WIDTH));
        let activation = ctx.optional(fields, "activation", Activation::Gelu, Ctx::word);
        Some(Ffn { d_ff: d_ff?, activation: activation? })
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("d_ff", self.d_ff.to_string()), ("activation", text(self.activation.word()))]
    }

    fn build<B: Build>(
        &self,
        b: &mut B,
        name: &str,
        input: LayerInput<B::Value>,
    ) -> Result<B::Value, B::Error> {
        let d = b.stream().d_model;
        let normed = b.norm(input.rows.stream, &format!("{name}.norm"))?;
        let up = b.project(normed, &format!("{name}.up_proj"), TensorRole::Projection, [self.d_ff, d])?;
        let (is_gated, function) = self.activation.function();
        let inner = if is_gated {
            let gate =
                b.project(normed, &format!("{name}.gate_proj"), TensorRole::Projection, [self.d_ff, d])?;
            let gate = b.add(function, &[gate])?;
            b.add(Binary::Mul, &[gate, up])?
        } else {
            b.add(function, &[up])?
        };
        b.project(inner, &format!("{name}.down_proj"), TensorRole::ToStream, [d, self.d_ff])
    }
}

impl Activation {
    /// Whether there is a gate projection, and the function of the gate or, without one, of the up projection.
    fn function(self) -> (bool, Unary) {
        match self {
            Activation::Gelu => (false, Unary::Gelu),
            Activation::Relu => (false, Unary::Relu),
            Activation::Relu2 => (false, Unary::Relu2),
            Activation::SwiGlu => (true, Unary::Silu),
            Activation::GeGlu => (true, Unary::Gelu),
        }
    }
}
