//! The checks of `tests/tidy.rs`, each a function from text to complaints.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{Dependency, DependencyKind, Metadata, PackageId};

use super::rust_text::code_only;

/// Which of our crates each may import. A new arrow is a change of the design: give its reason in the commit.
const ARROWS: [(&str, &[&str]); 13] = [
    ("skipc-ir", &["skipc-artifact"]),
    ("skipc-passes", &["skipc-ir"]),
    ("skipc-artifact", &[]),
    ("skipc-plan", &["skipc-ir", "skipc-artifact"]),
    ("skipc-mlir", &["skipc-plan", "skipc-artifact", "skipc-llvm"]),
    ("skipc-llvm", &["skipc-plan", "skipc-artifact"]),
    ("skipc-cranelift", &["skipc-plan", "skipc-artifact"]),
    ("skipc-runtime", &["skipc-artifact"]),
    ("skipc-testkit", &["skipc-artifact", "skipc-ir", "skipc-plan"]),
    // Reads machine code of any kernel, ours or not.
    ("skipc-sass", &[]),
    // Knows PTX and machine code, and nothing of our compiler, so that it can check what the compiler emits.
    ("skipc-ptx", &["skipc-sass"]),
    (
        "skipc",
        &[
            "skipc-ir",
            "skipc-passes",
            "skipc-artifact",
            "skipc-plan",
            "skipc-mlir",
            "skipc-llvm",
            "skipc-cranelift",
            "skipc-runtime",
            "skipc-sass",
        ],
    ),
    // Shows what there is in Python, and computes nothing.
    ("skipc-python", &["skipc", "skipc-artifact", "skipc-runtime"]),
];

/// Tools for tests, which every crate may have as a dev-dependency, and otherwise by an arrow alone.
const TEST_TOOLS: [&str; 3] = ["skipc-testkit", "skipc-ptx", "skipc-sass"];

/// Crates whose presence means that LLVM has to be installed.
const NEEDS_LLVM: [&str; 4] = ["llvm-sys", "mlir-sys", "inkwell", "melior"];

/// Crates for options, output on a terminal and the server, which programs that link the compiler have no use for.
const COMMAND_LINE: [&str; 7] = ["axum", "clap", "comfy-table", "indicatif", "miette", "tokenizers", "tokio"];

/// Crates that change together, so their versions stand together in the root manifest; `cranelift-*` too.
const ONE_PLACE: [&str; 6] = ["melior", "melior-macro", "mlir-sys", "inkwell", "llvm-sys", "tblgen"];

/// Where `unsafe` may stand: a file, or a folder with a slash at its end.
const UNSAFE_PLACES: [&str; 11] = [
    "backends/llvm/src/ffi.rs",
    "backends/mlir/src/ffi.rs",
    "backends/runtime/src/allocator.rs",
    "backends/runtime/src/cpu.rs",
    "backends/runtime/src/cpu/",
    "backends/runtime/src/cuda.rs",
    "backends/runtime/src/cuda/",
    "backends/runtime/tests/stand_in/driver.rs",
    "tests/bench/worker/peak.rs",
    "tests/fuzz/count.rs",
    "tests/support/src/machine.rs",
];

/// Lines from `unsafe` back to its reason at most: a statement that it is part of, and some lines of comment.
const SAFETY_REACH: usize = 12;

const LINES_WARN: usize = 600;
const LINES_FAIL: usize = 900;

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    ARROWS.iter().find(|(from, _)| *from == name).map(|(_, to)| *to)
}

/// The crates that `name` can reach along the arrows.
fn reachable(name: &str) -> BTreeSet<&'static str> {
    let direct = allowed(name).unwrap_or_default();
    direct.iter().flat_map(|to| reachable(to).into_iter().chain([*to])).collect()
}

/// Dependencies among our crates that are no arrows of the design. Tests may also import what their crate reaches
/// through others.
pub(crate) fn wrong_arrows<'a>(
    from: &str,
    to: impl IntoIterator<Item = (DependencyKind, &'a str)>,
) -> Vec<String> {
    let Some(allowed) = allowed(from) else {
        return vec![format!(
            "{from} is not in the table of crates: a new crate is a design change (tests/tidy/checks.rs)"
        )];
    };
    let is_wrong = |kind: DependencyKind, to: &str| match kind {
        DependencyKind::Development => !TEST_TOOLS.contains(&to) && !reachable(from).contains(to),
        _ => !allowed.contains(&to),
    };
    to.into_iter()
        .filter(|(_, to)| to.starts_with("skipc") && *to != from)
        .filter(|(kind, to)| is_wrong(*kind, to))
        .map(|(_, to)| {
            format!("{from} may not import {to}: a new arrow is a design change (tests/tidy/checks.rs)")
        })
        .collect()
}

/// External dependencies that are not held to versions of the registry.
pub(crate) fn loose_versions(from: &str, dependencies: &[Dependency]) -> Vec<String> {
    let is_loose = |dep: &&Dependency| match &dep.source {
        Some(source) => source.repr.starts_with("git+") || dep.req.comparators.is_empty(),
        None => false,
    };
    let complaint =
        |dep: &Dependency| format!("{from}: {} needs a version from the registry, not {}", dep.name, dep.req);
    dependencies.iter().filter(is_loose).map(complaint).collect()
}

