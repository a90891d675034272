//! SkipGPT (Zhao and others, "SkipGPT: Each Token is One of a Kind", arXiv:2506.04179), as `router_attn_mlp.py` of its
//! repository computes it.
//!
//! Attention and FFN have a router each, and both read the stream as it enters the layer: two logits behind a hidden layer of
//! a quarter of the width, the first of which executes. Keys and values are made of all tokens. Releases are state dicts, in
//! which the layers of the family lie below `block.`, beside the configuration of the family.
//!
//! Their code draws Gumbel noise in evaluation, too. Here the greater logit decides, which is what it does most often.

use super::super::config::Config;
use super::super::names::row;
use super::super::naming::{Released, RouterNames};
use super::super::skip::{Granularity, Skips};
use super::{Method, Routed};
use crate::frontend::language::limits;

pub(super) const METHOD: Method = Method {
    name: "SkipGPT",
    model_types: &[],
    architectures: &["LlamaMoDForCausalLM", "Gemma2MoDForCausalLM"],
    keys: &[],
    tensors: &[".router_attention.", ".router_mlp."],
    families: &["llama", "gemma2"],
    read,
};

const NAMES: Released = Released {
    inner: "block.",
    rows: &[
        row("router_attention.hidden_layer", &["layer_routers.0.steps.0"]),
        row("router_attention.weight_predictor", &["layer_routers.0"]),
        row("router_mlp.hidden_layer", &["layer_routers.1.steps.0"]),
        row("router_mlp.weight_predictor", &["layer_routers.1"]),
    ],
};

fn read(c: &mut Config<'_>, n_layers: usize) -> Option<Routed> {
    let d_model = c.required(c.family.keys.d_model, |ctx, entry| ctx.count(entry, 4..=limits::WIDTH))?;
    let settings = vec![
        "router = \"gumbel\"".to_owned(),
        "input = \"raw\"".to_owned(),
        "decide = \"entry\"".to_owned(),
        format!("decider = [{{ linear = {}, bias = true }}, {{ activation = \"relu\" }}]", d_model / 4),
        "bias = true".to_owned(),
    ];
    if let Some(entry) = c.entry("model_type") {
        let message = "this checkpoint is SkipGPT's, whose code draws noise for every decision, in evaluation, too; \
                       here the noise is off, and the greater logit decides";
        c.differs(entry, message.to_owned());
    }
    let skips = Skips::new(Granularity::Both, &vec![true; n_layers], settings).with_first_row();
    Some(Routed { names: RouterNames::Released(&NAMES), skips: Some(skips), repeats: None })
}
