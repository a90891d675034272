//! Router-Tuning, or MindSkip (He and others, "Router-Tuning: A Simple and Effective Approach for Enabling Dynamic-Depth in
//! Transformers", arXiv:2410.13184), as `utils/model/model_patch.py` of its repository computes it.
//!
//! The configuration is that of the family with keys beside it; a layer with a router has `router.weight` [1, D]. With `u` the
//! stream through the layer's first norm, the router sees `u` (`…_token`) or its mean over the sequence (`…_sequence`), and
//! attention, the FFN or the whole layer runs where `σ ≥ threshold`. Keys and values are made of all tokens.

use super::super::config::Config;
use super::super::names::row;
use super::super::naming::{Released, RouterNames};
use super::super::skip::{Granularity, Skips};
use super::{Method, Routed};
use crate::frontend::language::ast::{Entry, ValueKind};
use crate::frontend::language::read::Ctx;

pub(super) const METHOD: Method = Method {
    name: "Router-Tuning",
    model_types: &[],
    architectures: &[],
    keys: &["is_mod"],
    tensors: &[],
    families: &["llama", "mistral", "qwen2", "qwen3"],
    read,
};

const NAMES: Released =
    Released { inner: "", rows: &[row("router", &["router"]), row("router", &["layer_routers.0"])] };

/// The router of an FFN reads through the norm of attention.
const NAMES_OF_MLP: Released = Released {
    inner: "",
    rows: &[row("router", &["layer_routers.1"]), row("input_layernorm", &["layer_routers.1.steps.0"])],
};

fn read(c: &mut Config<'_>, n_layers: usize) -> Option<Routed> {
    let layers = c.required("is_mod", |ctx, entry| flags(ctx, entry, n_layers))?;
    let granularity = c.nullable("granularity", None, |ctx, entry| ctx.name(entry))?;
    let (unit, is_token) = unit(granularity.as_deref().unwrap_or("attn_sequence"));
    let share = |number: f64| number > 0.0 && number < 1.0;
    let threshold =
        c.value("threshold", 0.5, |ctx, entry| ctx.number(entry, "between 0.0 and 1.0", share))?;
    let capacities = c.nullable("mod_capacity", None, |ctx, entry| capacities(ctx, entry, n_layers))?;
    // Of training.
    c.entry("gradient_scale");
    let is_mlp = unit == Granularity::Mlp;
    let mut steps = Vec::new();
    steps.extend(is_mlp.then_some("{ norm = \"rmsnorm\" }"));
    steps.extend((!is_token).then_some("{ pool = \"mean\" }"));
    let mut settings = vec!["router = \"sigmoid\"".to_owned(), format!("threshold = {threshold:?}")];
    if is_mlp {
        settings.extend(["input = \"raw\"".to_owned(), "decide = \"entry\"".to_owned()]);
    }
    settings.extend((!steps.is_empty()).then(|| format!("decider = [{}]", steps.join(", "))));
    if !is_token {
        settings.push("generate = \"prefill\"".to_owned());
        let entry = c.entry("granularity").or(c.entry("is_mod"))?;
        let message = "where Router-Tuning decides for whole sequences, its code decides again for every token that it \
                       generates, by that token alone; here later tokens keep what was decided of their prompt";
        c.differs(entry, message.to_owned());
    }
    let mut skips = Skips::new(unit, &layers, settings);
    if let Some(capacities) = capacities {
        skips = skips.with_densities(&capacities);
    }
    let names = if is_mlp { &NAMES_OF_MLP } else { &NAMES };
    Some(Routed { names: RouterNames::Released(names), skips: Some(skips), repeats: None })
}

/// What a granularity means, as their code takes it apart: words of it stand anywhere, attention and sequences are the rest.
fn unit(granularity: &str) -> (Granularity, bool) {
    let lower = granularity.to_lowercase();
    let unit = if lower.contains("block") {
        Granularity::Layer
    } else if lower.contains("mlp") {
        Granularity::Mlp
    } else {
        Granularity::Attention
    };
    (unit, lower.contains("token"))
}

/// A flag for each layer.
fn flags(ctx: &mut Ctx<'_>, entry: &Entry, n_layers: usize) -> Option<Vec<bool>> {
    let values = of_layers(ctx, entry, n_layers)?;
    values.iter().map(|entry| ctx.flag(entry)).collect()
}

/// The share of tokens that training aims at: one number, or one for each layer.
fn capacities(ctx: &mut Ctx<'_>, entry: &Entry, n_layers: usize) -> Option<Vec<f64>> {
    let number = |ctx: &mut Ctx<'_>, entry: &Entry| {
        ctx.number(entry, "from 0.0 to 1.0", |number| (0.0..=1.0).contains(&number))
    };
    if !matches!(entry.value.kind, ValueKind::List(_)) {
        return Some(vec![number(ctx, entry)?; n_layers]);
    }
    let values = of_layers(ctx, entry, n_layers)?;
    values.iter().map(|entry| number(ctx, entry)).collect()
}

fn of_layers(ctx: &mut Ctx<'_>, entry: &Entry, n_layers: usize) -> Option<Vec<Entry>> {
    let values = ctx.list(entry, "elements, one for each layer", "[…]")?;
    if values.len() == n_layers {
        return Some(values.iter().map(|value| Entry { value: value.clone(), ..entry.clone() }).collect());
    }
    let message = format!("`{}` has {} elements for {n_layers} layers", entry.key, values.len());
    let help = "write an element for each layer".to_owned();
    ctx.wrong("spec::out_of_range", message, (&entry.value, "of another length"), help);
    None
}
