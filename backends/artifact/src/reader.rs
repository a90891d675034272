//! Reads artefacts that anyone may have made.
//!
//! [`Artifact::parse`] checks, in this order: magic, version, header length against its limit and the file, header
//! hash, header JSON, section count, and for each section name, place, length against the file, padding before it
//! and hash; at last that the file ends there, and a second file where that does. It allocates only for the header, whose
//! length was checked.
//! What it does not check is what the bytes of a section mean; that is for whoever uses the section.
//!
//! [`Index`] checks the header and the places alike, but reads a section when it is asked for, and checks its hash then: for
//! those who want to know of a file of gigabytes what its texts say.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::container::{self, External, Header, Layout, PREAMBLE_LENGTH, SECTION_LIMIT};
use crate::error::Error;
use crate::manifest::Manifest;
use crate::regular;
use crate::section::{ContentHash, SectionEntry, SectionKind};

/// What has sections.
pub trait Sections {
    /// What stands before the sections.
    fn header(&self) -> &Header;

    /// The bytes of a section of the table.
    ///
    /// # Errors
    ///
    /// A section that cannot be read, or does not have its hash.
    fn bytes(&self, entry: &SectionEntry) -> Result<Cow<'_, [u8]>, Error>;

    /// The row of the section called `name`, which has to hold `kind`.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] or [`Error::Kind`].
    fn entry(&self, name: &str, kind: SectionKind) -> Result<&SectionEntry, Error> {
        let entry = self.header().sections.iter().find(|entry| entry.name == name);
        let entry = entry.ok_or_else(|| Error::Missing { section: name.into() })?;
        if entry.kind != kind {
            return Err(Error::Kind { section: name.into(), expected: kind, found: entry.kind });
        }
        Ok(entry)
    }

    /// The bytes of the section called `name`, which has to hold `kind`.
    ///
    /// # Errors
    ///
    /// As [`Sections::entry`] and [`Sections::bytes`].
    fn read(&self, name: &str, kind: SectionKind) -> Result<Cow<'_, [u8]>, Error> {
        self.bytes(self.entry(name, kind)?)
    }
}

/// An artefact whose every byte was checked; `B` owns or borrows a file.
#[derive(Clone, Debug)]
pub struct Artifact<B> {
    file: B,
    external: Option<B>,
    header: Header,
}

impl<B: AsRef<[u8]>> Artifact<B> {
    /// Checks `file` and gives access to its sections.
    ///
    /// # Errors
    ///
    /// A file that is not exactly what a [`crate::writer::Writer`] makes; the variant says what differs first.
    /// [`Error::External`] if it needs a second one.
    pub fn parse(file: B) -> Result<Self, Error> {
        Self::parse_with(file, |External { file, .. }| {
            Err(Error::External { file: file.clone(), reason: "it is not at hand".into() })
        })
    }

    /// Checks `file`, and the second one that `open` gives if its header names one.
    ///
    /// # Errors
    ///
    /// As [`Artifact::parse`], and what `open` says.
    pub fn parse_with<E: From<Error>>(
        file: B,
        open: impl FnOnce(&External) -> Result<B, E>,
    ) -> Result<Self, E> {
        let bytes = file.as_ref();
        let (length, hash) = container::read_preamble(bytes)?;
        let text = part(bytes, PREAMBLE_LENGTH as u64, length, "the header")?;
        let header = read_header(text, hash)?;
        let external = header.external.as_ref().map(open).transpose()?;
        let outside = external.as_ref().map(AsRef::as_ref).unwrap_or_default();
        let lengths = [bytes, outside].map(|bytes| bytes.len() as u64);
        check_sections(&header, length, lengths, |entry, padding| {
            let file = if entry.external { outside } else { bytes };
            check_padding(file, padding, entry.offset)?;
            let content = part(file, entry.offset, entry.length, &entry.name)?;
            check_hash(&header, entry, content)
        })?;
        Ok(Self { file, external, header })
    }

    /// The fixed lines at the beginning, whose hash covers all the rest; what [`crate::signature`] signs.
    #[must_use]
    pub fn preamble(&self) -> &[u8] {
        let file = self.file.as_ref();
        file.get(..PREAMBLE_LENGTH).unwrap_or(file)
    }

    /// Where the artefact comes from.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.header.manifest
    }

    /// The table of sections, in file order.
    #[must_use]
    pub fn sections(&self) -> &[SectionEntry] {
        &self.header.sections
    }

    /// Whether there is a section called `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.sections().iter().any(|entry| entry.name == name)
    }

    /// The bytes of the section called `name`, which has to hold `kind`.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] or [`Error::Kind`].
    pub fn section(&self, name: &str, kind: SectionKind) -> Result<&[u8], Error> {
        self.slice(self.entry(name, kind)?)
    }

    fn slice(&self, entry: &SectionEntry) -> Result<&[u8], Error> {
        let file = if entry.external { self.external.as_ref() } else { Some(&self.file) };
        part(file.map(AsRef::as_ref).unwrap_or_default(), entry.offset, entry.length, &entry.name)
    }
}

impl<B: AsRef<[u8]>> Sections for Artifact<B> {
    fn header(&self) -> &Header {
        &self.header
    }

    fn bytes(&self, entry: &SectionEntry) -> Result<Cow<'_, [u8]>, Error> {
        self.slice(entry).map(Cow::Borrowed)
    }
}

/// An artefact whose sections are read when they are asked for. Those in a second file cannot be.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    file: File,
    header: Header,
}

