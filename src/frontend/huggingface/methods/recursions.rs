//! MoR (Bae and others, "Mixture-of-Recursions: Learning Dynamic Recursive Depths for Adaptive Token-Level Computation",
//! arXiv:2507.10524) with expert-choice routing, as `model/mor_model/expert_choice_router.py` of its repository computes it.
//!
//! The same blocks run several times. Each time the `max(1, ⌊capacity · T⌋)` tokens of the highest scores run, of those that ran
//! the time before, and get `alpha · σ(z)` times what comes out of the blocks, added to what they were. The configuration of the
//! family says nothing of this; it stands in that of the training (`conf/pretrain/….yaml`), of which the tables `recursive`, `mor`
//! and `kv_sharing` are read from `config.json`, into which somebody has to copy them.

use super::super::config::{Config, unsupported};
use super::super::names::row;
use super::super::naming::{Recursion, Released, RouterNames};
use super::{Method, Repeats, Routed};
use crate::diagnostic::Diagnostic;
use crate::frontend::language::ast::{Entry, Table, ValueKind};
use crate::frontend::language::limits;
use crate::frontend::language::read::{Ctx, Fields};
use crate::frontend::language::words::words;

pub(super) const METHOD: Method = Method {
    name: "MoR",
    model_types: &[],
    architectures: &["MoRLlamaForCausalLM"],
    keys: &["mor"],
    tensors: &[".mor_router."],
    families: &["llama"],
    read,
};

const LINEAR: Released = Released {
    inner: "",
    rows: &[row("mor_router.router", &["router"]), row("mlp_router.router", &["router.predictor"])],
};

const MLP: Released = Released {
    inner: "",
    rows: &[
        row("mor_router.router.0", &["router.steps.0"]),
        row("mor_router.router.2", &["router"]),
        row("mlp_router.router.0", &["router.predictor.steps.0"]),
        row("mlp_router.router.2", &["router.predictor"]),
    ],
};

/// What to write into `config.json`.
const EXAMPLE: &str = "\"recursive\": { \"enable\": true, \"num_recursion\": 3, \"sharing\": \"middle_cycle\" },\n\"mor\": { \"type\": \"expert\", \"capacity\": null, \"router_type\": \"linear\", \"expert\": { \"router_func\": \"sigmoid\", \"alpha\": 0.1, \"sampling\": \"aux_loss\" } },\n\"kv_sharing\": { \"enable\": false }";

/// `mor.type`.
#[derive(Clone, Copy, PartialEq)]
enum Choice {
    Expert,
    Token,
}

/// `mor.router_type`.
#[derive(Clone, Copy, PartialEq)]
enum RouterType {
    Linear,
    Mlp,
}

/// `recursive.sharing`.
#[derive(Clone, Copy, PartialEq)]
enum Sharing {
    /// All blocks.
    Cycle,
    /// All but the first and the last.
    MiddleCycle,
}

/// `mor.expert.router_func`.
#[derive(Clone, Copy, PartialEq)]
enum Function {
    Sigmoid,
    Tanh,
}

/// `mor.expert.sampling`: what learns to decide without the tokens that follow.
#[derive(Clone, Copy, PartialEq)]
enum Sampling {
    Loss,
    Router,
}

words! {
    Choice { Expert = "expert", Token = "token" }
    RouterType { Linear = "linear", Mlp = "mlp" }
    Sharing { Cycle = "cycle", MiddleCycle = "middle_cycle" }
    Function { Sigmoid = "sigmoid", Tanh = "tanh" }
    Sampling { Loss = "aux_loss", Router = "aux_router" }
}

