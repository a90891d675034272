//! From the tree to the model: `[model]`, `[block.*]` and `[[stack]]`, with every finding collected.

use std::collections::BTreeMap;

use super::model::Model;
use super::node::{Block, Layout, Node, Norms, Part, Route, SubLayer, Unit};
use super::skip::{Decider, Input, Skip};
use super::skip_table::{self, On};
use super::stack::Stack;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::frontend::language::ast::{Ast, Entry, Table, Value, ValueKind};
use crate::frontend::language::limits;
use crate::frontend::language::read::{Ctx, Fields, for_example, list, name_fault, quoted_name};
use crate::frontend::language::words::{Word, nearest, quoted};
use crate::frontend::layer::{self, Mask, Surroundings};
use crate::frontend::rope;
use crate::frontend::stream::{
    Head, Norm, NormKind, Patches, Pool, Pooled, PositionKind, Positions, Rope, Stream, StreamInput,
};

const ROOT_KEYS: &[&str] = &["model", "block", "stack"];
const MODEL_KEYS: &[&str] = &[
    "name",
    "input",
    "patch_dim",
    "cls_token",
    "vocab_size",
    "d_model",
    "max_positions",
    "norm",
    "norm_eps",
    "norm_offset",
    "norms",
    "positions",
    "rope_theta",
    "rope_scaling",
    "mask",
    "final_norm",
    "head",
    "pool",
    "classes",
    "tie_embeddings",
    "embed_scale",
    "head_bias",
    "logit_softcap",
];
const BLOCK_KEYS: &[&str] = &["layout", "skip", "layers"];
const STACK_KEYS: &[&str] = &["blocks", "repeat", "share", "skip"];

const MODEL_EXAMPLE: &str = "[model]\nname = \"my-model\"";
const STACK_EXAMPLE: &str = "[[stack]]\nblocks = [\"dense\", \"sparse\"]";
const OTHERWISE_EXAMPLE: &str = "otherwise = [{ kind = \"ffn\", d_ff = 64 }]";
const LAYERS_EXAMPLE: &str = "layers = [{ kind = \"ffn\", d_ff = 384 }]";
const BLOCK_EXAMPLE: &str = "[block.dense]\nlayers = [{ kind = \"ffn\", d_ff = 384 }]";

/// Named blocks; `None` for one that is there but wrong.
type Blocks = BTreeMap<String, Option<Block>>;

/// Resolves a spec. All findings of the whole file are reported together.
pub fn resolve(ast: &Ast) -> Result<Model, Diagnostics> {
    let mut ctx = Ctx::new(ast);
    let root = Fields { table: &ast.root, what: "a spec", keys: ROOT_KEYS };
    ctx.check_keys(root, |key| MODEL_KEYS.contains(&key).then(|| "write it under `[model]`".to_owned()));
    let model = ctx.required(root, "model", MODEL_EXAMPLE).and_then(|entry| model(&mut ctx, entry));
    let around = Surroundings {
        d_model: model.as_ref().and_then(|model| model.d_model),
        rope: model.as_ref().and_then(|model| model.rope),
        input: model.as_ref().and_then(|model| model.input).unwrap_or_default(),
        mask: model.as_ref().map_or(Mask::Causal, |model| model.mask),
    };
    let around = Around {
        layers: around,
        norms: model.as_ref().map_or(Norms::Pre, |model| model.norms),
        input: model.as_ref().and_then(|model| model.input).unwrap_or_default(),
    };
    let named = ctx.required(root, "block", BLOCK_EXAMPLE).and_then(|entry| blocks(&mut ctx, entry, around));
    let stack = ctx.required(root, "stack", STACK_EXAMPLE);
    let stacks = stack.and_then(|entry| stacks(&mut ctx, entry, (named.as_ref(), around.input)));
    match (model.and_then(|head| head.model), stacks) {
        (Some(model), Some((blocks, stacks))) => ctx.found.or(Model { blocks, stacks, ..model }),
        _ => Err(ctx.found),
    }
}

/// `[model]`, as far as it is right: what the blocks are checked against, and the whole without blocks.
struct ModelTable {
    d_model: Option<usize>,
    rope: Option<Option<Rope>>,
    norms: Norms,
    mask: Mask,
    input: Option<StreamInput>,
    model: Option<Model>,
}

