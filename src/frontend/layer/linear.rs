//! Linear layers.

use serde::Serialize;

use super::{LayerKind, Surroundings};
use crate::frontend::build::{Build, LayerInput, TensorRole};
use crate::frontend::language::read::{Ctx, Fields};
use crate::frontend::stream::Stream;

/// One projection from the stream to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Linear {
    /// It has a bias.
    pub bias: bool,
}

impl LayerKind for Linear {
    const WHAT: &'static str = "a linear layer";
    const KEYS: &'static [&'static str] = &["kind", "bias", "norms", "skip"];

    fn read(ctx: &mut Ctx<'_>, fields: Fields<'_>, _: Surroundings) -> Option<Linear> {
        let bias = ctx.optional(fields, "bias", false, Ctx::flag)?;
        Some(Linear { bias })
    }

    fn settings(&self, _: &Stream) -> Vec<(&'static str, String)> {
        vec![("bias", self.bias.to_string())]
    }

    fn build<B: Build>(
        &self,
        b: &mut B,
        name: &str,
        pre: Option<&str>,
        input: LayerInput<B::Value>,
    ) -> Result<B::Value, B::Error> {
        let d = b.stream().d_model;
        let x = b.pre_norm(input.rows.stream, pre)?;
        b.project_with_bias(x, &format!("{name}.proj"), (TensorRole::ToStream, self.bias), [d, d])
    }
}
