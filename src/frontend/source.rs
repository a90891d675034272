//! What a model is read from: a spec, or a directory as Hugging Face has them.

use std::path::Path;

use super::huggingface::Directory;
use super::language::ast::{self, Ast};
use super::spec::model::Model;
use super::spec::{self, resolve};
use super::weights::Weights;
use crate::diagnostic::{Diagnostic, Diagnostics};

/// A model with what it was read from.
pub struct Source {
    /// The tree of the spec's text, which knows the place of every setting; of a directory, that of the text made of it.
    pub ast: Ast,
    /// The resolved model.
    pub model: Model,
    /// The directory, if it is one.
    pub directory: Option<Directory>,
}

impl Source {
    /// Reads a spec, or the configuration of a directory. `overlay` is for directories alone, see [`Directory::open`].
    ///
    /// # Errors
    /// What is wrong with what is written there.
    pub fn open(path: &Path, overlay: Option<&Path>) -> Result<Source, Diagnostics> {
        if !path.is_dir() {
            let (name, text) = spec::read_text(path)?;
            return Source::of_text(&name, &text);
        }
        let directory = Directory::open(path, overlay)?;
        let source = Source::of_text(&format!("{} as a spec", path.display()), directory.spec())?;
        Ok(Source { directory: Some(directory), ..source })
    }

    /// Reads the text of a spec. `name` is what users call it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_text(name: &str, text: &str) -> Result<Source, Diagnostics> {
        let ast = ast::parse(name, text)?;
        let model = resolve::resolve(&ast)?;
        Ok(Source { ast, model, directory: None })
    }

    /// The spec that somebody wrote; that of a directory is made of its configuration.
    pub fn written(&self) -> Option<Ast> {
        self.directory.is_none().then(|| self.ast.clone())
    }

    /// The files that make tokens of texts, with their names; none for a spec.
    ///
    /// # Errors
    /// `weights::read` for one that cannot be read.
    pub fn texts(&self) -> Result<Vec<(&'static str, Vec<u8>)>, Diagnostic> {
        self.directory.as_ref().map_or(Ok(Vec::new()), Directory::texts)
    }

    /// What its author should know, besides lints.
    pub fn notes(&self) -> Diagnostics {
        self.directory.as_ref().map(|directory| directory.notes().clone()).unwrap_or_default()
    }

    /// The weights in `file` or, without one, those of the directory; none for a spec without a file. `routers` has those
    /// of the routers of a directory, if they are in a file of their own.
    ///
    /// # Errors
    /// What is wrong with the files or their tensors, each with a code.
    pub fn weights(
        &self,
        file: Option<&Path>,
        routers: Option<&Path>,
    ) -> Result<Option<Weights>, Diagnostics> {
        match (&self.directory, file) {
            (Some(directory), file) => directory.weights(&self.model, file, routers).map(Some),
            (None, Some(file)) => Weights::open(file, &self.model).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// The weights of `model`, which was compiled before, in what they were compiled from: a file, or a directory with its
/// `overlay` and `routers`.
///
/// # Errors
/// What is wrong with them.
pub fn weights_of(
    model: &Model,
    path: &Path,
    overlay: Option<&Path>,
    routers: Option<&Path>,
) -> Result<Weights, Diagnostics> {
    match path.is_dir() {
        true => Directory::open(path, overlay)?.weights(model, None, routers),
        false => Weights::open(path, model),
    }
}
