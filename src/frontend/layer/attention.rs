//! Self-attention.

use serde::Serialize;
use skipc_ir::{F64, MOST_AHEAD, Op, RopeScaling, Scoring};

use super::{LayerKind, Surroundings};
use crate::diagnostic::Diagnostic;
use crate::frontend::build::{Build, Heads, LayerInput, NormOver, TensorRole};
use crate::frontend::language::ast::{Entry, Table};
use crate::frontend::language::limits;
use crate::frontend::language::read::{Ctx, Fields};
use crate::frontend::language::words::{Word, text, words};
use crate::frontend::rope;
use crate::frontend::stream::{Positions, Rope, Stream};

/// Self-attention with grouped heads: project, norm of queries and keys, rotate, scale, cap, mask, softmax.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Attention {
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Which projections have a bias.
    pub bias: AttentionBias,
    /// Norms of queries and keys, before they turn.
    pub qk_norm: QkNorm,
    /// How queries and keys turn with their positions, if they do.
    pub rotation: Option<Rotation>,
    /// What products of queries and keys are multiplied with; `1 / √head_dim` if it is not said.
    pub scale: Option<f64>,
    /// The bound `c` of scores that become `c · tanh(score / c)`, if there is one.
    pub softcap: Option<f64>,
    /// Whether a query sees later positions.
    pub mask: Mask,
    /// How many positions a query sees on each side that it sees at all, its own included; all if it is not said.
    pub window: Option<usize>,
}

/// Which positions a query sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mask {
    /// Those up to its own.
    #[default]
    Causal,
    /// All of its sequence.
    Full,
}

/// Which projections of attention have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionBias {
    /// None.
    None,
    /// Those of queries, keys and values.
    Qkv,
    /// All of them.
    All,
}

/// What norms of queries and keys are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// There are none.
    None,
    /// Each head.
    Head,
    /// All heads together.
    Full,
}

/// How the heads of queries and keys turn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rotation {
    /// The first columns of a head, an even number, that turn.
    pub dim: usize,
    /// By how much.
    pub rope: Rope,
}

words! {
    AttentionBias { None = "none", Qkv = "qkv", All = "all" }
    QkNorm { None = "none", Head = "head", Full = "full" }
    Mask { Causal = "causal", Full = "full" }
}

/// Keys that have a meaning for rotary positions only.
const ROPE_KEYS: [&str; 3] = ["rope_theta", "rope_scaling", "rotary_dim"];

