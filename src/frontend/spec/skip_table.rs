//! Skips as a spec writes them: the keys of the table, which of them a router takes, reading and printing.

use serde::Serialize;
use skipc_ir::Rounding;

use super::skip::{
    BranchScale, Branches, Capacity, Carry, Combine, Decide, Decider, Either, Generate, Highway, Input, Kv,
    Overflow, Scope, Scorer, Skip,
};
use super::steps::{self, Steps};
use crate::diagnostic::Diagnostic;
use crate::frontend::language::ast::{Entry, Table, Value, ValueKind};
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
    /// [`Scorer::steps`].
    #[serde(skip_serializing_if = "Steps::is_empty")]
    pub decider: Steps,
    /// [`Scorer::bias`].
    pub bias: bool,
    /// [`Scorer::channels`].
    #[serde(skip_serializing_if = "is_off")]
    pub channels: bool,
    /// [`Either::kv`].
    pub kv: Kv,
    /// [`Either::scale`].
    pub gate: BranchScale,
    /// [`Either::factor`].
    #[serde(skip_serializing_if = "is_one")]
    pub gate_factor: f64,
    /// [`Either::branches`].
    #[serde(skip_serializing_if = "is_either")]
    pub combine: Branches,
    /// [`Highway::carry`].
    #[serde(skip_serializing_if = "is_coupled")]
    pub carry: Carry,
    /// [`Highway::carry_bias`].
    #[serde(skip_serializing_if = "is_none")]
    pub carry_bias: f64,
    /// Of `topk`: which tokens compete.
    #[serde(skip_serializing_if = "is_of_sequence")]
    pub scope: Scope,
    /// Of `topk`: which way the number of tokens that it takes is rounded.
    #[serde(skip_serializing_if = "is_up")]
    pub round: Rounding,
    /// [`Either::force_first`].
    #[serde(skip_serializing_if = "is_zero")]
    pub force_first: usize,
    /// [`Either::nested`].
    #[serde(skip_serializing_if = "is_unset")]
    pub nested: bool,
    /// Of `sigmoid`, and of `topk` with `generate = "threshold"`.
    pub threshold: f64,
    /// Of `topk`.
    pub generate: GenerateKind,
    /// Steps of [`Generate::Predictor`].
    #[serde(skip_serializing_if = "Steps::is_empty")]
    pub predictor: Steps,
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
    /// [`Decider::Depth`].
    Depth,
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
    /// [`Generate::Predictor`].
    Predictor,
    /// [`Scorer::prefill`].
    Prefill,
}

words! {
    Router {
        Gumbel = "gumbel", Sigmoid = "sigmoid", TopK = "topk", Random = "random", Hash = "hash",
        Depth = "depth", Highway = "highway", Always = "always", Never = "never",
    }
    GenerateKind { Refuse = "", Threshold = "threshold", Predictor = "predictor", Prefill = "prefill" }
}

