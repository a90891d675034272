//! The folder that a command writes into: what is in it before and after, and what is wrong with that.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// How temporary files beside an output are called.
const TEMPORARY: &str = ".skipc-";

/// Files below a folder with their bytes, by their path from there.
pub(crate) type Tree = BTreeMap<String, Vec<u8>>;

/// A folder for outputs, and in it one for temporary files that belong to none.
pub(crate) struct Outputs {
    path: PathBuf,
    /// What is removed with it.
    _folder: Option<TempDir>,
}

impl Outputs {
    /// A folder with these files.
    pub(crate) fn with(files: &Tree) -> Outputs {
        let folder = TempDir::new().unwrap();
        let outputs = Outputs { path: folder.path().to_path_buf(), _folder: Some(folder) };
        outputs.put(files);
        outputs
    }

    /// A folder that is there, with these files.
    pub(crate) fn on(path: &Path, files: &Tree) -> Outputs {
        let outputs = Outputs { path: path.to_path_buf(), _folder: None };
        outputs.put(files);
        outputs
    }

    /// Makes these the only files.
    pub(crate) fn put(&self, files: &Tree) {
        for entry in fs::read_dir(&self.path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.unwrap();
        }
        fs::create_dir(self.temporary()).unwrap();
        for (name, bytes) in files {
            let path = self.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where temporary files without a place go.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// All files.
    pub(crate) fn tree(&self) -> Tree {
        let (mut open, mut found) = (vec![self.path().to_path_buf()], Tree::new());
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let name = path.strip_prefix(self.path()).unwrap().to_str().unwrap().to_owned();
                    found.insert(name, fs::read(path).unwrap());
                }
            }
        }
        found
    }
}

/// Other files of the same names.
pub(crate) fn earlier(files: &Tree) -> Tree {
    files.keys().map(|name| (name.clone(), format!("{name} as it was").into_bytes())).collect()
}

/// Whether a file is a temporary one.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with("tmp/") || name.rsplit('/').next().unwrap_or(name).starts_with(TEMPORARY)
}

/// Files that are neither what they were nor whole, and files that are gone or left over.
pub(crate) fn wrong(before: &Tree, whole: &Tree, now: &Tree, may_leave_temporary: bool) -> Vec<String> {
    let gone = before.keys().filter(|name| !now.contains_key(*name)).map(|name| format!("{name} is gone"));
    let found = now.iter().filter_map(|(name, bytes)| match is_temporary(name) {
        true => (!may_leave_temporary).then(|| format!("{name} is left over")),
        false => {
            let is_fine = before.get(name) == Some(bytes) || is_whole(name, bytes, whole.get(name));
            (!is_fine).then(|| format!("{name} is a part: {} bytes", bytes.len()))
        }
    });
    gone.chain(found).collect()
}

/// Whether a file is the new one. Where it says how long something took, or has a new key in it, its end has to be there.
fn is_whole(name: &str, bytes: &[u8], whole: Option<&Vec<u8>>) -> bool {
    let Some(whole) = whole else { return false };
    let text = || std::str::from_utf8(bytes).unwrap_or_default();
    let is_json = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
    let (_, kind) = name.rsplit_once('.').unwrap_or_default();
    bytes == whole
        || match kind {
            "json" => is_json(text()),
            // Lines are added to the log of a training run, and its readers leave out one that was cut short.
            "jsonl" if name.ends_with("/log.jsonl") => {
                text().split_inclusive('\n').filter(|line| line.ends_with('\n')).all(is_json)
            }
            "jsonl" => text().ends_with('\n') && text().lines().all(is_json),
            "svg" => text().trim_end().ends_with("</svg>"),
            "pem" | "pub" => text().ends_with("-----\n") && bytes.len() == whole.len(),
            _ => false,
        }
}