/// Crates needing LLVM that the default members reach in `metadata`, which has been resolved without `cuda`.
pub(crate) fn reaches_llvm(metadata: &Metadata) -> Vec<String> {
    let nodes = &metadata.resolve.as_ref().expect("cargo metadata should resolve").nodes;
    let edges: BTreeMap<&PackageId, &[PackageId]> =
        nodes.iter().map(|node| (&node.id, node.dependencies.as_slice())).collect();
    let starts: Vec<&PackageId> = metadata.workspace_default_members.iter().collect();
    let seen = walk(starts, |id| edges.get(id).copied().unwrap_or_default());
    let reached = metadata.packages.iter().filter(|package| seen.contains(&package.id));
    let names: Vec<&str> = reached.map(|package| package.name.as_str()).collect();
    assert!(names.contains(&"skipc"), "the default members do not hold the root package");
    llvm_among(&names)
}

/// Crates of the command line that the root package's library reaches in `metadata`, which has been resolved without
/// `cli`. What only tests need does not count.
pub(crate) fn reaches_command_line(metadata: &Metadata) -> Vec<String> {
    let nodes = &metadata.resolve.as_ref().expect("cargo metadata should resolve").nodes;
    let is_linked =
        |dep: &&cargo_metadata::NodeDep| dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
    let edges: BTreeMap<&PackageId, Vec<&PackageId>> = nodes
        .iter()
        .map(|node| (&node.id, node.deps.iter().filter(is_linked).map(|dep| &dep.pkg).collect()))
        .collect();
    let starts = metadata.packages.iter().filter(|package| package.name.as_str() == "skipc");
    let mut open: Vec<&PackageId> = starts.map(|package| &package.id).collect();
    assert_eq!(open.len(), 1, "the root package is called skipc");
    let mut seen = BTreeSet::new();
    while let Some(at) = open.pop() {
        if seen.insert(at) {
            open.extend(edges.get(at).into_iter().flatten());
        }
    }
    let reached = metadata.packages.iter().filter(|package| seen.contains(&package.id));
    command_line_among(&reached.map(|package| package.name.as_str()).collect::<Vec<_>>())
}

fn command_line_among(names: &[&str]) -> Vec<String> {
    let found = names.iter().filter(|name| COMMAND_LINE.contains(name));
    found
        .map(|name| format!("{name} is reached without the `cli` feature, so who links the compiler gets it"))
        .collect()
}

fn walk<'a, T: Ord>(mut open: Vec<&'a T>, next: impl Fn(&'a T) -> &'a [T]) -> BTreeSet<&'a T> {
    let mut seen = BTreeSet::new();
    while let Some(at) = open.pop() {
        if seen.insert(at) {
            open.extend(next(at));
        }
    }
    seen
}

fn llvm_among(names: &[&str]) -> Vec<String> {
    let found = names.iter().filter(|name| NEEDS_LLVM.contains(name));
    found
        .map(|name| format!("{name} is reached without the `cuda` feature, so the default build needs LLVM"))
        .collect()
}

/// A file that has no more room to grow.
pub(crate) fn too_long(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > LINES_FAIL).then(|| format!("{path}: {lines} lines; split it by concept ({LINES_FAIL} at most)"))
}

/// A file that should be split soon.
pub(crate) fn getting_long(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > LINES_WARN)
        .then(|| format!("warning: {path}: {lines} lines; more than {LINES_WARN} ask for a split"))
}

/// A file whose name does not say what it holds.
pub(crate) fn says_nothing(path: &str) -> Option<String> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let empty = ["utils.rs", "util.rs", "helpers.rs", "common.rs", "misc.rs"].contains(&name);
    empty.then(|| format!("{path}: name it for what it holds"))
}

/// Tests that do not run, or pass by failing.
pub(crate) fn hidden_tests(path: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let lines = code.lines().enumerate();
    let hidden = lines.flat_map(|(at, line)| {
        let attributes = words(line).filter(|(_, word)| ["ignore", "should_panic"].contains(word));
        attributes.filter(|(start, _)| in_attribute(line, *start)).map(move |(_, word)| (at + 1, word))
    });
    hidden
        .map(|(at, word)| format!("{path}:{at}: no #[{word}]: assert what happens now, with a FIXME"))
        .collect()
}

fn in_attribute(line: &str, at: usize) -> bool {
    line[..at].rfind("#[").is_some_and(|open| !line[open..at].contains(']'))
}

/// `unsafe` outside its files, or without a reason above it.
pub(crate) fn stray_unsafe(path: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let allowed =
        UNSAFE_PLACES.iter().any(|place| path == *place || place.ends_with('/') && path.starts_with(place));
    let source: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in code.lines().enumerate() {
        for (start, _) in words(line).filter(|(_, word)| *word == "unsafe") {
            if is_function_type(&line[start..]) {
                continue;
            }
            if !allowed {
                found.push(format!(
                    "{path}:{}: no `unsafe` here; its places are in tests/tidy/checks.rs",
                    at + 1
                ));
            } else if !source[at.saturating_sub(SAFETY_REACH)..=at].iter().any(|line| gives_reason(line)) {
                found.push(format!("{path}:{}: `unsafe` without a `// SAFETY:` above it", at + 1));
            }
        }
    }
    found
}