/// The keys of a skip, in the order of the documentation.
const KEYS: &[&str] = &[
    "router",
    "density",
    "input",
    "decide",
    "decider",
    "bias",
    "channels",
    "kv",
    "gate",
    "gate_factor",
    "combine",
    "otherwise",
    "carry",
    "carry_bias",
    "scope",
    "round",
    "force_first",
    "nested",
    "threshold",
    "generate",
    "predictor",
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
            decider: Steps::default(),
            bias: false,
            channels: false,
            kv: Kv::All,
            gate: BranchScale::One,
            gate_factor: 1.0,
            combine: Branches::Either,
            carry: Carry::Coupled,
            carry_bias: 0.0,
            scope: Scope::Sequence,
            round: Rounding::Up,
            force_first: 0,
            nested: false,
            threshold: 0.5,
            generate: GenerateKind::Refuse,
            predictor: Steps::default(),
            group_size: 0,
            capacity_factor: 1.25,
            overflow: Overflow::Position,
            seed: 0,
        }
    }

    /// What the table means.
    pub fn skip(&self) -> Skip {
        let SkipTable { input, decide, decider: steps, bias, channels, .. } = *self;
        let prefill = self.generate == GenerateKind::Prefill && steps.is_pooled();
        let scorer = Scorer { input, decide, steps, bias, channels, prefill };
        let generate = match self.generate {
            GenerateKind::Refuse | GenerateKind::Prefill => Generate::Refuse,
            GenerateKind::Threshold => Generate::Threshold(self.threshold),
            GenerateKind::Predictor => {
                Generate::Predictor { threshold: self.threshold, steps: self.predictor }
            }
        };
        let decider = match self.router {
            Router::Highway => {
                let highway = Highway { scorer, carry: self.carry, carry_bias: self.carry_bias };
                return Skip { density: self.density, combine: Combine::Highway(highway) };
            }
            Router::Gumbel => Decider::Gumbel(scorer),
            Router::Sigmoid => Decider::Sigmoid { scorer, threshold: self.threshold },
            Router::TopK => Decider::TopK { scorer, generate, scope: self.scope, round: self.round },
            Router::Random => Decider::Random { seed: self.seed },
            Router::Hash => Decider::Hash { seed: self.seed },
            // How many repetitions there are says the stack.
            Router::Depth => Decider::Depth { scorer, repetitions: 1, repetition: 0 },
            Router::Always => Decider::Always,
            Router::Never => Decider::Never,
        };
        let (group_size, factor, overflow) = (self.group_size, self.capacity_factor, self.overflow);
        let capacity = (group_size > 0).then_some(Capacity { group_size, factor, overflow });
        let (scale, factor, branches) = (self.gate, self.gate_factor, self.combine);
        let (kv, force_first, nested) = (self.kv, self.force_first, self.nested);
        let either = Either { decider, kv, scale, factor, branches, force_first, nested, capacity };
        Skip { density: self.density, combine: Combine::Either(either) }
    }

    /// The table of a skip.
    pub fn of(skip: &Skip) -> SkipTable {
        let mut table = SkipTable { density: skip.density, ..SkipTable::of_router(Router::of(skip)) };
        if let Some(Scorer { input, decide, steps, bias, channels, prefill }) = skip.scorer() {
            let generate = if prefill { GenerateKind::Prefill } else { GenerateKind::Refuse };
            table = SkipTable { input, decide, decider: steps, bias, channels, generate, ..table };
        }
        let either = match skip.combine {
            Combine::Either(either) => either,
            Combine::Highway(Highway { carry, carry_bias, .. }) => {
                return SkipTable { carry, carry_bias, ..table };
            }
        };
        (table.kv, table.gate) = (either.kv, either.scale);
        (table.gate_factor, table.combine) = (either.factor, either.branches);
        (table.force_first, table.nested) = (either.force_first, either.nested);
        if let Some(Capacity { group_size, factor, overflow }) = either.capacity {
            table = SkipTable { group_size, capacity_factor: factor, overflow, ..table };
        }
        match either.decider {
            Decider::Sigmoid { threshold, .. } => table.threshold = threshold,
            Decider::TopK { generate, scope, round, .. } => {
                (table.scope, table.round) = (scope, round);
                match generate {
                    Generate::Refuse => {}
                    Generate::Threshold(threshold) => {
                        (table.generate, table.threshold) = (GenerateKind::Threshold, threshold);
                    }
                    Generate::Predictor { threshold, steps } => {
                        (table.generate, table.threshold) = (GenerateKind::Predictor, threshold);
                        table.predictor = steps;
                    }
                }
            }
            Decider::Random { seed } | Decider::Hash { seed } => table.seed = seed,
            Decider::Gumbel(_) | Decider::Depth { .. } | Decider::Always | Decider::Never => {}
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
            Some(Decider::Depth { .. }) => Router::Depth,
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
        ("input" | "decide" | "decider" | "bias" | "channels", Some(Decider::Hash { .. })) => {
            Some(("it looks at the token's id alone", "remove the setting, or choose a router with a weight"))
        }
        ("input" | "decide" | "decider" | "bias" | "channels", _) if skip.scorer().is_none() => Some((
            "it decides without looking at the tokens",
            "remove the setting, or choose a router with a weight",
        )),
        ("combine" | "otherwise" | "gate_factor" | "force_first" | "nested", None) => {
            Some(("it runs every token and mixes by itself", "remove the setting, or choose another router"))
        }
        ("density" | "force_first" | "nested" | "group_size", Some(Decider::Depth { .. })) => Some((
            "it decides once for all repetitions, at the entry",
            "remove the setting, or choose another router",
        )),
        ("channels", Some(Decider::Gumbel(_))) => Some((
            "its two logits compete for a token",
            "remove the setting, or choose `router = \"sigmoid\"`",
        )),
        ("carry" | "carry_bias", None) => None,
        ("carry" | "carry_bias", Some(_)) => {
            Some(("a token gets one branch", "remove the setting, or choose `router = \"highway\"`"))
        }
        ("scope" | "round", Some(Decider::TopK { .. })) => None,
        ("scope" | "round", _) => {
            Some(("it does not compare tokens", "remove the setting, or choose `router = \"topk\"`"))
        }
        ("force_first", Some(Decider::Always)) => Some(("every token executes", "remove the setting")),
        ("gate_factor", _) if skip.either().is_some_and(|either| either.scale == BranchScale::One) => {
            Some(("nothing is scaled", "set `gate` as well, or remove the setting"))
        }
        ("gate", _)
            if skip.either().is_some_and(|either| either.scale == BranchScale::Score)
                && !skip.has_one_score() =>
        {
            Some((
                "`raw` scales by the one logit of a token",
                "choose `router = \"sigmoid\"` or `\"topk\"` without `channels`, or `gate = \"scaled\"`",
            ))
        }
        ("predictor", Some(Decider::TopK { generate: Generate::Predictor { .. }, .. })) => None,
        ("predictor", Some(Decider::TopK { .. })) => {
            Some(("nothing predicts its selection", "add `generate = \"predictor\"`, or remove the setting"))
        }
        ("predictor", _) => Some(("its decisions do not look at the future", "remove the setting")),
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
        ("generate", _) if skip.keeps_prompts() => None,
        ("generate", _) if skip.is_pooled() => Some((
            "what it decides of a prompt is all that there is to keep",
            "write `generate = \"prefill\"`",
        )),
        ("generate", _) => Some(("its decisions do not look at the future", "remove the setting")),
        ("seed", Some(Decider::Random { .. } | Decider::Hash { .. })) => None,
        ("seed", _) => Some(("it is not random", "remove the setting, or choose `router = \"random\"`")),
        _ => None,
    }
}