/// What blocks need to know of the model.
#[derive(Clone, Copy)]
struct Around {
    layers: Surroundings,
    /// Where the norms of layers stand that do not say it.
    norms: Norms,
    /// What tokens are.
    input: StreamInput,
}

fn model(ctx: &mut Ctx<'_>, entry: &Entry) -> Option<ModelTable> {
    let table = ctx.table("model", &entry.value, MODEL_EXAMPLE)?;
    let fields = Fields { table, what: "the model", keys: MODEL_KEYS };
    ctx.check_keys(fields, |_| None);
    let name = ctx.required(fields, "name", "name = \"my-model\"").and_then(|entry| ctx.name(entry));
    let ends = ends(ctx, fields);
    let mut count = |key: &str, example: &str, most: usize| {
        ctx.required(fields, key, example).and_then(|entry| ctx.count(entry, 1..=most))
    };
    let vocab_size = match ends.map(|ends| ends.input) {
        Some(StreamInput::Rows | StreamInput::Patches) => Some(0),
        Some(StreamInput::Tokens) => count("vocab_size", "vocab_size = 256", limits::WIDTH),
        None => None,
    };
    let d_model = count("d_model", "d_model = 128", limits::WIDTH);
    let max_positions = count("max_positions", "max_positions = 1024", limits::POSITIONS);
    let norm = norm(ctx, fields);
    let norms = ctx.optional(fields, "norms", Norms::Pre, Ctx::word);
    let mask = ctx.optional(fields, "mask", Mask::Causal, Ctx::word);
    let positions = positions(ctx, fields);
    let final_norm = ctx.optional(fields, "final_norm", true, Ctx::flag);
    let whole = || {
        Some(Model {
            name: name?,
            stream: Stream {
                input: ends?.input,
                patches: ends?.patches,
                vocab_size: vocab_size?,
                d_model: d_model?,
                max_positions: max_positions?,
                norm: norm?,
                positions: positions?,
                final_norm: final_norm?,
                head: ends?.head,
                pooled: ends?.pooled,
                tie_embeddings: ends?.tie_embeddings,
                embed_scale: ends?.embed_scale,
                head_bias: ends?.head_bias,
                logit_softcap: ends?.logit_softcap,
            },
            blocks: Vec::new(),
            stacks: Vec::new(),
        })
    };
    let rope = positions.map(|positions| match positions {
        Positions::Rope(rope) => Some(rope),
        Positions::Learned | Positions::None => None,
    });
    let input = ends.map(|ends| ends.input);
    Some(ModelTable { d_model, rope, norms: norms?, mask: mask?, input, model: whole() })
}

fn norm(ctx: &mut Ctx<'_>, fields: Fields<'_>) -> Option<Norm> {
    let kind = ctx.optional(fields, "norm", NormKind::RmsNorm, Ctx::word);
    let eps = ctx.optional(fields, "norm_eps", 1e-5, |ctx, entry| {
        // Smaller ones vanish in f32, and a row of zeros would become one of NaN.
        ctx.number(entry, "from 1e-30 to 1.0", |number| (1e-30..=1.0).contains(&number))
    });
    let offset = ctx.optional(fields, "norm_offset", 0.0, |ctx, entry| {
        ctx.number(entry, "from -1e3 to 1e3", |number| number.abs() <= 1e3)
    });
    Some(Norm { kind: kind?, eps: eps?, offset: offset? })
}

fn positions(ctx: &mut Ctx<'_>, fields: Fields<'_>) -> Option<Positions> {
    let kind = ctx.optional(fields, "positions", PositionKind::Rope, Ctx::word);
    let theta = ctx.optional(fields, "rope_theta", 10_000.0, rope::theta);
    let scaling =
        ctx.optional(fields, "rope_scaling", None, |ctx, entry| rope::scaling(ctx, entry).map(Some));
    check_rope(ctx, fields.table, kind);
    let (theta, scaling) = (theta?, scaling?);
    Some(match kind? {
        PositionKind::Rope => Positions::Rope(Rope { theta, scaling }),
        PositionKind::Learned => Positions::Learned,
        PositionKind::None => Positions::None,
    })
}

/// What is said of embedding and head.
#[derive(Clone, Copy)]
struct Ends {
    input: StreamInput,
    patches: Option<Patches>,
    head: Head,
    pooled: Option<Pooled>,
    tie_embeddings: bool,
    embed_scale: f64,
    head_bias: bool,
    logit_softcap: Option<f64>,
}

