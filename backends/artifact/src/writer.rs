//! Makes artefacts: same sections, same bytes.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

use crate::container::{self, Header, Layout, PREAMBLE_LENGTH, SECTION_LIMIT};
use crate::error::Error;
use crate::manifest::Manifest;
use crate::replace;
use crate::section::{ContentHash, SectionEntry, SectionKind};

/// Collects sections; [`Writer::write`] then makes the file.
///
/// Sections keep the order in which they were added. Equal contents are stored once, whatever their names.
#[derive(Clone, Debug)]
pub struct Writer<'a> {
    manifest: Manifest,
    sections: Vec<Section<'a>>,
}

#[derive(Clone, Debug)]
struct Section<'a> {
    name: String,
    kind: SectionKind,
    bytes: Cow<'a, [u8]>,
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
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Result<(), Error> {
        let (name, bytes) = (name.into(), bytes.into());
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
        self.sections.push(Section { name, kind, bytes });
        Ok(())
    }

    /// The whole file in memory.
    ///
    /// # Errors
    ///
    /// A header over its limit.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let plan = self.plan()?;
        let mut bytes = Vec::new();
        // Writing to a vector cannot fail.
        plan.write_to(&mut bytes).map_err(|source| Error::Io {
            action: "write",
            path: "memory".into(),
            source,
        })?;
        Ok(bytes)
    }

    /// Writes the file at `path`, whole or not at all; see [`replace::file`].
    ///
    /// # Errors
    ///
    /// A header over its limit, or what the file system says.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let plan = self.plan()?;
        replace::file(path, |out| plan.write_to(out))
    }

    fn plan(&self) -> Result<FilePlan<'_>, Error> {
        let hashes: Vec<_> = self.sections.iter().map(|section| ContentHash::of(&section.bytes)).collect();
        // Offsets depend on the length of the header, which depends on the digits of the offsets. A longer header
        // never makes offsets smaller, so this reaches its fixed point, in two or three rounds.
        let mut header_length = 0;
        loop {
            let (header, contents) = self.place(&hashes, header_length)?;
            let mut text = serde_json::to_vec_pretty(&header).map_err(Error::Header)?;
            text.push(b'\n');
            if text.len() as u64 == header_length {
                return Ok(FilePlan { preamble: container::preamble(&text)?, header: text, contents });
            }
            header_length = text.len() as u64;
        }
    }

    fn place(&self, hashes: &[ContentHash], header_length: u64) -> Result<(Header, Vec<Content<'_>>), Error> {
        let mut layout = Layout::after_header(header_length);
        let (mut entries, mut contents) = (Vec::new(), Vec::new());
        for (section, &blake3) in self.sections.iter().zip(hashes) {
            let length = section.bytes.len() as u64;
            let (offset, is_new) = layout.place(blake3, length).ok_or(Error::Limit {
                what: "end of a section",
                found: length,
                limit: u64::MAX,
            })?;
            if is_new {
                contents.push(Content { offset, bytes: &section.bytes });
            }
            let (name, kind) = (section.name.clone(), section.kind);
            entries.push(SectionEntry { name, kind, offset, length, blake3 });
        }
        Ok((Header { manifest: self.manifest.clone(), sections: entries }, contents))
    }
}

struct Content<'a> {
    offset: u64,
    bytes: &'a [u8],
}

struct FilePlan<'a> {
    preamble: Vec<u8>,
    header: Vec<u8>,
    contents: Vec<Content<'a>>,
}

impl FilePlan<'_> {
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.preamble)?;
        out.write_all(&self.header)?;
        let mut end = (PREAMBLE_LENGTH + self.header.len()) as u64;
        for content in &self.contents {
            let padding = [0; container::ALIGNMENT as usize];
            out.write_all(padding.get(..(content.offset - end) as usize).unwrap_or_default())?;
            out.write_all(content.bytes)?;
            end = content.offset + content.bytes.len() as u64;
        }
        Ok(())
    }
}