/// What a skip stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    /// A stack of so many repetitions, and whether they share weights.
    Stack {
        repeat: usize,
        share: bool,
    },
    Block,
    Layer,
}

/// The skip of a stack, one for each repetition, as a table of TOML.
pub(super) fn print_all(skips: &[Skip], on: On) -> Option<String> {
    let first = skips.first()?;
    let densities: Vec<String> = skips.iter().map(|skip| format!("{:?}", skip.density)).collect();
    let is_one = densities.windows(2).all(|two| two[0] == two[1]);
    let density = if is_one { densities[0].clone() } else { format!("[{}]", densities.join(", ")) };
    Some(print_as(first, on, density, None))
}

/// The skip as a table of TOML, with every setting that the router takes and the layers of tokens that do not execute;
/// `decide` means something for a layer alone.
pub(super) fn print(skip: &Skip, on: On, otherwise: Option<String>) -> String {
    print_as(skip, on, format!("{:?}", skip.density), otherwise)
}

fn print_as(skip: &Skip, on: On, density: String, otherwise: Option<String>) -> String {
    let table = SkipTable::of(skip);
    let usual = SkipTable::of_router(table.router);
    let settings: [(&str, String); 24] = [
        ("router", text(table.router.word())),
        ("density", density),
        ("input", text(table.input.word())),
        ("decide", text(table.decide.word())),
        ("decider", table.decider.print()),
        ("bias", table.bias.to_string()),
        ("channels", table.channels.to_string()),
        ("kv", text(table.kv.word())),
        ("gate", text(table.gate.word())),
        ("gate_factor", format!("{:?}", table.gate_factor)),
        ("combine", text(table.combine.word())),
        ("carry", text(table.carry.word())),
        ("carry_bias", format!("{:?}", table.carry_bias)),
        ("scope", text(table.scope.word())),
        ("round", text(table.round.word())),
        ("force_first", table.force_first.to_string()),
        ("nested", table.nested.to_string()),
        ("threshold", format!("{:?}", table.threshold)),
        ("generate", text(table.generate.word())),
        ("predictor", table.predictor.print()),
        ("group_size", table.group_size.to_string()),
        ("capacity_factor", format!("{:?}", table.capacity_factor)),
        ("overflow", text(table.overflow.word())),
        ("seed", table.seed.to_string()),
    ];
    // What most skips leave alone is written only where they do not.
    let is_usual = |key: &str| match key {
        "decider" => table.decider.is_empty(),
        "predictor" => table.predictor.is_empty(),
        "gate_factor" => is_one(&table.gate_factor),
        "combine" => table.combine == usual.combine,
        "channels" => table.channels == usual.channels,
        "carry" => table.carry == usual.carry,
        "carry_bias" => is_none(&table.carry_bias),
        "scope" => table.scope == usual.scope,
        "round" => table.round == usual.round,
        "force_first" => table.force_first == usual.force_first,
        "nested" => !table.nested,
        _ => false,
    };
    let is_shown =
        |key: &str| refusal(skip, key).is_none() && !(on != On::Layer && key == "decide") && !is_usual(key);
    let shown = settings.iter().filter(|(key, _)| is_shown(key));
    let mut shown: Vec<String> = shown.map(|(key, value)| format!("{key} = {value}")).collect();
    shown.extend(otherwise.map(|layers| format!("otherwise = [{layers}]")));
    format!("{{ {} }}", shown.join(", "))
}

