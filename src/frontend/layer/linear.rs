//! Linear layers.

use serde::Serialize;
use skipc_ir::Op;

use super::{LayerKind, Surroundings};
use crate::frontend::build::{Build, LayerInput, TensorRole};
use crate::frontend::language::read::{Ctx, Fields};

/// One projection from the stream to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Linear {
    /// It has a bias.
    pub bias: bool,
}

impl LayerKind for Linear {
    const WHAT: &'static str = "a linear layer";
    const KEYS: &'static [&'static str] = &["kind", "bias", "skip"];

    fn read(ctx: &mut Ctx<'_>, fields: Fields<'_>, _: Surroundings) -> Option<Linear> {
        let bias = ctx.optional(fields, "bias", false, Ctx::flag)?;
        Some(Linear { bias })
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("bias", self.bias.to_string())]
    }

    fn build<B: Build>(
        &self,
        b: &mut B,
        name: &str,
        input: LayerInput<B::Value>,
    ) -> Result<B::Value, B::Error> {
        let d = b.stream().d_model;
        let normed = b.norm(input.rows.stream, &format!("{name}.norm"))?;
        let change = b.project(normed, &format!("{name}.proj"), TensorRole::ToStream, [d, d])?;
        if !self.bias {
            return Ok(change);
        }
        let bias = b.parameter(&format!("{name}.proj.bias"), TensorRole::ToStream, &[d])?;
        b.add(Op::AddBias {}, &[change, bias])
    }
}
