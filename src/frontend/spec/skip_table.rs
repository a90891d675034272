//! Skips as a spec writes them: the keys of the table, which of them a router takes, reading and printing.

use serde::Serialize;

use super::node::Unit;
use super::skip::{
    BranchScale, Capacity, Combine, Decide, Decider, Either, Generate, Input, Kv, Overflow, Scorer, Skip,
};
use crate::diagnostic::Diagnostic;
use crate::frontend::language::ast::{Table, Value};
use crate::frontend::language::limits;
use crate::frontend::language::read::{Ctx, Fields};
use crate::frontend::language::words::{Word, text, words};

/// The table of a skip with all of its keys. What the router does not take holds its default and means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SkipTable {
    /// Who decides.
    pub router: Router,
    /// [`Skip::density`].
    pub density: f64,
    /// [`Scorer::input`].
    pub input: Input,
    /// [`Scorer::decide`].
    pub decide: Decide,
    /// [`Scorer::bias`].
    pub bias: bool,
    /// [`Either::kv`].
    pub kv: Kv,
    /// [`Either::scale`].
    pub gate: BranchScale,
    /// Of `sigmoid`, and of `topk` with `generate = "threshold"`.
    pub threshold: f64,
    /// Of `topk`.
    pub generate: GenerateKind,
    /// [`Capacity::group_size`]; 0: no capacity.
    pub group_size: usize,
    /// [`Capacity::factor`].
    pub capacity_factor: f64,
    /// [`Capacity::overflow`].
    pub overflow: Overflow,
    /// Of the `random` and `hash` routers.
    pub seed: u64,
}

/// The choices of `router`, without their settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// [`Decider::Gumbel`].
    Gumbel,
    /// [`Decider::Sigmoid`].
    Sigmoid,
    /// [`Decider::TopK`].
    TopK,
    /// [`Decider::Random`].
    Random,
    /// [`Decider::Hash`].
    Hash,
    /// [`Combine::Highway`].
    Highway,
    /// [`Decider::Always`].
    Always,
    /// [`Decider::Never`].
    Never,
}

/// The choices of `generate`, without their settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerateKind {
    /// [`Generate::Refuse`]; the empty string.
    Refuse,
    /// [`Generate::Threshold`].
    Threshold,
}

words! {
    Router {
        Gumbel = "gumbel", Sigmoid = "sigmoid", TopK = "topk", Random = "random", Hash = "hash",
        Highway = "highway", Always = "always", Never = "never",
    }
    GenerateKind { Refuse = "", Threshold = "threshold" }
}

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

impl SkipTable {
    /// What a skip is if only its router is named.
    pub fn of_router(router: Router) -> SkipTable {
        SkipTable {
            router,
            density: 0.5,
            input: Input::Normed,
            decide: Decide::Here,
            bias: false,
            kv: Kv::All,
            gate: BranchScale::One,
            threshold: 0.5,
            generate: GenerateKind::Refuse,
            group_size: 0,
            capacity_factor: 1.25,
            overflow: Overflow::Position,
            seed: 0,
        }
    }

    /// What the table means.
    pub fn skip(&self) -> Skip {
        let scorer = Scorer { input: self.input, decide: self.decide, bias: self.bias };
        let generate = match self.generate {
            GenerateKind::Refuse => Generate::Refuse,
            GenerateKind::Threshold => Generate::Threshold(self.threshold),
        };
        let decider = match self.router {
            Router::Highway => return Skip { density: self.density, combine: Combine::Highway(scorer) },
            Router::Gumbel => Decider::Gumbel(scorer),
            Router::Sigmoid => Decider::Sigmoid { scorer, threshold: self.threshold },
            Router::TopK => Decider::TopK { scorer, generate },
            Router::Random => Decider::Random { seed: self.seed },
            Router::Hash => Decider::Hash { seed: self.seed },
            Router::Always => Decider::Always,
            Router::Never => Decider::Never,
        };
        let (group_size, factor, overflow) = (self.group_size, self.capacity_factor, self.overflow);
        let capacity = (group_size > 0).then_some(Capacity { group_size, factor, overflow });
        let either = Either { decider, kv: self.kv, scale: self.gate, capacity };
        Skip { density: self.density, combine: Combine::Either(either) }
    }

    /// The table of a skip.
    pub fn of(skip: &Skip) -> SkipTable {
        let mut table = SkipTable { density: skip.density, ..SkipTable::of_router(Router::of(skip)) };
        if let Some(Scorer { input, decide, bias }) = skip.scorer() {
            table = SkipTable { input, decide, bias, ..table };
        }
        let Combine::Either(either) = skip.combine else { return table };
        (table.kv, table.gate) = (either.kv, either.scale);
        if let Some(Capacity { group_size, factor, overflow }) = either.capacity {
            table = SkipTable { group_size, capacity_factor: factor, overflow, ..table };
        }
        match either.decider {
            Decider::Sigmoid { threshold, .. } => table.threshold = threshold,
            Decider::TopK { generate: Generate::Threshold(threshold), .. } => {
                (table.generate, table.threshold) = (GenerateKind::Threshold, threshold);
            }
            Decider::Random { seed } | Decider::Hash { seed } => table.seed = seed,
            Decider::TopK { generate: Generate::Refuse, .. }
            | Decider::Gumbel(_)
            | Decider::Always
            | Decider::Never => {}
        }
        table
    }
}