/// Reads the value of `skip = …` of a stack: what it means in each repetition.
pub(super) fn resolve_all(
    ctx: &mut Ctx<'_>,
    value: &Value,
    (repeat, share): (usize, bool),
) -> Option<Vec<Skip>> {
    let skip = resolve(ctx, value, On::Stack { repeat, share });
    let densities = densities(ctx, value, repeat);
    let (skip, densities) = (skip?, densities?);
    let of = |repetition: usize| match skip.combine {
        Combine::Either(either @ Either { decider: Decider::Depth { scorer, .. }, .. }) => {
            let decider = Decider::Depth { scorer, repetitions: repeat, repetition };
            // What is expected of logits that know nothing.
            let density = (repeat - repetition) as f64 / repeat as f64;
            Skip { density, combine: Combine::Either(Either { decider, ..either }) }
        }
        combine => Skip { density: densities.get(repetition).copied().unwrap_or(skip.density), combine },
    };
    Some((0..repeat).map(of).collect())
}

/// The densities of a stack's repetitions, if they are a list; none if it is one number.
fn densities(ctx: &mut Ctx<'_>, skip: &Value, repeat: usize) -> Option<Vec<f64>> {
    let ValueKind::Table(table) = &skip.kind else { return None };
    let Some(entry) = table.get("density") else { return Some(Vec::new()) };
    let ValueKind::List(values) = &entry.value.kind else { return Some(Vec::new()) };
    if values.len() != repeat {
        let message = format!("{} densities for {repeat} repetitions", values.len());
        let help = "write one number for each repetition, or one for all".to_owned();
        ctx.wrong("spec::out_of_range", message, (&entry.value, "one for each repetition"), help);
        return None;
    }
    let numbers: Vec<Option<f64>> =
        values.iter().map(|value| density(ctx, &Entry { value: value.clone(), ..entry.clone() })).collect();
    numbers.into_iter().collect()
}

fn density(ctx: &mut Ctx<'_>, entry: &Entry) -> Option<f64> {
    ctx.number(entry, "from 0.0 to 1.0", |number| (0.0..=1.0).contains(&number))
}

/// Reads the value of `skip = …`.
pub(super) fn resolve(ctx: &mut Ctx<'_>, value: &Value, on: On) -> Option<Skip> {
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
    check_branches(ctx, table, &written, on);
    check_pool(ctx, table, &written);
    check_place(ctx, table, &written, on);
    if on != On::Layer
        && written.decide == Decide::Entry
        && let Some(entry) = table.get("decide")
    {
        ctx.wrong(
            "spec::entry_on_block",
            "a decision over a block or a stack is always taken at its entry".to_owned(),
            (&entry.value, "only for the skip of a sub-layer"),
            "remove `decide`".to_owned(),
        );
    }
    Some(skip)
}

