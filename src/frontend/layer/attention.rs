//! Self-attention.

use serde::Serialize;
use skipc_ir::Op;
use skipc_ir::attr::F64;

use super::{LayerKind, Surroundings};
use crate::diagnostic::Diagnostic;
use crate::frontend::build::{Build, Heads, LayerInput, TensorRole};
use crate::frontend::language::ast::{Entry, Table};
use crate::frontend::language::limits;
use crate::frontend::language::read::{Ctx, Fields};
use crate::frontend::stream::Positions;

/// Causal self-attention with grouped heads, no biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Attention {
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
}

impl LayerKind for Attention {
    const WHAT: &'static str = "an attention layer";
    const KEYS: &'static [&'static str] = &["kind", "heads", "kv_heads", "head_dim", "skip"];
    const MIXES_TOKENS: bool = true;

    fn read(ctx: &mut Ctx<'_>, fields: Fields<'_>, around: Surroundings) -> Option<Attention> {
        let width = |ctx: &mut Ctx<'_>, entry: &Entry| ctx.count(entry, 1..=limits::WIDTH);
        let heads_entry = ctx.required(fields, "heads", "heads = 4");
        let heads = heads_entry.and_then(|entry| width(ctx, entry));
        let kv_heads = ctx.optional(fields, "kv_heads", heads, |ctx, entry| width(ctx, entry).map(Some));
        let head_dim = ctx.optional(fields, "head_dim", None, |ctx, entry| width(ctx, entry).map(Some));
        let (heads_entry, heads) = (heads_entry?, heads?);
        let split = Split { table: fields.table, heads_entry, heads };
        let kv_heads = split.kv_heads(ctx, kv_heads??);
        let head_dim = match head_dim? {
            Some(head_dim) => Some(head_dim),
            None => split.head_dim(ctx, around.d_model?),
        };
        let (kv_heads, head_dim) = (kv_heads?, head_dim?);
        split.check(ctx, head_dim, around.rope?).then_some(Attention { heads, kv_heads, head_dim })
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("heads", self.heads.to_string()),
            ("kv_heads", self.kv_heads.to_string()),
            ("head_dim", self.head_dim.to_string()),
        ]
    }

    fn build<B: Build>(
        &self,
        b: &mut B,
        name: &str,
        input: LayerInput<B::Value>,
    ) -> Result<B::Value, B::Error> {
        let Attention { heads, kv_heads, head_dim } = *self;
        let (d, rows, seen) = (b.stream().d_model, input.rows, input.seen);
        let norm = format!("{name}.norm");
        let queries = b.norm(rows.stream, &norm)?;
        let keys = if seen.stream == rows.stream { queries } else { b.norm(seen.stream, &norm)? };
        let mut project = |x, which: &str, heads| {
            b.project(x, &format!("{name}.{which}_proj"), TensorRole::Projection, [heads * head_dim, d])
        };
        let mut q = project(queries, "q", heads)?;
        let mut k = project(keys, "k", kv_heads)?;
        let v = project(keys, "v", kv_heads)?;
        if let Positions::Rope { theta } = b.stream().positions {
            let rope = |heads: usize| Op::Rope { heads: heads as u32, theta: F64::from(theta) };
            q = b.add(rope(heads), &[q, rows.positions])?;
            k = b.add(rope(kv_heads), &[k, seen.positions])?;
        }
        let mixed = b.attend(name, Heads { queries: heads, keys: kv_heads }, [q, k, v], input)?;
        b.project(mixed, &format!("{name}.o_proj"), TensorRole::ToStream, [d, heads * head_dim])
    }
}

/// The heads of one attention layer, for the checks that need several keys.
struct Split<'t> {
    table: &'t Table,
    heads_entry: &'t Entry,
    heads: usize,
}

impl Split<'_> {
    fn kv_heads(&self, ctx: &mut Ctx<'_>, kv_heads: usize) -> Option<usize> {
        if self.heads.is_multiple_of(kv_heads) {
            return Some(kv_heads);
        }
        // Without the key they are equal and divide.
        let entry = self.table.get("kv_heads")?;
        let heads = self.heads;
        let message = format!("{heads} heads cannot share {kv_heads} key and value heads evenly");
        let divisors: Vec<String> = (1..=heads.min(1024))
            .filter(|count| heads.is_multiple_of(*count))
            .map(|count| count.to_string())
            .collect();
        let diagnostic = Diagnostic::new("spec::head_split", message)
            .at(ctx.source, entry.value.span.clone(), format!("does not divide {heads}"))
            .at(ctx.source, self.heads_entry.value.span.clone(), "heads")
            .help(format!("write a divisor of {heads}: {}", divisors.join(", ")));
        ctx.report(diagnostic);
        None
    }

    fn head_dim(&self, ctx: &mut Ctx<'_>, d_model: usize) -> Option<usize> {
        if d_model.is_multiple_of(self.heads) {
            return Some(d_model / self.heads);
        }
        let heads = self.heads;
        let message = format!("`d_model` {d_model} does not divide into {heads} heads");
        let at = (&self.heads_entry.value, "not a divisor of `d_model`");
        ctx.wrong("spec::head_split", message, at, "change `heads`, or set `head_dim`".to_owned());
        None
    }

    fn check(&self, ctx: &mut Ctx<'_>, head_dim: usize, rope: bool) -> bool {
        let at = (&self.table.get("head_dim").unwrap_or(self.heads_entry).value, "");
        if self.heads * head_dim > limits::WIDTH {
            let message = format!("{} heads of {head_dim} are wider than the limit", self.heads);
            let label = format!("at most {} together", limits::WIDTH);
            ctx.wrong("spec::limit", message, (at.0, &label), "use fewer or narrower heads".to_owned());
            return false;
        }
        if rope && !head_dim.is_multiple_of(2) {
            let message = format!("rotary positions need an even head width, not {head_dim}");
            let help = "write an even `head_dim`, or `positions = \"learned\"`".to_owned();
            ctx.wrong("spec::head_split", message, (at.0, &format!("gives heads of width {head_dim}")), help);
            return false;
        }
        true
    }
}
