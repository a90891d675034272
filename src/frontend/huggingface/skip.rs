//! `skip_config`: which layers of a dense checkpoint have routers, and which ones.

use std::borrow::Cow;

use super::aliases;
use super::config::unsupported;
use crate::diagnostic::Diagnostics;
use crate::frontend::language::ast::{Ast, Entry, Table, Value, ValueKind};
use crate::frontend::language::limits;
use crate::frontend::language::read::{Ctx, Fields};
use crate::frontend::language::words::{Word, words};
use crate::frontend::spec::skip::{BranchScale, Decide, Input, Kv, Overflow};
use crate::frontend::spec::skip_table::{GenerateKind, Router};
use crate::frontend::spec::steps;

const KEYS: &[&str] = &[
    "version",
    "granularity",
    "layers",
    "density",
    "kv",
    "group_size",
    "capacity_factor",
    "overflow_order",
    "force_first",
    "generate",
    "output_scale",
    "adapter_size",
    "router",
    "router_aux_loss_coef",
];

const ROUTER_KEYS: &[&str] = &[
    "type",
    "bias",
    "input",
    "decide",
    "threshold",
    "seed",
    "steps",
    "execute_index",
    "temperature",
    "outputs",
    "dtype",
];

const EXAMPLE: &str = "\"skip_config\": { \"version\": 1, \"density\": 0.5 }";

/// What decides about a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Granularity {
    Layer,
    Attention,
    Mlp,
    Both,
}

words! {
    Granularity { Layer = "layer", Attention = "attention", Mlp = "mlp", Both = "both" }
}

/// `output_scale` as the `gate` of a spec.
#[derive(Clone, Copy, PartialEq)]
struct Scale(BranchScale);

impl Word for Scale {
    const WORDS: &'static [(&'static str, Scale)] = &[
        ("none", Scale(BranchScale::One)),
        ("score", Scale(BranchScale::Probability)),
        ("score_last", Scale(BranchScale::ProbabilityLast)),
        ("raw", Scale(BranchScale::Score)),
    ];
}

/// `router.input`, which has names of both sides.
#[derive(Clone, Copy, PartialEq)]
struct Seen(Input);

impl Word for Seen {
    const WORDS: &'static [(&'static str, Seen)] = &[
        ("normed", Seen(Input::Normed)),
        ("raw", Seen(Input::Raw)),
        ("input_layernorm", Seen(Input::Normed)),
        ("hidden_states", Seen(Input::Raw)),
    ];
}

/// The FFN of tokens that do not execute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adapter {
    pub(super) width: usize,
    pub(super) bias: bool,
}

/// The routers of a model.
#[derive(Debug)]
pub(super) struct Skips {
    granularity: Granularity,
    /// The settings of each layer's skip as a spec writes them, by number; nothing for one without a router.
    layers: Vec<Option<Vec<String>>>,
    /// What tokens take which do not execute, if it is not nothing.
    adapter: Option<Adapter>,
    /// The row of a router's weight that means execution is the first: rows are swapped when they are read.
    pub(super) swaps_rows: bool,
}

impl Skips {
    /// The same settings in each of these layers.
    pub(super) fn new(granularity: Granularity, layers: &[bool], settings: Vec<String>) -> Skips {
        let layers = layers.iter().map(|is_routed| is_routed.then(|| settings.clone())).collect();
        Skips { granularity, layers, adapter: None, swaps_rows: false }
    }

    /// With another branch for tokens that do not execute.
    pub(super) fn with_adapter(self, adapter: Adapter) -> Skips {
        Skips { adapter: Some(adapter), ..self }
    }

    /// With a share of the tokens for each layer.
    pub(super) fn with_densities(mut self, densities: &[f64]) -> Skips {
        for (settings, density) in self.layers.iter_mut().zip(densities) {
            settings.iter_mut().for_each(|settings| settings.push(format!("density = {density:?}")));
        }
        self
    }

    /// With execution as the first row of a router.
    pub(super) fn with_first_row(self) -> Skips {
        Skips { swaps_rows: true, ..self }
    }

    /// The skip of a whole block with an FFN of this activation, as a spec writes it.
    pub(super) fn of_block(&self, layer: usize, activation: &str) -> Option<String> {
        let otherwise = self.adapter.map(|Adapter { width, bias }| {
            let bias = if bias { ", bias = true" } else { "" };
            format!(
                "otherwise = [{{ kind = \"ffn\", d_ff = {width}, activation = {activation:?}, norms = \"pre\"{bias} }}]"
            )
        });
        let settings = self.layers[layer].as_ref().filter(|_| self.granularity == Granularity::Layer)?;
        let settings: Vec<String> = settings.iter().cloned().chain(otherwise).collect();
        Some(format!("{{ {} }}", settings.join(", ")))
    }