fn read(c: &mut Config<'_>, n_layers: usize) -> Option<Routed> {
    let recursion = recursion(c, n_layers)?;
    let entry = table(c, "mor")?;
    let mor = c.ctx.table("mor", &entry.value, EXAMPLE)?;
    let is_lone = switches(&mut c.ctx, mor);
    let router_type = optional(&mut c.ctx, mor, "router_type", RouterType::Linear, Ctx::word);
    let capacity = capacity(&mut c.ctx, mor, recursion.repeat);
    let d_model = c.required(c.family.keys.d_model, |ctx, entry| ctx.count(entry, 1..=limits::WIDTH));
    let expert = mor.get("expert").filter(|entry| !matches!(entry.value.kind, ValueKind::Null));
    let of_expert = match expert {
        Some(entry) => c.ctx.table("expert", &entry.value, "\"expert\": { \"router_func\": \"sigmoid\" }")?,
        None => &Table { span: entry.value.span.clone(), entries: Vec::new() },
    };
    let (router_type, capacity, d_model) = (router_type?, capacity?, d_model?);
    let kv = kv(c, &capacity)?;
    is_lone?;
    let steps = match router_type {
        RouterType::Linear => None,
        RouterType::Mlp => Some(format!("[{{ linear = {} }}, {{ activation = \"gelu_erf\" }}]", 2 * d_model)),
    };
    let mut settings = vec![
        "router = \"topk\"".to_owned(),
        format!("density = {capacity:?}"),
        "round = \"down\"".to_owned(),
        "nested = true".to_owned(),
        "input = \"raw\"".to_owned(),
        format!("kv = {kv:?}"),
        "combine = \"add\"".to_owned(),
    ];
    settings.extend(steps.as_ref().map(|steps| format!("decider = {steps}")));
    settings.extend(gate(&mut c.ctx, of_expert)?);
    settings.extend(generate(c, entry, of_expert, steps.as_deref())?);
    let names = match router_type {
        RouterType::Linear => &LINEAR,
        RouterType::Mlp => &MLP,
    };
    let skip = format!("{{ {} }}", settings.join(", "));
    let names = RouterNames::Recursive(names, recursion);
    Some(Routed { names, skips: None, repeats: Some(Repeats { recursion, skip }) })
}

/// A table that is not there without somebody's help.
fn table<'a>(c: &mut Config<'a>, key: &'static str) -> Option<&'a Entry> {
    let entry = c.entry(key);
    if entry.is_none() {
        let message = format!("this checkpoint is MoR's, and its configuration has no `{key}`");
        let at = c.fields.table.span.clone();
        let help = format!(
            "copy it from the configuration of its training (`conf/pretrain/….yaml`) into `config.json`, for example:\n{EXAMPLE}"
        );
        let missing = Diagnostic::new("spec::missing_key", message);
        c.ctx.report(missing.at(c.ctx.source, at, format!("`{key}` is missing")).help(help));
    }
    entry
}

/// A value of a table that may be left out, or be `null`.
fn optional<'a, T>(
    ctx: &mut Ctx<'a>,
    table: &Table,
    key: &str,
    default: T,
    read: impl FnOnce(&mut Ctx<'a>, &Entry) -> Option<T>,
) -> Option<T> {
    match table.get(key).filter(|entry| !matches!(entry.value.kind, ValueKind::Null)) {
        None => Some(default),
        Some(entry) => read(ctx, entry),
    }
}

/// Which blocks run how often.
fn recursion(c: &mut Config<'_>, n_layers: usize) -> Option<Recursion> {
    let entry = table(c, "recursive")?;
    let table = c.ctx.table("recursive", &entry.value, EXAMPLE)?;
    let fields = Fields { table, what: "`recursive`", keys: &[] };
    let ctx = &mut c.ctx;
    if !optional(ctx, table, "enable", true, Ctx::flag)? {
        unsupported(ctx, table.get("enable")?, "recursions that do not share weights");
        return None;
    }
    let repeat = ctx.required(fields, "num_recursion", "\"num_recursion\": 3");
    let sharing = ctx.required(fields, "sharing", "\"sharing\": \"middle_cycle\"");
    let repeat = repeat.and_then(|entry| ctx.count(entry, 2..=limits::LAYERS));
    let sharing = sharing.and_then(|entry| ctx.word::<Sharing>(entry));
    let (repeat, sharing) = (repeat?, sharing?);
    let outer = usize::from(sharing == Sharing::MiddleCycle);
    let blocks = n_layers.saturating_sub(2 * outer) / repeat;
    if blocks == 0 {
        let message = format!("{n_layers} layers are too few for {repeat} recursions");
        let help = "`num_hidden_layers` counts a block as often as it runs".to_owned();
        ctx.wrong("spec::out_of_range", message, (&entry.value, "asks for them"), help);
        return None;
    }
    Some(Recursion { outer, blocks, repeat })
}

/// Refuses what is known and cannot be said.
fn switches(ctx: &mut Ctx<'_>, mor: &Table) -> Option<()> {
    if optional(ctx, mor, "type", Choice::Expert, Ctx::word)? == Choice::Token {
        let what = "tokens that choose their depth, and add what comes out to what they were at the first";
        unsupported(ctx, mor.get("type")?, what);
        return None;
    }
    if optional(ctx, mor, "rand_router", false, Ctx::flag)? {
        unsupported(ctx, mor.get("rand_router")?, "decisions that are drawn anew each time");
        return None;
    }
    let temperature =
        optional(ctx, mor, "temp", 1.0, |ctx, entry| ctx.number(entry, "above 0.0", |number| number > 0.0))?;
    if temperature != 1.0 {
        unsupported(ctx, mor.get("temp")?, "a temperature of scores");
        return None;
    }
    Some(())
}

