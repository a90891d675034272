//! Files that anyone may have made, read into memory.

use std::io::{ErrorKind, Read as _};
use std::path::Path;

use skipc_artifact::regular;

use crate::error::Error;

/// The bytes of a regular file of at most `limit` bytes.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::TooLarge`].
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    regular::read(path, limit).map_err(|source| match source.kind() {
        ErrorKind::FileTooLarge => Error::TooLarge { path: path.into(), size: limit + 1, limit },
        _ => Error::Io { action: "read", path: path.into(), source },
    })
}

/// Whether a regular file begins with these bytes.
///
/// # Errors
///
/// [`Error::Io`].
pub(crate) fn begins_with(path: &Path, bytes: &[u8]) -> Result<bool, Error> {
    let begin = || {
        let mut begin = Vec::new();
        regular::open(path)?.0.take(bytes.len() as u64).read_to_end(&mut begin)?;
        Ok(begin)
    };
    let begin = begin().map_err(|source| Error::Io { action: "read", path: path.into(), source })?;
    Ok(begin == bytes)
}
