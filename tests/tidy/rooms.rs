//! Who imports whom inside of a crate, read from its source: the rooms of the root package, and circles of files.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::rust_text::code_only;

/// Which rooms each room of the root package may import, besides [`EVERYWHERE`]. A new arrow is a change of the design:
/// give its reason in the commit. `lib.rs`, the front page, may import all of them.
const ROOMS: [(&str, &[&str]); 12] = [
    ("diagnostic", &[]),
    ("error", &[]),
    ("frontend", &[]),
    ("codes", &["frontend", "train"]),
    ("cost", &["frontend"]),
    ("verify", &["frontend"]),
    // Its functions are compiled by the driver, which knows the backends.
    ("train", &["frontend", "driver"]),
    ("driver", &["frontend", "cost", "verify"]),
    ("bench", &["frontend", "cost", "verify", "driver"]),
    // Shows what the others made, and makes nothing.
    ("report", &["frontend", "cost", "driver"]),
    // Serves artefacts, and so knows the runtime alone.
    ("serve", &[]),
    ("cli", &["frontend", "codes", "cost", "verify", "driver", "bench", "report", "serve", "train"]),
];

/// What every room may import: how errors are said.
const EVERYWHERE: [&str; 2] = ["diagnostic", "error"];

/// A module as the names from the root of its crate to it.
type Module = Vec<String>;

/// The module that a file below the root of a crate is, such as `src/cost/mod.rs` and `src/cost/step.rs` below `src/`;
/// none for roots of crates.
fn module_of(root: &str, path: &str) -> Option<Module> {
    let inside = path.strip_prefix(root)?.strip_suffix(".rs")?;
    let names: Module = inside.trim_end_matches("/mod").split('/').map(str::to_owned).collect();
    (!["lib", "main"].contains(&names[0].as_str())).then_some(names)
}

/// The paths that a file names from the root of the crate (`crate::`), from the modules above it (`super::`), or from
/// the modules that it declares; a group in braces is several paths.
fn imports(module: &[String], text: &str) -> BTreeSet<Module> {
    let code = code_only(text);
    let declared: BTreeSet<&str> = code
        .lines()
        .filter_map(|line| line.trim().strip_suffix(';')?.rsplit_once("mod ").map(|(_, name)| name))
        .collect();
    let inline = inline_modules(&code);
    let mut found = BTreeSet::new();
    for (start, word) in words(&code) {
        let before = code[..start].trim_end();
        let is_head = !before.ends_with("::") && !before.ends_with('.');
        let rest = &code[start + word.len()..];
        match word {
            _ if !is_head || !rest.trim_start().starts_with("::") => {}
            "crate" => tree(&[], rest, &mut found),
            "super" => {
                let depth = inline.iter().filter(|inline| inline.contains(&start)).count();
                let here = [module, &vec!["mod".to_owned(); depth]].concat();
                let mut base = &here[..here.len() - 1];
                let mut rest = rest;
                while let Some(next) = rest.trim_start().strip_prefix("::").and_then(after_super) {
                    (base, rest) = (&base[..base.len().saturating_sub(1)], next);
                }
                tree(base, rest, &mut found);
            }
            name if declared.contains(name) => {
                tree(&[module, &[name.to_owned()]].concat(), rest, &mut found);
            }
            _ => {}
        }
    }
    found
}

/// Where the modules with their code in this file begin and end, such as `mod tests { … }`.
fn inline_modules(code: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (start, _) in words(code).filter(|(_, word)| *word == "mod") {
        let head = code[start..].split(['{', ';']).next().unwrap_or_default();
        let open = start + head.len();
        if !code[open..].starts_with('{') {
            continue;
        }
        let mut depth = 0;
        let close = code[open..].find(|c| {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            depth == 0
        });
        found.push(open..open + close.unwrap_or(code.len() - open));
    }
    found
}

fn after_super(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix("super").filter(|rest| rest.trim_start().starts_with("::"))
}

/// The paths of a use tree that goes on with `::`, below `base`.
fn tree(base: &[String], rest: &str, found: &mut BTreeSet<Module>) {
    let Some(next) = rest.trim_start().strip_prefix("::").map(str::trim_start) else {
        found.insert(base.to_vec());
        return;
    };
    if let Some(group) = next.strip_prefix('{') {
        split(group).into_iter().for_each(|part| tree(base, &format!("::{part}"), found));
        return;
    }
    let name: String = next.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    match name.is_empty() {
        true => drop(found.insert(base.to_vec())),
        false => tree(&[base, std::slice::from_ref(&name)].concat(), &next[name.len()..], found),
    }
}

/// The parts of a group, up to its closing brace.
fn split(group: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' => {
                parts.push(group[start..at].trim());
                break;
            }
            ',' if depth == 0 => {
                parts.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr() as usize - code.as_ptr() as usize, word))
}

