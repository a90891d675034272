//! Every command on a disk that has no room left: a file system in memory of so many pages, where that may be mounted.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use super::commands::WRITERS;
use super::each_call::{command, complaints};
use super::ledger::{self, everything};
use super::outputs::{Outputs, Tree, earlier, wrong};
use super::shim::{Fault, How};

/// Bytes of a page.
const PAGE: usize = 4096;

/// A mounted file system, for as long as this lives.
struct Disk(TempDir);

impl Disk {
    /// One of so many pages, or the reason why there is none.
    fn new(pages: usize) -> Result<Disk, String> {
        let folder = TempDir::new().unwrap();
        // No size at all would be half of the memory.
        let options = format!("size={}", pages.max(1) * PAGE);
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        let mounted = mount.map_err(|error| error.to_string())?;
        match mounted.status.success() {
            true => Ok(Disk(folder)),
            false => Err(String::from_utf8_lossy(&mounted.stderr).trim().to_owned()),
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// Pages that files take.
fn pages(files: &Tree) -> usize {
    files.values().map(|bytes| bytes.len().div_ceil(PAGE)).sum()
}

#[test]
fn a_disk_may_be_full() {
    if let Err(reason) = Disk::new(1) {
        println!("skipped: no file system can be mounted here: {reason}");
        return;
    }
    let mut all_found = Vec::new();
    for writer in WRITERS.iter().filter(|writer| everything() || !writer.is_slow) {
        let (began, mut points, mut refused, mut found) = (Instant::now(), 0, 0, Vec::new());
        let whole = {
            let outputs = Outputs::with(&Tree::new());
            command(writer, &outputs, Fault::None);
            outputs.tree()
        };
        let before = if writer.replaces { earlier(&whole) } else { Tree::new() };
        let needed = pages(&whole);
        let all: Vec<usize> = match everything() {
            true => (0..=needed).step_by(needed.div_ceil(64).max(1)).collect(),
            false => vec![0, needed / 2],
        };
        for room in all {
            let disk = Disk::new(pages(&before) + room).unwrap();
            let outputs = Outputs::on(disk.path(), &before);
            let ended = command(writer, &outputs, Fault::None);
            points += 1;
            let mut complaint = wrong(&before, &whole, &outputs.tree(), false);
            if ended.status.code() != Some(writer.exit) {
                refused += 1;
                complaint.extend(complaints(writer, How::NoSpace, &ended, outputs.path()));
            }
            let place = format!("{}, {room} pages left", writer.name);
            found.extend(complaint.into_iter().map(|found| format!("{place}: {found}")));
        }
        if refused == 0 && writer.exit == 0 {
            found.push(format!("{}: there was always room", writer.name));
        }
        if found.is_empty() {
            ledger::add(&format!("full disk: {}", writer.name), points, began);
        }
        all_found.extend(found);
    }
    assert!(all_found.is_empty(), "{} wrong:\n{}", all_found.len(), all_found.join("\n"));
}