fn ends(ctx: &mut Ctx<'_>, fields: Fields<'_>) -> Option<Ends> {
    let input = ctx.optional(fields, "input", StreamInput::Tokens, Ctx::word);
    // Scores are over the ids that go in.
    let usual = match input {
        None | Some(StreamInput::Tokens) => Head::Tokens,
        Some(StreamInput::Rows) => Head::Rows,
        Some(StreamInput::Patches) => Head::Pooled,
    };
    let head = ctx.optional(fields, "head", usual, Ctx::word);
    check_ends(ctx, fields.table, (input?, head?))?;
    let patches = match input? {
        StreamInput::Patches => patches(ctx, fields).map(Some),
        StreamInput::Tokens | StreamInput::Rows => Some(None),
    };
    let pooled = match head? {
        Head::Pooled => pooled(ctx, fields).map(Some),
        Head::Tokens | Head::Rows => Some(None),
    };
    let tie_embeddings = ctx.optional(fields, "tie_embeddings", head == Some(Head::Tokens), Ctx::flag);
    let embed_scale = ctx.optional(fields, "embed_scale", 1.0, |ctx, entry| {
        ctx.number(entry, "above 0.0, at most 1e6", |number| number > 0.0 && number <= 1e6)
    });
    let head_bias = ctx.optional(fields, "head_bias", false, Ctx::flag);
    let cap = ctx.optional(fields, "logit_softcap", 0.0, |ctx, entry| {
        ctx.number(entry, "from 0.0 to 1e6", |number| (0.0..=1e6).contains(&number))
    });
    Some(Ends {
        input: input?,
        patches: patches?,
        head: head?,
        pooled: pooled?,
        tie_embeddings: tie_embeddings?,
        embed_scale: embed_scale?,
        head_bias: head_bias?,
        logit_softcap: cap.map(|cap| (cap != 0.0).then_some(cap))?,
    })
}

fn patches(ctx: &mut Ctx<'_>, fields: Fields<'_>) -> Option<Patches> {
    let dim = ctx.required(fields, "patch_dim", "patch_dim = 768");
    let dim = dim.and_then(|entry| ctx.count(entry, 1..=limits::WIDTH));
    let class_token = ctx.optional(fields, "cls_token", false, Ctx::flag);
    Some(Patches { dim: dim?, class_token: class_token? })
}

fn pooled(ctx: &mut Ctx<'_>, fields: Fields<'_>) -> Option<Pooled> {
    let pool = ctx.optional(fields, "pool", Pool::Mean, Ctx::word);
    let classes = ctx.required(fields, "classes", "classes = 1000");
    let classes = classes.and_then(|entry| ctx.count(entry, 1..=limits::WIDTH));
    Some(Pooled { pool: pool?, classes: classes? })
}

/// Refuses what the ends of a model that takes or gives rows do not have.
fn check_ends(ctx: &mut Ctx<'_>, table: &Table, (input, head): (StreamInput, Head)) -> Option<()> {
    let without_tokens: &[&str] = match input {
        StreamInput::Tokens => &[],
        StreamInput::Rows => &["vocab_size", "embed_scale"],
        StreamInput::Patches => &["vocab_size"],
    };
    let without_scores: &[&str] = match head {
        Head::Tokens => &[],
        Head::Rows => &["tie_embeddings", "head_bias", "logit_softcap"],
        Head::Pooled => &["tie_embeddings", "logit_softcap"],
    };
    let without_patches: &[&str] =
        if input == StreamInput::Patches { &[] } else { &["patch_dim", "cls_token"] };
    let without_pool: &[&str] = if head == Head::Pooled { &[] } else { &["pool", "classes"] };
    let no_ids = format!("a model that takes {} has no token ids", input.word());
    let no_scores = match head {
        Head::Pooled => "a model that scores sequences has no scores of tokens",
        Head::Tokens | Head::Rows => "a model that gives rows has no scores",
    };
    let groups = [
        (without_tokens, "input = \"tokens\"", no_ids.as_str()),
        (without_scores, "head = \"tokens\"", no_scores),
        (without_patches, "input = \"patches\"", "the model takes no patches"),
        (without_pool, "head = \"pooled\"", "the model does not score sequences"),
    ];
    let keys = groups.iter().flat_map(|(keys, instead, why)| keys.iter().map(move |key| (key, instead, why)));
    let mut is_right = true;
    for (key, instead, why) in keys {
        let Some(entry) = table.get(key) else { continue };
        let diagnostic =
            Diagnostic::new("spec::unused_setting", format!("`{key}` has nothing to act on: {why}"))
                .at(ctx.source, entry.key_span.clone(), "would have no effect")
                .help(format!("remove `{key}`, or write `{instead}`"));
        ctx.report(diagnostic);
        is_right = false;
    }
    if input != StreamInput::Tokens && head == Head::Tokens {
        let entry = table.get("head")?;
        let message = format!("a model that takes {} has no vocabulary to score", input.word());
        let help = "write `head = \"rows\"` or `\"pooled\"`, or `input = \"tokens\"` with its `vocab_size`"
            .to_owned();
        ctx.wrong("spec::no_tokens", message, (&entry.value, "scores over which ids?"), help);
        is_right = false;
    }
    is_right.then_some(())
}

