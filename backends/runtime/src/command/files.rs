//! The files that a command reads and writes, found before it works: none may be written that is also read, or that
//! is written twice.

use std::path::{Path, PathBuf};

use clap::builder::ValueParser;
use clap::{Arg, ArgMatches, Command};
use skipc_artifact::replace;

use crate::error::Error;

/// What a command does with the path of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileUse {
    /// Reads a file.
    Read,
    /// Writes a file.
    Write,
    /// Writes files of these names into a folder.
    Folder(&'static [&'static str]),
}

/// What `skipc` and `skipc-run` do with each of their paths, by the option's name in its program.
const USES: &[(&str, FileUse)] = &[
    ("after", FileUse::Read),
    ("api_key_file", FileUse::Read),
    ("artifact", FileUse::Read),
    ("before", FileUse::Read),
    ("chat_template", FileUse::Read),
    ("config", FileUse::Read),
    ("dir", FileUse::Folder(&[])),
    // Numbered files of a folder of their own.
    ("dump_to", FileUse::Folder(&[])),
    ("experts", FileUse::Read),
    ("experts_out", FileUse::Write),
    ("external_output", FileUse::Write),
    ("external_weights", FileUse::Read),
    ("folder", FileUse::Folder(&["weights.safetensors", "log.jsonl"])),
    ("graph", FileUse::Read),
    ("html", FileUse::Folder(&["index.html"])),
    ("keep", FileUse::Folder(&["tokens.npy", "rows.npy", "lengths.npy", "routing.npy"])),
    ("key", FileUse::Read),
    ("lengths", FileUse::Read),
    ("lines", FileUse::Write),
    ("logits", FileUse::Write),
    ("model", FileUse::Read),
    ("new_key", FileUse::Write),
    ("of_model", FileUse::Read),
    ("out", FileUse::Write),
    ("output", FileUse::Write),
    ("perfetto", FileUse::Write),
    ("prompt_file", FileUse::Read),
    (
        "record",
        FileUse::Folder(&[
            "steps.json",
            "order.npy",
            "wanted.npy",
            "gates.npy",
            "weights.safetensors",
            "grads.safetensors",
            "after.safetensors",
        ]),
    ),
    ("replay", FileUse::Read),
    ("report", FileUse::Write),
    ("report_to", FileUse::Folder(&["index.html", "data.js"])),
    ("router_weights", FileUse::Read),
    ("routing", FileUse::Read),
    ("routing_out", FileUse::Write),
    ("rows", FileUse::Read),
    ("skip", FileUse::Read),
    ("spec", FileUse::Read),
    ("svg", FileUse::Write),
    ("text", FileUse::Read),
    ("tokenizer", FileUse::Read),
    ("tokens", FileUse::Read),
    ("trace", FileUse::Read),
    ("trust", FileUse::Read),
    ("tuning", FileUse::Read),
    ("weights", FileUse::Read),
];

/// What the path of an option is for; nothing if the option takes no path.
///
/// # Errors
///
/// The name of an option with a path that the table of uses does not have.
pub fn file_use(arg: &Arg) -> Result<Option<FileUse>, String> {
    if arg.get_value_parser().type_id() != ValueParser::path_buf().type_id() {
        return Ok(None);
    }
    let found = USES.iter().find(|(name, _)| *name == arg.get_id().as_str());
    found.map(|(_, found)| Some(*found)).ok_or_else(|| arg.get_id().to_string())
}

/// The files of a command line, each with the option that names it.
#[derive(Debug, Default)]
pub struct Files {
    read: Vec<(String, PathBuf)>,
    written: Vec<(String, PathBuf)>,
}

impl Files {
    /// The files that these options name, those of the subcommand included.
    #[must_use]
    pub fn of(command: &Command, matches: &ArgMatches) -> Files {
        let mut files = Files::default();
        let (mut command, mut matches) = (command, matches);
        loop {
            command.get_arguments().for_each(|arg| files.add(arg, matches));
            let Some((name, below)) = matches.subcommand() else { return files };
            let Some(subcommand) = command.find_subcommand(name) else { return files };
            (command, matches) = (subcommand, below);
        }
    }

    fn add(&mut self, arg: &Arg, matches: &ArgMatches) {
        let name = match arg.get_long() {
            Some(long) => format!("--{long}"),
            None => arg.get_id().as_str().to_uppercase(),
        };
        let Ok(Some(role)) = file_use(arg) else { return };
        let paths = matches.try_get_many::<PathBuf>(arg.get_id().as_str()).ok().flatten();
        for path in paths.into_iter().flatten() {
            match role {
                FileUse::Read => self.read.push((name.clone(), path.clone())),
                FileUse::Write => self.written.push((name.clone(), path.clone())),
                FileUse::Folder(files) => {
                    self.written.extend(files.iter().map(|file| (name.clone(), path.join(file))));
                }
            }
        }
    }

    /// Whether a file is written to standard output, where nothing else may go then.
    #[must_use]
    pub fn write_to_stdout(&self) -> bool {
        self.written.iter().any(|(_, path)| replace::is_stdout(path))
    }

    /// Refuses outputs that are also read, or written twice.
    ///
    /// # Errors
    ///
    /// [`Error::SameFile`].
    pub fn check(&self) -> Result<(), Error> {
        let identified = |files: &[(String, PathBuf)]| -> Vec<(String, replace::Identity)> {
            let of = |(name, path): &(String, PathBuf)| Some((name.clone(), replace::identity(path)?));
            files.iter().filter_map(of).collect()
        };
        let mut taken = identified(&self.read);
        for (option, path) in &self.written {
            let Some(identity) = replace::identity(path) else { continue };
            if let Some((other, _)) = taken.iter().find(|(_, other)| *other == identity) {
                let (option, other) = (option.clone(), other.clone());
                return Err(Error::SameFile { option, other, path: Path::to_path_buf(path) });
            }
            taken.push((option.clone(), identity));
        }
        Ok(())
    }
}
