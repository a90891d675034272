//! An artefact with the constants of other weights: its plans say how they are made, and its code stays as it is.

use skipc_artifact::bundle;
use skipc_artifact::section::SectionKind;
use skipc_artifact::writer::{Content, Writer};
use skipc_plan::Linked;
use skipc_runtime::Model as Artefact;

use crate::diagnostic::Diagnostic;
use crate::driver::{constants, trace};
use crate::error::Error;
use crate::frontend::weights::Weights;
use crate::verify::plan_section;

/// The artefact as a compile of its model with these weights would make it, in memory. It has no known answers, since those
/// of the old weights are none.
///
/// # Errors
/// An artefact whose plans cannot be read, or weights that cannot.
pub fn with_weights(artefact: &Artefact, weights: &Weights) -> Result<Artefact, Error> {
    let old = artefact.artifact();
    let mut manifest = old.manifest().clone();
    manifest.weights_hash = weights.content_hash();
    let mut writer = Writer::new(manifest);
    let mut recipes = Vec::new();
    for target in artefact.targets() {
        let program = bundle::read_program(old, &target)?;
        let section = plan_section(target.kind(), program.dtype);
        let text = old.section(&section, SectionKind::Plan)?;
        let linked: Linked = serde_json::from_slice(text)
            .map_err(|error| Diagnostic::new("verify::stage", format!("{section}: {error}")))?;
        recipes.push((bundle::constants_section(&target), linked.constants));
    }
    for entry in old.sections().iter().filter(|entry| entry.kind != SectionKind::KnownAnswer) {
        let content = match recipes.iter().find(|(section, _)| *section == entry.name) {
            Some((_, recipes)) => constants::content(recipes.clone(), weights, trace::unheard()),
            None => Content::from(old.section(&entry.name, entry.kind)?),
        };
        writer.section(entry.name.clone(), entry.kind, content)?;
    }
    let bytes = writer.to_bytes().map_err(|error| Error::of_writer("the artefact".as_ref(), error))?;
    Ok(Artefact::from_bytes(&bytes)?)
}