/// The share of tokens that run each time; by default all, and then ever fewer.
fn capacity(ctx: &mut Ctx<'_>, mor: &Table, repeat: usize) -> Option<Vec<f64>> {
    let given = mor.get("capacity").filter(|entry| !matches!(entry.value.kind, ValueKind::Null));
    let Some(entry) = given else {
        return Some((0..repeat).map(|number| (repeat - number) as f64 / repeat as f64).collect());
    };
    let text = ctx.name(entry)?;
    let shares: Option<Vec<f64>> = text
        .split(',')
        .map(|share| share.trim().parse().ok().filter(|share| *share > 0.0 && *share <= 1.0))
        .collect();
    let falls = |shares: &Vec<f64>| shares.windows(2).all(|two| two[0] >= two[1]);
    let shares = shares.filter(|shares| shares.len() == repeat && falls(shares));
    if shares.is_none() {
        let message =
            format!("`capacity` is {text:?}, and not {repeat} shares of which none is above the one before");
        let help = "write a share above 0 and at most 1 for each recursion, such as \"1.0,0.5\"".to_owned();
        ctx.wrong("spec::bad_value", message, (&entry.value, "shares, with commas between them"), help);
    }
    shares
}

/// Which keys a token of a recursion sees.
fn kv(c: &mut Config<'_>, capacity: &[f64]) -> Option<&'static str> {
    let Some(entry) = c.entry("kv_sharing").filter(|entry| !matches!(entry.value.kind, ValueKind::Null))
    else {
        return Some("active");
    };
    let table = c.ctx.table("kv_sharing", &entry.value, "\"kv_sharing\": { \"enable\": false }")?;
    let ctx = &mut c.ctx;
    if !optional(ctx, table, "enable", false, Ctx::flag)? {
        return Some("active");
    }
    if optional(ctx, table, "update_cache", false, Ctx::flag)? {
        unsupported(
            ctx,
            table.get("update_cache")?,
            "keys of the first recursion, in part replaced by later ones",
        );
        return None;
    }
    if capacity.first().is_some_and(|share| *share < 1.0) {
        unsupported(ctx, table.get("enable")?, "keys of the first recursion, in which not all tokens run");
        return None;
    }
    Some("first")
}

/// What a token's change is scaled by.
fn gate(ctx: &mut Ctx<'_>, expert: &Table) -> Option<Vec<String>> {
    let one = |word: &str| vec![format!("gate = {word:?}")];
    // Any other word leaves what comes out as it is.
    let is_weighted =
        |entry: &Entry| matches!(&entry.value.kind, ValueKind::Text(text) if text == "weighted");
    if !expert.get("gating").is_none_or(is_weighted) {
        return Some(one("binary"));
    }
    let alpha = optional(ctx, expert, "alpha", 0.1, |ctx, entry| {
        ctx.number(entry, "from -1e6 to 1e6", |number| number.abs() <= 1e6)
    })?;
    match optional(ctx, expert, "router_func", None, |ctx, entry| ctx.word(entry).map(Some))? {
        // It scales no logit.
        None => Some(one("raw")),
        Some(Function::Sigmoid) => Some([one("scaled"), vec![format!("gate_factor = {alpha:?}")]].concat()),
        Some(Function::Tanh) => {
            unsupported(ctx, expert.get("router_func")?, "scores that are a tanh");
            None
        }
    }
}

/// What decides where later tokens are not known.
fn generate(c: &mut Config<'_>, mor: &Entry, expert: &Table, steps: Option<&str>) -> Option<Vec<String>> {
    let sampling = optional(&mut c.ctx, expert, "sampling", None, |ctx, entry| ctx.word(entry).map(Some))?;
    let decided = match sampling {
        None => "a model without `sampling` does not generate",
        Some(_) => "here a token runs where the probability that was trained for this is at least 0.5",
    };
    let message = format!(
        "MoR's code runs every token in every recursion when it generates one at a time, as a capacity is of at least one token; \
         {decided}"
    );
    c.differs(mor, message);
    Some(match sampling {
        None => Vec::new(),
        Some(Sampling::Loss) => vec!["generate = \"threshold\"".to_owned()],
        Some(Sampling::Router) => {
            let steps = steps.map(|steps| format!("predictor = {steps}"));
            [vec!["generate = \"predictor\"".to_owned()], steps.into_iter().collect()].concat()
        }
    })
}