fn check_rope(ctx: &mut Ctx<'_>, table: &Table, positions: Option<PositionKind>) {
    if matches!(positions, None | Some(PositionKind::Rope)) {
        return;
    }
    for key in ["rope_theta", "rope_scaling"] {
        let (Some(entry), Some(named)) = (table.get(key), table.get("positions")) else { continue };
        let message = format!("`{key}` is for rotary positions only");
        let diagnostic = Diagnostic::new("spec::unused_setting", message)
            .at(ctx.source, entry.key_span.clone(), "would have no effect")
            .at(ctx.source, named.value.span.clone(), "with these positions")
            .help(format!("remove `{key}`, or write `positions = \"rope\"`"));
        ctx.report(diagnostic);
    }
}

fn blocks(ctx: &mut Ctx<'_>, entry: &Entry, around: Around) -> Option<Blocks> {
    let table = ctx.table("block", &entry.value, BLOCK_EXAMPLE)?;
    if table.entries.is_empty() {
        let at = (&entry.value, "no block");
        ctx.wrong("spec::empty", "there are no blocks".to_owned(), at, for_example("write", BLOCK_EXAMPLE));
        return None;
    }
    Some(table.entries.iter().map(|entry| (entry.key.clone(), block(ctx, entry, around))).collect())
}

fn block(ctx: &mut Ctx<'_>, entry: &Entry, around: Around) -> Option<Block> {
    if let Some((code, label)) = name_fault(&entry.key) {
        let diagnostic = Diagnostic::new(code, format!("{} cannot be a name", quoted_name(&entry.key)))
            .at(ctx.source, entry.key_span.clone(), label)
            .help("choose a short, readable name");
        ctx.report(diagnostic);
    }
    let table = ctx.table(&entry.key, &entry.value, BLOCK_EXAMPLE)?;
    let fields = Fields { table, what: "a block", keys: BLOCK_KEYS };
    ctx.check_keys(fields, |key| match key {
        "repeat" => Some("write it under `[[stack]]`".to_owned()),
        "router" | "density" => Some(format!("write it in `skip = {{ {key} = … }}`")),
        _ => None,
    });
    let skip_entry = table.get("skip");
    let skip = skip(ctx, skip_entry, Unit::Block, around);
    let layout = ctx.optional(fields, "layout", Layout::Sequence, Ctx::word);
    let layers = ctx.required(fields, "layers", LAYERS_EXAMPLE)?;
    let values = ctx.list(layers, "layers", LAYERS_EXAMPLE)?;
    let layers: Vec<Option<Node>> =
        values.iter().enumerate().map(|(idx, value)| sub_layer(ctx, value, (idx, layout), around)).collect();
    if let Some(outer) = skip_entry {
        let what = (
            "a block and one of its sub-layers both have a skip",
            "this sub-layer is inside the block's skip",
        );
        let help = "keep one: the block's to decide once for all sub-layers, or the sub-layers' own";
        check_nesting(ctx, (outer, "the block's skip"), values, what, help);
    }
    let layers: Vec<Node> = layers.into_iter().collect::<Option<_>>()?;
    if layout == Some(Layout::ParallelOneNorm) {
        let first = layers.first().and_then(Node::first_layer);
        check_norm(ctx, first, (&values[0], "has no norm in front"), "the layers share")?;
    }
    let skip = skip?;
    if let (Some((skip, _)), Some(entry)) = (&skip, skip_entry) {
        check_router_norm(ctx, skip, layers.first(), entry)?;
        check_router_tokens(ctx, skip, around.input, entry)?;
    }
    let body = match layout? {
        Layout::Sequence => Node::Sequence(layers),
        Layout::Parallel | Layout::ParallelOneNorm => Node::Parallel(layers),
    };
    Some(Block { name: entry.key.clone(), body: routed(skip, body) })
}

