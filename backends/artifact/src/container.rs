//! How the bytes of an artefact lie.
//!
//! ```text
//! skipc-artefact\n                      magic
//! version 00007\n                       of this layout
//! header 00001234 <64 hex digits>\n     length in bytes and BLAKE3 hash of what follows
//! { "manifest": …, "sections": [ … ] }  JSON, indented, so that `head` shows it, and blanks: its length does not depend on
//!                                       where sections lie, which is known last
//! zeros up to a multiple of 4096
//! first section, zeros up to a multiple of 4096
//! second section, …                     the last one ends the file
//! ```
//!
//! There is one way to write a given list of sections: names in the order given, each new content at the next
//! multiple of 4096, a content that was there before at its first place. The reader accepts nothing else, so no
//! byte of a file is without meaning and every edit of one byte is refused.
//!
//! Constants may lie in a second file (`.skw`), which the header names. It has no header of its own: it begins with its first
//! section, and sections lie in it by the same rules.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::manifest::Manifest;
use crate::section::{ContentHash, SectionEntry};

/// Sections begin at multiples of this many bytes: the page size, so that a mapped file needs no copy.
pub const ALIGNMENT: u64 = 4096;

/// The first line of every artefact.
pub const MAGIC: &[u8] = b"skipc-artefact\n";

/// The format that this crate writes and reads. 4: a program has functions by name, states and typed ports.
pub const VERSION: u32 = 7;

/// Largest header in bytes. A header has about 250 bytes a section; 200 layers with all their phases and variants
/// stay below a tenth of it.
pub const HEADER_LIMIT: u64 = 16 << 20;

/// Most sections in one artefact; counted again after the header was parsed, since short names are cheap.
pub const SECTION_LIMIT: usize = 1 << 16;

/// Length of the three fixed lines before the header, in bytes.
pub(crate) const PREAMBLE_LENGTH: usize = MAGIC.len() + 14 + 81;

/// The JSON header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Provenance and promises.
    pub manifest: Manifest,
    /// The second file, if sections lie in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// All sections, in file order.
    pub sections: Vec<SectionEntry>,
}

/// A second file, which has the sections that the table says lie there. Their hashes say what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Its name without any folder; see [`External::name_is_allowed`].
    pub file: String,
    /// Its length in bytes.
    pub length: u64,
}

impl External {
    /// Whether `name` may name the second file: a file in the folder of the artefact and nowhere else.
    #[must_use]
    pub fn name_is_allowed(name: &str) -> bool {
        let is_plain = |c: char| !c.is_control() && !matches!(c, '/' | '\\');
        !matches!(name, "" | "." | "..") && name.len() <= 255 && name.chars().all(is_plain)
    }
}

/// The three fixed lines for a header with this text.
pub(crate) fn preamble(header: &[u8]) -> Result<Vec<u8>, Error> {
    let length = header.len() as u64;
    if length > HEADER_LIMIT {
        return Err(Error::Limit { what: "header length", found: length, limit: HEADER_LIMIT });
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend(format!("version {VERSION:05}\nheader {length:08} {}\n", ContentHash::of(header)).bytes());
    Ok(bytes)
}

/// Checks the fixed lines at the start of `file`; returns length and hash of the header.
pub(crate) fn read_preamble(file: &[u8]) -> Result<(u64, ContentHash), Error> {
    let seen = file.len().min(MAGIC.len());
    if file.get(..seen) != MAGIC.get(..seen) {
        return Err(Error::Magic);
    }
    let Some(fixed) = file.get(MAGIC.len()..PREAMBLE_LENGTH) else {
        return Err(Error::Truncated {
            what: "the preamble".into(),
            need: PREAMBLE_LENGTH as u64,
            have: file.len() as u64,
        });
    };
    let (version, header) = fixed.split_at(14);
    let version = between(version, b"version ", b"\n").ok_or(Error::Preamble { field: "version line" })?;
    if digits(version) != Some(u64::from(VERSION)) {
        return Err(Error::Version { found: String::from_utf8_lossy(version).into_owned(), known: VERSION });
    }
    let header = between(header, b"header ", b"\n").ok_or(Error::Preamble { field: "header line" })?;
    let (length, hash) = header.split_at(8);
    let length = digits(length).ok_or(Error::Preamble { field: "header length" })?;
    if length > HEADER_LIMIT {
        return Err(Error::Limit { what: "header length", found: length, limit: HEADER_LIMIT });
    }
    let hash = hash.strip_prefix(b" ").and_then(ContentHash::parse);
    Ok((length, hash.ok_or(Error::Preamble { field: "header hash" })?))
}

fn between<'a>(line: &'a [u8], prefix: &[u8], suffix: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(prefix)?.strip_suffix(suffix)
}

/// A number of at most eight decimal digits and nothing else.
fn digits(text: &[u8]) -> Option<u64> {
    let digit = |c: &u8| c.is_ascii_digit().then(|| u64::from(c - b'0'));
    text.iter().try_fold(0, |number, c| Some(number * 10 + digit(c)?))
}

/// The next multiple of [`ALIGNMENT`] that is not below `offset`; `None` past the end of the number range.
pub(crate) fn align(offset: u64) -> Option<u64> {
    offset.checked_next_multiple_of(ALIGNMENT)
}

/// Where each section of a file must lie: walks the table in order and knows the one allowed place of the next section. The
/// default begins where the file does.
#[derive(Default)]
pub(crate) struct Layout {
    next: u64,
    placed: std::collections::BTreeMap<(ContentHash, u64), u64>,
}

impl Layout {
    /// Starts after a header of `header_length` bytes.
    pub(crate) fn after_header(header_length: u64) -> Self {
        let next = PREAMBLE_LENGTH as u64 + header_length;
        Self { next, placed: std::collections::BTreeMap::new() }
    }

    /// The place of a section with this content, and whether it is new there; `None` if no offset is large enough.
    pub(crate) fn place(&mut self, hash: ContentHash, length: u64) -> Option<(u64, bool)> {
        if let Some(&offset) = self.placed.get(&(hash, length)) {
            return Some((offset, false));
        }
        let offset = align(self.next)?;
        self.next = offset.checked_add(length)?;
        self.placed.insert((hash, length), offset);
        Some((offset, true))
    }

    /// Where the file ends: after the last new section, or after the header if there is none.
    pub(crate) fn end(&self) -> u64 {
        self.next
    }
}