    /// The skip of a sub-layer: 0 is attention, 1 the FFN.
    pub(super) fn of_layer(&self, layer: usize, idx: usize) -> Option<String> {
        let is_routed = match self.granularity {
            Granularity::Layer => false,
            Granularity::Attention => idx == 0,
            Granularity::Mlp => idx == 1,
            Granularity::Both => true,
        };
        let settings = self.layers[layer].as_ref().filter(|_| is_routed)?;
        Some(format!("{{ {} }}", settings.join(", ")))
    }
}

/// Reads the table of an overlay, or of `skip_config`; also gives what is said of aliases in it.
pub(super) fn read(ast: &Ast, table: &Table, n_layers: usize) -> Result<(Skips, Diagnostics), Diagnostics> {
    let mut ctx = Ctx::new(ast);
    let resolved = aliases::resolve(&mut ctx, table, n_layers);
    let read = resolved.and_then(|(table, notes)| Some((skips(&mut ctx, &table, n_layers)?, notes)));
    match read {
        Some(read) => ctx.found.or(read),
        None => Err(ctx.found),
    }
}

/// The table of `skip_config`, if a configuration has one; `null` is none. Code that knows nothing of it writes its own keys
/// beside those of the family.
pub(super) fn table_of(ast: &Ast) -> Result<Option<Cow<'_, Table>>, Diagnostics> {
    match ast.root.get("skip_config") {
        Some(entry) if matches!(entry.value.kind, ValueKind::Null) => Ok(None),
        Some(entry) => {
            let mut ctx = Ctx::new(ast);
            ctx.table("skip_config", &entry.value, EXAMPLE)
                .map(|table| Some(Cow::Borrowed(table)))
                .ok_or(ctx.found)
        }
        None => {
            let is_alias = |entry: &&Entry| aliases::KEYS.contains(&entry.key.as_str());
            let mut entries: Vec<Entry> = ast.root.entries.iter().filter(is_alias).cloned().collect();
            let Some(first) = entries.first().cloned() else { return Ok(None) };
            let version = Value { kind: ValueKind::Integer(1), ..first.value };
            entries.push(Entry {
                key: "version".to_owned(),
                key_span: first.key_span.clone(),
                value: version,
            });
            Ok(Some(Cow::Owned(Table { span: first.key_span, entries })))
        }
    }
}

fn skips(ctx: &mut Ctx<'_>, table: &Table, n_layers: usize) -> Option<Skips> {
    let fields = Fields { table, what: "`skip_config`", keys: KEYS };
    ctx.check_keys(fields, |key| ROUTER_KEYS.contains(&key).then(|| "write it under `router`".to_owned()));
    let version = ctx.required(fields, "version", "version = 1").and_then(|entry| ctx.count(entry, 1..=1));
    let granularity = ctx.optional(fields, "granularity", Granularity::Layer, Ctx::word);
    let layers =
        given(table, "layers").map_or(Some(vec![true; n_layers]), |entry| layers(ctx, entry, n_layers));
    let mut settings = Vec::new();
    let swaps_rows = router(ctx, table, &mut settings)?;
    of_skip(ctx, fields, &mut settings)?;
    version?;
    let (granularity, layers) = (granularity?, layers?);
    let adapter = match given(table, "adapter_size") {
        None => None,
        Some(entry) => Some(Adapter { width: adapter(ctx, entry, granularity)?, bias: false }),
    };
    Some(Skips { adapter, swaps_rows, ..Skips::new(granularity, &layers, settings) })
}

/// Width of the FFN of tokens that do not execute; only whole layers have one.
fn adapter(ctx: &mut Ctx<'_>, entry: &Entry, granularity: Granularity) -> Option<usize> {
    if granularity != Granularity::Layer {
        unsupported(ctx, entry, "another branch beside a part of a layer: `granularity` is not \"layer\"");
        return None;
    }
    ctx.count(entry, 1..=limits::WIDTH)
}

/// What stands behind a key, `null` left out.
fn given<'t>(table: &'t Table, key: &str) -> Option<&'t Entry> {
    table.get(key).filter(|entry| !matches!(entry.value.kind, ValueKind::Null))
}

fn layers(ctx: &mut Ctx<'_>, entry: &Entry, n_layers: usize) -> Option<Vec<bool>> {
    let mut routed = vec![false; n_layers];
    for value in ctx.list(entry, "layers", "layers = [1, 3]")? {
        let element = Entry { value: value.clone(), ..entry.clone() };
        routed[ctx.count(&element, 0..=n_layers - 1)?] = true;
    }
    Some(routed)
}

