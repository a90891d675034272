//! What lints say of layers of experts.

use super::{Lint, finding, table_at};
use crate::diagnostic::{Diagnostic, SourceText};
use crate::frontend::language::ast::Table;
use crate::frontend::layer::{Choosing, Experts, Layer};

/// Choices that look at later tokens.
pub(super) fn future_leak(layer: &Layer, source: &SourceText, table: Option<&Table>) -> Option<Diagnostic> {
    let (key, what) = layer.looks_ahead()?;
    let message = format!("{what} looks at later tokens: the model scores text, but cannot generate it");
    let help = match key {
        "choose" => "write `choose = \"token\"`, which chooses token by token",
        _ => "write `overflow = \"position\"`: places then go to the earlier tokens",
    };
    let label = "depends on later tokens";
    Some(finding(source, table, Lint::FutureLeak, message, &[key], label).help(help))
}

/// Fewer places than an even share of the choices.
pub(super) fn overflow(layer: &Layer, source: &SourceText, table: Option<&Table>) -> Option<Diagnostic> {
    let Layer::Experts(experts) = layer else { return None };
    let Experts { choose: Choosing::Token, group_size: 1.., capacity_factor, .. } = *experts else {
        return None;
    };
    if capacity_factor >= 1.0 {
        return None;
    }
    let (slots, size, k, n) = (experts.slots(), experts.group_size, experts.top_k, experts.choices());
    let places = if slots == 1 { "1 place".to_owned() } else { format!("{slots} places") };
    let message = format!(
        "each expert has {places} for groups of {size} tokens: choices are dropped even if tokens choose evenly"
    );
    let label = format!("⌈{size} · {k} / {n} · {capacity_factor}⌉ places");
    let help = "write `capacity_factor = 1.25`, or remove `group_size`: then no choice is dropped";
    let keys = ["capacity_factor", "group_size"];
    Some(finding(source, table, Lint::CapacityOverflow, message, &keys, &label).help(help))
}

/// The table of a list's layer of this index.
pub(super) fn otherwise(unit: Option<&Table>, idx: usize) -> Option<&Table> {
    super::layer_in(unit.and_then(|table| table_at(table, "skip"))?, "otherwise", idx)
}