/// `unsafe fn(…)` and `unsafe extern "C" fn(…)`, types that promise nothing by themselves. The ABI's name is blank here.
fn is_function_type(from_unsafe: &str) -> bool {
    let mut rest = from_unsafe.trim_start_matches("unsafe").trim_start();
    rest = rest.strip_prefix("extern").unwrap_or(rest).trim_start();
    rest.strip_prefix("fn").is_some_and(|after| after.starts_with('('))
}

/// A comment on a block, or the section of a doc comment on a function that callers must read.
fn gives_reason(line: &str) -> bool {
    let line = line.trim_start();
    line.contains("// SAFETY:") || line.starts_with("///") && line.contains("# Safety")
}

/// Identifiers of a line, with where they start.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.split(move |c| !is_part(c))
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - line.as_ptr() as usize, word))
}

/// Versions of code generators in a manifest, other than in the root's `[workspace.dependencies]`.
pub(crate) fn scattered_versions(path: &str, manifest: &str) -> Vec<String> {
    let manifest: toml_edit::DocumentMut = match manifest.parse() {
        Ok(manifest) => manifest,
        Err(error) => return vec![format!("{path}: {error}")],
    };
    let mut found = Vec::new();
    collect_versions(manifest.as_table(), "", &mut found);
    let is_place = |table: &str| path == "Cargo.toml" && table == "workspace.dependencies";
    found
        .into_iter()
        .filter(|(table, _)| !is_place(table))
        .map(|(table, name)| {
            format!(
                "{path}: [{table}] {name}: its version stands in the root manifest, say `workspace = true`"
            )
        })
        .collect()
}

/// Every (table, crate) below `table` where a crate of [`ONE_PLACE`] is given anything but `workspace = true`.
fn collect_versions(table: &dyn toml_edit::TableLike, at: &str, found: &mut Vec<(String, String)>) {
    for (key, item) in table.iter() {
        let one_place = ONE_PLACE.contains(&key) || key.starts_with("cranelift-");
        if at.ends_with("dependencies") && one_place {
            let inherited = item.get("workspace").and_then(toml_edit::Item::as_bool) == Some(true);
            if !inherited {
                found.push((at.to_owned(), key.to_owned()));
            }
        } else if let Some(inner) = item.as_table_like() {
            collect_versions(inner, [at, key].join(".").trim_start_matches('.'), found);
        }
    }
}

/// Texts that are included by a path which depends on where the compiler is called: such a crate builds in this workspace only.
pub(crate) fn included_by_place(path: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let lines = code.lines().enumerate().filter(|(_, line)| {
        line.contains("include_") && ["file!", "env!"].iter().any(|word| line.contains(word))
    });
    let found =
        lines.map(|(at, _)| format!("{path}:{}: name an included text by its path from here", at + 1));
    found.collect()
}

/// Paths of the machine on which a file was written.
pub(crate) fn foreign_paths(path: &str, text: &str) -> Vec<String> {
    // In two parts, or this file would find itself.
    let foreign = concat!("/wor", "k/");
    let lines = text.lines().enumerate().filter(|(_, line)| line.contains(foreign));
    lines.map(|(at, _)| format!("{path}:{}: a path of one machine, {foreign}", at + 1)).collect()
}

/// Back-ticked paths of a document that name nothing among `known`, the paths of the repository.
pub(crate) fn dead_paths(document: &str, text: &str, known: &[&str]) -> Vec<String> {
    let folder = document.rsplit_once('/').map_or("", |(folder, _)| folder);
    let exists = |path: &str| {
        let path = path.trim_start_matches("./").trim_end_matches('/');
        let here = format!("{folder}/{path}");
        known.iter().any(|known| {
            let is = |path: &str| {
                known.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            is(path)
                || is(here.trim_start_matches('/'))
                || !path.contains('/') && known.ends_with(&format!("/{path}"))
        })
    };
    let complaint = |(line, path): (usize, &str)| format!("{document}:{line}: `{path}` does not exist");
    spans(text).filter(|(_, span)| is_path(span) && !exists(span)).map(complaint).collect()
}

/// Back-ticked spans outside fenced blocks, with their lines.
fn spans(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    let prose = text.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    prose.flat_map(|(at, line)| line.split('`').skip(1).step_by(2).map(move |span| (at + 1, span)))
}

/// A span that can only be meant as a path of the repository. What is built or fetched is not in it.
fn is_path(span: &str) -> bool {
    let plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    let named = [".rs", ".md", ".toml", ".py", ".sh", ".case"]
        .iter()
        .any(|end| span.len() > end.len() && span.ends_with(end));
    let made = ["/", "target/", ".cache/"].iter().any(|start| span.starts_with(start));
    plain && !made && (span.contains('/') || named)
}

#[cfg(test)]
#[path = "checks_can_fail.rs"]
mod checks_can_fail;
