//! Makes artefacts: same sections, same bytes.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::path::Path;

use crate::container::{self, Header, Layout, SECTION_LIMIT};
use crate::error::Error;
use crate::manifest::Manifest;
use crate::replace;
use crate::section::{ContentHash, Hashing, SectionEntry, SectionKind};

/// Collects sections; [`Writer::write`] then makes the file.
///
/// Sections keep the order in which they were added. Equal contents are stored once, whatever their names.
pub struct Writer<'a> {
    manifest: Manifest,
    sections: Vec<Section<'a>>,
}

struct Section<'a> {
    name: String,
    kind: SectionKind,
    content: Cow<'a, [u8]>,
}

impl<'a> Writer<'a> {
    /// An artefact without sections.
    #[must_use]
    pub fn new(manifest: Manifest) -> Self {
        Self { manifest, sections: Vec::new() }
    }

    /// Adds a section.
    ///
    /// # Errors
    ///
    /// A name that is taken or not allowed, or too many sections: a fault of the caller.
    pub fn section(
        &mut self,
        name: impl Into<String>,
        kind: SectionKind,
        content: impl Into<Cow<'a, [u8]>>,
    ) -> Result<(), Error> {
        let (name, content) = (name.into(), content.into());
        if !SectionEntry::name_is_allowed(&name) {
            return Err(Error::SectionName { section: name });
        }
        if self.sections.iter().any(|section| section.name == name) {
            return Err(Error::Duplicate { section: name });
        }
        if self.sections.len() == SECTION_LIMIT {
            let limit = SECTION_LIMIT as u64;
            return Err(Error::Limit { what: "number of sections", found: limit + 1, limit });
        }
        self.sections.push(Section { name, kind, content });
        Ok(())
    }

    /// The whole file in memory.
    ///
    /// # Errors
    ///
    /// A header over its limit.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let header_length = self.header_length()?;
        let mut bytes = Cursor::new(Vec::new());
        let failed = |source| Error::Io { action: "write", path: "memory".into(), source };
        self.write_to(&mut bytes, header_length).map_err(failed)?;
        Ok(bytes.into_inner())
    }

    /// Writes the file at `path`, whole or not at all; see [`replace::file_at_any_place`]. Returns its length in bytes.
    ///
    /// # Errors
    ///
    /// A header over its limit, or what the file system says.
    pub fn write(&self, path: &Path) -> Result<u64, Error> {
        let header_length = self.header_length()?;
        let mut length = 0;
        replace::file_at_any_place(path, |out| {
            length = self.write_to(out, header_length)?;
            Ok(())
        })?;
        Ok(length)
    }

    /// The length of the header's text whatever the places of the sections are, which are known last.
    fn header_length(&self) -> Result<usize, Error> {
        let entry = |section: &Section<'_>| SectionEntry {
            name: section.name.clone(),
            kind: section.kind,
            offset: u64::MAX,
            length: section.content.len() as u64,
            blake3: ContentHash::of(&[]),
        };
        let longest = self.header(self.sections.iter().map(entry).collect()).map_err(Error::Header)?;
        // Refuses one over the limit.
        container::preamble(&longest)?;
        Ok(longest.len())
    }

    fn header(&self, sections: Vec<SectionEntry>) -> serde_json::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(&Header { manifest: self.manifest.clone(), sections })?;
        text.push(b'\n');
        Ok(text)
    }

    /// Contents first, each at its place, then the header that says where they are. Returns the length of the file.
    fn write_to(&self, out: &mut impl Output, header_length: usize) -> io::Result<u64> {
        let mut layout = Layout::after_header(header_length as u64);
        let mut entries = Vec::with_capacity(self.sections.len());
        for section in &self.sections {
            let begin = container::align(layout.end()).ok_or_else(too_long)?;
            out.seek(SeekFrom::Start(begin))?;
            let mut hashing = Hashing::new(&mut *out);
            hashing.write_all(&section.content)?;
            let (blake3, length) = hashing.finish();
            let (offset, is_new) = layout.place(blake3, length).ok_or_else(too_long)?;
            if !is_new {
                // It is there already; what follows begins at the same place, and gaps are zeros.
                out.set_length(begin)?;
            }
            let (name, kind) = (section.name.clone(), section.kind);
            entries.push(SectionEntry { name, kind, offset, length, blake3 });
        }
        out.set_length(layout.end())?;
        let mut text = self.header(entries)?;
        text.pop();
        text.resize(header_length - 1, b' ');
        text.push(b'\n');
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&container::preamble(&text).map_err(io::Error::other)?)?;
        out.write_all(&text)?;
        Ok(layout.end())
    }
}

fn too_long() -> io::Error {
    io::Error::other("the file would be longer than any may be")
}

/// What can be written at any place and cut.
trait Output: Write + Seek {
    fn set_length(&mut self, length: u64) -> io::Result<()>;
}

impl Output for File {
    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

impl Output for Cursor<Vec<u8>> {
    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.get_mut().resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        Ok(())
    }
}