/// The settings of a skip outside of `router`.
fn of_skip(ctx: &mut Ctx<'_>, fields: Fields<'_>, settings: &mut Vec<String>) -> Option<()> {
    let table = fields.table;
    if let Some(entry) = given(table, "density") {
        let density = ctx.number(entry, "from 0.0 to 1.0", |number| (0.0..=1.0).contains(&number))?;
        settings.push(format!("density = {density:?}"));
    }
    word::<Kv>(ctx, table, "kv", "kv", settings)?;
    word::<Overflow>(ctx, table, "overflow_order", "overflow", settings)?;
    word::<GenerateKind>(ctx, table, "generate", "generate", settings)?;
    if let Some(entry) = given(table, "group_size") {
        settings.push(format!("group_size = {}", ctx.count(entry, 0..=limits::POSITIONS)?));
    }
    if let Some(entry) = given(table, "capacity_factor") {
        let factor = ctx.number(entry, "above 0.0, at most 1e6", |number| number > 0.0 && number <= 1e6)?;
        settings.push(format!("capacity_factor = {factor:?}"));
    }
    if let Some(entry) = given(table, "force_first") {
        settings.push(format!("force_first = {}", ctx.count(entry, 0..=limits::POSITIONS)?));
    }
    if let Some(entry) = given(table, "output_scale") {
        settings.push(format!("gate = {:?}", ctx.word::<Scale>(entry)?.0.word()));
    }
    if let Some(entry) = given(table, "router_aux_loss_coef") {
        ctx.number(entry, "of any sign", |_| true)?;
    }
    Some(())
}

/// One of the words of a spec, under its key there.
fn word<T: Word>(
    ctx: &mut Ctx<'_>,
    table: &Table,
    key: &str,
    ours: &str,
    settings: &mut Vec<String>,
) -> Option<()> {
    if let Some(entry) = given(table, key) {
        settings.push(format!("{ours} = {:?}", ctx.word::<T>(entry)?.word()));
    }
    Some(())
}

/// The settings of `router`; whether its rows are swapped.
fn router(ctx: &mut Ctx<'_>, table: &Table, settings: &mut Vec<String>) -> Option<bool> {
    let Some(entry) = given(table, "router") else {
        settings.push(format!("router = {:?}", Router::Gumbel.word()));
        return Some(false);
    };
    let table = ctx.table("router", &entry.value, "router = { type = \"gumbel\" }")?;
    let fields = Fields { table, what: "`router`", keys: ROUTER_KEYS };
    ctx.check_keys(fields, |key| KEYS.contains(&key).then(|| "write it outside of `router`".to_owned()));
    let kind = given(table, "type").map_or(Some(Router::Gumbel), |entry| ctx.word(entry))?;
    settings.push(format!("router = {:?}", kind.word()));
    if let Some(entry) = given(table, "bias") {
        settings.push(format!("bias = {}", ctx.flag(entry)?));
    }
    if let Some(entry) = given(table, "input") {
        settings.push(format!("input = {:?}", ctx.word::<Seen>(entry)?.0.word()));
    }
    word::<Decide>(ctx, table, "decide", "decide", settings)?;
    if let Some(entry) = given(table, "threshold") {
        let threshold = ctx.number(entry, "between 0.0 and 1.0", |number| number > 0.0 && number < 1.0)?;
        settings.push(format!("threshold = {threshold:?}"));
    }
    if let Some(entry) = given(table, "seed") {
        settings.push(format!("seed = {}", ctx.seed(entry)?));
    }
    if let Some(entry) = given(table, "steps") {
        settings.push(format!("decider = {}", steps::read(ctx, entry)?.print()));
    }
    if let Some(entry) = given(table, "temperature") {
        positive(ctx, entry)?;
    }
    if let Some(entry) = given(table, "dtype")
        && !matches!(&entry.value.kind, ValueKind::Text(word) if word == "float32")
    {
        unsupported(ctx, entry, "routers in another precision than float32");
    }
    let rows = if kind == Router::Gumbel { 2 } else { 1 };
    if let Some(entry) = given(table, "outputs") {
        ctx.count(entry, rows..=rows)?;
    }
    let execute_index = given(table, "execute_index").map_or(Some(1), |entry| ctx.count(entry, 0..=1))?;
    Some(execute_index == 0 && rows == 2)
}

fn positive(ctx: &mut Ctx<'_>, entry: &Entry) -> Option<f64> {
    ctx.number(entry, "above 0.0", |number| number > 0.0)
}
