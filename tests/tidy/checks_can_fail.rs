//! Each check on input that it has to refuse, and on the nearest that it has to let pass.

use super::*;

#[test]
fn arrows() {
    let normal = |to| [(DependencyKind::Normal, to)];
    let dev = |to| [(DependencyKind::Development, to)];
    assert!(wrong_arrows("skipc-plan", normal("skipc-ir")).is_empty());
    assert!(wrong_arrows("skipc-ir", normal("petgraph")).is_empty());
    assert!(wrong_arrows("skipc-ir", normal("skipc-plan"))[0].contains("design change"));
    assert_eq!(wrong_arrows("skipc-runtime", normal("skipc-plan")).len(), 1);
    assert_eq!(wrong_arrows("skipc-new", normal("serde")).len(), 1);
    // Test tools are for tests, and tests reach no further than their crate does.
    assert!(wrong_arrows("skipc-ir", dev("skipc-testkit")).is_empty());
    assert_eq!(wrong_arrows("skipc", normal("skipc-testkit")).len(), 1);
    assert!(wrong_arrows("skipc-cranelift", dev("skipc-ir")).is_empty());
    assert_eq!(wrong_arrows("skipc-cranelift", dev("skipc-runtime")).len(), 1);
    let build = [(DependencyKind::Build, "skipc-ir")];
    assert_eq!(wrong_arrows("skipc-runtime", build).len(), 1);
}