/// Imports of a file of the root package that are no arrows between its rooms.
pub(crate) fn wrong_rooms(path: &str, text: &str) -> Vec<String> {
    let Some(module) = module_of("src/", path) else { return Vec::new() };
    let Some((room, allowed)) = ROOMS.iter().find(|(room, _)| *room == module[0]) else {
        return vec![format!(
            "{path}: no room of the root package: a new one is a design change (tests/tidy/rooms.rs)"
        )];
    };
    let is_allowed = |to: &str| to == *room || EVERYWHERE.contains(&to) || allowed.contains(&to);
    let imports = imports(&module, text);
    let wrong: BTreeSet<&String> =
        imports.iter().filter_map(|path| path.first()).filter(|to| !is_allowed(to)).collect();
    wrong
        .into_iter()
        .map(|to| {
            format!("{path}: {room} may not import `crate::{to}`: a new arrow is a design change (tests/tidy/rooms.rs)")
        })
        .collect()
}

/// Circles of imports in every crate, whose root is the folder of a `lib.rs` or `main.rs`.
pub(crate) fn circles_of_crates(files: &[(&str, &str)]) -> Vec<String> {
    let is_root = |name: &str| ["lib.rs", "main.rs"].contains(&name);
    let roots: BTreeSet<&str> = files
        .iter()
        .filter_map(|(path, _)| Some(path.split_at(path.rfind('/')? + 1)))
        .filter_map(|(folder, name)| is_root(name).then_some(folder))
        .collect();
    // A binary with a folder of its own is a crate inside of another's folder.
    let root_of = |path: &str| {
        roots.iter().filter(|root| path.starts_with(**root)).max_by_key(|root| root.len()).copied()
    };
    let crates = roots.iter().map(|root| {
        let of_crate = files.iter().filter(|(path, _)| root_of(path) == Some(root)).copied();
        circles(root, &of_crate.collect::<Vec<_>>())
    });
    crates.flatten().collect()
}

/// Circles of imports among files of a crate that do not all lie in one folder, each as the files that reach each other.
fn circles(root: &str, files: &[(&str, &str)]) -> Vec<String> {
    let modules: BTreeMap<Module, &str> =
        files.iter().filter_map(|(path, _)| Some((module_of(root, path)?, *path))).collect();
    let shown = shown_at_root(root, files);
    let file_of = |path: &Module| {
        let path = path.first().and_then(|name| shown.get(name)).unwrap_or(path);
        (1..=path.len()).rev().find_map(|n| modules.get(&path[..n]).copied())
    };
    let edges: BTreeMap<&str, BTreeSet<&str>> = files
        .iter()
        .filter_map(|(path, text)| {
            let to = imports(&module_of(root, path)?, text).iter().filter_map(file_of).collect();
            Some((*path, to))
        })
        .collect();
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        edges.keys().map(|from| (*from, reachable(from, &edges))).collect();
    let mut circles: BTreeSet<Vec<&str>> = BTreeSet::new();
    for (from, to) in &reach {
        let circle: Vec<&str> = to
            .iter()
            .filter(|other| reach.get(**other).is_some_and(|back| back.contains(from)))
            .copied()
            .collect();
        if !is_in_one_folder(&circle) {
            circles.insert(circle);
        }
    }
    circles
        .into_iter()
        .map(|circle| format!("these files import each other: {}", circle.join(", ")))
        .collect()
}

/// Whether there is a folder in which all of them lie; `loops.rs` lies in `loops/`, too, as its `mod.rs` would.
fn is_in_one_folder(files: &[&str]) -> bool {
    let folder = |path: &str| path.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
    let own = |path: &str| path.trim_end_matches(".rs").to_owned();
    let Some(first) = files.first() else { return true };
    let fits = |at: &String| files.iter().all(|path| folder(path) == *at || own(path) == *at);
    [folder(first), own(first)].iter().any(fits)
}

/// What `lib.rs` shows under a name of its own, such as `pub use graph::Graph`, as the path of it: who writes
/// `crate::Graph` imports `graph`.
fn shown_at_root(root: &str, files: &[(&str, &str)]) -> BTreeMap<String, Module> {
    let front_page = files.iter().find(|(path, _)| path.strip_prefix(root) == Some("lib.rs"));
    let paths = front_page.map(|(_, text)| imports(&[], text)).unwrap_or_default();
    paths
        .into_iter()
        .filter(|path| path.len() > 1)
        .filter_map(|path| Some((path.last()?.clone(), path)))
        .collect()
}