/// Reads one element of `layers`.
fn sub_layer(
    ctx: &mut Ctx<'_>,
    value: &Value,
    (idx, layout): (usize, Option<Layout>),
    around: Around,
) -> Option<Node> {
    let table = ctx.table("layers", value, LAYERS_EXAMPLE)?;
    let layer = layer::read(ctx, table, around.layers);
    let norms = match table.get("norms") {
        None => Some(around.norms),
        Some(entry) => ctx.word(entry),
    };
    let skip_entry = table.get("skip");
    let skip = skip(ctx, skip_entry, Unit::Layer(idx), around)?;
    let mut layer = SubLayer::new(layer?, norms?, idx);
    if layout? == Layout::ParallelOneNorm && idx > 0 {
        layer.pre = Some(0);
    }
    let node = Node::Residual(layer);
    if let (Some((skip, _)), Some(entry)) = (&skip, skip_entry) {
        check_router_norm(ctx, skip, Some(&node), entry)?;
        check_router_tokens(ctx, skip, around.input, entry)?;
    }
    Some(routed(skip, node))
}

/// A router that reads normed rows needs the norm in front of the first layer that it decides about.
fn check_router_norm(ctx: &mut Ctx<'_>, skip: &Skip, first: Option<&Node>, entry: &Entry) -> Option<()> {
    if skip.scorer().is_none_or(|scorer| scorer.input != Input::Normed) {
        return Some(());
    }
    let first = first.and_then(Node::first_layer);
    check_norm(ctx, first, (&entry.value, "reads normed rows"), "the router reads")
}

/// A router that reads token ids needs a model that takes them.
fn check_router_tokens(ctx: &mut Ctx<'_>, skip: &Skip, input: StreamInput, entry: &Entry) -> Option<()> {
    if input == StreamInput::Tokens || !matches!(skip.decider(), Some(Decider::Hash { .. })) {
        return Some(());
    }
    let message = "a `hash` router decides by token ids, which this model does not take".to_owned();
    let help = "write `router = \"random\"`, which decides by positions, or `input = \"tokens\"`".to_owned();
    ctx.wrong("spec::no_tokens", message, (&entry.value, "decides by token ids"), help);
    None
}

fn check_norm(ctx: &mut Ctx<'_>, layer: Option<&SubLayer>, at: (&Value, &str), who: &str) -> Option<()> {
    if layer.is_none_or(|layer| layer.pre.is_some()) {
        return Some(());
    }
    let message = format!("{who} the norm in front of the first layer, which has none");
    let help = "write `norms = \"pre\"` or `\"both\"` on that layer; a router can read the stream, too: `input = \"raw\"`";
    ctx.wrong("spec::no_pre_norm", message, at, help.to_owned());
    None
}

/// The skip of a unit, if it has one, with the layers of the tokens that do not execute; `None` if that is wrong.
fn skip(
    ctx: &mut Ctx<'_>,
    entry: Option<&Entry>,
    unit: Unit,
    around: Around,
) -> Option<Option<(Skip, Vec<SubLayer>)>> {
    let Some(entry) = entry else { return Some(None) };
    let on = if unit == Unit::Block { On::Block } else { On::Layer };
    let skip = skip_table::resolve(ctx, &entry.value, on);
    let otherwise = match &entry.value.kind {
        ValueKind::Table(table) => table.get("otherwise"),
        _ => None,
    };
    let otherwise = match otherwise {
        Some(otherwise) => other_layers(ctx, otherwise, entry, around),
        None => Some(Vec::new()),
    };
    Some(Some((skip?, otherwise?)))
}