/// `None` if one of the settings is wrong; all are read.
fn read_settings(ctx: &mut Ctx<'_>, fields: Fields<'_>, base: SkipTable) -> Option<SkipTable> {
    let density = ctx.optional(fields, "density", base.density, |ctx, entry| match entry.value.kind {
        // Read apart, for it is over repetitions.
        ValueKind::List(_) => Some(base.density),
        _ => density(ctx, entry),
    });
    let input = ctx.optional(fields, "input", base.input, Ctx::word);
    let decide = ctx.optional(fields, "decide", base.decide, Ctx::word);
    let decider = ctx.optional(fields, "decider", base.decider, steps::read);
    let bias = ctx.optional(fields, "bias", base.bias, Ctx::flag);
    let channels = ctx.optional(fields, "channels", base.channels, Ctx::flag);
    let kv = ctx.optional(fields, "kv", base.kv, Ctx::word);
    let gate = ctx.optional(fields, "gate", base.gate, Ctx::word);
    let gate_factor = ctx.optional(fields, "gate_factor", base.gate_factor, |ctx, entry| {
        ctx.number(entry, "from -1e6 to 1e6", |number| number.abs() <= 1e6)
    });
    let combine = ctx.optional(fields, "combine", base.combine, Ctx::word);
    let carry = ctx.optional(fields, "carry", base.carry, Ctx::word);
    let carry_bias = ctx.optional(fields, "carry_bias", base.carry_bias, |ctx, entry| {
        ctx.number(entry, "from -1e6 to 1e6", |number| number.abs() <= 1e6)
    });
    let scope = ctx.optional(fields, "scope", base.scope, Ctx::word);
    let round = ctx.optional(fields, "round", base.round, Ctx::word);
    let force_first = ctx.optional(fields, "force_first", base.force_first, |ctx, entry| {
        ctx.count(entry, 0..=limits::POSITIONS)
    });
    let nested = ctx.optional(fields, "nested", base.nested, Ctx::flag);
    let predictor = ctx.optional(fields, "predictor", base.predictor, steps::read);
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
        decider: decider?,
        bias: bias?,
        channels: channels?,
        kv: kv?,
        gate: gate?,
        gate_factor: gate_factor?,
        combine: combine?,
        carry: carry?,
        carry_bias: carry_bias?,
        scope: scope?,
        round: round?,
        force_first: force_first?,
        nested: nested?,
        predictor: predictor?,
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
    if written.router != Router::Highway || written.gate == BranchScale::One {
        return;
    }
    let (Some(gate), Some(router)) = (table.get("gate"), table.get("router")) else { return };
    let message = format!("`gate = {:?}` has no meaning with the highway router", written.gate.word());
    let diagnostic = Diagnostic::new("spec::gate_with_highway", message)
        .at(ctx.source, gate.value.span.clone(), "scales by what the router says")
        .at(ctx.source, router.value.span.clone(), "already mixes by it")
        .help("remove `gate`, or choose `router = \"sigmoid\"`");
    ctx.report(diagnostic);
}

/// What is said of the branches has to fit together.
fn check_branches(ctx: &mut Ctx<'_>, table: &Table, written: &SkipTable, on: On) {
    if let (On::Stack { .. }, Some(otherwise)) = (on, table.get("otherwise")) {
        let message = "tokens that do not execute a repetition of a stack are left alone".to_owned();
        let at = (&otherwise.value, "for the skip of a block or a sub-layer");
        ctx.wrong("spec::branches", message, at, "remove `otherwise`".to_owned());
    }
    let Some(combine) = table.get("combine") else { return };
    let mut wrong = |other: Option<&Entry>, message: &str, help: &str| {
        let mut diagnostic = Diagnostic::new("spec::branches", message.to_owned())
            .at(ctx.source, combine.value.span.clone(), "asks for it")
            .help(help);
        if let Some(other) = other {
            diagnostic = diagnostic.at(ctx.source, other.key_span.clone(), "does not go with it");
        }
        ctx.report(diagnostic);
    };
    let otherwise = table.get("otherwise");
    match written.combine {
        Branches::Either => {}
        Branches::Sum if otherwise.is_some() => {}
        Branches::Sum => wrong(
            None,
            "`combine = \"sum\"` adds to the branch of all tokens, and there is no `otherwise`",
            "add `otherwise = [{ kind = \"ffn\", d_ff = 64 }]`, or remove `combine`",
        ),
        Branches::Add => {
            if otherwise.is_some() {
                let help = "remove `otherwise`, or write `combine = \"sum\"`";
                wrong(otherwise, "`combine = \"add\"` has one branch, and `otherwise` is another", help);
            }
            if written.gate == BranchScale::ProbabilityLast {
                let message = "`combine = \"add\"` scales the whole branch, and `gate = \"scaled_last\"` its last layer";
                wrong(table.get("gate"), message, "write `gate = \"scaled\"`, or remove `combine`");
            }
        }
    }
}

