//! Files that anyone may have made, read into memory.

use std::io::Read as _;
use std::path::Path;

use skipc_artifact::regular;

use crate::error::Error;

/// The bytes of a regular file of at most `limit` bytes.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::TooLarge`].
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Io { action: "read", path: path.into(), source };
    let (file, _) = regular::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let size = file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)? as u64;
    if size > limit {
        return Err(Error::TooLarge { path: path.into(), size, limit });
    }
    Ok(bytes)
}
