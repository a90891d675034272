//! Whose artefacts a command runs.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::Error;
use crate::model::{Model, Opening};

/// The option of every command that calls code of an artefact.
#[derive(Args, Clone, Debug, Default)]
pub struct TrustArgs {
    /// Run nothing but what one of these public keys signed (`skipc sign`): the signature lies beside the artefact, in M.skp.sig
    #[arg(long, value_name = "KEYS.pem")]
    pub trust: Option<PathBuf>,
}

impl TrustArgs {
    /// Opens a model that one of the keys signed, if there are any.
    ///
    /// # Errors
    ///
    /// As [`Model::open_as`].
    pub fn open(&self, path: &Path) -> Result<Model, Error> {
        Model::open_as(path, &Opening { trust: self.trust.as_deref(), ..Opening::default() })
    }
}
