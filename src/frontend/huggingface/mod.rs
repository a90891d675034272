//! Directories as Hugging Face has them: a `config.json`, weights, and the files of a tokenizer.
//!
//! A [`Directory`] is two things: the text of a spec (`spec_text`, by the rows of `families`), and the tensors of its
//! files under our names (`renamed`, by the tables of `names`). Everything behind them is what it is for a spec: compiling a
//! directory is compiling that spec with these tensors. What the configuration asks for and a spec cannot say is refused
//! with its place in `config.json`.

mod aliases;
pub mod codes;
mod config;
mod families;
mod names;
mod renamed;
mod rope;
mod routers;
mod skip;
mod spec_text;

use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::frontend::language::{ast, json};
use crate::frontend::spec::{self, model::Model};
use crate::frontend::weights::{self, Weights};
use config::Config;
use renamed::{Naming, Renamed};
use skipc_artifact::regular;
use skipc_artifact::section::LANGUAGE_BYTES;

pub use routers::RouterTensor;

/// The one file of weights.
const WEIGHTS: &str = "model.safetensors";

/// The index of several.
const INDEX: &str = "model.safetensors.index.json";

/// Files that stand between a model and people; a directory has those that its tokenizer needs.
const TEXTS: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "config.json",
];

/// A directory whose configuration was read.
pub struct Directory {
    folder: PathBuf,
    spec: String,
    notes: Diagnostics,
    naming: Naming,
}

impl Directory {
    /// Reads the configuration. `overlay` is a file with the keys of `skip_config` that stands in its place.
    ///
    /// # Errors
    /// What is wrong with the configuration or the overlay, each with a code and its place.
    pub fn open(folder: &Path, overlay: Option<&Path>) -> Result<Directory, Diagnostics> {
        let (name, text) = spec::read_text(&folder.join("config.json"))?;
        let ast = json::parse(&name, &text)?;
        let (family, table, is_part) = config::family(&ast)?;
        let mut config = Config::new(&ast, table, family);
        let n_layers = spec_text::n_layers(&mut config);
        let (skips, of_aliases) = match n_layers {
            Some(n_layers) => skips(&ast, overlay, n_layers)?.unzip(),
            None => (None, None),
        };
        let spec = spec_text::write(&mut config, skips.as_ref());
        let images = family.images.as_ref().filter(|_| spec.is_some());
        let patch = images.and_then(|images| spec_text::patch(&mut config, images));
        let (found, notes) = config.finish();
        let Some(spec) = spec else { return Err(found) };
        let swaps_rows = skips.is_some_and(|skips| skips.swaps_rows);
        let naming = Naming { names: family.names, is_part, swaps_rows, patch };
        let notes = notes.and(of_aliases.unwrap_or_default());
        found.or(Directory { folder: folder.to_owned(), spec, notes, naming })
    }

    /// The text of its spec.
    pub fn spec(&self) -> &str {
        &self.spec
    }

    /// What its author should know, such as keys that mean nothing.
    pub fn notes(&self) -> &Diagnostics {
        &self.notes
    }

    /// The weights of `model`, which is that of the directory: those in the directory or, under the same names, in `file`;
    /// `routers` has those of routers, if they are in a file of their own.
    ///
    /// # Errors
    /// What is wrong with the files or their tensors, each with a code.
    pub fn weights(
        &self,
        model: &Model,
        file: Option<&Path>,
        routers: Option<&Path>,
    ) -> Result<Weights, Diagnostics> {
        let path = file.map_or_else(|| self.weights_file(), |file| Ok(file.to_owned()))?;
        let mut sources = vec![weights::open(&path)?];
        sources.extend(routers.map(weights::open).transpose()?);
        let name = path.display().to_string();
        let renamed = Renamed::new(&name, sources, model, &self.naming)?;
        Weights::new(&name, renamed, model)
    }

    /// The file of the directory's weights, or the index of several.
    fn weights_file(&self) -> Result<PathBuf, Diagnostic> {
        let [one, index] = [WEIGHTS, INDEX].map(|name| self.folder.join(name));
        let folder = self.folder.display();
        match (one.is_file(), index.is_file()) {
            (true, false) => return Ok(one),
            (false, true) => return Ok(index),
            (true, true) => {
                let message = format!("{folder} has {WEIGHTS} and {INDEX}");
                let help = "either could be meant: remove one of them, or name one by `--weights`";
                return Err(Diagnostic::new("weights::twice", message).help(help));
            }
            (false, false) => {}
        }
        let is_pickle = |name: &str| [".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| name.ends_with(end));
        let pickle = std::fs::read_dir(&self.folder).ok().and_then(|files| {
            let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
            names.filter(|name| is_pickle(name)).min()
        });
        Err(match pickle {
            Some(pickle) => {
                let help = "pickles can run programs when they are read; load the model with transformers and write it with \
                            `save_pretrained(folder, safe_serialization=True)`";
                Diagnostic::new("weights::pickle", format!("{folder} has its weights in the pickle {pickle}"))
                    .help(help)
            }
            None => Diagnostic::new("weights::read", format!("{folder} has neither {WEIGHTS} nor {INDEX}"))
                .help("download them, or name a file by `--weights`"),
        })
    }

    /// The files that make tokens of texts, with their names; none without a tokenizer.
    ///
    /// # Errors
    /// `weights::read` for one that cannot be read.
    pub fn texts(&self) -> Result<Vec<(&'static str, Vec<u8>)>, Diagnostic> {
        let present = TEXTS.iter().filter(|name| self.folder.join(name).is_file());
        let present: Vec<&'static str> = present.copied().collect();
        if present.first() != Some(&TEXTS[0]) {
            return Ok(Vec::new());
        }
        let read = |name: &'static str| {
            let path = self.folder.join(name);
            let bytes = regular::read(&path, LANGUAGE_BYTES).map_err(|error| {
                Diagnostic::new("weights::read", format!("cannot read {}: {error}", path.display()))
            })?;
            Ok((name, bytes))
        };
        present.into_iter().map(read).collect()
    }
}

/// The routers of an overlay, else those of the configuration, with what is said of aliases.
fn skips(
    config: &ast::Ast,
    overlay: Option<&Path>,
    n_layers: usize,
) -> Result<Option<(skip::Skips, Diagnostics)>, Diagnostics> {
    match overlay {
        Some(path) => {
            let (name, text) = spec::read_text(path)?;
            let ast = ast::parse(&name, &text)?;
            skip::read(&ast, &ast.root, n_layers).map(Some)
        }
        None => skip::table_of(config)?.map(|table| skip::read(config, &table, n_layers)).transpose(),
    }
}
