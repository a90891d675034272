//! FlexiDepth (Luo and others, "Adaptive Layer-skipping in Pre-trained LLMs", arXiv:2503.23798), as `modeling_ddllama.py`
//! and `modeling_ddqwen3.py` of its checkpoints compute it.
//!
//! With `u` the layer's normed input, `w = σ(head · dec · tanh(norm(enc · u)))`. A token with `w > 0.5` runs, and its FFN
//! adds `w` times what it gives; another skips attention, and `1 − w` times an FFN of its own, the *projector*, is added, which
//! reads through the same norm as the FFN. Keys and values are made of all tokens. In the projector `up` and `down` have
//! changed places: `up · (silu(gate · u) ⊙ (down · u))`.

use super::super::config::Config;
use super::super::names::row;
use super::super::naming::{Released, RouterNames};
use super::super::skip::{Adapter, Granularity, Skips};
use super::{Method, Routed, by_number};
use crate::frontend::language::ast::Entry;
use crate::frontend::language::limits;
use crate::frontend::language::read::Ctx;
use crate::frontend::language::words::Word;

pub(super) const METHOD: Method = Method {
    name: "FlexiDepth",
    model_types: &["ddllama", "ddqwen3"],
    architectures: &["DDLlamaForCausalLM", "DDQwen3ForCausalLM"],
    keys: &["routing_layers"],
    tensors: &[".router.router_enc."],
    families: &["llama", "qwen3"],
    read,
};

const NAMES: Released = Released {
    inner: "",
    rows: &[
        row("router.router_enc", &["router.steps.0"]),
        row("router.router_norm", &["router.steps.1"]),
        row("router.router_dec", &["router.steps.3"]),
        row("router.router_head", &["router"]),
        row("post_attention_layernorm", &["otherwise.0.norm"]),
        row("router_proj.gate_proj", &["otherwise.0.gate_proj"]),
        row("router_proj.down_proj", &["otherwise.0.up_proj"]),
        row("router_proj.up_proj", &["otherwise.0.down_proj"]),
    ],
};

/// The least probability above 0.5 in f32: their comparison is strict.
const THRESHOLD: f64 = 0.5_f32.next_up() as f64;

/// `router_gate_mode`. Both compute the same; in training, decisions of the second have a gradient.
#[derive(Clone, Copy, PartialEq)]
struct GateMode;

impl Word for GateMode {
    const WORDS: &'static [(&'static str, GateMode)] = &[("released", GateMode), ("ste_hard", GateMode)];
}

fn read(c: &mut Config<'_>, n_layers: usize) -> Option<Routed> {
    let layers = c.required("routing_layers", |ctx, entry| by_number(ctx, entry, n_layers))?;
    let factor = |ctx: &mut Ctx<'_>, entry: &Entry| ctx.count(entry, 1..=limits::WIDTH);
    let router_factor = c.value("router_reduction_factor", 16, factor)?;
    let factor_of_projector = c.value("proj_reduction_factor", router_factor, factor)?;
    let d_model = c.required(c.family.keys.d_model, factor)?;
    let bottleneck = part_of(c, (c.family.keys.d_model, d_model), router_factor)?;
    let d_ff = c.required(c.family.keys.d_ff, factor)?;
    let width = part_of(c, (c.family.keys.d_ff, d_ff), factor_of_projector)?;
    let bias = c.flag("mlp_bias", false)?;
    let head_bias =
        c.nullable("router_head_bias_init", None, |ctx, entry| ctx.number(entry, "", |_| true))?;
    c.value("router_gate_mode", GateMode, Ctx::word)?;
    let of_linear = if bias { ", bias = true" } else { "" };
    let mut settings = vec![
        "router = \"sigmoid\"".to_owned(),
        format!("threshold = {THRESHOLD:?}"),
        format!(
            "decider = [{{ linear = {bottleneck}{of_linear} }}, {{ norm = \"rmsnorm\" }}, {{ activation = \"tanh\" }}, {{ linear = {d_model}{of_linear} }}]"
        ),
        "gate = \"scaled_last\"".to_owned(),
    ];
    settings.extend((bias || head_bias.is_some()).then(|| "bias = true".to_owned()));
    let skips = Skips::new(Granularity::Layer, &layers, settings).with_adapter(Adapter { width, bias });
    Some(Routed { names: RouterNames::Released(&NAMES), skips: Some(skips), repeats: None })
}

/// A width divided by a factor, what is left over dropped.
fn part_of(c: &mut Config<'_>, (key, width): (&'static str, usize), factor: usize) -> Option<usize> {
    if width >= factor {
        return Some(width / factor);
    }
    let entry = c.entry(key)?;
    let message = format!("`{key}` is {width}, of which a part in {factor} is nothing");
    let help = "the reduction factors of the router and its projector divide widths".to_owned();
    c.ctx.wrong("spec::out_of_range", message, (&entry.value, "smaller than the factor"), help);
    None
}
