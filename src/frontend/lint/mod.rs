//! Lints: what a model is allowed to ask for and whoever wrote it should know.
//!
//! A finding is a warning with a code, the place in the spec, and what to write instead. `skipc check --deny` turns
//! chosen ones into errors. A lint looks at the resolved model; the tree of the text is only asked for places.

mod capacity;
mod experts;
mod rules;

use std::collections::BTreeSet;

use crate::diagnostic::{Diagnostic, Diagnostics, SourceText};
use crate::frontend::language::ast::{Ast, Table, ValueKind};
use crate::frontend::language::words::{nearest, quoted};
use crate::frontend::spec::model::Model;
use crate::frontend::spec::node::{Layers, Part, Unit};
use crate::frontend::spec::skip::Skip;

/// Code and explanation of every lint, sorted by code.
pub const CODES: &[(&str, &str)] = &[
    (
        "lint::batch_dependence",
        "Whether a token executes depends on which row of the batch its sequence is: the random router draws from (seed, block index, sequence index, position), and top-k with `scope = \"batch\"` selects from all rows at once. The same text gets other results beside other texts. That is what a baseline wants; a model for use wants a router that looks at the tokens.",
    ),
    (
        "lint::capacity_overflow",
        "At the target density a group of tokens has too few slots: of the tokens that want to execute, 1 % or more are expected to be skipped instead. A group of S tokens has C = ceil(S * density * capacity_factor) slots. For routers that decide token by token, X tokens of a full group want one, X binomial with S draws of probability density, and the share is E[max(0, X - C)] / E[X], computed from the distribution itself; for `always`, X is S. Top-k is counted as if its choices fell evenly over the sequence; choices that crowd together lose more. An expert with `capacity_factor` below 1 has fewer places than an even share of a group's choices, so that some are dropped however tokens choose.",
    ),
    (
        "lint::future_leak",
        "The selection compares a token with later ones of its sequence: top-k over the sequence, slots of a group that go to the highest scores, experts that choose tokens, or whose places go to first choices before second ones, or one decision by the mean of all tokens; or layers look at later tokens (`mask = \"full\"`), or the head at the whole sequence (`head = \"pooled\"`). Text can be scored with such a model, but when it is generated the later tokens do not exist yet, so `skipc generate` and `skipc serve` refuse to. Training loss of such a model is no measure of what it would generate.",
    ),
    (
        "lint::train_generate_mismatch",
        "With `generate = \"threshold\"`, top-k selects a fixed share of each sequence in training and prefill, and every token with a score above the threshold in generation. The two select different tokens, and in other numbers. With `generate = \"prefill\"`, one decision by the mean of a whole sequence becomes one by the mean of its prompt. The model is used in a way in which it was not trained.",
    ),
    (
        "lint::unused_block",
        "A block has a table `[block.NAME]`, but no stack has its name in `blocks`: it is not a part of the model. Often the name in the stack is that of another block.",
    ),
];

/// A lint. Declared in the order of the codes, and findings at one skip come in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lint {
    /// Decisions depend on the neighbours in the batch.
    BatchDependence,
    /// Groups have too few slots at the target density.
    CapacityOverflow,
    /// Selection looks at later tokens.
    FutureLeak,
    /// Training and generation select differently.
    TrainGenerateMismatch,
    /// No stack has the block.
    UnusedBlock,
}

/// Lints whose findings are errors.
#[derive(Clone, Debug, Default)]
pub struct Denied(BTreeSet<Lint>);

/// A skip with its table in the spec.
struct Site<'a> {
    skip: &'a Skip,
    model: &'a Model,
    source: &'a SourceText,
    table: Option<&'a Table>,
}