impl Router {
    /// The router of a skip.
    pub fn of(skip: &Skip) -> Router {
        match skip.decider() {
            None => Router::Highway,
            Some(Decider::Gumbel(_)) => Router::Gumbel,
            Some(Decider::Sigmoid { .. }) => Router::Sigmoid,
            Some(Decider::TopK { .. }) => Router::TopK,
            Some(Decider::Random { .. }) => Router::Random,
            Some(Decider::Hash { .. }) => Router::Hash,
            Some(Decider::Always) => Router::Always,
            Some(Decider::Never) => Router::Never,
        }
    }
}

/// Why `skip` does not take the setting `key`: a sentence and what to do instead. `None` if it takes it.
///
/// The reference reads such a setting and ignores it; here it is an error, because whoever wrote it expects
/// something of it.
fn refusal(skip: &Skip, key: &str) -> Option<(&'static str, &'static str)> {
    match (key, skip.decider()) {
        ("input" | "decide" | "bias", Some(Decider::Hash { .. })) => {
            Some(("it looks at the token's id alone", "remove the setting, or choose a router with a weight"))
        }
        ("input" | "decide" | "bias", _) if skip.scorer().is_none() => Some((
            "it decides without looking at the tokens",
            "remove the setting, or choose a router with a weight",
        )),
        ("kv", None) => Some(("it runs every token, so every token is a key", "remove the setting")),
        ("group_size" | "capacity_factor" | "overflow", None) => {
            Some(("it runs every token", "remove the setting"))
        }
        ("capacity_factor" | "overflow", _) if skip.capacity().is_none() => {
            Some(("there is no capacity", "set `group_size` as well, or remove the setting"))
        }
        ("threshold", Some(Decider::TopK { generate: Generate::Refuse, .. })) => {
            Some(("it takes the highest scores", "add `generate = \"threshold\"`, or remove the setting"))
        }
        ("threshold", Some(Decider::TopK { .. } | Decider::Sigmoid { .. })) => None,
        ("threshold", _) => {
            Some(("it has no threshold", "remove the setting, or choose `router = \"sigmoid\"`"))
        }
        ("generate", Some(Decider::TopK { .. })) => None,
        ("generate", _) => Some(("its decisions do not look at the future", "remove the setting")),
        ("seed", Some(Decider::Random { .. } | Decider::Hash { .. })) => None,
        ("seed", _) => Some(("it is not random", "remove the setting, or choose `router = \"random\"`")),
        _ => None,
    }
}

/// The skip as a table of TOML, with every setting that the router takes; `decide` means nothing for a block.
pub(super) fn print(skip: &Skip, unit: Unit) -> String {
    let table = SkipTable::of(skip);
    let settings: [(&str, String); 13] = [
        ("router", text(table.router.word())),
        ("density", format!("{:?}", table.density)),
        ("input", text(table.input.word())),
        ("decide", text(table.decide.word())),
        ("bias", table.bias.to_string()),
        ("kv", text(table.kv.word())),
        ("gate", text(table.gate.word())),
        ("threshold", format!("{:?}", table.threshold)),
        ("generate", text(table.generate.word())),
        ("group_size", table.group_size.to_string()),
        ("capacity_factor", format!("{:?}", table.capacity_factor)),
        ("overflow", text(table.overflow.word())),
        ("seed", table.seed.to_string()),
    ];
    let is_shown = |key: &str| refusal(skip, key).is_none() && !(unit == Unit::Block && key == "decide");
    let shown = settings.iter().filter(|(key, _)| is_shown(key));
    let shown: Vec<String> = shown.map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", shown.join(", "))
}

/// Reads the value of `skip = …`.
pub(super) fn resolve(ctx: &mut Ctx<'_>, value: &Value, unit: Unit) -> Option<Skip> {
    let table = ctx.table("skip", value, "skip = { router = \"gumbel\", density = 0.25 }")?;
    let fields = Fields { table, what: "a skip", keys: KEYS };
    ctx.check_keys(fields, |key| match key {
        "capacity" => Some("a capacity is `group_size` and `capacity_factor`".to_owned()),
        _ => None,
    });
    let router = ctx.optional(fields, "router", Router::Gumbel, Ctx::word);
    // With an unknown router, settings are still read, but not whether it takes them.
    let read = read_settings(ctx, fields, SkipTable::of_router(router.unwrap_or(Router::Gumbel)));
    let written = read.filter(|_| router.is_some())?;
    let skip = written.skip();
    check_taken(ctx, table, &skip);
    check_gate(ctx, table, &written);
    if unit == Unit::Block
        && written.decide == Decide::Entry
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
fn read_settings(ctx: &mut Ctx<'_>, fields: Fields<'_>, base: SkipTable) -> Option<SkipTable> {
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
    Some(SkipTable {
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
    for entry in &table.entries {
        let Some((reason, help)) = refusal(skip, &entry.key) else { continue };
        let router = Router::of(skip).word();
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

fn check_gate(ctx: &mut Ctx<'_>, table: &Table, written: &SkipTable) {
    if written.router != Router::Highway || written.gate != BranchScale::Probability {
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
