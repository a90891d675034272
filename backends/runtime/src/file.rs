//! Files that anyone may have made, read into memory.

use std::io::ErrorKind;
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