/// What every lint finds in a model, in the order of its blocks; a block that is used many times is looked at once, and
/// those that no stack has come last.
/// `ast` is what the model was resolved from.
pub fn run(ast: &Ast, model: &Model) -> Diagnostics {
    let mut found = Diagnostics::default();
    let mut seen = BTreeSet::new();
    rules::future_leak_by_layers(ast, model, &mut found);
    for block in &model.blocks {
        if !seen.insert(block.name.as_str()) {
            continue;
        }
        let table = table_at(&ast.root, "block").and_then(|blocks| table_at(blocks, &block.name));
        for (unit, skip) in block.routes() {
            let unit_table = match unit {
                Unit::Block => table,
                Unit::Layer(idx) => table.and_then(|table| layer_at(table, idx)),
            };
            let table = unit_table.and_then(|table| table_at(table, "skip"));
            let site = Site { skip, model, source: &ast.source, table };
            findings(&site).for_each(|finding| found.push(finding));
        }
        for part in block.parts() {
            let Part::Layer(layers, idx, layer) = part else { continue };
            let table = match layers {
                Layers::Block => table.and_then(|table| layer_at(table, idx)),
                Layers::Otherwise(Unit::Block) => experts::otherwise(table, idx),
                Layers::Otherwise(Unit::Layer(of)) => {
                    experts::otherwise(table.and_then(|table| layer_at(table, of)), idx)
                }
            };
            let findings = [experts::future_leak, experts::overflow];
            let findings = findings.iter().filter_map(|find| find(&layer.layer, &ast.source, table));
            findings.for_each(|finding| found.push(finding));
        }
    }
    for (idx, stack) in model.stacks.iter().enumerate() {
        let table = stack_at(&ast.root, idx).and_then(|table| table_at(table, "skip"));
        // Once for all repetitions that it is true of, of which the last has the fewest tokens.
        let mut codes = BTreeSet::new();
        for skip in stack.skips.iter().rev() {
            let findings = findings(&Site { skip, model, source: &ast.source, table });
            findings.filter(|finding| codes.insert(finding.code())).for_each(|finding| found.push(finding));
        }
    }
    rules::unused_blocks(ast, &seen, &mut found);
    found
}

/// The table of a block's layer of this index.
fn layer_at(block: &Table, idx: usize) -> Option<&Table> {
    layer_in(block, "layers", idx)
}

/// The table of this index in a list of layers.
fn layer_in<'t>(table: &'t Table, key: &str, idx: usize) -> Option<&'t Table> {
    let ValueKind::List(layers) = &table.get(key)?.value.kind else { return None };
    match &layers.get(idx)?.kind {
        ValueKind::Table(layer) => Some(layer),
        _ => None,
    }
}

fn table_at<'t>(table: &'t Table, key: &str) -> Option<&'t Table> {
    match &table.get(key)?.value.kind {
        ValueKind::Table(table) => Some(table),
        _ => None,
    }
}

/// The table of the stack of this index.
fn stack_at(root: &Table, idx: usize) -> Option<&Table> {
    let ValueKind::List(stacks) = &root.get("stack")?.value.kind else { return None };
    match &stacks.get(idx)?.kind {
        ValueKind::Table(stack) => Some(stack),
        _ => None,
    }
}

fn findings(site: &Site<'_>) -> impl Iterator<Item = Diagnostic> + use<> {
    let findings = [
        rules::batch_dependence(site),
        capacity::overflow(site),
        rules::future_leak(site),
        rules::future_leak_by_pool(site),
        rules::future_leak_by_capacity(site),
        rules::train_generate_mismatch(site),
    ];
    findings.into_iter().flatten()
}

impl Site<'_> {
    /// A finding at the value of the first of these keys that is written, or at the skip.
    fn finding(&self, lint: Lint, message: String, keys: &[&str], label: &str) -> Diagnostic {
        finding(self.source, self.table, lint, message, keys, label)
    }
}

