//! D-LLM (Jiang and others, "D-LLM: A Token Adaptive Computing Resource Allocation Strategy for Large Language Models",
//! NeurIPS 2024), as `llama/model.py` of its repository computes it.
//!
//! Releases have no `config.json`: `model_args.json` holds the settings of Meta's Llama 2 and those of the routers, and tensors
//! have Meta's names, with heads whose neighbours turn together. A router is a linear layer, a norm, silu and a linear layer of
//! two logits, over the stream as it is; the second executes, on ties, too. The first tokens of a sequence always run, layers
//! before `dynamic_start_layer` have no router, and a token that skips is no key for others.

use super::super::config::Config;
use super::super::families::{Bias, Family, Keys, LLAMA, MlpBias};
use super::super::names::{self, row};
use super::super::naming::{Released, RouterNames};
use super::super::skip::{Granularity, Skips};
use super::{Method, Routed};
use crate::frontend::language::limits;

/// Its file is not `config.json`, so that it is found by that.
pub(in super::super) const D_LLM: Method = Method {
    name: "D-LLM",
    model_types: &[],
    architectures: &[],
    keys: &[],
    tensors: &[],
    families: &["d-llm"],
    read,
};

/// What its routers are put into, under Meta's keys.
pub(in super::super) const FAMILY: Family = Family {
    model_type: "d-llm",
    keys: &Keys {
        d_model: "dim",
        layers: "n_layers",
        heads: "n_heads",
        kv_heads: "n_kv_heads",
        d_ff: "multiple_of",
        max_positions: "max_seq_len",
        eps: "norm_eps",
        activation: "hidden_act",
    },
    names: &names::META,
    eps: 1e-5,
    bias: Bias::None,
    mlp_bias: MlpBias::None,
    ..LLAMA
};

const NAMES: Released = Released {
    inner: "",
    rows: &[
        row("router.linear_1", &["router.steps.0"]),
        row("router.norm", &["router.steps.1"]),
        row("router.linear_2", &["router"]),
    ],
};

fn read(c: &mut Config<'_>, n_layers: usize) -> Option<Routed> {
    let start = c.value("dynamic_start_layer", 2, |ctx, entry| ctx.count(entry, 0..=limits::LAYERS))?;
    let hidden = c.value("dynamic_router_hdim", 512, |ctx, entry| ctx.count(entry, 1..=limits::WIDTH))?;
    let first =
        c.value("dynamic_reserve_initials", 2, |ctx, entry| ctx.count(entry, 0..=limits::POSITIONS))?;
    let target = c.value("dynamic_active_target", 0.5, |ctx, entry| {
        ctx.number(entry, "from 0.0 to 1.0", |number| (0.0..=1.0).contains(&number))
    })?;
    for key in ["lora_rank", "max_batch_size"] {
        // Of training, and of their caches.
        c.entry(key);
    }
    let settings = vec![
        "router = \"gumbel\"".to_owned(),
        format!("density = {target:?}"),
        "input = \"raw\"".to_owned(),
        format!(
            "decider = [{{ linear = {hidden}, bias = true }}, {{ norm = \"rmsnorm\" }}, {{ activation = \"silu\" }}]"
        ),
        "bias = true".to_owned(),
        "kv = \"active\"".to_owned(),
        format!("force_first = {first}"),
    ];
    let layers: Vec<bool> = (0..n_layers).map(|layer| layer >= start).collect();
    let skips = Skips::new(Granularity::Layer, &layers, settings);
    Some(Routed { names: RouterNames::Released(&NAMES), skips: Some(skips), repeats: None })
}

/// Width of the FFN of Meta's models: two thirds of four times the stream's, times a factor if there is one, rounded up to a
/// multiple.
pub(in super::super) fn d_ff(c: &mut Config<'_>) -> Option<usize> {
    let width = c.required(c.family.keys.d_model, |ctx, entry| ctx.count(entry, 1..=limits::WIDTH))?;
    let multiple = c.value("multiple_of", 256, |ctx, entry| ctx.count(entry, 1..=limits::WIDTH))?;
    let factor = c.nullable("ffn_dim_multiplier", None, |ctx, entry| {
        ctx.number(entry, "above 0.0, at most 64.0", |number| number > 0.0 && number <= 64.0)
    })?;
    let hidden = 8 * width / 3;
    let hidden = factor.map_or(hidden, |factor| (factor * hidden as f64) as usize);
    Some(hidden.next_multiple_of(multiple))
}
