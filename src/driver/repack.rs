//! An artefact with the constants of other weights: its plans say how they are made, and its code stays as it is.

use std::fs::File;

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

/// The artefact as a compile of its model with these weights would make it. It has no known answers, since those of the old
/// weights are none. It is written to a file without a name, which nobody has to remove, and the old one is given back
/// before it is read: there is never more than one of both in memory.
///
/// # Errors
/// An artefact whose plans cannot be read, or weights that cannot; a temporary folder without room.
pub fn with_weights(artefact: Artefact, weights: &Weights) -> Result<Artefact, Error> {
    let no_file = |error: std::io::Error| Error::io(&std::env::temp_dir(), &error);
    let mut file = tempfile::tempfile().map_err(no_file)?;
    write(&artefact, weights, &mut file)?;
    drop(artefact);
    Ok(Artefact::from_file(&mut file)?)
}

fn write(artefact: &Artefact, weights: &Weights, file: &mut File) -> Result<(), Error> {
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
    let written = writer.write_to(file).map_err(|error| match error {
        // The file has no name; its folder is what a user can choose.
        skipc_artifact::Error::Io { action, source, .. } => {
            let path = format!("a temporary file in {}", std::env::temp_dir().display()).into();
            skipc_artifact::Error::Io { action, path, source }
        }
        error => error,
    });
    written.map_err(|error| Error::of_writer("the artefact with other weights".as_ref(), error))?;
    Ok(())
}
