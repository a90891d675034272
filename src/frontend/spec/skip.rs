//! Skips: which settings a router takes, and reading them.

use super::ast::{Table, Value};
use super::limits;
use super::model::{Decide, Gate, Generate, Router, Skip};
use super::read::{Ctx, Fields};
use crate::diagnostic::Diagnostic;

/// The keys of a skip, in the order of the documentation.
const KEYS: &[&str] = &[
    "router",
    "density",
    "input",
    "decide",
    "bias",
    "kv",
    "gate",
    "threshold",
    "generate",
    "group_size",
    "capacity_factor",
    "overflow",
    "seed",
];

/// What a skip wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wraps {
    Block,
    Layer,
}

/// Why `skip` does not take the setting `key`: a sentence and what to do instead. `None` if it takes it.
///
/// The reference reads such a setting and ignores it; here it is an error, because whoever wrote it expects
/// something of it.
pub(super) fn refusal(skip: &Skip, key: &str) -> Option<(&'static str, &'static str)> {
    match (key, skip.router) {
        ("input" | "decide" | "bias", Router::Random | Router::Always | Router::Never) => Some((
            "it decides without looking at the tokens",
            "remove the setting, or choose a router with a weight",
        )),
        ("kv", Router::Highway) => {
            Some(("it runs every token, so every token is a key", "remove the setting"))
        }
        ("group_size" | "capacity_factor" | "overflow", Router::Highway) => {
            Some(("it runs every token", "remove the setting"))
        }
        ("capacity_factor" | "overflow", _) if skip.group_size == 0 => {
            Some(("there is no capacity", "set `group_size` as well, or remove the setting"))
        }
        ("threshold", Router::TopK) if skip.generate != Generate::Threshold => {
            Some(("it takes the highest scores", "add `generate = \"threshold\"`, or remove the setting"))
        }
        ("threshold", Router::TopK | Router::Sigmoid) => None,
        ("threshold", _) => {
            Some(("it has no threshold", "remove the setting, or choose `router = \"sigmoid\"`"))
        }
        ("generate", Router::TopK) => None,
        ("generate", _) => Some(("its decisions do not look at the future", "remove the setting")),
        ("seed", Router::Random) => None,
        ("seed", _) => Some(("it is not random", "remove the setting, or choose `router = \"random\"`")),
        _ => None,
    }
}

/// Reads the value of `skip = …`.
pub(super) fn resolve(ctx: &mut Ctx<'_>, value: &Value, wraps: Wraps) -> Option<Skip> {
    let table = ctx.table("skip", value, "skip = { router = \"gumbel\", density = 0.25 }")?;
    let fields = Fields { table, what: "a skip", keys: KEYS };
    ctx.check_keys(fields, |key| match key {
        "capacity" => Some("a capacity is `group_size` and `capacity_factor`".to_owned()),
        _ => None,
    });
    let router = ctx.optional(fields, "router", Router::Gumbel, Ctx::word);
    // With an unknown router, settings are still read, but not whether it takes them.
    let read = read_settings(ctx, fields, Skip::of(router.unwrap_or(Router::Gumbel)));
    let skip = read.filter(|_| router.is_some())?;
    check_taken(ctx, table, &skip);
    check_gate(ctx, table, &skip);
    if wraps == Wraps::Block
        && skip.decide == Decide::Entry
        && let Some(entry) = table.get("decide")
    {
        ctx.wrong(
            "spec::entry_on_block",
            "a block's decision is always taken at its entry".to_owned(),
            (&entry.value, "only for the skip of a sub-layer"),
            "remove `decide`".to_owned(),
        );
    }
    Some(skip)
}

/// `None` if one of the settings is wrong; all are read.
fn read_settings(ctx: &mut Ctx<'_>, fields: Fields<'_>, base: Skip) -> Option<Skip> {
    let density = ctx.optional(fields, "density", base.density, |ctx, entry| {
        ctx.number(entry, "from 0.0 to 1.0", |number| (0.0..=1.0).contains(&number))
    });
    let input = ctx.optional(fields, "input", base.input, Ctx::word);
    let decide = ctx.optional(fields, "decide", base.decide, Ctx::word);
    let bias = ctx.optional(fields, "bias", base.bias, Ctx::flag);
    let kv = ctx.optional(fields, "kv", base.kv, Ctx::word);
    let gate = ctx.optional(fields, "gate", base.gate, Ctx::word);
    let threshold = ctx.optional(fields, "threshold", base.threshold, |ctx, entry| {
        ctx.number(entry, "between 0.0 and 1.0, both excluded", |number| number > 0.0 && number < 1.0)
    });
    let generate = ctx.optional(fields, "generate", base.generate, Ctx::word);
    let group_size = ctx.optional(fields, "group_size", base.group_size, |ctx, entry| {
        ctx.count(entry, 0..=limits::POSITIONS)
    });
    let capacity_factor = ctx.optional(fields, "capacity_factor", base.capacity_factor, |ctx, entry| {
        ctx.number(entry, "above 0.0, at most 1e6", |number| number > 0.0 && number <= 1e6)
    });
    let overflow = ctx.optional(fields, "overflow", base.overflow, Ctx::word);
    let seed = ctx.optional(fields, "seed", base.seed, Ctx::seed);
    Some(Skip {
        router: base.router,
        density: density?,
        input: input?,
        decide: decide?,
        bias: bias?,
        kv: kv?,
        gate: gate?,
        threshold: threshold?,
        generate: generate?,
        group_size: group_size?,
        capacity_factor: capacity_factor?,
        overflow: overflow?,
        seed: seed?,
    })
}

fn check_taken(ctx: &mut Ctx<'_>, table: &Table, skip: &Skip) {
    use super::words::Word;
    for entry in &table.entries {
        let Some((reason, help)) = refusal(skip, &entry.key) else { continue };
        let router = skip.router.word();
        let message = format!("the {router} router takes no `{}` here: {reason}", entry.key);
        let mut diagnostic = Diagnostic::new("spec::unused_setting", message)
            .at(ctx.source, entry.key_span.clone(), "would have no effect")
            .help(help);
        if let Some(named) = table.get("router") {
            diagnostic = diagnostic.at(ctx.source, named.value.span.clone(), "with this router");
        }
        ctx.report(diagnostic);
    }
}

fn check_gate(ctx: &mut Ctx<'_>, table: &Table, skip: &Skip) {
    if skip.router != Router::Highway || skip.gate != Gate::Scaled {
        return;
    }
    let (Some(gate), Some(router)) = (table.get("gate"), table.get("router")) else { return };
    let diagnostic = Diagnostic::new(
        "spec::gate_with_highway",
        "`gate = \"scaled\"` has no meaning with the highway router",
    )
    .at(ctx.source, gate.value.span.clone(), "scales by the router's probability")
    .at(ctx.source, router.value.span.clone(), "already mixes by it")
    .help("remove `gate`, or choose `router = \"sigmoid\"`");
    ctx.report(diagnostic);
}
