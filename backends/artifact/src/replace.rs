//! Writes a file whole or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
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
    let buffered = |file: &mut File| {
        let mut buffered = BufWriter::with_capacity(1 << 20, file);
        write(&mut buffered).and_then(|()| buffered.flush())
    };
    match device(path) {
        true => open_device(path).and_then(|mut device| buffered(&mut device)).map_err(failed(path, "write")),
        false => regular_file(path, buffered),
    }
}

/// As [`file()`], for what is not written from its beginning to its end. Where `path` is no file, it is put together in a
/// temporary one.
///
/// # Errors
///
/// As [`file()`].
pub fn file_at_any_place(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    if !device(path) {
        return regular_file(path, write);
    }
    let put_together = || {
        let mut device = open_device(path)?;
        let mut temporary = tempfile::tempfile()?;
        write(&mut temporary)?;
        temporary.seek(SeekFrom::Start(0))?;
        io::copy(&mut temporary, &mut device)?;
        device.flush()
    };
    put_together().map_err(failed(path, "write"))
}

/// Whether there is something at `path` that is no regular file.
fn device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

fn open_device(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new().write(true).open(path)
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { action, path, source }
}

fn regular_file(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".skipc-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What any new file gets; the process's umask still applies. The default of a temporary file is private.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut temporary = builder.tempfile_in(folder).map_err(failed(path, "write"))?;
    write(temporary.as_file_mut()).map_err(failed(path, "write"))?;
    temporary.as_file().sync_all().map_err(failed(path, "sync"))?;
    temporary.persist(path).map_err(|refused| failed(path, "rename to")(refused.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(path, "sync the folder of"))
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
