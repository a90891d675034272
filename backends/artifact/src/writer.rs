//! Makes artefacts: same sections, same bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::path::Path;

use crate::container::{self, External, Header, Layout, SECTION_LIMIT};
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

/// What a section holds.
pub enum Content<'a> {
    /// Bytes in memory.
    Bytes(Cow<'a, [u8]>),
    /// Bytes that are made while they are written.
    Made {
        /// How many there are.
        length: u64,
        /// Writes them from the first to the last, in pieces of any size.
        make: Box<Make<'a>>,
    },
    /// What an earlier section of the same kind holds.
    Same {
        /// Its name.
        section: String,
    },
}

/// What makes the bytes of a section. An error of its own comes back as the source of [`Error::Io`].
pub type Make<'a> = dyn Fn(&mut dyn Write) -> io::Result<()> + 'a;

impl From<Vec<u8>> for Content<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Content::Bytes(bytes.into())
    }
}

impl<'a> From<&'a [u8]> for Content<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Content::Bytes(bytes.into())
    }
}

struct Section<'a> {
    name: String,
    kind: SectionKind,
    length: u64,
    content: Content<'a>,
}

/// Rows of the table of sections, by the index of the section.
type Rows = BTreeMap<usize, SectionEntry>;

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
    /// A name that is taken or not allowed, too many sections, or the content of a section that is not there: a fault of the
    /// caller.
    pub fn section(
        &mut self,
        name: impl Into<String>,
        kind: SectionKind,
        content: impl Into<Content<'a>>,
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
        let length = self.length_of(kind, &content)?;
        self.sections.push(Section { name, kind, length, content });
        Ok(())
    }

    /// How many bytes a section of this kind has with this content.
    pub(crate) fn length_of(&self, kind: SectionKind, content: &Content<'_>) -> Result<u64, Error> {
        match content {
            Content::Bytes(bytes) => Ok(bytes.len() as u64),
            Content::Made { length, .. } => Ok(*length),
            Content::Same { section } => {
                let is_it = |earlier: &&Section<'_>| earlier.name == *section && earlier.kind == kind;
                let found = self.sections.iter().find(is_it);
                found.map(|earlier| earlier.length).ok_or_else(|| Error::Missing { section: section.clone() })
            }
        }
    }

    /// The whole file in memory.
    ///
    /// # Errors
    ///
    /// A header over its limit, or what fails to make a content.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let header_length = self.header_length(None)?;
        let mut bytes = Cursor::new(Vec::new());
        let failed = |source| Error::Io { action: "write", path: "memory".into(), source };
        self.write_all(&mut bytes, header_length).map_err(failed)?;
        Ok(bytes.into_inner())
    }

    /// Writes the file at `path`, whole or not at all; see [`replace::file_at_any_place`]. Returns its length in bytes.
    ///
    /// # Errors
    ///
    /// A header over its limit, what the file system says, or what fails to make a content.
    pub fn write(&self, path: &Path) -> Result<u64, Error> {
        let header_length = self.header_length(None)?;
        let mut length = 0;
        replace::file_at_any_place(path, |out| {
            length = self.write_all(out, header_length)?;
            Ok(())
        })?;
        Ok(length)
    }

    /// Writes into an open file that is empty, such as one without a name. Returns its length in bytes.
    ///
    /// # Errors
    ///
    /// As [`Writer::write`].
    pub fn write_to(&self, file: &mut File) -> Result<u64, Error> {
        let header_length = self.header_length(None)?;
        let failed = |source| Error::Io { action: "write", path: "a temporary file".into(), source };
        self.write_all(file, header_length).map_err(failed)
    }

    /// Writes all constants to a second file, `external`, and then all else to `path`, which names the second one. Returns
    /// the lengths of both, in this order.
    ///
    /// # Errors
    ///
    /// As [`Writer::write`]; a second file whose name cannot stand in the header.
    pub fn write_with_external(&self, path: &Path, external: &Path) -> Result<[u64; 2], Error> {
        let file = external.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if !External::name_is_allowed(&file) {
            let reason = "its name cannot stand in an artefact: it is too long, or not text".to_owned();
            return Err(Error::External { file: external.display().to_string(), reason });
        }
        let (mut layout, mut rows) = (Layout::default(), Rows::new());
        replace::file_at_any_place(external, |out| {
            rows = self.write_sections(out, &mut layout, |kind| kind == SectionKind::Constants)?;
            out.set_length(layout.end())
        })?;
        rows.values_mut().for_each(|row| row.external = true);
        let constants = External { file, length: layout.end() };
        let header_length = self.header_length(Some(&constants))?;
        let mut lengths = [0, constants.length];
        replace::file_at_any_place(path, |out| {
            let mut layout = Layout::after_header(header_length as u64);
            let others = self.write_sections(out, &mut layout, |kind| kind != SectionKind::Constants)?;
            rows.extend(others);
            self.write_header(out, (&layout, header_length), (Some(constants), rows))?;
            lengths[0] = layout.end();
            Ok(())
        })?;
        Ok(lengths)
    }

    /// The length of the header's text whatever the places of the sections are, which are known last.
    fn header_length(&self, external: Option<&External>) -> Result<usize, Error> {
        let entry = |section: &Section<'_>| SectionEntry {
            name: section.name.clone(),
            kind: section.kind,
            external: external.is_some() && section.kind == SectionKind::Constants,
            offset: u64::MAX,
            length: section.length,
            blake3: ContentHash::of(&[]),
        };
        let sections = self.sections.iter().map(entry).collect();
        let longest = self.header(external.cloned(), sections).map_err(Error::Header)?;
        // Refuses one over the limit.
        container::preamble(&longest)?;
        Ok(longest.len())
    }

    fn header(&self, external: Option<External>, sections: Vec<SectionEntry>) -> serde_json::Result<Vec<u8>> {
        let manifest = self.manifest.clone();
        let mut text = serde_json::to_vec_pretty(&Header { manifest, external, sections })?;
        text.push(b'\n');
        Ok(text)
    }

    /// Writes one file that holds everything. Returns its length.
    fn write_all(&self, out: &mut impl Output, header_length: usize) -> io::Result<u64> {
        let mut layout = Layout::after_header(header_length as u64);
        let rows = self.write_sections(out, &mut layout, |_| true)?;
        self.write_header(out, (&layout, header_length), (None, rows))?;
        Ok(layout.end())
    }

    /// Writes the sections of the kinds that belong here, each at its place.
    fn write_sections(
        &self,
        out: &mut impl Output,
        layout: &mut Layout,
        belongs_here: impl Fn(SectionKind) -> bool,
    ) -> io::Result<Rows> {
        let mut rows = Rows::new();
        let sections = self.sections.iter().enumerate();
        for (idx, section) in sections.filter(|(_, section)| belongs_here(section.kind)) {
            let row = match &section.content {
                Content::Same { section: earlier } => {
                    let same = rows.values().find(|row| row.name == *earlier).cloned();
                    let same =
                        same.ok_or_else(|| io::Error::other(format!("there is no `{earlier}` yet")))?;
                    SectionEntry { name: section.name.clone(), ..same }
                }
                Content::Bytes(bytes) => write_section(out, layout, section, |out| out.write_all(bytes))?,
                Content::Made { make, .. } => write_section(out, layout, section, make)?,
            };
            rows.insert(idx, row);
        }
        Ok(rows)
    }

    /// Writes what stands before the sections, and ends the file behind the last one.
    fn write_header(
        &self,
        out: &mut impl Output,
        (layout, length): (&Layout, usize),
        (external, rows): (Option<External>, Rows),
    ) -> io::Result<()> {
        out.set_length(layout.end())?;
        let mut text = self.header(external, rows.into_values().collect())?;
        text.pop();
        text.resize(length - 1, b' ');
        text.push(b'\n');
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&container::preamble(&text).map_err(io::Error::other)?)?;
        out.write_all(&text)
    }
}

/// Writes a content behind those before it, unless it is one of them.
fn write_section(
    out: &mut impl Output,
    layout: &mut Layout,
    section: &Section<'_>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<SectionEntry> {
    let begin = container::align(layout.end()).ok_or_else(too_long)?;
    out.seek(SeekFrom::Start(begin))?;
    let mut hashing = Hashing::new(&mut *out);
    write(&mut hashing)?;
    let (blake3, length) = hashing.finish();
    if length != section.length {
        let what = format!("section `{}` got {length} bytes, it has {}", section.name, section.length);
        return Err(io::Error::other(what));
    }
    let (offset, is_new) = layout.place(blake3, length).ok_or_else(too_long)?;
    if !is_new {
        // It is there already; what follows begins at the same place, and gaps are zeros.
        out.set_length(begin)?;
    }
    let (name, kind) = (section.name.clone(), section.kind);
    Ok(SectionEntry { name, kind, external: false, offset, length, blake3 })
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
