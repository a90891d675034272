//! Specs and directories on the command line.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};
use crate::frontend::source::{self, Source};
use crate::frontend::spec::model::Model;
use crate::frontend::weights::Weights;

/// Which layers of a directory may be skipped.
#[derive(Clone, Debug, Default, Args)]
pub struct OverlayArgs {
    /// File (TOML) with the keys of `skip_config` that makes layers of a directory skip, instead of its own `skip_config`.
    #[arg(long, value_name = "OVERLAY.toml")]
    pub skip: Option<PathBuf>,
}

/// What a directory takes besides its own files.
#[derive(Clone, Debug, Default, Args)]
pub struct CheckpointArgs {
    /// Which layers skip.
    #[command(flatten)]
    pub overlay: OverlayArgs,

    /// Weights (safetensors) of the routers of a directory, if they are in a file of their own.
    #[arg(long, value_name = "R.safetensors")]
    pub router_weights: Option<PathBuf>,
}

/// A spec or a directory.
///
/// # Errors
/// What is wrong with it; options of directories beside a spec.
pub(super) fn open(path: &Path, overlay: &OverlayArgs) -> Result<Source, Error> {
    if !path.is_dir() && overlay.skip.is_some() {
        return Err(for_directories("--skip", path));
    }
    Ok(Source::open(path, overlay.skip.as_deref())?)
}

/// A spec or a directory, with what it takes.
///
/// # Errors
/// As [`open`].
pub(super) fn open_with_weights(path: &Path, checkpoint: &CheckpointArgs) -> Result<Source, Error> {
    if !path.is_dir() && checkpoint.router_weights.is_some() {
        return Err(for_directories("--router-weights", path));
    }
    open(path, &checkpoint.overlay)
}

/// The weights of a source: those in `file`, else its own.
///
/// # Errors
/// What is wrong with them; none for a spec without a file.
pub(super) fn weights(
    source: &Source,
    file: Option<&Path>,
    checkpoint: &CheckpointArgs,
) -> Result<Option<Weights>, Error> {
    Ok(source.weights(file, checkpoint.router_weights.as_deref())?)
}

/// The weights that an artefact's model was compiled with: a file, or a directory.
///
/// # Errors
/// What is wrong with them.
pub(super) fn weights_of(model: &Model, path: &Path, checkpoint: &CheckpointArgs) -> Result<Weights, Error> {
    let CheckpointArgs { overlay: OverlayArgs { skip }, router_weights } = checkpoint;
    let given = [("--skip", skip), ("--router-weights", router_weights)];
    match given.into_iter().find(|(_, value)| value.is_some() && !path.is_dir()) {
        Some((option, _)) => Err(for_directories(option, path)),
        None => Ok(source::weights_of(model, path, skip.as_deref(), router_weights.as_deref())?),
    }
}

fn for_directories(option: &str, path: &Path) -> Error {
    let message = format!("{option}: {} is not a directory with a config.json", path.display());
    let help = "a spec says itself which layers skip, and its weights are in one file";
    Error::new(ErrorKind::Request, Diagnostic::new("usage::directory", message).help(help))
}
