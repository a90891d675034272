//! Causal convolutions.

use serde::Serialize;

use super::{LayerKind, Surroundings};
use crate::frontend::build::{Build, LayerInput, TensorRole};
use crate::frontend::function::ElementFunction;
use crate::frontend::language::limits;
use crate::frontend::language::read::{Ctx, Fields};
use crate::frontend::language::words::{Word, text};
use crate::frontend::stream::Stream;
use skipc_ir::Op;

/// A causal depthwise convolution: each column of a token is a sum over those of the last `kernel` positions, its own included,
/// with a filter of its own. Positions before the sequence, and those that have no input, count as 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Conv {
    /// Taps of a filter: `conv.weight` is `[D, kernel]`, the last of a row for the token itself.
    pub kernel: usize,
    /// Behind the sum and the bias.
    pub activation: ElementFunction,
    /// There is a bias, `conv.bias` `[D]`.
    pub bias: bool,
}

impl LayerKind for Conv {
    const WHAT: &'static str = "a conv layer";
    const KEYS: &'static [&'static str] = &["kind", "kernel", "activation", "bias", "norms", "skip"];
    const MIXES_TOKENS: bool = true;

    fn read(ctx: &mut Ctx<'_>, fields: Fields<'_>, _: Surroundings) -> Option<Conv> {
        let kernel = ctx.required(fields, "kernel", "kernel = 4");
        let kernel = kernel.and_then(|entry| ctx.count(entry, 1..=limits::TAPS));
        let activation = ctx.optional(fields, "activation", ElementFunction::None, Ctx::word);
        let bias = ctx.optional(fields, "bias", false, Ctx::flag);
        Some(Conv { kernel: kernel?, activation: activation?, bias: bias? })
    }

    fn settings(&self, _: &Stream) -> Vec<(&'static str, String)> {
        let mut settings = vec![("kernel", self.kernel.to_string())];
        if self.activation != ElementFunction::None {
            settings.push(("activation", text(self.activation.word())));
        }
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
        let (d, role) = (b.stream().d_model, TensorRole::ToStream);
        let x = b.pre_norm(input.seen.stream, pre)?;
        let weight = b.parameter(&format!("{name}.conv.weight"), role, &[d, self.kernel])?;
        let mut y = b.convolve([x, weight], input)?;
        if self.bias {
            let bias = b.parameter(&format!("{name}.conv.bias"), role, &[d])?;
            y = b.add(Op::AddBias {}, &[y, bias])?;
        }
        match self.activation.unary() {
            Some(function) => b.add(function, &[y]),
            None => Ok(y),
        }
    }
}
