//! Smaller subjects that fail as a large one does.

use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::node::Block;
use skipc::frontend::spec::skip_table::SkipTable;

use crate::campaign::check_caught;
use crate::forms::{Compiler, Until};
use crate::model::{map_layers, map_skips};
use crate::subject::Subject;

/// Subjects that a shrink may check.
const TRIES: usize = 400;

/// Makes a subject smaller while one of its findings is of the check `check`.
pub(crate) fn shrink(compiler: &dyn Compiler, subject: &Subject, check: &str, until: Until) -> Subject {
    let mut smallest = subject.clone();
    let mut tries = 0;
    'smaller: loop {
        for candidate in candidates(&smallest) {
            tries += 1;
            if tries > TRIES {
                return smallest;
            }
            let tally = check_caught(compiler, &candidate, until);
            if tally.findings.iter().any(|finding| finding.check == check) {
                smallest = candidate;
                continue 'smaller;
            }
        }
        return smallest;
    }
}

/// Subjects with something left out, what saves most first.
fn candidates(subject: &Subject) -> Vec<Subject> {
    let mut found = Vec::new();
    // Blocks of a stack are left out in all repetitions or in none.
    let blocks = if subject.model.stacks.is_empty() { subject.model.blocks.len() } else { 0 };
    for idx in 0..blocks {
        if blocks > 1 {
            found.push(without_block(subject, idx));
        }
        let n_layers = subject.model.blocks[idx].body.n_layers();
        for layer in 0..n_layers {
            if n_layers > 1 {
                found.push(without_layer(subject, idx, layer));
            }
        }
    }
    for idx in 0..subject.sequences.len() {
        let tokens = &subject.sequences[idx];
        for kept in [0, tokens.len() / 2, tokens.len().saturating_sub(1)] {
            if kept < tokens.len() {
                let mut sequences = subject.sequences.clone();
                sequences[idx].truncate(kept);
                found.push(subject.with_sequences(sequences));
            }
        }
        if tokens.is_empty() {
            let mut sequences = subject.sequences.clone();
            sequences.remove(idx);
            found.push(subject.with_sequences(sequences));
        }
    }
    if subject.model.stacks.is_empty() {
        found.extend(simpler(&subject.model).into_iter().map(|model| subject.with_model(model)));
    }
    found
}

fn without_block(subject: &Subject, gone: usize) -> Subject {
    let mut smaller = subject.clone();
    smaller.model.blocks.remove(gone);
    smaller.tensors = subject.tensors.renamed(|name| shifted(name, "blocks.", gone));
    smaller
}

fn without_layer(subject: &Subject, block: usize, gone: usize) -> Subject {
    let mut smaller = subject.clone();
    let was = &subject.model.blocks[block];
    let body = map_layers(&was.body, |layers| drop(layers.remove(gone)));
    // Blocks of one name are equal, so this one gets a name of its own.
    smaller.model.blocks[block] = Block { body, name: format!("{}-{gone}", was.name) };
    let layers = [format!("blocks.{block}.layers."), format!("blocks.{block}.layer_routers.")];
    smaller.tensors = subject
        .tensors
        .renamed(|name| layers.iter().fold(name.to_owned(), |name, prefix| shifted(&name, prefix, gone)));
    smaller
}

/// A tensor's name after number `gone` behind `prefix` was left out; its own tensors move out of the way.
fn shifted(name: &str, prefix: &str, gone: usize) -> String {
    let Some(rest) = name.strip_prefix(prefix) else { return name.to_owned() };
    let Some((number, rest)) = rest.split_once('.') else { return name.to_owned() };
    match number.parse::<usize>() {
        Ok(idx) if idx == gone => format!("gone.{name}"),
        Ok(idx) if idx > gone => format!("{prefix}{}.{rest}", idx - 1),
        _ => name.to_owned(),
    }
}

/// Models with one skip or one of its settings less.
fn simpler(model: &Model) -> Vec<Model> {
    let changes: [fn(SkipTable) -> Option<SkipTable>; 6] = [
        |_| None,
        |table| Some(SkipTable { group_size: 0, ..table }),
        |table| Some(SkipTable { kv: SkipTable::of_router(table.router).kv, ..table }),
        |table| Some(SkipTable { gate: SkipTable::of_router(table.router).gate, ..table }),
        |table| Some(SkipTable { input: SkipTable::of_router(table.router).input, ..table }),
        |table| Some(SkipTable { decide: SkipTable::of_router(table.router).decide, bias: false, ..table }),
    ];
    let mut found = Vec::new();
    for changed in 0..model.skips().count() {
        for change in changes {
            let mut idx = 0;
            found.push(map_skips(model, &mut |skip| {
                idx += 1;
                match idx - 1 == changed {
                    true => change(SkipTable::of(skip)).map(|table| table.skip()),
                    false => Some(*skip),
                }
            }));
        }
    }
    found.retain(|smaller| smaller.blocks != model.blocks);
    for (idx, block) in found.iter_mut().flat_map(|model| model.blocks.iter_mut().enumerate()) {
        block.name = format!("s{idx}");
    }
    found
}
