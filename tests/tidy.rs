//! What no compiler checks about this repository: who may import whom, how long files are, where `unsafe` stands.
//!
//! Each check is a function over text in [`checks`], shown there to fail on made-up input. Here they meet the
//! repository itself.

#[path = "tidy/checks.rs"]
mod checks;
#[path = "tidy/matches.rs"]
mod matches;
#[path = "tidy/rooms.rs"]
mod rooms;
#[path = "tidy/rust_text.rs"]
mod rust_text;
#[path = "tidy/supply.rs"]
mod supply;

use std::path::Path;
use std::process::Command;

use cargo_metadata::{CargoOpt, MetadataCommand};

/// A file of the repository: its path from the root, and its content if it is text.
struct File {
    path: String,
    text: Option<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files that git tracks or would track.
fn files() -> Vec<File> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git, which names the files to check, should be installed");
    assert!(
        listed.status.success(),
        "these checks need a git clone: {}",
        String::from_utf8_lossy(&listed.stderr)
    );
    let names = String::from_utf8(listed.stdout).expect("paths should be UTF-8");
    let paths = names.split('\0').filter(|path| !path.is_empty());
    let found: Vec<File> = paths
        .filter_map(|path| {
            let bytes = std::fs::read(root().join(path)).ok()?;
            Some(File { path: path.to_owned(), text: String::from_utf8(bytes).ok() })
        })
        .collect();
    assert!(
        found.iter().any(|file| file.path == "tests/tidy.rs"),
        "the list of files is not this repository's"
    );
    found
}

/// Runs `check` over the text files whose path ends with `suffix` and fails with all that it found.
fn check_each(suffix: &str, check: impl Fn(&str, &str) -> Vec<String>) {
    let found: Vec<String> = files()
        .iter()
        .filter(|file| file.path.ends_with(suffix))
        .filter_map(|file| Some(check(&file.path, file.text.as_deref()?)))
        .flatten()
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn metadata() -> MetadataCommand {
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml"));
    command
}

#[test]
fn crates_import_only_along_the_arrows() {
    let metadata = metadata().no_deps().exec().expect("cargo metadata should read the manifests");
    let mut found = Vec::new();
    for package in metadata.workspace_packages() {
        let arrows = package.dependencies.iter().map(|dep| (dep.kind, dep.name.as_str()));
        found.extend(checks::wrong_arrows(&package.name, arrows));
        found.extend(checks::loose_versions(&package.name, &package.dependencies));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn without_the_cuda_feature_no_crate_asks_for_llvm() {
    let mut command = metadata();
    command
        .features(CargoOpt::NoDefaultFeatures)
        .features(CargoOpt::SomeFeatures(vec!["cranelift".to_owned()]));
    // Packages of other platforms need not have been fetched.
    command.other_options(["--locked", "--filter-platform", "host-tuple"].map(String::from));
    let found = checks::reaches_llvm(&command.exec().expect("cargo metadata should resolve the lock file"));
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn without_the_cli_feature_the_compiler_asks_for_no_command_line() {
    let mut command = metadata();
    command
        .features(CargoOpt::NoDefaultFeatures)
        .features(CargoOpt::SomeFeatures(vec!["cranelift".to_owned()]));
    command.other_options(["--locked", "--filter-platform", "host-tuple"].map(String::from));
    let found =
        checks::reaches_command_line(&command.exec().expect("cargo metadata should resolve the lock file"));
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn rooms_import_only_along_the_arrows() {
    let files = files();
    let sources: Vec<(&str, &str)> = files
        .iter()
        .filter(|file| file.path.starts_with("src/") && file.path.ends_with(".rs"))
        .filter_map(|file| Some((file.path.as_str(), file.text.as_deref()?)))
        .collect();
    assert!(sources.len() > 30, "the source of the root package should be in src/");
    let found: Vec<String> = sources.iter().flat_map(|(path, text)| rooms::wrong_rooms(path, text)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn files_of_different_folders_import_each_other_in_no_circle() {
    let files = files();
    let folders: Vec<String> = metadata()
        .no_deps()
        .exec()
        .expect("cargo metadata should read the manifests")
        .workspace_packages()
        .into_iter()
        .filter_map(|package| {
            let folder = package.manifest_path.parent()?.strip_prefix(root()).ok()?;
            Some(folder.join("src/").to_string())
        })
        .collect();
    assert!(folders.len() > 10, "the crates of the workspace: {folders:?}");
    let sources: Vec<(&str, &str)> = files
        .iter()
        .filter(|file| file.path.ends_with(".rs"))
        .filter(|file| folders.iter().any(|folder| file.path.starts_with(folder)))
        .filter_map(|file| Some((file.path.as_str(), file.text.as_deref()?)))
        .collect();
    for folder in &folders {
        assert!(sources.iter().any(|(path, _)| path.starts_with(folder)), "{folder} has no files");
    }
    let found = rooms::circles_of_crates(&sources);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn files_are_short_and_named_for_what_they_hold() {
    check_each(".rs", |path, text| {
        if let Some(warning) = checks::getting_long(path, text) {
            println!("{warning}");
        }
        [checks::too_long(path, text), checks::says_nothing(path)].into_iter().flatten().collect()
    });
}

#[test]
fn decisions_about_ops_name_every_op() {
    check_each(".rs", matches::open_matches);
}

#[test]
fn every_test_runs() {
    check_each(".rs", checks::hidden_tests);
}

#[test]
fn unsafe_stands_in_few_files_with_its_reason() {
    check_each(".rs", checks::stray_unsafe);
}

#[test]
fn versions_of_code_generators_stand_in_one_place() {
    check_each("Cargo.toml", checks::scattered_versions);
}

#[test]
fn crates_of_others_are_those_of_the_policy() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect("a file of the repository");
    let policy = supply::Policy::parse(&read(".cargo/deny.toml"));
    let mut command = metadata();
    command.features(CargoOpt::AllFeatures);
    command.other_options(["--locked", "--filter-platform", "host-tuple"].map(String::from));
    let mut found =
        policy.wrong_licences(&command.exec().expect("cargo metadata should resolve the lock file"));
    found.extend(policy.wrong_locks(&read("Cargo.lock")));
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn what_set_up_fetches_is_known_by_its_hash() {
    check_each("", |path, text| match supply::is_list(path) {
        true => supply::loose_requirements(path, text),
        false => Vec::new(),
    });
    let is_here = |name: &str| files().iter().any(|file| file.path == name);
    assert!(is_here("tests/cuda-tools.txt") && is_here("tests/serve/requirements.txt"));
}

#[test]
fn no_text_is_included_by_where_the_compiler_runs() {
    check_each(".rs", checks::included_by_place);
}

#[test]
fn the_repository_speaks_of_the_project_alone() {
    check_each("", checks::foreign_paths);
}

#[test]
fn paths_in_the_documents_exist() {
    let files = files();
    let known: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let mut found = Vec::new();
    for document in ["README.md", "src/ARCHITECTURE.md", ".github/SECURITY.md"] {
        let file = files.iter().find(|file| file.path == document);
        let file = file.unwrap_or_else(|| panic!("{document} is missing"));
        let text = file.text.as_deref().expect("documents are text");
        found.extend(checks::dead_paths(document, text, &known));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
