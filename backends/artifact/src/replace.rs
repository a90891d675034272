//! Writes a file whole or not at all.

use std::fs::{File, Metadata, TryLockError};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::Error;

/// Links that are followed to a file that does not exist yet; the system's own limit.
const MOST_LINKS: usize = 40;

/// Writes a file through a temporary one in the same folder, which is synced, renamed to `path`, and its folder
/// synced: after a crash or a power loss there is the old file or the new one, never a part of it. A link stays, and what
/// it leads to is replaced; a file that was there before keeps its mode and its owner. What is no file, such as
/// `/dev/null` or a pipe, is written to and stays what it is, and so is the standard output of this process under
/// whatever name.
///
/// # Errors
///
/// What the file system or `write` says. The temporary file is then gone and `path` is as it was. If the process is killed
/// meanwhile, the temporary file stays until the next one that writes into this folder.
pub fn file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let buffered = |file: &mut File| {
        let mut buffered = BufWriter::with_capacity(1 << 20, file);
        write(&mut buffered).and_then(|()| buffered.flush())
    };
    match stream(path).map_err(failed(path, "write"))? {
        Some(mut stream) => buffered(&mut stream).map_err(failed(path, "write")),
        None => regular_file(path, buffered),
    }
}

/// As [`file()`], for bytes that are at hand.
///
/// # Errors
///
/// As [`file()`].
pub fn bytes(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    file(path, |file| file.write_all(bytes))
}

/// As [`file()`], for what is not written from its beginning to its end. Where `path` is a stream, it is put together in a
/// temporary file.
///
/// # Errors
///
/// As [`file()`].
pub fn file_at_any_place(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    let Some(mut stream) = stream(path).map_err(failed(path, "write"))? else {
        return regular_file(path, write);
    };
    let put_together = || {
        let mut temporary = tempfile::tempfile()?;
        write(&mut temporary)?;
        temporary.seek(SeekFrom::Start(0))?;
        io::copy(&mut temporary, &mut stream)?;
        stream.flush()
    };
    put_together().map_err(failed(path, "write"))
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { action, path, source }
}

fn regular_file(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    let target = target(path).map_err(failed(path, "write"))?;
    let folder = folder(&target);
    if !folder.is_dir() {
        let missing = format!("there is no folder {}", folder.display());
        return Err(failed(path, "write")(io::Error::new(io::ErrorKind::NotFound, missing)));
    }
    let mut temporary = temporary_in(folder, NEW_FILE).map_err(failed(path, "write"))?;
    write(temporary.as_file_mut()).map_err(failed(path, "write"))?;
    if let Ok(before) = std::fs::metadata(&target) {
        keep(&before, temporary.as_file()).map_err(failed(path, "keep the owner and mode of"))?;
    }
    temporary.as_file().sync_all().map_err(failed(path, "sync"))?;
    temporary.persist(&target).map_err(|refused| failed(path, "rename to")(refused.error))?;
    sync_folder(folder).map_err(failed(path, "sync the folder of"))
}

/// Writes a file that is not there yet, with these permissions (where the system has such), whole or not at all; see
/// [`file()`].
///
/// # Errors
///
/// As [`file()`], and for a file or a link that is there.
pub fn new_file(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Error> {
    let folder = folder(path);
    let mut temporary = temporary_in(folder, mode).map_err(failed(path, "write"))?;
    temporary.as_file_mut().write_all(bytes).map_err(failed(path, "write"))?;
    temporary.as_file().sync_all().map_err(failed(path, "sync"))?;
    temporary.persist_noclobber(path).map_err(|refused| failed(path, "make")(refused.error))?;
    sync_folder(folder).map_err(failed(path, "sync the folder of"))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The permissions of any new file, less the process's umask.
const NEW_FILE: u32 = 0o666;

/// How the names of temporary files begin.
const PREFIX: &str = ".skipc-";

/// A temporary file that is locked as long as it is open, which says that somebody writes it. Those that nobody writes any more
/// are removed before.
fn temporary_in(folder: &Path, mode: u32) -> io::Result<NamedTempFile> {
    remove_abandoned(folder);
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    loop {
        // Opened here, because errors of the crate's own opening have the temporary name in them, which tells a user nothing.
        let temporary = builder.make_in(folder, |path| options.open(path))?;
        // Another process may have taken it for abandoned before it was locked, and holds the lock or has removed it.
        match temporary.as_file().try_lock() {
            Err(TryLockError::WouldBlock) => {}
            // A file system without locks: nobody can lock it, and so nobody removes it.
            Err(TryLockError::Error(_)) => return Ok(temporary),
            Ok(()) if temporary.path().exists() => return Ok(temporary),
            Ok(()) => {}
        }
    }
}

/// Removes temporary files whose process was killed: what nobody has locked is no longer written. Those that cannot be looked
/// at stay.
fn remove_abandoned(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let path = entry.path();
            // The lock is held until the file is gone.
            if let Ok(file) = File::open(&path)
                && file.try_lock().is_ok()
            {
                let _ = std::fs::remove_file(&path);
            }
        }
    }
}

/// The folder of a file.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What a path leads to through links, whether it exists or not.
fn target(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match std::fs::read_link(&target) {
            // A relative link starts from its own folder; an absolute one replaces it.
            Ok(next) => target = folder(&target).join(next),
            Err(_) => return Ok(target),
        }
    }
    Err(io::Error::other("too many links"))
}

/// What a path that is no regular file is written through, or one that is this process's standard output.
fn stream(path: &Path) -> io::Result<Option<File>> {
    match std::fs::metadata(path) {
        Ok(_) if is_stdout(path) => stdout().map(Some),
        Ok(found) if !found.is_file() && !found.is_dir() => {
            std::fs::OpenOptions::new().write(true).open(path).map(Some)
        }
        _ => Ok(None),
    }
}