/// A finding at the value of the first of these keys that is written, or at the whole table.
fn finding(
    source: &SourceText,
    table: Option<&Table>,
    lint: Lint,
    message: String,
    keys: &[&str],
    label: &str,
) -> Diagnostic {
    let diagnostic = Diagnostic::warning(lint.code(), message);
    let Some(table) = table else { return diagnostic };
    let written = keys.iter().find_map(|key| table.get(key));
    let span = written.map_or(&table.span, |entry| &entry.value.span);
    diagnostic.at(source, span.clone(), label)
}

impl Lint {
    /// Every lint.
    pub const ALL: [Lint; 5] = [
        Lint::BatchDependence,
        Lint::CapacityOverflow,
        Lint::FutureLeak,
        Lint::TrainGenerateMismatch,
        Lint::UnusedBlock,
    ];

    /// Its code, such as `lint::future_leak`.
    pub fn code(self) -> &'static str {
        match self {
            Lint::BatchDependence => "lint::batch_dependence",
            Lint::CapacityOverflow => "lint::capacity_overflow",
            Lint::FutureLeak => "lint::future_leak",
            Lint::TrainGenerateMismatch => "lint::train_generate_mismatch",
            Lint::UnusedBlock => "lint::unused_block",
        }
    }

    /// Lints of a name: a code, with or without `lint::`, or a group.
    fn named(name: &str) -> Option<Vec<Lint>> {
        let plain = name.strip_prefix("lint::").unwrap_or(name).replace('-', "_");
        match plain.as_str() {
            "all" => Some(Lint::ALL.to_vec()),
            "leaks" => Some(vec![Lint::BatchDependence, Lint::FutureLeak, Lint::TrainGenerateMismatch]),
            _ => Lint::ALL.into_iter().find(|lint| lint.plain() == plain).map(|lint| vec![lint]),
        }
    }

    fn plain(self) -> &'static str {
        self.code().trim_start_matches("lint::")
    }
}

impl Denied {
    /// Reads names of lints and of the groups `leaks` and `all`.
    ///
    /// # Errors
    /// `usage::deny` for a name that is none of these.
    pub fn parse(names: &[String]) -> Result<Denied, Diagnostic> {
        let mut denied = BTreeSet::new();
        for name in names {
            denied.extend(Lint::named(name).ok_or_else(|| unknown(name))?);
        }
        Ok(Denied(denied))
    }

    /// The findings with denied ones made errors, and whether there is one.
    pub fn apply(&self, found: Diagnostics) -> (Diagnostics, bool) {
        let is_denied = |finding: &Diagnostic| self.0.iter().any(|lint| lint.code() == finding.code());
        let any = found.iter().any(is_denied);
        let weigh = |finding: Diagnostic| if is_denied(&finding) { finding.as_error() } else { finding };
        (found.map(weigh), any)
    }
}

fn unknown(name: &str) -> Diagnostic {
    let known: Vec<&str> = Lint::ALL.iter().map(|lint| lint.plain()).chain(["leaks", "all"]).collect();
    let written = name.strip_prefix("lint::").unwrap_or(name);
    let help = match nearest(written, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write one of {}", known.join(", ")),
    };
    Diagnostic::new("usage::deny", format!("--deny: unknown lint {}", quoted(name))).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lint_has_an_explanation_and_they_are_sorted() {
        assert!(CODES.iter().map(|(code, _)| *code).eq(Lint::ALL.map(Lint::code)));
        assert!(CODES.is_sorted_by(|(a, _), (b, _)| a < b));
    }

    #[test]
    fn names_and_groups_are_read() {
        for name in ["future_leak", "lint::future_leak", "future-leak"] {
            assert_eq!(Lint::named(name), Some(vec![Lint::FutureLeak]), "{name}");
        }
        assert_eq!(Lint::named("all").map(|all| all.len()), Some(Lint::ALL.len()));
        assert!(Lint::named("leaks").is_some_and(|leaks| !leaks.contains(&Lint::CapacityOverflow)));
        let refused = Denied::parse(&["leaks".to_owned(), "future_leek".to_owned()]);
        assert!(refused.is_err_and(|found| found.code() == "usage::deny"));
    }
}
