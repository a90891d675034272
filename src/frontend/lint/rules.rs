//! The lints that follow from the kind of selection alone.

use std::collections::BTreeSet;

use super::{Lint, Site, table_at};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::frontend::language::ast::{Ast, Entry, ValueKind};
use crate::frontend::language::words::{Word, quoted};
use crate::frontend::layer::{Layer, Mask};
use crate::frontend::spec::model::Model;
use crate::frontend::spec::node::SubLayer;
use crate::frontend::spec::skip::{Decider, Generate};
use crate::frontend::stream::Head;

/// Random decisions are drawn for the index of the sequence in the batch, and a selection over the batch compares with its
/// neighbours.
pub(super) fn batch_dependence(site: &Site<'_>) -> Option<Diagnostic> {
    if !site.skip.depends_on_batch() {
        return None;
    }
    if let Some(Decider::TopK { .. }) = site.skip.decider() {
        let message = "top-k compares each token with those of the other sequences in the batch".to_owned();
        let label = "the same text beside others skips other tokens";
        let help = "write `scope = \"sequence\"`, or remove the setting";
        return Some(site.finding(Lint::BatchDependence, message, &["scope"], label).help(help));
    }
    let message = "decisions depend on the index of the sequence in the batch".to_owned();
    let label = "the same text in another row skips other tokens";
    let help = "keep it for baselines; otherwise write `router = \"gumbel\"`, which looks at the tokens";
    Some(site.finding(Lint::BatchDependence, message, &["router"], label).help(help))
}

/// Top-k without a replacement for generation.
pub(super) fn future_leak(site: &Site<'_>) -> Option<Diagnostic> {
    if site.skip.top_k() != Some(Generate::Refuse) {
        return None;
    }
    let message = "top-k compares each token with later ones: the model scores text, but cannot generate it";
    let label = "selects from the whole sequence";
    let help =
        "add `generate = \"threshold\"`, or write `router = \"sigmoid\"`, which decides token by token";
    Some(site.finding(Lint::FutureLeak, message.to_owned(), &["router"], label).help(help))
}

/// One decision a sequence, by all of its tokens.
pub(super) fn future_leak_by_pool(site: &Site<'_>) -> Option<Diagnostic> {
    if !site.skip.is_pooled() || site.skip.keeps_prompts() {
        return None;
    }
    let message = "a sequence gets one decision, by the mean of all of its tokens: the model scores text, but cannot generate it";
    let help = "add `generate = \"prefill\"`: later tokens then keep the decision of their prompt";
    let label = "later tokens have a say in it";
    Some(site.finding(Lint::FutureLeak, message.to_owned(), &["decider"], label).help(help))
}

/// Slots that go to the highest scores of a group.
pub(super) fn future_leak_by_capacity(site: &Site<'_>) -> Option<Diagnostic> {
    if !site.skip.fills_by_score() {
        return None;
    }
    let message = "slots go to the highest scores of a group, later tokens among them: the model scores text, but cannot generate it";
    let help = "write `overflow = \"position\"`: slots then go to the earlier tokens";
    let label = "a later token can take a slot away";
    Some(site.finding(Lint::FutureLeak, message.to_owned(), &["overflow"], label).help(help))
}

/// Layers that see all of a sequence, and a head that scores it as a whole.
pub(super) fn future_leak_by_layers(ast: &Ast, model: &Model, found: &mut Diagnostics) {
    let of_model = |key: &str| table_at(&ast.root, "model").and_then(|table| table.get(key));
    let message = |what: &str| {
        format!("{what} looks at later tokens: the model scores what it is given, but cannot generate")
    };
    let mut find = |what: &str, entry: Option<&Entry>, label: &str| {
        let diagnostic = Diagnostic::warning(Lint::FutureLeak.code(), message(what));
        found.push(match entry {
            Some(entry) => diagnostic.at(&ast.source, entry.value.span.clone(), label),
            None => diagnostic,
        });
    };
    let sees_all = |layer: &&SubLayer| matches!(&layer.layer, Layer::Attention(of) if of.mask == Mask::Full);
    if model.blocks.iter().any(|block| block.layers().any(|layer| sees_all(&layer))) {
        let written = of_model("mask").or_else(|| mask_of_layer(ast));
        find("attention with `mask = \"full\"`", written, "sees all of a sequence");
    }
    if model.stream.head == Head::Pooled {
        find("a pooled head", of_model("head"), "scores the whole sequence");
    }
}

/// The first mask that a layer says itself.
fn mask_of_layer(ast: &Ast) -> Option<&Entry> {
    let blocks = table_at(&ast.root, "block")?.entries.iter().filter_map(|entry| match &entry.value.kind {
        ValueKind::Table(block) => block.get("layers"),
        _ => None,
    });
    let lists = blocks.filter_map(|entry| match &entry.value.kind {
        ValueKind::List(layers) => Some(layers),
        _ => None,
    });
    let layers = lists.flatten().filter_map(|layer| match &layer.kind {
        ValueKind::Table(layer) => layer.get("mask"),
        _ => None,
    });
    let mut layers = layers;
    layers.find(|entry| matches!(&entry.value.kind, ValueKind::Text(word) if word == Mask::Full.word()))
}

/// Top-k in training and prefill, a threshold in generation.
pub(super) fn train_generate_mismatch(site: &Site<'_>) -> Option<Diagnostic> {
    if site.skip.keeps_prompts() {
        let message = "training decides by the mean of a whole sequence, generation by that of its prompt";
        let help = "keep it if prompts are long; otherwise remove the step with `pool`, which decides token by token";
        let label = "decides by fewer tokens than training did";
        return Some(
            site.finding(Lint::TrainGenerateMismatch, message.to_owned(), &["generate"], label).help(help),
        );
    }
    let threshold = site.skip.top_k().and_then(Generate::threshold)?;
    let density = site.skip.density;
    let message = format!(
        "training and prefill take the {} % highest scores of a sequence, generation all from {threshold} on",
        (density * 1e4).round() / 1e2,
    );
    let label = "selects other tokens than training did";
    let help = "write `router = \"sigmoid\"` to decide alike in both, or set `threshold` where the selection cuts on average";
    Some(site.finding(Lint::TrainGenerateMismatch, message, &["generate"], label).help(help))
}

/// Blocks that are defined and in no stack.
pub(super) fn unused_blocks(ast: &Ast, used: &BTreeSet<&str>, found: &mut Diagnostics) {
    let Some(blocks) = table_at(&ast.root, "block") else { return };
    for entry in blocks.entries.iter().filter(|entry| !used.contains(entry.key.as_str())) {
        let message = format!("the block {} is in no stack", quoted(&entry.key));
        let finding = Diagnostic::warning(Lint::UnusedBlock.code(), message)
            .at(&ast.source, entry.key_span.clone(), "no part of the model")
            .help("name it in the `blocks` of a `[[stack]]`, or remove it");
        found.push(finding);
    }
}
