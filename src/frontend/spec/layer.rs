//! Sub-layers: attention and feed-forward, and how heads divide.

use super::ast::{Entry, Table, Value};
use super::limits;
use super::model::{Activation, Layer, LayerKind, Skip};
use super::read::{Ctx, Fields, list};
use super::skip::{self, Wraps};
use super::words::LayerWord;
use crate::diagnostic::Diagnostic;

const ATTENTION_KEYS: &[&str] = &["kind", "heads", "kv_heads", "head_dim", "skip"];
const FFN_KEYS: &[&str] = &["kind", "d_ff", "activation", "skip"];

/// What a layer is, for whoever leaves it out.
const EXAMPLE: &str = "{ kind = \"ffn\", d_ff = 384 }";

/// What sub-layers need to know of the model. `None` where the model itself is wrong.
#[derive(Clone, Copy)]
pub(super) struct Surroundings {
    pub(super) d_model: Option<usize>,
    pub(super) rope: Option<bool>,
}

/// Reads one element of `layers`.
pub(super) fn resolve(ctx: &mut Ctx<'_>, value: &Value, around: Surroundings) -> Option<Layer> {
    let table = ctx.table("layers", value, &format!("layers = [{EXAMPLE}]"))?;
    // Which keys it may have depends on its kind.
    let any = Fields { table, what: "a layer", keys: &[] };
    let entry = ctx.required(any, "kind", "kind = \"attention\"");
    let kind = entry.and_then(|entry| ctx.word(entry));
    let found = match kind {
        Some(LayerWord::Attention) => attention(ctx, table, around),
        Some(LayerWord::Ffn) => ffn(ctx, table),
        None => None,
    };
    let skip = match table.get("skip") {
        None => Some(None),
        Some(entry) => skip::resolve(ctx, &entry.value, Wraps::Layer).map(Some),
    };
    let skip: Option<Skip> = skip?;
    Some(Layer { kind: found?, skip })
}

fn attention(ctx: &mut Ctx<'_>, table: &Table, around: Surroundings) -> Option<LayerKind> {
    let fields = Fields { table, what: "an attention layer", keys: ATTENTION_KEYS };
    ctx.check_keys(fields, |key| belongs_to(key, FFN_KEYS, "ffn"));
    let width = |ctx: &mut Ctx<'_>, entry: &Entry| ctx.count(entry, 1..=limits::WIDTH);
    let heads_entry = ctx.required(fields, "heads", "heads = 4");
    let heads = heads_entry.and_then(|entry| width(ctx, entry));
    let kv_heads = ctx.optional(fields, "kv_heads", heads, |ctx, entry| width(ctx, entry).map(Some));
    let head_dim = ctx.optional(fields, "head_dim", None, |ctx, entry| width(ctx, entry).map(Some));
    let (heads_entry, heads) = (heads_entry?, heads?);
    let split = Split { table, heads_entry, heads };
    let kv_heads = split.kv_heads(ctx, kv_heads??);
    let head_dim = match head_dim? {
        Some(head_dim) => Some(head_dim),
        None => split.head_dim(ctx, around.d_model?),
    };
    let (kv_heads, head_dim) = (kv_heads?, head_dim?);
    split.check(ctx, head_dim, around.rope?).then_some(LayerKind::Attention { heads, kv_heads, head_dim })
}

fn ffn(ctx: &mut Ctx<'_>, table: &Table) -> Option<LayerKind> {
    let fields = Fields { table, what: "an ffn layer", keys: FFN_KEYS };
    ctx.check_keys(fields, |key| belongs_to(key, ATTENTION_KEYS, "attention"));
    let d_ff = ctx.required(fields, "d_ff", "d_ff = 384");
    let d_ff = d_ff.and_then(|entry| ctx.count(entry, 1..=limits::WIDTH));
    let activation = ctx.optional(fields, "activation", Activation::Gelu, Ctx::word);
    Some(LayerKind::Ffn { d_ff: d_ff?, activation: activation? })
}

fn belongs_to(key: &str, keys: &[&str], kind: &str) -> Option<String> {
    let rest: Vec<&str> = keys.iter().copied().filter(|key| *key != "kind" && *key != "skip").collect();
    rest.contains(&key).then(|| format!("{} belong to `kind = \"{kind}\"`", list(&rest)))
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