/// Reads the layers of the tokens that do not execute.
fn other_layers(ctx: &mut Ctx<'_>, entry: &Entry, outer: &Entry, around: Around) -> Option<Vec<SubLayer>> {
    if matches!(&entry.value.kind, ValueKind::List(values) if values.is_empty()) {
        return Some(Vec::new());
    }
    let values = ctx.list(entry, "layers", OTHERWISE_EXAMPLE)?;
    let what = ("a layer of `otherwise` has a skip of its own", "its rows are decided about already");
    check_nesting(ctx, (outer, "by this skip"), values, what, "remove the inner skip");
    let layers: Vec<Option<SubLayer>> = values
        .iter()
        .enumerate()
        .map(|(idx, value)| {
            let table = ctx.table("otherwise", value, OTHERWISE_EXAMPLE)?;
            let layer = layer::read(ctx, table, around.layers);
            let norms = match table.get("norms") {
                None => Some(around.norms),
                Some(entry) => ctx.word(entry),
            };
            Some(SubLayer::new(layer?, norms?, idx))
        })
        .collect();
    layers.into_iter().collect()
}

fn routed(skip: Option<(Skip, Vec<SubLayer>)>, node: Node) -> Node {
    let Some((skip, otherwise)) = skip else { return node };
    let otherwise = (!otherwise.is_empty())
        .then(|| Box::new(Node::Sequence(otherwise.into_iter().map(Node::Residual).collect())));
    Node::Route(Route { skip, executed: Box::new(node), otherwise })
}

/// One decision per row: no skip on layers whose rows another skip decides about.
fn check_nesting(
    ctx: &mut Ctx<'_>,
    (outer, outer_label): (&Entry, &str),
    layers: &[Value],
    (message, label): (&str, &str),
    help: &str,
) {
    let inner = layers.iter().filter_map(|value| match &value.kind {
        ValueKind::Table(table) => table.get("skip"),
        _ => None,
    });
    for entry in inner {
        let diagnostic = Diagnostic::new("spec::nested_skip", message)
            .at(ctx.source, entry.key_span.clone(), label)
            .at(ctx.source, outer.key_span.clone(), outer_label)
            .help(help);
        ctx.report(diagnostic);
    }
}

/// Blocks in the order in which they run, and the stacks that they come from unless nothing depends on these. `named` is
/// `None` if the blocks could not be read at all; then names are not looked up.
fn stacks(
    ctx: &mut Ctx<'_>,
    entry: &Entry,
    (named, input): (Option<&Blocks>, StreamInput),
) -> Option<(Vec<Block>, Vec<Stack>)> {
    let list = ctx.list(entry, "tables", STACK_EXAMPLE)?;
    let stacks: Vec<Option<(Vec<&Block>, Stack)>> =
        list.iter().map(|value| stack(ctx, value, (named, input))).collect();
    let stacks: Vec<(Vec<&Block>, Stack)> = stacks.into_iter().collect::<Option<_>>()?;
    if !check_size(ctx, entry, &stacks) {
        return None;
    }
    let run = stacks.iter().flat_map(|(blocks, stack)| std::iter::repeat_n(blocks, stack.repeat));
    let blocks = run.flatten().map(|block| (*block).clone()).collect();
    let means_something =
        |(_, stack): &(_, Stack)| (stack.share && stack.repeat > 1) || !stack.skips.is_empty();
    let stacks = match stacks.iter().any(means_something) {
        true => stacks.into_iter().map(|(_, stack)| stack).collect(),
        false => Vec::new(),
    };
    Some((blocks, stacks))
}

