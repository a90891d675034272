//! Where the files of a tokenizer are: in a folder, or in the artefact itself.

use std::path::{Path, PathBuf};

use skipc_artifact::reader::{Index, Sections};
#[cfg(feature = "tokenizers")]
use skipc_artifact::section::LANGUAGE_BYTES;
use skipc_artifact::section::{LANGUAGE, SectionKind};

use crate::error::Error;
#[cfg(feature = "tokenizers")]
use crate::file::read_limited;
use crate::model::Model;

/// Files by name.
pub(super) enum Files {
    /// Those of a folder.
    Folder(PathBuf),
    /// Those that were compiled into an artefact, with its path or what users call it.
    Artefact(PathBuf, Box<dyn Sections>),
}

impl Files {
    /// What an artefact has in itself, if there is a file `name` in it.
    ///
    /// # Errors
    ///
    /// An artefact that cannot be read.
    pub(super) fn within(artefact: &Path, name: &str) -> Result<Option<Self>, Error> {
        if !artefact.is_file() {
            return Ok(None);
        }
        let files = Self::Artefact(artefact.into(), Box::new(Index::open(artefact)?));
        Ok(files.has(name).then_some(files))
    }

    /// What a model that is loaded has in itself, if there is a file `name` in it. Users call the model `model_name`.
    pub(super) fn of_loaded(model: &Model, model_name: &Path, name: &str) -> Option<Self> {
        let files = Self::Artefact(model_name.into(), Box::new(model.clone()));
        files.has(name).then_some(files)
    }

    /// Whether there is a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).is_file(),
            Self::Artefact(_, sections) => sections.entry(&section(name), SectionKind::Language).is_ok(),
        }
    }

    /// The bytes of a file.
    ///
    /// # Errors
    ///
    /// A file that is not there, or cannot be read.
    #[cfg(feature = "tokenizers")]
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        match self {
            Self::Folder(folder) => read_limited(&folder.join(name), LANGUAGE_BYTES),
            Self::Artefact(_, sections) => {
                Ok(sections.read(&section(name), SectionKind::Language)?.into_owned())
            }
        }
    }

    /// Where it is, for messages.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(name),
            Self::Artefact(path, _) => path.join(section(name)),
        }
    }
}

fn section(name: &str) -> String {
    format!("{LANGUAGE}{name}")
}