/// One decision a sequence leaves nothing to choose among its tokens.
fn check_pool(ctx: &mut Ctx<'_>, table: &Table, written: &SkipTable) {
    if written.predictor.is_pooled()
        && let Some(entry) = table.get("predictor")
    {
        let message = "a predictor decides where later tokens are not known, and their mean has them in it";
        let help = "remove the step with `pool`";
        ctx.wrong("spec::pooled", message.to_owned(), (&entry.value, "looks ahead"), help.to_owned());
    }
    if written.generate == GenerateKind::Prefill
        && written.router == Router::TopK
        && let Some(entry) = table.get("generate")
    {
        let message = "`prefill` keeps the one decision of a sequence, and top-k has one for each token";
        let help =
            "write `generate = \"threshold\"`, or choose `router = \"sigmoid\"` with `{ pool = \"mean\" }`";
        ctx.wrong("spec::pooled", message.to_owned(), (&entry.value, "nothing to keep"), help.to_owned());
    }
    let Some(decider) = table.get("decider").filter(|_| written.decider.is_pooled()) else { return };
    let others = [
        ("group_size", written.group_size > 0),
        ("force_first", written.force_first > 0),
        ("router", written.router == Router::TopK),
    ];
    for (key, _) in others.into_iter().filter(|(_, is_there)| *is_there) {
        let Some(other) = table.get(key) else { continue };
        let message = format!(
            "`pool` in `decider` gives a sequence one decision, and `{key}` chooses among its tokens"
        );
        let diagnostic = Diagnostic::new("spec::pooled", message)
            .at(ctx.source, decider.value.span.clone(), "one decision for all")
            .at(ctx.source, other.value.span.clone(), "chooses")
            .help("remove one of the two");
        ctx.report(diagnostic);
    }
}

/// What is about repetitions belongs to a stack, and the keys of the first one to a stack that shares weights.
fn check_place(ctx: &mut Ctx<'_>, table: &Table, written: &SkipTable, on: On) {
    let is_on_stack = matches!(on, On::Stack { .. });
    let has_list = table.get("density").is_some_and(|entry| matches!(entry.value.kind, ValueKind::List(_)));
    let mut wrong = |key: &str, what: &str, is_wrong: bool, [label, help]: [&str; 2]| {
        let Some(entry) = table.get(key).filter(|_| is_wrong) else { return };
        let message = format!("{what} is about the repetitions of a stack");
        ctx.wrong("spec::only_on_stack", message, (&entry.value, label), help.to_owned());
    };
    let elsewhere = "for the skip of a stack";
    wrong("density", "a list of densities", has_list && !is_on_stack, [elsewhere, "write one number"]);
    wrong("nested", "`nested`", written.nested && !is_on_stack, [elsewhere, "remove `nested`"]);
    let is_depth = written.router == Router::Depth;
    let help = "write it in the `skip` of a `[[stack]]`, or choose another router";
    wrong("router", "`router = \"depth\"`", is_depth && !is_on_stack, [elsewhere, help]);
    let is_shared = matches!(on, On::Stack { share: true, .. });
    let label = if is_on_stack { "repetitions with other weights have other keys" } else { elsewhere };
    let help = "write `share = true` on the stack of the skip, or `kv = \"all\"`";
    wrong("kv", "`kv = \"first\"`", written.kv == Kv::First && !is_shared, [label, help]);
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_unset(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_one(factor: &f64) -> bool {
    *factor == 1.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_none(bias: &f64) -> bool {
    *bias == 0.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_off(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_coupled(carry: &Carry) -> bool {
    *carry == Carry::Coupled
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_of_sequence(scope: &Scope) -> bool {
    *scope == Scope::Sequence
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_up(round: &Rounding) -> bool {
    *round == Rounding::Up
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_either(branches: &Branches) -> bool {
    *branches == Branches::Either
}
