//! Feed-forward layers.

use serde::Serialize;
use skipc_ir::{Binary, Unary};

use super::{LayerKind, Surroundings};
use crate::frontend::build::{Build, LayerInput, TensorRole};
use crate::frontend::language::limits;
use crate::frontend::language::read::{Ctx, Fields};
use crate::frontend::language::words::{Word, text, words};
use crate::frontend::stream::Stream;

/// Up (and gate) projection, activation, down projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ffn {
    /// Inner width.
    pub d_ff: usize,
    /// Between the projections.
    pub activation: Activation,
    /// All projections have a bias.
    pub bias: bool,
}

/// Activation of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `gelu(up)`, tanh form.
    Gelu,
    /// `gelu(up)`, with the error function.
    GeluErf,
    /// `silu(up)`.
    Silu,
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
    Activation {
        Gelu = "gelu", GeluErf = "gelu_erf", Silu = "silu", Relu = "relu", Relu2 = "relu2", SwiGlu = "swiglu", GeGlu = "geglu",
    }
}

impl LayerKind for Ffn {
    const WHAT: &'static str = "an ffn layer";
    const KEYS: &'static [&'static str] = &["kind", "d_ff", "activation", "bias", "norms", "skip"];

    fn read(ctx: &mut Ctx<'_>, fields: Fields<'_>, _: Surroundings) -> Option<Ffn> {
        let d_ff = ctx.required(fields, "d_ff", "d_ff = 384");
        let d_ff = d_ff.and_then(|entry| ctx.count(entry, 1..=limits::WIDTH));
        let activation = ctx.optional(fields, "activation", Activation::Gelu, Ctx::word);
        let bias = ctx.optional(fields, "bias", false, Ctx::flag);
        Some(Ffn { d_ff: d_ff?, activation: activation?, bias: bias? })
    }

    fn settings(&self, _: &Stream) -> Vec<(&'static str, String)> {
        let mut settings =
            vec![("d_ff", self.d_ff.to_string()), ("activation", text(self.activation.word()))];
        if self.bias {
            settings.push(("bias", self.bias.to_string()));
        }
        settings
    }

    fn build<B: Build>(
        &self,
        b: &mut B,
        name: &str,
        pre: Option<&str>,
        input: LayerInput<B::Value>,
    ) -> Result<B::Value, B::Error> {
        let x = b.pre_norm(input.rows.stream, pre)?;
        self.of_normed(b, name, x)
    }
}

impl Ffn {
    /// What it makes of rows that are normed already.
    pub(super) fn of_normed<B: Build>(
        &self,
        b: &mut B,
        name: &str,
        x: B::Value,
    ) -> Result<B::Value, B::Error> {
        let d = b.stream().d_model;
        let widen = |which: &str, b: &mut B| {
            let role = (TensorRole::Projection, self.bias);
            b.project_with_bias(x, &format!("{name}.{which}_proj"), role, [self.d_ff, d])
        };
        let up = widen("up", b)?;
        let (is_gated, function) = self.activation.function();
        let inner = if is_gated {
            let gate = widen("gate", b)?;
            let gate = b.add(function, &[gate])?;
            b.add(Binary::Mul, &[gate, up])?
        } else {
            b.add(function, &[up])?
        };
        let role = (TensorRole::ToStream, self.bias);
        b.project_with_bias(inner, &format!("{name}.down_proj"), role, [d, self.d_ff])
    }
}

impl Activation {
    /// Whether there is a gate projection, and the function of the gate or, without one, of the up projection.
    pub(super) fn function(self) -> (bool, Unary) {
        match self {
            Activation::Gelu => (false, Unary::Gelu),
            Activation::GeluErf => (false, Unary::GeluErf),
            Activation::Silu => (false, Unary::Silu),
            Activation::Relu => (false, Unary::Relu),
            Activation::Relu2 => (false, Unary::Relu2),
            Activation::SwiGlu => (true, Unary::Silu),
            Activation::GeGlu => (true, Unary::Gelu),
        }
    }
}
