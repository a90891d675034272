//! Cases in files, `tests/cases/{print,verify,run,passes,kernels}`: `BLESS=1 cargo test --test filetests` rewrites what comes out.
//!
//! | kind | input | further keys | what comes out |
//! | --- | --- | --- | --- |
//! | `print` | a graph | | the graph as printed |
//! | `ops` | nothing | | the op reference |
//! | `verify` | a graph | `gate: legal` | `ok`, or the errors of parser, verifier and gate |
//! | `run` | a graph | `tokens`, `input NAME` (row by row; of a set its rows), `weight NAME`, `force cN`; `\|` between sequences, `\|\|` between steps | the results of the interpreter, in f64, and states as they are behind each step |
//! | `passes` | a graph | `passes`, `fuel`, `explain` | what each pass did, the proofs of the value that `explain` names (`%3`, or `all`), and the graph after them |
//! | `kernels` | nothing | `model`, `tokens`, `density` | the kernels of a step on the CPU, block by block, with how many there are and what they move without fusion and with it |

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use skipc_ir::interp::{Datum, Env, FlatBatch, Weights};
use skipc_ir::ops;
use skipc_ir::port::RoleText;
use skipc_ir::text::{parse, print};
use skipc_ir::{Elem, Graph, Port, Role, SetSym, Type, codes, legalize, verify};
use skipc_passes::rewrite::check::check;
use skipc_passes::rewrite::rules;
use skipc_passes::{Options, PassInfo, Report, run_reported, table};
use skipc_testkit::check_pass::{Masks, check_pass, check_rounding_pass};
use skipc_testkit::file_cases::{FileCase, check_file_cases, file_cases};

mod filetests {
    pub(super) mod kernels;
}

const FOLDERS: [&str; 5] = ["print", "verify", "run", "passes", "kernels"];

/// Codes that no text can bring about, with the test that does.
const NOT_FROM_TEXT: [&str; 3] = [
    "graph::cycle",        // ir/src/verify.rs
    "graph::set_unopened", // ir/src/verify.rs
    "graph::type",         // ir/src/verify.rs
];

fn cases() -> Vec<FileCase> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    FOLDERS.iter().flat_map(|kind| file_cases(&folder.join(kind))).collect()
}

#[test]
fn cases_come_out_as_written() {
    check_file_cases(&cases(), |case| match case.get("kind") {
        Some("print") => print_case(case),
        Some("ops") => op_reference(),
        Some("verify") => verify_case(case),
        Some("run") => run_case(case),
        Some("passes") => passes_case(case),
        Some("kernels") => filetests::kernels::kernels_case(case),
        other => panic!("{}: unknown kind {other:?}", case.path.display()),
    });
}

#[test]
fn every_op_has_a_case_that_runs_it() {
    let run: Vec<FileCase> = cases().into_iter().filter(|case| case.get("kind") == Some("run")).collect();
    for info in ops::table() {
        let op = format!("= {}", info.name);
        let has_op = |case: &FileCase| {
            case.input.lines().any(|line| {
                line.split_once(&op).is_some_and(|(_, rest)| {
                    !rest.starts_with(|char: char| char == '_' || char.is_alphanumeric())
                })
            })
        };
        assert!(run.iter().any(has_op), "no case in tests/cases/run has `{}`", info.name);
    }
}

#[test]
fn every_code_has_a_case_and_every_case_a_known_code() {
    let expected: String = cases().into_iter().map(|case| case.expected).collect();
    let found = |code: &str| expected.contains(&format!("error[{code}]"));
    for (code, _) in codes::CODES {
        assert_eq!(found(code), !NOT_FROM_TEXT.contains(code), "{code}");
    }
    for line in expected.lines().filter_map(|line| line.strip_prefix("error[")) {
        let (code, _) = line.split_once(']').unwrap_or((line, ""));
        let known = codes::CODES.iter().chain(skipc_passes::CODES).any(|(known, _)| *known == code);
        assert!(known, "`{code}` is in no table of codes");
    }
}

fn graph(case: &FileCase) -> Graph {
    parse(&case.input).unwrap_or_else(|errors| panic!("{}: {}", case.path.display(), errors[0]))
}

fn print_case(case: &FileCase) -> String {
    let text = print(&graph(case));
    let again = parse(&text).unwrap_or_else(|errors| panic!("{}: {}", case.path.display(), errors[0]));
    assert_eq!(print(&again), text, "{}: printed text reads back as another", case.path.display());
    text
}

