//! Cases in files: `key: value` lines, an empty line, an input, `----`, and what comes out. `BLESS=1` rewrites the last
//! part.

use std::fs;
use std::path::{Path, PathBuf};

/// A case.
#[derive(Clone, Debug)]
pub struct FileCase {
    /// Its file.
    pub path: PathBuf,
    /// The `key: value` lines; the first is `kind`.
    pub header: Vec<(String, String)>,
    /// Between the header and `----`.
    pub input: String,
    /// Behind `----`.
    pub expected: String,
}

impl FileCase {
    /// Reads a case.
    ///
    /// # Panics
    /// If the file is no case.
    pub fn read(path: &Path) -> FileCase {
        let shown = path.display();
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{shown}: {error}"));
        let (header, rest) =
            text.split_once("\n\n").unwrap_or_else(|| panic!("{shown}: no empty line after the header"));
        let (input, expected) = rest.split_once("----\n").unwrap_or_else(|| panic!("{shown}: no ---- line"));
        let header = header.lines().map(|line| {
            let (key, value) =
                line.split_once(": ").unwrap_or_else(|| panic!("{shown}: not `key: value`: {line}"));
            (key.to_owned(), value.to_owned())
        });
        FileCase {
            path: path.to_owned(),
            header: header.collect(),
            input: input.to_owned(),
            expected: expected.to_owned(),
        }
    }

    /// The value of a key of the header.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.header.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Keys that start with `prefix`, without it, and their values.
    pub fn all<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.header.iter().filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, value.as_str())))
    }

    fn bless(&self, got: &str) {
        let header: String = self.header.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
        let text = format!("{header}\n{}----\n{got}", self.input);
        // Other tests read the cases meanwhile: they see the old file or the new one.
        let new = self.path.with_extension("new");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.path));
        written.unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
    }
}

/// All cases below a folder, by path.
///
/// # Panics
/// If one cannot be read.
pub fn file_cases(folder: &Path) -> Vec<FileCase> {
    let (mut folders, mut paths) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.unwrap_or_else(|error| panic!("{}: {error}", folder.display())).path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "case") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    paths.iter().map(|path| FileCase::read(path)).collect()
}

/// Compares what each case gives with what its file says, or with `BLESS=1` writes it there.
///
/// # Panics
/// If a case gives something else; the message has the differences of all.
pub fn check_file_cases(cases: &[FileCase], run: impl Fn(&FileCase) -> String) {
    assert!(!cases.is_empty(), "there is no case");
    let bless = std::env::var_os("BLESS").is_some();
    let mut failures = String::new();
    for case in cases {
        let got = run(case);
        if got == case.expected {
            continue;
        }
        if bless {
            case.bless(&got);
        } else {
            let diff = similar::TextDiff::from_lines(&case.expected, &got);
            let name = case.path.display();
            failures.push_str(&diff.unified_diff().header(&format!("{name}, expected"), "got").to_string());
        }
    }
    assert!(
        failures.is_empty(),
        "{failures}\nIf this is right: BLESS=1, and read the diff before you commit."
    );
}