impl LayerKind for Attention {
    const WHAT: &'static str = "an attention layer";
    const KEYS: &'static [&'static str] = &[
        "kind",
        "heads",
        "kv_heads",
        "head_dim",
        "bias",
        "qk_norm",
        "rope_theta",
        "rope_scaling",
        "rotary_dim",
        "scale",
        "softcap",
        "mask",
        "window",
        "norms",
        "skip",
    ];
    const MIXES_TOKENS: bool = true;

    fn read(ctx: &mut Ctx<'_>, fields: Fields<'_>, around: Surroundings) -> Option<Attention> {
        let width = |ctx: &mut Ctx<'_>, entry: &Entry| ctx.count(entry, 1..=limits::WIDTH);
        let heads_entry = ctx.required(fields, "heads", "heads = 4");
        let heads = heads_entry.and_then(|entry| width(ctx, entry));
        let kv_heads = ctx.optional(fields, "kv_heads", heads, |ctx, entry| width(ctx, entry).map(Some));
        let head_dim = ctx.optional(fields, "head_dim", None, |ctx, entry| width(ctx, entry).map(Some));
        let bias = ctx.optional(fields, "bias", AttentionBias::None, Ctx::word);
        let qk_norm = ctx.optional(fields, "qk_norm", QkNorm::None, Ctx::word);
        let scores = Scores::read(ctx, fields, around.mask);
        let (heads_entry, heads) = (heads_entry?, heads?);
        let split = Split { table: fields.table, heads_entry, heads };
        let kv_heads = split.kv_heads(ctx, kv_heads??);
        let head_dim = match head_dim? {
            Some(head_dim) => Some(head_dim),
            None => split.head_dim(ctx, around.d_model?),
        };
        let (kv_heads, head_dim) = (kv_heads?, head_dim?);
        let rotation = split.rotation(ctx, fields, (head_dim, around.rope?));
        let Scores { scale, softcap, mask, window } = scores?;
        let attention = Attention {
            heads,
            kv_heads,
            head_dim,
            bias: bias?,
            qk_norm: qk_norm?,
            rotation: rotation?,
            scale,
            softcap,
            mask,
            window,
        };
        split.check(ctx, head_dim).then_some(attention)
    }

    fn settings(&self, stream: &Stream) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("heads", self.heads.to_string()),
            ("kv_heads", self.kv_heads.to_string()),
            ("head_dim", self.head_dim.to_string()),
        ];
        if self.bias != AttentionBias::None {
            settings.push(("bias", text(self.bias.word())));
        }
        if self.qk_norm != QkNorm::None {
            settings.push(("qk_norm", text(self.qk_norm.word())));
        }
        settings.extend(self.rotation_settings(stream));
        settings.extend(self.scale.map(|scale| ("scale", format!("{scale:?}"))));
        settings.extend(self.softcap.map(|cap| ("softcap", format!("{cap:?}"))));
        if self.mask != Mask::Causal {
            settings.push(("mask", text(self.mask.word())));
        }
        settings.extend(self.window.map(|window| ("window", window.to_string())));
        settings
    }

    fn build<B: Build>(
        &self,
        b: &mut B,
        name: &str,
        pre: Option<&str>,
        input: LayerInput<B::Value>,
    ) -> Result<B::Value, B::Error> {
        let Attention { heads, kv_heads, head_dim, .. } = *self;
        let (d, rows, seen) = (b.stream().d_model, input.rows, input.seen);
        let queries = b.pre_norm(rows.stream, pre)?;
        let keys = if seen.stream == rows.stream { queries } else { b.pre_norm(seen.stream, pre)? };
        let project = |b: &mut B, x, which: &str, heads| {
            let role = (TensorRole::Projection, self.bias != AttentionBias::None);
            b.project_with_bias(x, &format!("{name}.{which}_proj"), role, [heads * head_dim, d])
        };
        let q = project(b, queries, "q", heads)?;
        let k = project(b, keys, "k", kv_heads)?;
        let v = project(b, keys, "v", kv_heads)?;
        let q = self.placed(b, q, (&format!("{name}.q_norm"), heads), rows.positions)?;
        let k = self.placed(b, k, (&format!("{name}.k_norm"), kv_heads), seen.positions)?;
        let scoring = Scoring {
            scale: self.scale.map(F64::from),
            cap: self.softcap.map(F64::from),
            window: self.window.map(|window| window as u32),
            ahead: self.ahead(),
        };
        let mixed = b.attend(name, Heads { queries: heads, keys: kv_heads, scoring }, [q, k, v], input)?;
        let role = (TensorRole::ToStream, self.bias == AttentionBias::All);
        b.project_with_bias(mixed, &format!("{name}.o_proj"), role, [d, heads * head_dim])
    }
}

impl Attention {
    /// How many later positions a query sees, if it sees any.
    fn ahead(&self) -> Option<u32> {
        let all = |window: usize| u32::try_from(window - 1).unwrap_or(MOST_AHEAD);
        match self.mask {
            Mask::Causal => None,
            Mask::Full => Some(self.window.map_or(MOST_AHEAD, all)).filter(|ahead| *ahead > 0),
        }
    }

    /// Queries or keys as they are compared: behind their norm, and turned.
    fn placed<B: Build>(
        &self,
        b: &mut B,
        x: B::Value,
        (norm, heads): (&str, usize),
        positions: B::Value,
    ) -> Result<B::Value, B::Error> {
        let x = match self.qk_norm {
            QkNorm::None => x,
            QkNorm::Head => b.norm_over(x, norm, NormOver::Heads(heads, self.head_dim))?,
            QkNorm::Full => b.norm_over(x, norm, NormOver::Columns(heads * self.head_dim))?,
        };
        let Some(Rotation { dim, rope: Rope { theta, scaling } }) = self.rotation else { return Ok(x) };
        let turned = (dim != self.head_dim).then_some(dim as u32);
        let rope = Op::Rope { heads: heads as u32, theta: F64::from(theta), turned, scaling };
        b.add(rope, &[x, positions])
    }

