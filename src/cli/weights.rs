//! The weights that an artefact is compared or timed with.

use std::path::Path;

use skipc_runtime::Model as Artefact;

use super::{CheckpointArgs, shares, source};
use crate::bench::RANDOM_SEED;
use crate::diagnostic::Diagnostic;
use crate::driver::repack;
use crate::error::Error;
use crate::frontend::spec::model::Model;
use crate::frontend::weights::Weights;

/// An artefact with the tensors that its constants were made from.
pub(super) struct Original {
    pub(super) model: Model,
    pub(super) artefact: Artefact,
    pub(super) weights: Weights,
    /// Where they come from, for reports.
    pub(super) from: String,
}

impl Original {
    /// The artefact in a file. With weights in a file, which have to be those that it was compiled with, it is as it stands
    /// there. Without, it gets constants of random ones: an artefact does not hold its tensors, only what kernels read of
    /// them, and forms that agree do so for any weights.
    ///
    /// # Errors
    /// `weights::other` for weights of another compile, and what is wrong with a file.
    pub(super) fn open(
        path: &Path,
        weights: Option<&Path>,
        checkpoint: &CheckpointArgs,
    ) -> Result<Original, Error> {
        let artefact = Artefact::open(path)?;
        let model = shares::model_of(artefact.artifact(), path)?;
        let Some(file) = weights else {
            let weights = Weights::drawn(&model, RANDOM_SEED)?;
            let artefact = repack::with_weights(artefact, &weights)?;
            let from = format!("random ones of seed {RANDOM_SEED}");
            return Ok(Original { model, artefact, weights, from });
        };
        let weights = source::weights_of(&model, file, checkpoint)?;
        if weights.content_hash() != artefact.artifact().manifest().weights_hash {
            let message =
                format!("{} was compiled with other weights than {}", path.display(), file.display());
            let help = "give the weights of the compile; without `--weights` random ones are taken";
            return Err(Diagnostic::new("weights::other", message).help(help).into());
        }
        Ok(Original { model, artefact, weights, from: file.display().to_string() })
    }
}
