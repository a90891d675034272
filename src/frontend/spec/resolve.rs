//! From the tree to the model: `[model]`, `[block.*]` and `[[stack]]`, with every finding collected.

use std::collections::BTreeMap;

use super::model::Model;
use super::node::{Block, Node, Route, Unit};
use super::skip::Skip;
use super::skip_table;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::frontend::language::ast::{Ast, Entry, Table, Value, ValueKind};
use crate::frontend::language::limits;
use crate::frontend::language::read::{Ctx, Fields, for_example, list, name_fault, quoted_name};
use crate::frontend::language::words::{nearest, quoted};
use crate::frontend::layer::{self, Surroundings};
use crate::frontend::stream::{Norm, NormKind, PositionKind, Positions, Stream};

const ROOT_KEYS: &[&str] = &["model", "block", "stack"];
const MODEL_KEYS: &[&str] = &[
    "name",
    "vocab_size",
    "d_model",
    "max_positions",
    "norm",
    "norm_eps",
    "positions",
    "rope_theta",
    "tie_embeddings",
];
const BLOCK_KEYS: &[&str] = &["skip", "layers"];
const STACK_KEYS: &[&str] = &["blocks", "repeat"];

const MODEL_EXAMPLE: &str = "[model]\nname = \"my-model\"";
const STACK_EXAMPLE: &str = "[[stack]]\nblocks = [\"dense\", \"sparse\"]";
const LAYERS_EXAMPLE: &str = "layers = [{ kind = \"ffn\", d_ff = 384 }]";
const BLOCK_EXAMPLE: &str = "[block.dense]\nlayers = [{ kind = \"ffn\", d_ff = 384 }]";

/// Named blocks; `None` for one that is there but wrong.
type Blocks = BTreeMap<String, Option<Block>>;

/// Resolves a spec. All findings of the whole file are reported together.
pub fn resolve(ast: &Ast) -> Result<Model, Diagnostics> {
    let mut ctx = Ctx { source: &ast.source, found: Diagnostics::default() };
    let root = Fields { table: &ast.root, what: "a spec", keys: ROOT_KEYS };
    ctx.check_keys(root, |key| MODEL_KEYS.contains(&key).then(|| "write it under `[model]`".to_owned()));
    let model = ctx.required(root, "model", MODEL_EXAMPLE).and_then(|entry| model(&mut ctx, entry));
    let around = Surroundings {
        d_model: model.as_ref().and_then(|model| model.d_model),
        rope: model.as_ref().and_then(|model| model.rope),
    };
    let named = ctx.required(root, "block", BLOCK_EXAMPLE).and_then(|entry| blocks(&mut ctx, entry, around));
    let stack = ctx.required(root, "stack", STACK_EXAMPLE);
    let blocks = stack.and_then(|entry| stacks(&mut ctx, entry, named.as_ref()));
    match (model.and_then(|head| head.model), blocks) {
        (Some(model), Some(blocks)) => ctx.found.or(Model { blocks, ..model }),
        _ => Err(ctx.found),
    }
}

/// `[model]`, as far as it is right: what the blocks are checked against, and the whole without blocks.
struct Head {
    d_model: Option<usize>,
    rope: Option<bool>,
    model: Option<Model>,
}

