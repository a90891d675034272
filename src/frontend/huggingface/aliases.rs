//! What other code calls the settings of skips, as the keys of `skip_config`. Each is said as it is resolved.

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::frontend::language::ast::{Entry, Table, Value, ValueKind};
use crate::frontend::language::limits;
use crate::frontend::language::read::Ctx;
use crate::frontend::language::words::Word;
use crate::frontend::spec::skip_table::Router;

/// The keys of others.
pub(super) const KEYS: [&str; 4] =
    ["mod_capacity_factor", "mod_routing_type", "mod_start_layer", "mod_end_layer"];

/// What others call routers, in the names of tensors: their names and ours.
pub(super) const TENSORS: [(&str, &str); 2] =
    [(".mod_router.", ".skip_router."), (".router.weight_predictor.", ".skip_router.")];

/// `mod_routing_type` as a router.
#[derive(Clone, Copy, PartialEq)]
struct Routing(Router);

impl Word for Routing {
    const WORDS: &'static [(&'static str, Routing)] =
        &[("learned", Routing(Router::TopK)), ("random", Routing(Router::Random))];
}

/// The table with its aliases replaced, and what is said of each. A key that stands there under both names is an error.
pub(super) fn resolve(ctx: &mut Ctx<'_>, table: &Table, n_layers: usize) -> Option<(Table, Diagnostics)> {
    let mut resolved = Table { span: table.span.clone(), entries: Vec::new() };
    let mut notes = Diagnostics::default();
    resolved
        .entries
        .extend(table.entries.iter().filter(|entry| !KEYS.contains(&entry.key.as_str())).cloned());
    let mut add = |ctx: &mut Ctx<'_>, entry: &Entry, key: &str, kind: ValueKind, as_text: String| {
        let value = Value { span: entry.value.span.clone(), kind };
        let note = Diagnostic::warning("config::alias", format!("`{}` is read as {as_text}", entry.key));
        notes.push(note.at(ctx.source, entry.key_span.clone(), "another name of it"));
        put(ctx, &mut resolved, Entry { key: key.to_owned(), key_span: entry.key_span.clone(), value })
    };
    if let Some(entry) = table.get(KEYS[0]) {
        let density = ctx.number(entry, "from 0.0 to 1.0", |number| (0.0..=1.0).contains(&number))?;
        add(ctx, entry, "density", ValueKind::Float(density), format!("`density`: {density:?}"))?;
    }
    if let Some(entry) = table.get(KEYS[1]) {
        let word = ctx.word::<Routing>(entry)?.0.word();
        let kind = Entry {
            key: "type".to_owned(),
            value: Value { kind: ValueKind::Text(word.to_owned()), ..entry.value.clone() },
            ..entry.clone()
        };
        let router = Table { span: entry.value.span.clone(), entries: vec![kind] };
        add(ctx, entry, "router", ValueKind::Table(router), format!("the type {word:?} of `router`"))?;
    }
    let [start, end] = [KEYS[2], KEYS[3]].map(|key| table.get(key));
    if let Some(entry) = start.or(end) {
        let mut bound = |entry: Option<&Entry>, default| {
            entry.map_or(Some(default), |entry| ctx.count(entry, 0..=n_layers.min(limits::LAYERS)))
        };
        let layers = bound(start, 0)?..bound(end, n_layers)?;
        let span = &entry.value.span;
        let number = |layer: usize| Value { span: span.clone(), kind: ValueKind::Integer(layer as i64) };
        let text = format!("`layers`: {} to {}, the last excluded", layers.start, layers.end);
        add(ctx, entry, "layers", ValueKind::List(layers.map(number).collect()), text)?;
    }
    Some((resolved, notes))
}

/// Adds an entry; that of `router` is put into one that stands there.
fn put(ctx: &mut Ctx<'_>, table: &mut Table, entry: Entry) -> Option<()> {
    match table.entries.iter_mut().find(|other| other.key == entry.key) {
        None => table.entries.push(entry),
        Some(Entry { value: Value { kind: ValueKind::Table(inner), .. }, .. }) => {
            let ValueKind::Table(added) = entry.value.kind else { return Some(()) };
            return added.entries.into_iter().try_for_each(|entry| put(ctx, inner, entry));
        }
        Some(other) => {
            let diagnostic = Diagnostic::new(
                "spec::duplicate_key",
                format!("duplicate key `{}`, written under two names", entry.key),
            )
            .at(ctx.source, entry.key_span, "another name")
            .at(ctx.source, other.key_span.clone(), "its own")
            .help("remove one of them");
            ctx.report(diagnostic);
            return None;
        }
    }
    Some(())
}
