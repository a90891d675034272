//! An artefact with the tensors that it was made from, which it does not hold itself.

use std::path::Path;

use skipc_artifact::reader::Sections;
use skipc_artifact::section::SectionKind;
use skipc_runtime::Model as Artefact;

use crate::diagnostic::Diagnostic;
use crate::driver::repack;
use crate::error::Error;
use crate::frontend::spec;
use crate::frontend::spec::model::Model;
use crate::frontend::weights::Weights;
use crate::frontend::weights::drawn::RANDOM_SEED;

/// An artefact with the tensors that its constants were made from.
pub struct Original {
    /// The resolved model.
    pub model: Model,
    /// The artefact: as it was, or with constants of random tensors.
    pub artefact: Artefact,
    /// The tensors.
    pub weights: Weights,
    /// Where they come from, for reports.
    pub from: String,
}

impl Original {
    /// The artefact that users call `name`. With weights in a file, which have to be those that it was compiled with, it is as
    /// it stands there. Without, it gets constants of random ones: an artefact does not hold its tensors, only what kernels
    /// read of them, and forms that agree do so for any weights.
    ///
    /// # Errors
    /// `weights::other` for weights of another compile, and what `read`, which reads the file, finds wrong with it.
    pub fn of(
        artefact: Artefact,
        name: &Path,
        weights: Option<&Path>,
        read: impl FnOnce(&Model, &Path) -> Result<Weights, Error>,
    ) -> Result<Original, Error> {
        let model = model_of(artefact.artifact(), name)?;
        let Some(file) = weights else {
            let weights = Weights::drawn(&model, RANDOM_SEED)?;
            let artefact = repack::with_weights(artefact, &weights)?;
            let from = format!("random ones of seed {RANDOM_SEED}");
            return Ok(Original { model, artefact, weights, from });
        };
        let weights = read(&model, file)?;
        if weights.content_hash() != artefact.artifact().manifest().weights_hash {
            let message =
                format!("{} was compiled with other weights than {}", name.display(), file.display());
            let help = "give the weights of the compile; without `--weights` random ones are taken";
            return Err(Diagnostic::new("weights::other", message).help(help).into());
        }
        Ok(Original { model, artefact, weights, from: file.display().to_string() })
    }
}

/// The resolved model that an artefact was compiled from; `name` is what users call it.
///
/// # Errors
/// An artefact whose spec cannot be read.
pub fn model_of(artifact: &impl Sections, name: &Path) -> Result<Model, Error> {
    let bytes =
        artifact.read("spec.toml", SectionKind::Spec).map_err(|error| Error::in_artifact(name, &error))?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| Diagnostic::new("artifact::spec", format!("{}: {error}", name.display())))?;
    Ok(spec::model(&name.display().to_string(), text)?)
}
