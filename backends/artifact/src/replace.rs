//! Writes a file whole or not at all.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::error::Error;

/// Writes a file through a temporary one in the same folder, which is synced, renamed to `path`, and its folder
/// synced: after a crash or a power loss there is the old file or the new one, never a part of it.
///
/// # Errors
///
/// What the file system or `write` says. The temporary file is then gone and `path` is as it was.
pub fn file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let failed = |action| move |source| Error::Io { action, path: path.to_path_buf(), source };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".skipc-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What any new file gets; the process's umask still applies. The default of a temporary file is private.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut temporary = builder.tempfile_in(folder).map_err(failed("write"))?;
    let mut buffered = BufWriter::with_capacity(1 << 20, temporary.as_file_mut());
    write(&mut buffered).and_then(|()| buffered.flush()).map_err(failed("write"))?;
    drop(buffered);
    temporary.as_file().sync_all().map_err(failed("sync"))?;
    temporary.persist(path).map_err(|refused| failed("rename to")(refused.error))?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder of"))
}