impl Index {
    /// Reads the header of the artefact at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read; else as [`Artifact::parse`], but that what sections hold, and what lies
    /// between them, is not checked.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Io { action: "read", path: path.into(), source };
        let (mut file, file_length) = regular::open(path).map_err(failed)?;
        let mut preamble = Vec::new();
        io::Read::by_ref(&mut file)
            .take(PREAMBLE_LENGTH as u64)
            .read_to_end(&mut preamble)
            .map_err(failed)?;
        let (length, hash) = container::read_preamble(&preamble)?;
        let mut text = Vec::new();
        io::Read::by_ref(&mut file).take(length).read_to_end(&mut text).map_err(failed)?;
        let header = read_header(part(&text, 0, length, "the header")?, hash)?;
        let outside = header.external.as_ref().map_or(0, |external| external.length);
        check_sections(&header, length, [file_length, outside], |_, _| Ok(()))?;
        Ok(Self { path: path.into(), file, header })
    }
}

impl Sections for Index {
    fn header(&self) -> &Header {
        &self.header
    }

    fn bytes(&self, entry: &SectionEntry) -> Result<Cow<'_, [u8]>, Error> {
        if let Some(External { file, .. }) = self.header.external.as_ref().filter(|_| entry.external) {
            return Err(Error::External { file: file.clone(), reason: "it is not at hand".into() });
        }
        let read = || {
            let (mut file, mut bytes) = (&self.file, Vec::new());
            file.seek(SeekFrom::Start(entry.offset))?;
            file.take(entry.length).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|source| Error::Io { action: "read", path: self.path.clone(), source })?;
        check_hash(&self.header, entry, &bytes)?;
        Ok(Cow::Owned(bytes))
    }
}

fn read_header(text: &[u8], hash: ContentHash) -> Result<Header, Error> {
    if ContentHash::of(text) != hash {
        return Err(Error::Hash { section: "header".into() });
    }
    // serde_json stops at 128 levels by itself; the header has four.
    serde_json::from_slice(text).map_err(Error::Header)
}

/// Checks the table against the lengths of the file and the second one. `check_content` looks at each content that is new,
/// and gets the end of what stands before it.
fn check_sections(
    header: &Header,
    header_length: u64,
    file_lengths: [u64; 2],
    mut check_content: impl FnMut(&SectionEntry, u64) -> Result<(), Error>,
) -> Result<(), Error> {
    let sections = &header.sections;
    if sections.len() > SECTION_LIMIT {
        let (found, limit) = (sections.len() as u64, SECTION_LIMIT as u64);
        return Err(Error::Limit { what: "number of sections", found, limit });
    }
    check_external(header, file_lengths[1])?;
    let mut names = BTreeSet::new();
    let mut layouts = [Layout::after_header(header_length), Layout::default()];
    for section in sections {
        let name = || section.name.clone();
        if !SectionEntry::name_is_allowed(&section.name) {
            return Err(Error::SectionName { section: name() });
        }
        if !names.insert(section.name.as_str()) {
            return Err(Error::Duplicate { section: name() });
        }
        let file = usize::from(section.external);
        let (layout, file_length) = (&mut layouts[file], file_lengths[file]);
        let end = layout.end();
        let (expected, is_new) = layout.place(section.blake3, section.length).ok_or(Error::Limit {
            what: "end of a section",
            found: section.length,
            limit: file_length,
        })?;
        if section.offset != expected {
            return Err(Error::Layout { section: name(), expected, found: section.offset });
        }
        if layout.end() > file_length {
            let what = format!("`{}`", section.name);
            return Err(Error::Truncated { what, need: layout.end(), have: file_length });
        }
        if is_new {
            check_content(section, end)?;
        }
    }
    let [file, outside] = layouts.map(|layout| layout.end());
    if outside != file_lengths[1] {
        return Err(external(header, format!("it has {} bytes, its sections {outside}", file_lengths[1])));
    }
    match file_lengths[0].checked_sub(file) {
        Some(0) => Ok(()),
        Some(extra) => Err(Error::TrailingBytes { extra }),
        None => Err(Error::Truncated { what: "the file".into(), need: file, have: file_lengths[0] }),
    }
}

/// Checks what the header says of the second file against the length that it has.
fn check_external(header: &Header, length: u64) -> Result<(), Error> {
    match &header.external {
        Some(External { file, .. }) if !External::name_is_allowed(file) => {
            Err(external(header, "this is not the name of a file beside it".to_owned()))
        }
        Some(named) if named.length != length => {
            Err(external(header, format!("it has {length} bytes, it was written with {}", named.length)))
        }
        None if header.sections.iter().any(|section| section.external) => {
            Err(external(header, "the header does not name it".to_owned()))
        }
        _ => Ok(()),
    }
}

fn external(header: &Header, reason: String) -> Error {
    let file = header.external.as_ref().map_or_else(|| "a second file".to_owned(), |it| it.file.clone());
    Error::External { file, reason }
}

fn check_hash(header: &Header, entry: &SectionEntry, content: &[u8]) -> Result<(), Error> {
    match ContentHash::of(content) == entry.blake3 {
        true => Ok(()),
        false if entry.external => {
            let reason = format!("its content does not match the hash of `{}`", entry.name);
            Err(external(header, reason))
        }
        false => Err(Error::Hash { section: entry.name.clone() }),
    }
}

fn check_padding(file: &[u8], from: u64, to: u64) -> Result<(), Error> {
    let padding = part(file, from, to.saturating_sub(from), "padding")?;
    match padding.iter().position(|&byte| byte != 0) {
        Some(idx) => Err(Error::Padding { at: from + idx as u64 }),
        None => Ok(()),
    }
}

fn part<'a>(file: &'a [u8], offset: u64, length: u64, what: &str) -> Result<&'a [u8], Error> {
    let end = offset.saturating_add(length);
    let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
    range.and_then(|(start, end)| file.get(start..end)).ok_or_else(|| Error::Truncated {
        what: format!("`{what}`"),
        need: end,
        have: file.len() as u64,
    })
}