/// The files that `from` imports, directly or through others.
fn reachable<'a>(from: &str, edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> = edges.get(from).into_iter().flatten().copied().collect();
    while let Some(at) = open.pop() {
        if seen.insert(at) {
            open.extend(edges.get(at).into_iter().flatten());
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_between_rooms() {
        let found = |path: &str, text: &str| wrong_rooms(path, text).len();
        assert_eq!(found("src/cost/mod.rs", "use crate::frontend::spec;\nuse crate::error::Error;"), 0);
        assert_eq!(found("src/cost/step.rs", "use crate::driver::pipeline;"), 1);
        assert_eq!(found("src/driver/pack.rs", "fn f() { crate::cli::show() }"), 1);
        assert_eq!(found("src/driver/pack.rs", "// crate::cli\nlet x = \"crate::cli::show\";"), 0);
        assert_eq!(
            found("src/verify/mod.rs", "use crate::{frontend::{lower, spec}, driver::{pack, trace}, cli};"),
            2
        );
        assert_eq!(found("src/frontend/language/ast.rs", "use super::super::super::cost::step;"), 1);
        assert_eq!(found("src/frontend/language/ast.rs", "use super::super::lower;"), 0);
        assert_eq!(
            found("src/error.rs", "use crate::diagnostic::Diagnostic;\nmod tests { use super::*; }"),
            0
        );
        let inside = "mod tests {\n    use super::super::cost::part;\n}";
        assert_eq!(found("src/frontend/lower.rs", inside), 0);
        assert_eq!(found("src/frontend/lower.rs", inside.trim_start_matches("mod tests {")), 1);
        assert_eq!(found("src/utility.rs", ""), 1);
        assert_eq!(found("src/lib.rs", "pub use crate::cli::Cli;"), 0);
    }

    #[test]
    fn arrows_have_no_circle() {
        let edges = ROOMS.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect();
        for (room, _) in ROOMS {
            assert!(!reachable(room, &edges).contains(room), "{room}");
        }
    }

    #[test]
    fn circles_of_files() {
        let a = ("src/cost/mod.rs", "mod report;\npub mod bucketing;\nuse report::part;");
        let b = ("src/cost/report.rs", "use super::PlanCost;");
        let c = ("src/cost/bucketing/mod.rs", "pub mod machine;\nuse machine::Machine;");
        let found = |files: &[(&str, &str)]| circles("src/", files).len();
        assert_eq!(found(&[a, b, c]), 0, "a folder may be one circle");
        let up = ("src/cost/bucketing/machine.rs", "use crate::cost::PlanCost;");
        let down = ("src/cost/mod.rs", "pub mod bucketing;\nuse bucketing::machine::Machine;");
        assert_eq!(found(&[down, c, up]), 1);
        assert_eq!(found(&[a, c, up]), 0, "a declaration imports nothing");
        let tree = ("src/frontend/spec/node.rs", "use crate::frontend::layer::Layer;");
        let kind = ("src/frontend/layer/mod.rs", "use crate::frontend::spec::node::Node;");
        assert_eq!(found(&[tree, kind]), 1);
    }

    #[test]
    fn circles_of_files_of_a_crate_with_a_front_page() {
        let front =
            ("ir/src/lib.rs", "mod graph;\nmod op;\npub use graph::Graph;\npub use op::{TypeError, infer};");
        let graph = ("ir/src/graph.rs", "use crate::op::infer;");
        let table = ("ir/src/op/mod.rs", "mod args;\nuse args::Args;");
        let args = ("ir/src/op/args.rs", "use crate::ty::Type;");
        let upward = ("ir/src/op/args.rs", "use crate::Graph;");
        assert_eq!(circles("ir/src/", &[front, graph, table, args]), Vec::<String>::new());
        assert_eq!(
            circles("ir/src/", &[front, graph, table, upward]),
            ["these files import each other: ir/src/graph.rs, ir/src/op/args.rs, ir/src/op/mod.rs"]
        );
    }

    #[test]
    fn a_file_lies_in_the_folder_of_its_name_too() {
        let loops = ("src/host/loops.rs", "mod turns;\nuse turns::Turn;");
        let turns = ("src/host/loops/turns.rs", "use super::Loop;");
        let frame = ("src/host/frame.rs", "use super::loops::Loop;");
        let user = ("src/host/loops.rs", "mod turns;\nuse turns::Turn;\nuse super::frame::Frame;");
        assert_eq!(circles("src/", &[loops, turns, frame]).len(), 0);
        assert_eq!(circles("src/", &[user, turns, frame]).len(), 1, "two folders");
    }

    #[test]
    fn crates_are_looked_at_one_by_one() {
        let [page, a, b] = [
            ("ir/src/lib.rs", "mod a;"),
            ("ir/src/a.rs", "mod b;\nuse b::B;\nuse crate::c::C;"),
            ("ir/src/a/b.rs", "use crate::c::C;"),
        ];
        let c = |text| ("ir/src/c.rs", text);
        let main = ("ir/src/bin/run/main.rs", "mod a;\nuse a::A;");
        let of_main = ("ir/src/bin/run/a.rs", "use crate::c::C;");
        assert_eq!(circles_of_crates(&[page, a, b, c(""), main, of_main]).len(), 0);
        let found = circles_of_crates(&[page, a, b, c("use crate::a::b::B;"), main, of_main]);
        assert_eq!(found, ["these files import each other: ir/src/a/b.rs, ir/src/c.rs"]);
    }
}