/// One `[[stack]]`, and its blocks.
fn stack<'b>(
    ctx: &mut Ctx<'_>,
    value: &Value,
    (named, input): (Option<&'b Blocks>, StreamInput),
) -> Option<(Vec<&'b Block>, Stack)> {
    let table = ctx.table("stack", value, STACK_EXAMPLE)?;
    let fields = Fields { table, what: "a stack", keys: STACK_KEYS };
    ctx.check_keys(fields, |key| {
        BLOCK_KEYS.contains(&key).then(|| "write it under `[block.NAME]`".to_owned())
    });
    let repeat = ctx.optional(fields, "repeat", 1, |ctx, entry| ctx.count(entry, 1..=limits::LAYERS));
    let share = ctx.optional(fields, "share", false, Ctx::flag);
    let skip = table.get("skip");
    let skips = match (skip, repeat, share) {
        (None, ..) => Some(Vec::new()),
        (Some(entry), Some(repeat), Some(share)) => {
            skip_table::resolve_all(ctx, &entry.value, (repeat, share))
        }
        _ => None,
    };
    let entry = ctx.required(fields, "blocks", "blocks = [\"dense\"]")?;
    let names = ctx.list(entry, "block names", "blocks = [\"dense\"]")?;
    let blocks: Vec<Option<&Block>> = names.iter().map(|name| lookup(ctx, name, named)).collect();
    let (skips, repeat, share) = (skips?, repeat?, share?);
    if let (Some(outer), Some(skip)) = (skip, skips.first()) {
        check_stack_nesting(ctx, outer, names, &blocks);
        let first = blocks.first().copied().flatten();
        check_router_norm(ctx, skip, first.map(|block| &block.body), outer)?;
        check_router_tokens(ctx, skip, input, outer)?;
    }
    let blocks: Vec<&Block> = blocks.into_iter().collect::<Option<_>>()?;
    let stack = Stack { blocks: blocks.len(), repeat, share, skips };
    Some((blocks, stack))
}

/// One decision per row: no skip on blocks whose rows that of their stack decides about.
fn check_stack_nesting(ctx: &mut Ctx<'_>, outer: &Entry, names: &[Value], blocks: &[Option<&Block>]) {
    let has_skip = |block: &Option<&Block>| block.is_some_and(|block| block.skips().next().is_some());
    for (name, _) in names.iter().zip(blocks).filter(|(_, block)| has_skip(block)) {
        let message = "a stack and one of its blocks both have a skip";
        let diagnostic = Diagnostic::new("spec::nested_skip", message)
            .at(ctx.source, name.span.clone(), "this block has a skip, or one of its sub-layers")
            .at(ctx.source, outer.key_span.clone(), "the stack's skip")
            .help("keep one: the stack's to decide once for all blocks of a repetition, or the blocks' own");
        ctx.report(diagnostic);
    }
}

fn lookup<'b>(ctx: &mut Ctx<'_>, value: &Value, named: Option<&'b Blocks>) -> Option<&'b Block> {
    let ValueKind::Text(name) = &value.kind else {
        let message = format!("`blocks` wants names of blocks, not {}", value.kind.describe());
        let help = "write the name in quotes, as in `blocks = [\"dense\"]`".to_owned();
        ctx.wrong("spec::wrong_type", message, (value, "a string is wanted here"), help);
        return None;
    };
    let named = named?;
    if let Some(block) = named.get(name) {
        // A wrong block has been reported where it stands.
        return block.as_ref();
    }
    if ctx.found.is_full() {
        // Only counted from here on; no need to look for the nearest.
        ctx.report(Diagnostic::new("spec::unknown_block", ""));
        return None;
    }
    let names: Vec<&str> = named.keys().map(String::as_str).collect();
    let help = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near:?}`?"),
        None if names.len() == 1 => format!("the only block is {}", list(&names)),
        None if names.len() <= 12 => format!("the blocks are {}", list(&names)),
        None => format!("define it under `[block.{}]`", quoted(name).trim_matches('`')),
    };
    let message = format!("unknown block {}", quoted(name));
    ctx.wrong("spec::unknown_block", message, (value, "no such block"), help);
    None
}

/// Counts sub-layers before they are expanded.
fn check_size(ctx: &mut Ctx<'_>, entry: &Entry, stacks: &[(Vec<&Block>, Stack)]) -> bool {
    let layers = stacks.iter().try_fold(0usize, |total, (blocks, stack)| {
        let layers =
            |block: &&Block| block.parts().iter().filter(|part| matches!(part, Part::Layer(..))).count();
        let one: usize = blocks.iter().map(layers).sum();
        total.checked_add(one.checked_mul(stack.repeat)?)
    });
    if layers.is_some_and(|layers| layers <= limits::LAYERS) {
        return true;
    }
    let count = layers.map_or("more than can be counted".to_owned(), |layers| layers.to_string());
    let message = format!("the stacks expand to {count} sub-layers");
    let label = format!("at most {} together", limits::LAYERS);
    ctx.wrong(
        "spec::limit",
        message,
        (&entry.value, &label),
        "lower `repeat`, or use fewer blocks".to_owned(),
    );
    false
}
