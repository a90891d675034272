//! Lints: file cases in `tests/cases/lint`, `--deny`, and what commands make of findings; and that every error code is
//! explained.
//!
//! A case is a spec and the warnings about it. `deny: NAMES` in its header says what `--deny` gets.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use skipc::codes;
use skipc::frontend::lint::{self, Denied};
use skipc::frontend::{language, spec};
use skipc_testkit::file_cases::{FileCase, check_file_cases, file_cases};

const CASES: &str = "tests/cases/lint";

fn findings(case: &FileCase) -> String {
    let name = case.path.display();
    let ast =
        language::ast::parse("model.toml", &case.input).unwrap_or_else(|found| panic!("{name}: {found}"));
    let model = spec::resolve::resolve(&ast).unwrap_or_else(|found| panic!("{name}: {found}"));
    let deny: Vec<String> =
        case.get("deny").map(|names| names.split(", ").map(str::to_owned).collect()).unwrap_or_default();
    let denied = Denied::parse(&deny).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (found, is_denied) = denied.apply(lint::run(&ast, &model));
    let shown: String =
        found.render(100, false).lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    match (shown.is_empty(), is_denied) {
        (true, _) => "nothing\n".to_owned(),
        (false, true) => shown + "denied\n",
        (false, false) => shown,
    }
}

#[test]
fn cases_come_out_as_written() {
    let cases = file_cases(Path::new(CASES));
    check_file_cases(&cases, findings);
    let shown: String = cases.iter().map(|case| case.expected.as_str()).collect();
    for (code, _) in lint::CODES {
        assert!(shown.lines().any(|line| line == *code), "no case shows {code}");
    }
}

fn skipc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).env("NO_COLOR", "1").output().expect("skipc starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", text(bytes)))
}

/// A model that draws its decisions: one finding.
const RANDOM: &str = "tests/golden/random/spec.toml";
const RANDOM_WEIGHTS: &str = "tests/golden/random/weights.safetensors";

#[test]
fn check_warns_on_standard_error_and_denies_when_told() {
    let warned = skipc(&["check", RANDOM]);
    assert!(warned.status.success());
    assert!(text(&warned.stderr).contains("lint::batch_dependence") && text(&warned.stderr).contains(RANDOM));
    assert!(text(&warned.stdout).contains("[model]") && !text(&warned.stdout).contains("lint::"));
    let plain = skipc(&["--json", "check", RANDOM]);
    assert!(plain.status.success() && plain.stderr.is_empty());
    let warning = &json(&plain.stdout)["warnings"][0];
    assert_eq!(warning["code"], "lint::batch_dependence");
    assert_eq!(warning["severity"], "warning");
    assert!(warning["labels"][0]["line"].as_u64().is_some_and(|line| line > 1));
    for deny in
        [&["--deny", "leaks"][..], &["--deny", "all"], &["--deny", "future_leak,lint::batch_dependence"]]
    {
        let denied = skipc(&[&["check", RANDOM], deny].concat());
        assert_eq!(denied.status.code(), Some(1), "{deny:?}");
        assert!(
            text(&denied.stderr).contains("lint::batch_dependence") && denied.stdout.is_empty(),
            "{deny:?}"
        );
        let denied = skipc(&[&["--json", "check", RANDOM], deny].concat());
        assert_eq!(json(&denied.stdout)["errors"][0]["code"], "lint::batch_dependence", "{deny:?}");
    }
    let other = skipc(&["check", RANDOM, "--deny", "future_leak", "--deny", "capacity_overflow"]);
    assert!(other.status.success());
    let wrong = skipc(&["check", RANDOM, "--deny", "future_leek"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("usage::deny") && text(&wrong.stderr).contains("`future_leak`"));
}

/// Scripts find warnings beside the error that ends a command.
#[test]
fn warnings_stay_when_something_else_is_wrong() {
    let failed = skipc(&["--json", "check", RANDOM, "--weights", "missing"]);
    assert_eq!(failed.status.code(), Some(1));
    let found = json(&failed.stdout);
    assert_eq!(found["errors"][0]["code"], "weights::read");
    assert_eq!(found["warnings"][0]["code"], "lint::batch_dependence");
}

#[test]
fn compile_warns_beside_its_output() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = dir.path().join("m.skp").display().to_string();
    let args = ["compile", RANDOM, "--weights", RANDOM_WEIGHTS, "-o", &output, "--max-tokens", "64"];
    let compiled = skipc(&args);
    assert!(compiled.status.success(), "{}", text(&compiled.stderr));
    assert!(text(&compiled.stderr).contains("lint::batch_dependence"));
    assert!(!text(&compiled.stdout).contains("lint::"));
    let compiled = skipc(&[&["--json"], &args[..]].concat());
    assert!(compiled.stderr.is_empty());
    assert_eq!(json(&compiled.stdout)["warnings"][0]["code"], "lint::batch_dependence");
}

#[test]
fn explain_knows_codes_families_and_what_was_meant() {
    let one = text(&skipc(&["explain", "lint::future_leak"]).stdout);
    assert!(
        one.starts_with("lint::future_leak\n    The selection") && one.lines().all(|line| line.len() <= 100)
    );
    let family = text(&skipc(&["explain", "weights"]).stdout);
    assert!(family.lines().filter(|line| line.starts_with("weights::")).count() >= 8);
    let all = skipc(&["explain", "--json"]);
    assert_eq!(json(&all.stdout).as_array().map(Vec::len), Some(codes::all().len()));
    for (written, meant) in [("spec::unknown-key", "spec::unknown_key"), ("future_leak", "lint::future_leak")]
    {
        let unknown = skipc(&["explain", written]);
        assert_eq!(unknown.status.code(), Some(2));
        assert!(text(&unknown.stderr).contains(meant), "{written}: {}", text(&unknown.stderr));
    }
    assert!(text(&skipc(&["explain", "qqqqqqqq"]).stderr).contains("lists all codes"));
}

// ---- every code is explained

/// Rust files below a folder.
fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn is_code(word: &str) -> bool {
    let part =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '-');
    // A path that serde is given is no code.
    word.split_once("::").is_some_and(|(family, name)| family != "crate" && part(family) && part(name))
}

/// Texts in quotes that look like codes, without those of unit tests.
fn codes_in(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.split('"').filter(|word| is_code(word)).map(str::to_owned).collect()
}

/// Every code that stands in the source of a crate is explained, and every explanation is of such a code.
#[test]
fn every_code_is_explained() {
    let mut paths = Vec::new();
    for folder in ["src", "ir/src", "passes/src"] {
        sources(Path::new(folder), &mut paths);
    }
    for crate_dir in fs::read_dir("backends").expect("the backends") {
        sources(&crate_dir.expect("a readable folder").path().join("src"), &mut paths);
    }
    let is_table = |path: &Path| path.ends_with("codes.rs");
    let mut used = BTreeSet::new();
    for path in paths.iter().filter(|path| !is_table(path)) {
        used.extend(codes_in(&fs::read_to_string(path).expect("sources are text")));
    }
    let explained: BTreeSet<String> = codes::all().into_iter().map(|(code, _)| code.to_owned()).collect();
    let missing: Vec<&String> = used.difference(&explained).collect();
    assert!(missing.is_empty(), "not explained, see src/codes.rs: {missing:?}");
    let dead: Vec<&String> = explained.difference(&used).collect();
    assert!(dead.is_empty(), "explained, but nothing reports them: {dead:?}");
    assert!(used.len() > 100, "{}", used.len());
    assert_eq!(codes::all().len(), explained.len(), "a code is explained twice");
}
