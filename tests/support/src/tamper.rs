//! Artefacts with another content, so that tests can see who notices.

use skipc_artifact::reader::Artifact;
use skipc_artifact::writer::Writer;

/// The artefact with the sections that `change` gives other bytes for. Their hashes are made anew.
///
/// # Panics
///
/// If the file is no artefact, or nothing was changed.
pub fn with_sections(file: &[u8], change: impl Fn(&str, &[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let artifact = Artifact::parse(file).expect("an artefact");
    let mut writer = Writer::new(artifact.manifest().clone());
    let mut n_changed = 0;
    for entry in artifact.sections() {
        let bytes = artifact.section(&entry.name, entry.kind).expect("a section of the table");
        let new = change(&entry.name, bytes).filter(|new| new != bytes);
        n_changed += usize::from(new.is_some());
        let new = new.unwrap_or_else(|| bytes.to_vec());
        writer.section(entry.name.clone(), entry.kind, new).expect("its name was taken before");
    }
    assert!(n_changed > 0, "nothing was changed");
    writer.to_bytes().expect("it fitted before")
}
