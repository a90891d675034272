//! An artefact in memory.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, MmapMut};
use skipc_artifact::bundle;
use skipc_artifact::container::{External, Header};
use skipc_artifact::reader::{Artifact, Sections};
use skipc_artifact::regular;
use skipc_artifact::section::SectionEntry;
use skipc_artifact::signature::Trust;
use skipc_artifact::target::Target;

use crate::error::Error;

/// Largest artefact that is read, in bytes: some billion weights.
const FILE_LIMIT: u64 = 1 << 36;

/// What opening an artefact needs beside its path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening<'a> {
    /// The second file with the constants, where it does not lie beside the artefact under the name that it was written with.
    pub external: Option<&'a Path>,
    /// Public keys (PEM); an artefact that none of them signed is refused. [`skipc_artifact::signature`] says how.
    pub trust: Option<&'a Path>,
}

/// A checked artefact; cheap to clone.
///
/// Its file, or both where constants lie in a second one, is copied into memory of our own, not mapped: what was hashed is
/// what runs, even if someone writes to the file meanwhile. The copy begins at a page border, so sections do too, and is
/// then made read-only. Kernels on the CPU read constants there; there is no other copy.
#[derive(Clone, Debug)]
pub struct Model {
    artifact: Arc<Artifact<Mmap>>,
}

impl Model {
    /// Reads and checks an artefact. If its constants lie in a second file, that is looked for beside it.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or that is not exactly what the compiler wrote.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_as(path, &Opening::default())
    }

    /// Reads and checks an artefact, and who signed it, before any other part of it is looked at.
    ///
    /// # Errors
    ///
    /// As [`Model::open`]; what the signature or the file of keys is not; [`Error::Usage`] for a second file where the artefact
    /// has its constants in itself.
    pub fn open_as(path: &Path, opening: &Opening<'_>) -> Result<Self, Error> {
        let trust = opening.trust.map(Trust::read).transpose()?;
        let bytes = read(path)?;
        if let Some(trust) = trust {
            trust.check(path, &bytes)?;
        }
        let mut is_needed = false;
        let artifact = Artifact::parse_with(bytes, |External { file, .. }| {
            is_needed = true;
            let beside = path.with_file_name(file);
            let external = opening.external.unwrap_or(&beside);
            read(external).map_err(|error| without_constants(external, error))
        })?;
        if opening.external.is_some() && !is_needed {
            let reason =
                format!("`--external-weights`: {} has its constants in itself; leave it out", path.display());
            return Err(Error::Usage(reason));
        }
        Ok(Self { artifact: Arc::new(artifact) })
    }

    /// Checks an artefact that is in memory already.
    ///
    /// # Errors
    ///
    /// Bytes that are not exactly what the compiler wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let memory = fill(bytes.len() as u64, |memory| {
            memory.copy_from_slice(bytes);
            Ok(())
        })?;
        Ok(Self { artifact: Arc::new(Artifact::parse(memory)?) })
    }

    /// Reads and checks the artefact in an open file, which may have no name.
    ///
    /// # Errors
    ///
    /// As [`Model::open`]; constants in a second file are not looked for.
    pub fn from_file(file: &mut File) -> Result<Self, Error> {
        let failed = |source| Error::Io { action: "read", path: "a temporary file".into(), source };
        let length = file.seek(SeekFrom::End(0)).and_then(|length| file.rewind().map(|()| length));
        let memory = fill(length.map_err(failed)?, |bytes| file.read_exact(bytes).map_err(failed))?;
        Ok(Self { artifact: Arc::new(Artifact::parse(memory)?) })
    }

    /// The artefact with all its sections.
    #[must_use]
    pub fn artifact(&self) -> &Artifact<Mmap> {
        &self.artifact
    }

    /// The targets that it has code for.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        bundle::targets(self.artifact.as_ref())
    }
}

impl Sections for Model {
    fn header(&self) -> &Header {
        Sections::header(self.artifact.as_ref())
    }

    fn bytes(&self, entry: &SectionEntry) -> Result<Cow<'_, [u8]>, skipc_artifact::Error> {
        self.artifact.bytes(entry)
    }
}

/// The bytes of a regular file.
fn read(path: &Path) -> Result<Mmap, Error> {
    let failed = |source| Error::Io { action: "read", path: path.into(), source };
    let (mut file, size) = regular::open(path).map_err(failed)?;
    if size > FILE_LIMIT {
        return Err(Error::TooLarge { path: path.into(), size, limit: FILE_LIMIT });
    }
    fill(size, |bytes| file.read_exact(bytes).map_err(failed))
}

fn fill(length: u64, fill: impl FnOnce(&mut [u8]) -> Result<(), Error>) -> Result<Mmap, Error> {
    if length == 0 {
        // There is no map of no bytes; the reader's own words for an empty file.
        Artifact::parse(&[][..])?;
    }
    let failed = |source| Error::Memory { what: "the artefact", bytes: length, source };
    let mut memory = MmapMut::map_anon(length as usize).map_err(failed)?;
    // Large pages are filled faster. A system that has none does without.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    fill(&mut memory)?;
    memory.make_read_only().map_err(failed)
}

/// Says which file was looked for, if it is not there or empty.
fn without_constants(path: &Path, error: Error) -> Error {
    match error {
        Error::Io { source, .. } => Error::NoExternal { path: path.into(), source },
        Error::Artifact(_) => {
            Error::NoExternal { path: path.into(), source: std::io::Error::other("it is empty") }
        }
        error => error,
    }
}