#[test]
fn versions_of_dependencies() {
    let dependency = |source: &str, req: &str| -> Dependency {
        let json = format!(
            r#"{{"name": "egg", "source": {source}, "req": "{req}", "kind": null, "optional": false,
                 "uses_default_features": true, "features": [], "target": null, "rename": null, "registry": null}}"#
        );
        serde_json::from_str(&json).unwrap()
    };
    let registry = r#""registry+https://github.com/rust-lang/crates.io-index""#;
    assert!(loose_versions("skipc", &[dependency(registry, "^1.2")]).is_empty());
    assert!(loose_versions("skipc", &[dependency("null", "*")]).is_empty(), "a path inside the workspace");
    assert_eq!(loose_versions("skipc", &[dependency(registry, "*")]).len(), 1);
    assert_eq!(loose_versions("skipc", &[dependency(r#""git+https://example.org/egg""#, "^1.2")]).len(), 1);
}

#[test]
fn llvm_in_the_default_build() {
    let graph: BTreeMap<&str, Vec<&str>> = BTreeMap::from([
        ("skipc", vec!["serde", "skipc-mlir"]),
        ("skipc-mlir", vec!["melior"]),
        ("other", vec!["inkwell"]),
    ]);
    let seen = walk(vec![&"skipc"], |name| graph.get(name).map_or(&[], Vec::as_slice));
    let names: Vec<&str> = seen.into_iter().copied().collect();
    assert_eq!(names, ["melior", "serde", "skipc", "skipc-mlir"]);
    assert_eq!(llvm_among(&names).len(), 1);
    assert!(llvm_among(&["skipc", "serde"]).is_empty());
}

#[test]
fn the_command_line_in_the_library() {
    assert_eq!(command_line_among(&["skipc", "serde", "clap", "indicatif"]).len(), 2);
    assert!(command_line_among(&["skipc", "serde", "clap_lex"]).is_empty());
}

#[test]
fn lengths_and_names() {
    let lines = |count: usize| "x\n".repeat(count);
    assert!(getting_long("a.rs", &lines(600)).is_none());
    assert!(getting_long("a.rs", &lines(601)).is_some());
    assert!(too_long("a.rs", &lines(900)).is_none());
    assert!(too_long("a.rs", &lines(901)).is_some());
    assert!(says_nothing("ir/src/utils.rs").is_some());
    assert!(says_nothing("helpers.rs").is_some());
    assert!(says_nothing("ir/src/common_rows.rs").is_none());
}

#[test]
fn tests_that_do_not_run() {
    let found = |text: &str| hidden_tests("a.rs", text).len();
    assert_eq!(found("#[test]\n#[ignore]\nfn f() {}"), 1);
    assert_eq!(found("#[ignore = \"slow\"]"), 1);
    assert_eq!(found("#[test] #[should_panic(expected = \"x\")]"), 1);
    assert_eq!(found("#[cfg_attr(miri, ignore)]"), 1);
    assert_eq!(found("// #[ignore] is not used here\nlet ignore = x[0];"), 0);
}

#[test]
fn unsafe_code() {
    let place = "backends/runtime/src/cpu.rs";
    let found = |path: &str, text: &str| stray_unsafe(path, text).len();
    assert_eq!(found("ir/src/lib.rs", "// SAFETY: none\nunsafe { f() }"), 1);
    assert_eq!(found("ir/src/lib.rs", "unsafe fn f() {}\nunsafe impl Sync for A {}"), 2);
    assert_eq!(found("ir/src/lib.rs", "#![expect(unsafe_code)] // unsafe\nlet x = \"unsafe {\";"), 0);
    assert_eq!(found("ir/src/lib.rs", "type F = unsafe extern \"C\" fn(u32);\ntype G = unsafe fn();"), 0);
    assert_eq!(found(place, "unsafe { f() }"), 1);
    assert_eq!(found(place, "// SAFETY: f asks for nothing.\nlet x = unsafe { f() };"), 0);
    assert_eq!(found(place, "/// # Safety\n///\n/// `p` is valid.\nunsafe fn f(p: *const u8) {}"), 0);
    assert_eq!(
        found(place, &format!("// SAFETY: far\n{}unsafe {{ f() }}", "x();\n".repeat(SAFETY_REACH))),
        1
    );
    assert_eq!(found("backends/runtime/src/cuda/stream.rs", "// SAFETY: s lives.\nunsafe { f(s) }"), 0);
    assert_eq!(found("backends/runtime/src/cpus.rs", "// SAFETY: no\nunsafe { f() }"), 1);
}

#[test]
fn versions_of_code_generators() {
    let found = |path: &str, text: &str| scattered_versions(path, text).len();
    assert_eq!(found("Cargo.toml", "[workspace.dependencies]\nmelior = \"=0.27.8\""), 0);
    assert_eq!(found("Cargo.toml", "[dependencies]\nmelior = \"=0.27.8\""), 1);
    assert_eq!(found("backends/mlir/Cargo.toml", "[workspace.dependencies]\nmelior = \"=0.27.8\""), 1);
    assert_eq!(
        found("a/Cargo.toml", "[dependencies]\nmelior.workspace = true\ninkwell = { workspace = true }"),
        0
    );
    assert_eq!(found("a/Cargo.toml", "[dev-dependencies]\ncranelift-jit = \"0.135\"\nserde = \"1\""), 1);
    assert_eq!(
        found("a/Cargo.toml", "[target.'cfg(unix)'.build-dependencies.inkwell]\nversion = \"0.11\""),
        1
    );
    assert_eq!(found("a/Cargo.toml", "not toml"), 1);
}

#[test]
fn includes_by_place() {
    let found = |text: &str| included_by_place("a.rs", text).len();
    assert_eq!(found("const A: &str = include_str!(concat!(env!(\"X\"), file!()));"), 1);
    assert_eq!(found("const A: &str = include_str!(\"a.txt\"); // file!"), 0);
}

#[test]
fn paths_of_a_machine() {
    assert_eq!(foreign_paths("a.md", concat!("see /wor", "k/x\nand /workspace/y")).len(), 1);
}

#[test]
fn paths_in_documents() {
    let known = ["Cargo.toml", "src/main.rs", "src/ARCHITECTURE.md", "ir/src/ops.rs"];
    let found = |document: &str, text: &str| dead_paths(document, text, &known).len();
    let alive = "`ir/src/ops.rs`, `ir/`, `ir/src`, `ops.rs`, `Cargo.toml`, `target/x/y`, `.cache/cuda`, `skipc run`, `a | b/c`";
    assert_eq!(found("README.md", alive), 0);
    assert_eq!(found("README.md", "`ir/src/op.rs` and `gone.rs`"), 2);
    assert_eq!(found("README.md", "```\n`ir/none.rs`\n```\n`ir/none.rs`"), 1);
    assert_eq!(found("src/ARCHITECTURE.md", "`main.rs` `./main.rs` `ir/src`"), 0);
    assert_eq!(found("README.md", "`ir/src/ops`"), 1);
}
