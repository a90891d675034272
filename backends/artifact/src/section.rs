//! The table of sections: what a section is called, holds, and hashes to.

use std::fmt;
use std::io::{self, Write};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hex;

/// The 256-bit BLAKE3 hash of a byte string; written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Reads 64 lower-case hexadecimal digits; `None` for anything else, so that each hash has one spelling.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        hex::decode(text).map(Self)
    }
}

/// Passes bytes on and takes their hash.
pub(crate) struct Hashing<W> {
    to: W,
    hasher: blake3::Hasher,
    length: u64,
}

impl<W: Write> Hashing<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, hasher: blake3::Hasher::new(), length: 0 }
    }

    /// Hash and number of the bytes so far.
    pub(crate) fn finish(self) -> (ContentHash, u64) {
        (ContentHash(*self.hasher.finalize().as_bytes()), self.length)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        let done = bytes.get(..written).unwrap_or(bytes);
        self.hasher.update(done);
        self.length += done.len() as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ContentHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(text.as_bytes())
            .ok_or_else(|| serde::de::Error::custom("a hash is 64 lower-case hexadecimal digits"))
    }
}

/// What stands in front of the names of sections that are files of a tokenizer.
pub const LANGUAGE: &str = "language/";

/// Most bytes of such a file. The largest tokenizers have 40 MiB.
pub const LANGUAGE_BYTES: u64 = 1 << 28;

/// What the bytes of a section are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SectionKind {
    /// The resolved model spec, as text.
    Spec,
    /// The graph after one phase, in its text form.
    Ir,
    /// A file that stands between the model and people, such as a tokenizer.json.
    Language,
    /// The plan as text, human-readable.
    Plan,
    /// What the runtime executes for one target, as JSON.
    Program,
    /// Numbers that kernels read, laid out as they want them.
    Constants,
    /// A position-independent image of host code.
    HostCode,
    /// The entry table of a host code image, as JSON.
    HostTable,
    /// PTX text.
    Ptx,
    /// A CUDA binary for one major architecture.
    Cubin,
    /// Why each rewrite was taken, as JSON.
    Rewrites,
    /// What a run costs as a function of density, as JSON.
    Cost,
    /// An input with the outputs it must give.
    KnownAnswer,
}

/// One row of the table of sections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SectionEntry {
    /// Unique name, such as `cpu/x86-64-v3.code`; see [`SectionEntry::name_is_allowed`].
    pub name: String,
    /// What the bytes are.
    pub kind: SectionKind,
    /// Whether they lie in the second file, see [`crate::container::External`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub external: bool,
    /// Where they begin, in bytes from the start of their file; a multiple of [`crate::container::ALIGNMENT`].
    pub offset: u64,
    /// How many bytes there are, without padding.
    pub length: u64,
    /// Their hash. Sections with equal contents share one place in the file.
    pub blake3: ContentHash,
}

impl SectionEntry {
    /// Whether `name` may name a section: 1 to 200 of `a-z A-Z 0-9 . _ - /`, so that a name is also a file name
    /// under a dump folder. No part between two `/` is empty or `..`.
    #[must_use]
    pub fn name_is_allowed(name: &str) -> bool {
        let letter = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'/');
        name.len() <= 200
            && name.bytes().all(letter)
            && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
    }
}