    /// What is not as the model's positions have it.
    fn rotation_settings(&self, stream: &Stream) -> Vec<(&'static str, String)> {
        let mut settings = Vec::new();
        let Positions::Rope(model) = stream.positions else { return settings };
        let Some(Rotation { dim, rope }) = self.rotation else {
            return vec![("rotary_dim", "0".to_owned())];
        };
        if rope.theta != model.theta {
            settings.push(("rope_theta", format!("{:?}", rope.theta)));
        }
        if let Some(scaling) = rope.scaling.filter(|_| rope.scaling != model.scaling) {
            settings.push(("rope_scaling", rope::print(scaling)));
        }
        if dim != self.head_dim {
            settings.push(("rotary_dim", dim.to_string()));
        }
        settings
    }
}

/// What is said of scores.
struct Scores {
    scale: Option<f64>,
    softcap: Option<f64>,
    mask: Mask,
    window: Option<usize>,
}

impl Scores {
    fn read(ctx: &mut Ctx<'_>, fields: Fields<'_>, of_model: Mask) -> Option<Scores> {
        let scale = ctx.optional(fields, "scale", None, |ctx, entry| {
            ctx.number(entry, "above 0.0, at most 1e6", |number| number > 0.0 && number <= 1e6).map(Some)
        });
        let softcap = ctx.optional(fields, "softcap", 0.0, |ctx, entry| {
            ctx.number(entry, "from 0.0 to 1e6", |number| (0.0..=1e6).contains(&number))
        });
        let mask = ctx.optional(fields, "mask", of_model, Ctx::word);
        let window = ctx.optional(fields, "window", 0, |ctx, entry| ctx.count(entry, 0..=limits::POSITIONS));
        Some(Scores {
            scale: scale?,
            softcap: softcap.map(|cap| (cap != 0.0).then_some(cap))?,
            mask: mask?,
            window: window.map(|window| (window != 0).then_some(window))?,
        })
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

    /// How the heads turn, if they do.
    fn rotation(
        &self,
        ctx: &mut Ctx<'_>,
        fields: Fields<'_>,
        (head_dim, rope): (usize, Option<Rope>),
    ) -> Option<Option<Rotation>> {
        let Some(of_model) = rope else {
            return rope::refuse(ctx, self.table, &ROPE_KEYS, "without rotary positions").then_some(None);
        };
        let theta = ctx.optional(fields, "rope_theta", of_model.theta, rope::theta);
        let scaling: Option<Option<RopeScaling>> =
            ctx.optional(fields, "rope_scaling", of_model.scaling, |ctx, entry| {
                rope::scaling(ctx, entry).map(Some)
            });
        let dim = ctx.optional(fields, "rotary_dim", head_dim, |ctx, entry| ctx.count(entry, 0..=head_dim));
        let (theta, scaling, dim) = (theta?, scaling?, dim?);
        if !dim.is_multiple_of(2) {
            let entry = ["rotary_dim", "head_dim"].into_iter().find_map(|key| self.table.get(key));
            let at = &entry.unwrap_or(self.heads_entry).value;
            let message = format!("rotary positions need an even width, not {dim}");
            let help = "write an even `head_dim` or `rotary_dim`, or `positions = \"learned\"`".to_owned();
            ctx.wrong("spec::head_split", message, (at, &format!("gives heads of width {dim}")), help);
            return None;
        }
        let rotation = Rotation { dim, rope: Rope { theta, scaling } };
        Some((dim > 0).then_some(rotation))
    }

    fn check(&self, ctx: &mut Ctx<'_>, head_dim: usize) -> bool {
        let at = (&self.table.get("head_dim").unwrap_or(self.heads_entry).value, "");
        if self.heads * head_dim > limits::WIDTH {
            let message = format!("{} heads of {head_dim} are wider than the limit", self.heads);
            let label = format!("at most {} together", limits::WIDTH);
            ctx.wrong("spec::limit", message, (at.0, &label), "use fewer or narrower heads".to_owned());
            return false;
        }
        true
    }
}
