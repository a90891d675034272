//! Reads artefacts that anyone may have made.
//!
//! [`Artifact::parse`] checks, in this order: magic, version, header length against its limit and the file, header
//! hash, header JSON, section count, and for each section name, place, length against the file, padding before it
//! and hash; at last that the file ends there. It allocates only for the header, whose length was checked.
//! What it does not check is what the bytes of a section mean; that is for whoever uses the section.

use std::collections::BTreeSet;

use crate::container::{self, Header, Layout, PREAMBLE_LENGTH, SECTION_LIMIT};
use crate::error::Error;
use crate::manifest::Manifest;
use crate::section::{ContentHash, SectionEntry, SectionKind};

/// An artefact whose every byte was checked; `B` owns or borrows the file.
#[derive(Clone, Debug)]
pub struct Artifact<B> {
    file: B,
    header: Header,
}

impl<B: AsRef<[u8]>> Artifact<B> {
    /// Checks `file` and gives access to its sections.
    ///
    /// # Errors
    ///
    /// A file that is not exactly what a [`crate::writer::Writer`] makes; the variant says what differs first.
    pub fn parse(file: B) -> Result<Self, Error> {
        let bytes = file.as_ref();
        let (length, hash) = container::read_preamble(bytes)?;
        let text = part(bytes, PREAMBLE_LENGTH as u64, length, "the header")?;
        if ContentHash::of(text) != hash {
            return Err(Error::Hash { section: "header".into() });
        }
        // serde_json stops at 128 levels by itself; the header has four.
        let header: Header = serde_json::from_slice(text).map_err(Error::Header)?;
        check_sections(bytes, length, &header.sections)?;
        Ok(Self { file, header })
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
        let entry = self
            .sections()
            .iter()
            .find(|entry| entry.name == name)
            .ok_or_else(|| Error::Missing { section: name.into() })?;
        if entry.kind != kind {
            return Err(Error::Kind { section: name.into(), expected: kind, found: entry.kind });
        }
        part(self.file.as_ref(), entry.offset, entry.length, name)
    }
}

fn check_sections(file: &[u8], header_length: u64, sections: &[SectionEntry]) -> Result<(), Error> {
    if sections.len() > SECTION_LIMIT {
        let (found, limit) = (sections.len() as u64, SECTION_LIMIT as u64);
        return Err(Error::Limit { what: "number of sections", found, limit });
    }
    let mut names = BTreeSet::new();
    let mut layout = Layout::after_header(header_length);
    for section in sections {
        let name = || section.name.clone();
        if !SectionEntry::name_is_allowed(&section.name) {
            return Err(Error::SectionName { section: name() });
        }
        if !names.insert(section.name.as_str()) {
            return Err(Error::Duplicate { section: name() });
        }
        let end = layout.end();
        let (expected, is_new) = layout.place(section.blake3, section.length).ok_or(Error::Limit {
            what: "end of a section",
            found: section.length,
            limit: file.len() as u64,
        })?;
        if section.offset != expected {
            return Err(Error::Layout { section: name(), expected, found: section.offset });
        }
        if !is_new {
            continue;
        }
        let bytes = part(file, section.offset, section.length, &section.name)?;
        check_padding(file, end, expected)?;
        if ContentHash::of(bytes) != section.blake3 {
            return Err(Error::Hash { section: name() });
        }
    }
    match (file.len() as u64).checked_sub(layout.end()) {
        Some(0) => Ok(()),
        Some(extra) => Err(Error::TrailingBytes { extra }),
        None => {
            Err(Error::Truncated { what: "the file".into(), need: layout.end(), have: file.len() as u64 })
        }
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
