//! Directories as Hugging Face has them: a `config.json`, weights, and the files of a tokenizer.
//!
//! A [`Directory`] is two things: the text of a spec (`spec_text`, by the rows of `families` and `methods`), and the tensors of
//! its files under our names (`renamed`, by the tables of `names`). Everything behind them is what it is for a spec: compiling a
//! directory is compiling that spec with these tensors. What the configuration asks for and a spec cannot say is refused
//! with its place in `config.json`.

mod aliases;
pub mod codes;
mod config;
mod families;
mod methods;
mod names;
mod naming;
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
use methods::{Method, Routed};
use naming::{Naming, RouterNames};
use renamed::Renamed;
use skipc_artifact::regular;
use skipc_artifact::section::LANGUAGE_BYTES;

pub use routers::RouterTensor;

/// The configuration that most have.
const CONFIG: &str = "config.json";

/// That of D-LLM, which has no other.
const MODEL_ARGS: &str = "model_args.json";

/// The one file of weights.
const WEIGHTS: &str = "model.safetensors";

/// The index of several.
const INDEX: &str = "model.safetensors.index.json";

/// Files that stand between a model and people; a directory has those that its tokenizer needs.
const TEXTS: [&str; 5] =
    ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja", CONFIG];

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
        let is_d_llm = !folder.join(CONFIG).exists() && folder.join(MODEL_ARGS).is_file();
        let (name, text) = spec::read_text(&folder.join(if is_d_llm { MODEL_ARGS } else { CONFIG }))?;
        let ast = json::parse(&name, &text)?;
        let (family, table, is_part) = match is_d_llm {
            true => (&methods::D_LLM_FAMILY, &ast.root, false),
            false => config::family(&ast)?,
        };
        let method = match is_d_llm {
            true => Some(&methods::D_LLM),
            false => methods::recognised(table, || names_in(folder)),
        };
        let mut config = Config::new(&ast, table, family);
        let mut of_aliases = Diagnostics::default();
        let routed = match (spec_text::n_layers(&mut config), method) {
            (None, _) => None,
            (Some(_), Some(method)) if overlay.is_some() => return Err(other_routers(folder, method).into()),
            (Some(n_layers), Some(method)) => method.routed(&mut config, n_layers),
            (Some(n_layers), None) => {
                let (skips, notes) = skips(&ast, overlay, n_layers)?.unzip();
                of_aliases = notes.unwrap_or_default();
                Some(Routed { names: RouterNames::OfConfig, skips, repeats: None })
            }
        };
        let spec = routed.as_ref().and_then(|routed| spec_text::write(&mut config, routed));
        let written = routed.zip(spec).map(|(routed, spec)| {
            let images = family.images.as_ref();
            let naming = Naming {
                names: family.names,
                is_part,
                swaps_rows: routed.skips.is_some_and(|skips| skips.swaps_rows),
                patch: images.and_then(|images| spec_text::patch(&mut config, images)),
                head_dim: spec_text::head_dim(&mut config),
                routers: routed.names,
                n_fused: None,
            };
            (spec, naming)
        });
        let (found, notes) = config.finish();
        let Some((spec, naming)) = written else { return Err(found) };
        let notes = notes.and(of_aliases);
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
        let path = file.map_or_else(|| weights_file(&self.folder), |file| Ok(file.to_owned()))?;
        let mut sources = vec![weights::open(&path)?];
        sources.extend(routers.map(weights::open).transpose()?);
        let name = path.display().to_string();
        let renamed = Renamed::new(&name, sources, model, &self.naming)?;
        Weights::new(&name, renamed, model)
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

/// The file of a directory's weights, or the index of several.
fn weights_file(folder: &Path) -> Result<PathBuf, Diagnostic> {
    let [one, index] = [WEIGHTS, INDEX].map(|name| folder.join(name));
    let shown = folder.display();
    match (one.is_file(), index.is_file()) {
        (true, false) => return Ok(one),
        (false, true) => return Ok(index),
        (true, true) => {
            let message = format!("{shown} has {WEIGHTS} and {INDEX}");
            let help = "either could be meant: remove one of them, or name one by `--weights`";
            return Err(Diagnostic::new("weights::twice", message).help(help));
        }
        (false, false) => {}
    }
    let is_pickle = |name: &str| [".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| name.ends_with(end));
    let pickle = std::fs::read_dir(folder).ok().and_then(|files| {
        let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        names.filter(|name| is_pickle(name)).min()
    });
    Err(match pickle {
        Some(pickle) => {
            let help = "pickles can run programs when they are read; load the model with transformers and write it with \
                            `save_pretrained(folder, safe_serialization=True)`, or write a state dict with \
                            `safetensors.torch.save_file(torch.load(file, weights_only=True), \"model.safetensors\")`";
            Diagnostic::new("weights::pickle", format!("{shown} has its weights in the pickle {pickle}"))
                .help(help)
        }
        None => Diagnostic::new("weights::read", format!("{shown} has neither {WEIGHTS} nor {INDEX}"))
            .help("download them, or name a file by `--weights`"),
    })
}

/// The names of the tensors in a directory; none if they cannot be read, which is said where they are wanted.
fn names_in(folder: &Path) -> Vec<String> {
    let source = weights_file(folder).ok().and_then(|path| weights::open(&path).ok());
    source.map_or(Vec::new(), |source| source.tensors().keys().cloned().collect())
}

fn other_routers(folder: &Path, method: &Method) -> Diagnostic {
    let message = format!("{} is a checkpoint of {}, which has routers", folder.display(), method.name);
    Diagnostic::new("usage::directory", message)
        .help("leave out `--skip`, which gives a dense checkpoint others")
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