/// Gives a new file the mode and the owner of the one that it replaces.
#[cfg(unix)]
fn keep(before: &Metadata, new: &File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let now = new.metadata()?;
    if (now.uid(), now.gid()) != (before.uid(), before.gid()) {
        fchown(new, Some(before.uid()), Some(before.gid()))?;
    }
    new.set_permissions(before.permissions())
}

#[cfg(not(unix))]
fn keep(before: &Metadata, new: &File) -> io::Result<()> {
    new.set_permissions(before.permissions())
}

/// Whether a path leads to what this process's standard output goes to, if that is a file or a pipe. Nothing else may be
/// printed there while a file is written to it.
#[must_use]
pub fn is_stdout(path: &Path) -> bool {
    let found = stdout().and_then(|stdout| stdout.metadata());
    found.is_ok_and(|found| {
        !is_device(&found) && std::fs::metadata(path).is_ok_and(|path| same(&found, &path))
    })
}

/// A handle of its own of standard output.
#[cfg(unix)]
fn stdout() -> io::Result<File> {
    use std::os::fd::AsFd;
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}

#[cfg(not(unix))]
fn stdout() -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(unix)]
fn is_device(found: &Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    found.file_type().is_char_device() || found.file_type().is_block_device()
}

#[cfg(not(unix))]
fn is_device(_: &Metadata) -> bool {
    false
}

#[cfg(unix)]
fn same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn same(_: &Metadata, _: &Metadata) -> bool {
    false
}

/// What tells files apart, whatever they are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Device and inode of a file that is there.
    Inode(u64, u64),
    /// The folder and the name of one that is not, or of any where the system has no inodes.
    Name(PathBuf),
}

/// The identity of a regular file, or of one that would be made; nothing for what writing does not change, such as
/// `/dev/null`, and for paths that lead nowhere.
#[must_use]
pub fn identity(path: &Path) -> Option<Identity> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => {
            inode(&found).or_else(|| path.canonicalize().ok().map(Identity::Name))
        }
        Ok(_) => None,
        Err(_) => {
            let target = target(path).ok()?;
            Some(Identity::Name(folder(&target).canonicalize().ok()?.join(target.file_name()?)))
        }
    }
}

#[cfg(unix)]
fn inode(found: &Metadata) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    Some(Identity::Inode(found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> Option<Identity> {
    None
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
    fn links_modes_and_owners_stay() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("in")).unwrap();
        std::fs::write(path("in/real"), b"before").unwrap();
        std::fs::set_permissions(path("in/real"), std::fs::Permissions::from_mode(0o600)).unwrap();
        // Only root may give files away; others keep what they have.
        let _ = std::os::unix::fs::chown(path("in/real"), Some(1234), Some(2345));
        let owner =
            |name: &str| std::fs::metadata(path(name)).map(|found| (found.uid(), found.gid())).unwrap();
        let before = owner("in/real");
        symlink("in/real", path("link")).unwrap();
        symlink(path("link"), path("far")).unwrap();
        symlink("in/new", path("to-new")).unwrap();
        for (link, real) in [("link", "in/real"), ("far", "in/real"), ("to-new", "in/new")] {
            super::file(&path(link), |to| to.write_all(link.as_bytes())).unwrap();
            assert!(path(link).is_symlink(), "{link}");
            assert_eq!(std::fs::read(path(real)).unwrap(), link.as_bytes());
        }
        assert_eq!(std::fs::metadata(path("in/real")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(owner("in/real"), before);
        symlink("round", path("round")).unwrap();
        assert!(super::file(&path("round"), |_| Ok(())).is_err());
    }

    #[test]
    fn files_have_one_identity_under_all_names() {
        use super::identity;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a"), b"").unwrap();
        std::fs::hard_link(path("a"), path("b")).unwrap();
        std::os::unix::fs::symlink("a", path("c")).unwrap();
        std::os::unix::fs::symlink("new", path("to-new")).unwrap();
        let a = identity(&path("a"));
        assert!(a.is_some() && a == identity(&path("b")) && a == identity(&path("c")));
        assert_eq!(identity(&path("./new")), identity(&path("to-new")));
        assert_ne!(identity(&path("new")), identity(&path("other")));
        assert_eq!(identity("/dev/null".as_ref()), None);
        assert_eq!(identity(&path("none/x")), None);
    }

    #[test]
    fn what_a_killed_process_left_goes_with_the_next_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in [".skipc-dead", ".skipc-alive", ".other"] {
            std::fs::write(path(name), "part").unwrap();
        }
        let alive = std::fs::File::open(path(".skipc-alive")).unwrap();
        alive.lock().unwrap();
        super::file(&path("out"), |out| {
            // While this one is written, somebody else writes.
            super::file(&path("other"), |other| other.write_all(b"second"))
                .map_err(|error| std::io::Error::other(error.to_string()))?;
            out.write_all(b"first")
        })
        .unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".other", ".skipc-alive", "other", "out"]);
    }

    #[test]
    fn a_new_file_replaces_none() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        super::new_file(&path("key"), 0o600, b"first").unwrap();
        assert_eq!(std::fs::metadata(path("key")).unwrap().permissions().mode() & 0o777, 0o600);
        std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
        for taken in ["key", "link"] {
            let error = super::new_file(&path(taken), 0o600, b"second").unwrap_err().to_string();
            assert!(error.contains("exists") && error.contains(taken), "{error}");
        }
        assert_eq!(std::fs::read(path("key")).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        let missing = super::new_file(&path("no/key"), 0o600, b"").unwrap_err().to_string();
        assert!(missing.contains("no/key") && !missing.contains(super::PREFIX), "{missing}");
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