fn model(ctx: &mut Ctx<'_>, entry: &Entry) -> Option<Head> {
    let table = ctx.table("model", &entry.value, MODEL_EXAMPLE)?;
    let fields = Fields { table, what: "the model", keys: MODEL_KEYS };
    ctx.check_keys(fields, |_| None);
    let name = ctx.required(fields, "name", "name = \"my-model\"").and_then(|entry| ctx.name(entry));
    let mut count = |key: &str, example: &str, most: usize| {
        ctx.required(fields, key, example).and_then(|entry| ctx.count(entry, 1..=most))
    };
    let vocab_size = count("vocab_size", "vocab_size = 256", limits::WIDTH);
    let d_model = count("d_model", "d_model = 128", limits::WIDTH);
    let max_positions = count("max_positions", "max_positions = 1024", limits::POSITIONS);
    let kind = ctx.optional(fields, "norm", NormKind::RmsNorm, Ctx::word);
    let eps = ctx.optional(fields, "norm_eps", 1e-5, |ctx, entry| {
        // Smaller ones vanish in f32, and a row of zeros would become one of NaN.
        ctx.number(entry, "from 1e-30 to 1.0", |number| (1e-30..=1.0).contains(&number))
    });
    let positions = ctx.optional(fields, "positions", PositionKind::Rope, Ctx::word);
    let theta = ctx.optional(fields, "rope_theta", 10_000.0, |ctx, entry| {
        ctx.number(entry, "from 1.0 to 1e12", |number| (1.0..=1e12).contains(&number))
    });
    let tie_embeddings = ctx.optional(fields, "tie_embeddings", true, Ctx::flag);
    check_theta(ctx, table, positions);
    let resolved = |theta: f64| match positions? {
        PositionKind::Rope => Some(Positions::Rope { theta }),
        PositionKind::Learned => Some(Positions::Learned),
        PositionKind::None => Some(Positions::None),
    };
    let whole = || {
        Some(Model {
            name: name?,
            stream: Stream {
                vocab_size: vocab_size?,
                d_model: d_model?,
                max_positions: max_positions?,
                norm: Norm { kind: kind?, eps: eps? },
                positions: theta.and_then(resolved)?,
                tie_embeddings: tie_embeddings?,
            },
            blocks: Vec::new(),
        })
    };
    Some(Head { d_model, rope: positions.map(|kind| kind == PositionKind::Rope), model: whole() })
}

fn check_theta(ctx: &mut Ctx<'_>, table: &Table, positions: Option<PositionKind>) {
    if matches!(positions, None | Some(PositionKind::Rope)) {
        return;
    }
    let (Some(theta), Some(named)) = (table.get("rope_theta"), table.get("positions")) else { return };
    let diagnostic = Diagnostic::new("spec::unused_setting", "`rope_theta` is for rotary positions only")
        .at(ctx.source, theta.key_span.clone(), "would have no effect")
        .at(ctx.source, named.value.span.clone(), "with these positions")
        .help("remove `rope_theta`, or write `positions = \"rope\"`");
    ctx.report(diagnostic);
}

fn blocks(ctx: &mut Ctx<'_>, entry: &Entry, around: Surroundings) -> Option<Blocks> {
    let table = ctx.table("block", &entry.value, BLOCK_EXAMPLE)?;
    if table.entries.is_empty() {
        let at = (&entry.value, "no block");
        ctx.wrong("spec::empty", "there are no blocks".to_owned(), at, for_example("write", BLOCK_EXAMPLE));
        return None;
    }
    Some(table.entries.iter().map(|entry| (entry.key.clone(), block(ctx, entry, around))).collect())
}

fn block(ctx: &mut Ctx<'_>, entry: &Entry, around: Surroundings) -> Option<Block> {
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
    let skip = skip(ctx, skip_entry, Unit::Block);
    let layers = ctx.required(fields, "layers", LAYERS_EXAMPLE)?;
    let values = ctx.list(layers, "layers", LAYERS_EXAMPLE)?;
    let layers: Vec<Option<Node>> =
        values.iter().enumerate().map(|(idx, value)| sub_layer(ctx, value, idx, around)).collect();
    if let Some(outer) = skip_entry {
        check_nesting(ctx, outer, values);
    }
    let layers = Node::Sequence(layers.into_iter().collect::<Option<_>>()?);
    Some(Block { name: entry.key.clone(), body: routed(skip?, layers) })
}

/// Reads one element of `layers`.
fn sub_layer(ctx: &mut Ctx<'_>, value: &Value, idx: usize, around: Surroundings) -> Option<Node> {
    let table = ctx.table("layers", value, LAYERS_EXAMPLE)?;
    let layer = layer::read(ctx, table, around);
    let skip = skip(ctx, table.get("skip"), Unit::Layer(idx))?;
    Some(routed(skip, Node::Residual(layer?)))
}