fn op_reference() -> String {
    let mut text = String::new();
    for info in ops::table() {
        let may_be_left_out = if info.last_is_optional { "?" } else { "" };
        let attrs: Vec<String> = info.attrs.iter().map(|(name, kind)| format!("{name}: {kind}")).collect();
        let _ = writeln!(
            text,
            "{} ({}{may_be_left_out}) {{{}}} {:?}",
            info.name,
            info.operands.join(", "),
            attrs.join(", "),
            info.traits
        );
        info.doc.lines().for_each(|line| {
            let _ = writeln!(text, "   {line}");
        });
    }
    text
}

fn verify_case(case: &FileCase) -> String {
    let graph = match parse(&case.input) {
        Ok(graph) => graph,
        Err(errors) => return lines(errors.iter().map(|error| (error.code(), error.to_string()))),
    };
    match case.get("gate") {
        Some("legal") => match legalize(graph) {
            Ok(_) => "ok\n".to_owned(),
            Err(errors) => lines(errors.iter().map(|error| (error.code(), error.to_string()))),
        },
        _ => match verify(&graph) {
            Ok(_) => "ok\n".to_owned(),
            Err(errors) => lines(errors.iter().map(|error| (error.code(), error.to_string()))),
        },
    }
}

fn lines(errors: impl Iterator<Item = (&'static str, String)>) -> String {
    errors.fold(String::new(), |text, (code, error)| format!("{text}error[{code}]: {error}\n"))
}

struct Named(BTreeMap<String, Vec<f64>>);

impl Weights<f64> for Named {
    fn weight(&self, name: &str) -> Option<Vec<f64>> {
        self.0.get(name).cloned()
    }
}

fn numbers<T: std::str::FromStr>(case: &FileCase, text: &str) -> Vec<T> {
    let number = |word: &str| word.parse().ok();
    let numbers: Option<Vec<T>> = text.split_whitespace().map(number).collect();
    numbers.unwrap_or_else(|| panic!("{}: not numbers: {text}", case.path.display()))
}

fn run_case(case: &FileCase) -> String {
    let graph = graph(case);
    let shown = case.path.display();
    verify(&graph).unwrap_or_else(|errors| panic!("{shown}: {}", errors[0]));
    let weights = case.all("weight ").map(|(name, values)| (name.to_owned(), numbers(case, values)));
    let weights = Named(weights.collect());
    let masks = case.all("force c").map(|(sym, mask)| {
        let sym = sym.parse().unwrap_or_else(|_| panic!("{shown}: no set c{sym}"));
        (SetSym(sym), numbers::<u8>(case, mask).into_iter().map(|bit| bit == 1).collect())
    });
    let routing = Masks(masks.collect());
    let signature = graph.signature();
    let n_cached = case.get("cached").map_or(0, |rows| rows.parse().expect("the rows of the caches"));
    let zeros = |port: Port| Some((port.role, Datum::zeros(&port.ty, n_cached)?));
    let mut states: BTreeMap<Role, Datum<f64>> = signature.states.into_iter().filter_map(zeros).collect();
    let (steps, mut text, mut before) = (steps(case), String::new(), Vec::new());
    for (step, sequences) in steps.iter().enumerate() {
        let batch = FlatBatch::from_sequences(sequences.iter().map(Vec::as_slice)).behind(&before);
        let mut tensors = inputs(case, step, &graph, &batch);
        tensors.append(&mut states);
        let env = Env { batch: &batch, tensors, weights: &weights, routing: &routing };
        if steps.len() > 1 {
            let _ = writeln!(text, "step {step}");
        }
        let results = match skipc_ir::run::<f64>(&graph, &env) {
            Ok(results) => results,
            Err(error) => return format!("{text}error: {error}\n"),
        };
        results.iter().for_each(|(role, value)| text += &show(role, value));
        states.extend(results.into_iter().filter(|(role, _)| role.state_name().is_some()));
        before.resize(before.len().max(sequences.len()), 0);
        before.iter_mut().zip(sequences).for_each(|(before, tokens)| *before += tokens.len() as i64);
    }
    text
}

/// The sequences of each step.
fn steps(case: &FileCase) -> Vec<Vec<Vec<i64>>> {
    let tokens = case.get("tokens").unwrap_or_else(|| panic!("{}: no `tokens`", case.path.display()));
    let sequences = |step: &str| step.split('|').map(|sequence| numbers(case, sequence)).collect();
    tokens.split("||").map(sequences).collect()
}

/// The inputs of a graph that the case gives, beside the tokens.
fn inputs(case: &FileCase, step: usize, graph: &Graph, batch: &FlatBatch) -> BTreeMap<Role, Datum<f64>> {
    let mut tensors = BTreeMap::new();
    for port in graph.signature().inputs {
        let name = match &port.role {
            Role::Input { name } => name.clone(),
            role => RoleText(role).to_string(),
        };
        let Some(values) = case.get(&format!("input {name}")) else { continue };
        let Some(values) = values.split("||").nth(step) else { continue };
        let datum = match &port.ty {
            Type::Set { .. } => Datum::Set { rows: numbers(case, values), of: batch.tokens.len() },
            Type::Partition { .. } | Type::State { .. } => continue,
            Type::Tensor { elem: Elem::Int, .. } => Datum::Ints(numbers(case, values)),
            Type::Tensor { elem: Elem::Mask, .. } => {
                Datum::Mask(numbers::<u8>(case, values).into_iter().map(|bit| bit == 1).collect())
            }
            Type::Tensor { elem: Elem::Real | Elem::F32, .. } => {
                Datum::Real { cols: port.ty.cols() as usize, data: numbers(case, values) }
            }
        };
        tensors.insert(port.role, datum);
    }
    tensors
}

/// A result under its name, or its role if it has none.
fn show(role: &Role, value: &Datum<f64>) -> String {
    let name = match role {
        Role::Result { name } => name.clone(),
        role => RoleText(role).to_string(),
    };
    match value {
        Datum::Real { cols, data } => {
            let rows = data.chunks_exact(*cols).map(|row| {
                let row: Vec<String> = row.iter().map(|number| format!("{number:?}")).collect();
                format!("  {}\n", row.join(" "))
            });
            format!("{name}: {} rows of {cols}\n{}", data.len() / cols, rows.collect::<String>())
        }
        Datum::Ints(ints) => format!("{name}: {ints:?}\n"),
        Datum::Mask(mask) => {
            let bits: Vec<u8> = mask.iter().map(|bit| u8::from(*bit)).collect();
            format!("{name}: {bits:?}\n")
        }
        Datum::Set { rows, of } => format!("{name}: {rows:?} of {of}\n"),
        Datum::Partition { rows, ends, of } => format!("{name}: {rows:?} of {of}, up to {ends:?}\n"),
    }
}

fn passes_case(case: &FileCase) -> String {
    let shown = case.path.display();
    let passes = case.get("passes").unwrap_or_else(|| panic!("{shown}: no `passes`"));
    let passes: Vec<&str> = passes.split(", ").collect();
    let fuel = case.get("fuel").map(|fuel| fuel.parse().unwrap_or_else(|_| panic!("{shown}: fuel {fuel}")));
    let options = Options { verify_each: true, fuel, ..Options::default() };
    let before = graph(case);
    let (after, report) = match run_reported(before.clone(), &passes, &options, &mut |_, _| {}) {
        Ok(done) => done,
        Err(error) => return format!("error[{}]: {error}\n", error.code()),
    };
    let may_round = |name: &&str| table::find(name).is_some_and(PassInfo::may_round);
    let after = match passes.iter().any(may_round) {
        true => check_rounding_pass(&before, |_| after),
        false => check_pass(&before, |_| after),
    };
    let mut text = String::new();
    for pass in &report.passes {
        let edits: Vec<String> = pass.edits.iter().map(|(why, count)| format!("{count} × {why}")).collect();
        let edits = if edits.is_empty() { "nothing".to_owned() } else { edits.join(", ") };
        let _ = writeln!(text, "// {}: {edits}", pass.name);
    }
    if let Some(value) = case.get("explain") {
        text += &proofs(&report, value);
    }
    text + &print(&after)
}

/// The proofs of a value, or of all: each step as rule, left side and right side. (Lines of rules change too often.)
fn proofs(report: &Report, wanted: &str) -> String {
    let mut text = String::new();
    for rewritten in &report.rewrites {
        check(rewritten).unwrap_or_else(|error| panic!("{error}"));
        for (place, location) in rewritten.places.iter().enumerate() {
            for (chain, result) in location.results.iter().enumerate() {
                let name = result.map_or("gone".to_owned(), |number| format!("%{number}"));
                let Some(chain) = rewritten.chain(chain, place) else { continue };
                if wanted != "all" && wanted != name {
                    continue;
                }
                let stands = chain.equals.map_or(String::new(), |value| format!("  (stands for {value})"));
                let _ = writeln!(text, "// {name}: {}{stands}", chain.node);
                for step in chain.steps {
                    let _ = writeln!(text, "//   {}: {}  →  {}", step.rule, step.before, step.after);
                }
            }
        }
    }
    text
}

#[test]
fn every_rule_has_a_case_that_shows_it_at_work() {
    let cases = cases();
    for rule in rules::all() {
        let name = format!("passes/saturate/{}.case", rule.name);
        let case = cases.iter().find(|case| case.path.ends_with(&name));
        let case = case.unwrap_or_else(|| panic!("there is no tests/cases/{name}"));
        let is_shown = case.expected.contains(&format!("//   {}: ", rule.name));
        assert!(is_shown, "no proof in tests/cases/{name} has the rule");
    }
}
