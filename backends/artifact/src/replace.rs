//! Writes a file whole or not at all.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::error::Error;

/// Writes a file through a temporary one in the same folder, which is synced, renamed to `path`, and its folder
/// synced: after a crash or a power loss there is the old file or the new one, never a part of it. What is no file, such as
/// `/dev/null` or a pipe, is written to and stays what it is.
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
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let device = std::fs::OpenOptions::new().write(true).open(path).map_err(failed("write"))?;
        let mut buffered = BufWriter::new(device);
        return write(&mut buffered).and_then(|()| buffered.flush()).map_err(failed("write"));
    }
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

#[cfg(all(test, unix))]
mod tests {
    use std::io::Read;

    #[test]
    fn what_is_no_file_stays_what_it_is() {
        let null = std::path::Path::new("/dev/null");
        super::file(null, |to| to.write_all(b"gone")).unwrap();
        let mut read = Vec::new();
        std::fs::File::open(null).unwrap().read_to_end(&mut read).unwrap();
        assert!(read.is_empty() && !std::fs::metadata(null).unwrap().is_file());
    }

    #[test]
    fn files_are_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        super::file(&path, |to| to.write_all(b"first")).unwrap();
        let refused = |to: &mut dyn std::io::Write| {
            to.write_all(b"half")?;
            Err(std::io::Error::other("no more"))
        };
        assert!(super::file(&path, refused).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