/// The skip of a unit, if it has one; `None` if that is wrong.
fn skip(ctx: &mut Ctx<'_>, entry: Option<&Entry>, unit: Unit) -> Option<Option<Skip>> {
    match entry {
        None => Some(None),
        Some(entry) => skip_table::resolve(ctx, &entry.value, unit).map(Some),
    }
}

fn routed(skip: Option<Skip>, node: Node) -> Node {
    match skip {
        None => node,
        Some(skip) => Node::Route(Route { skip, executed: Box::new(node) }),
    }
}

/// One decision per row: not on the block and on a sub-layer at once.
fn check_nesting(ctx: &mut Ctx<'_>, outer: &Entry, layers: &[Value]) {
    let inner = layers.iter().filter_map(|value| match &value.kind {
        ValueKind::Table(table) => table.get("skip"),
        _ => None,
    });
    for entry in inner {
        let diagnostic =
            Diagnostic::new("spec::nested_skip", "a block and one of its sub-layers both have a skip")
                .at(ctx.source, entry.key_span.clone(), "this sub-layer is inside the block's skip")
                .at(ctx.source, outer.key_span.clone(), "the block's skip")
                .help("keep one: the block's to decide once for all sub-layers, or the sub-layers' own");
        ctx.report(diagnostic);
    }
}

/// `named` is `None` if the blocks could not be read at all; then names are not looked up.
fn stacks(ctx: &mut Ctx<'_>, entry: &Entry, named: Option<&Blocks>) -> Option<Vec<Block>> {
    let list = ctx.list(entry, "tables", STACK_EXAMPLE)?;
    let stacks: Vec<Option<Stack<'_>>> = list.iter().map(|value| stack(ctx, value, named)).collect();
    let stacks: Vec<Stack<'_>> = stacks.into_iter().collect::<Option<_>>()?;
    check_size(ctx, entry, &stacks).then(|| {
        let expanded = stacks.iter().flat_map(|stack| std::iter::repeat_n(&stack.blocks, stack.repeat));
        expanded.flatten().map(|block| (*block).clone()).collect()
    })
}

/// One `[[stack]]`: blocks in order, all of them `repeat` times.
struct Stack<'b> {
    blocks: Vec<&'b Block>,
    repeat: usize,
}

fn stack<'b>(ctx: &mut Ctx<'_>, value: &Value, named: Option<&'b Blocks>) -> Option<Stack<'b>> {
    let table = ctx.table("stack", value, STACK_EXAMPLE)?;
    let fields = Fields { table, what: "a stack", keys: STACK_KEYS };
    ctx.check_keys(fields, |key| {
        BLOCK_KEYS.contains(&key).then(|| "write it under `[block.NAME]`".to_owned())
    });
    let repeat = ctx.optional(fields, "repeat", 1, |ctx, entry| ctx.count(entry, 1..=limits::LAYERS));
    let entry = ctx.required(fields, "blocks", "blocks = [\"dense\"]")?;
    let names = ctx.list(entry, "block names", "blocks = [\"dense\"]")?;
    let blocks: Vec<Option<&Block>> = names.iter().map(|name| lookup(ctx, name, named)).collect();
    Some(Stack { blocks: blocks.into_iter().collect::<Option<_>>()?, repeat: repeat? })
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
    let message = format!("there is no block {}", quoted(name));
    ctx.wrong("spec::unknown_block", message, (value, "no such block"), help);
    None
}

/// Counts sub-layers before they are expanded.
fn check_size(ctx: &mut Ctx<'_>, entry: &Entry, stacks: &[Stack<'_>]) -> bool {
    let layers = stacks.iter().try_fold(0usize, |total, stack| {
        let one: usize = stack.blocks.iter().map(|block| block.body.n_layers()).sum();
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
