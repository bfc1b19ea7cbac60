//! Files that are being written, before they get their name.

use std::fs::File;
use std::io::Write;

use rustix::fs::{AtFlags, Dir, OFlags, Stat};
use rustix::io::Errno;

use super::tree::{FILE_MODE, TEMPORARY, Tree};

/// Age in seconds after which a temporary file is taken for abandoned. No write takes that long:
/// callers set limits.
const ABANDONED_AFTER_SECONDS: i64 = 24 * 60 * 60;

/// A file in `.tmp` whose content is on disk; its temporary name goes away with the value.
#[derive(Debug)]
pub(super) struct Temporary<'a> {
    tree: &'a Tree,
    pub(super) path: String,
    pub(super) stat: Stat,
}

impl<'a> Temporary<'a> {
    /// Writes and synchronises a new file. The first file of each opened store also sweeps out
    /// abandoned ones.
    pub(super) fn write(tree: &'a Tree, content: &[u8]) -> Result<Self, Errno> {
        let (path, file) = Self::open(tree)?;
        let mut temporary = Self {
            tree,
            path,
            stat: rustix::fs::fstat(&file)?,
        };
        tree.give(&file)?;
        let mut file = File::from(file);
        file.write_all(content)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        rustix::fs::fdatasync(&file)?;
        if tree.claim_sweep() {
            temporary.stat = rustix::fs::fstat(&file)?;
            sweep(tree, temporary.stat.st_mtime);
        }
        Ok(temporary)
    }

    fn open(tree: &Tree) -> Result<(String, rustix::fd::OwnedFd), Errno> {
        loop {
            let path = format!("{TEMPORARY}/{:016x}", rand::random::<u64>());
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            match tree.open_at(&path, flags, FILE_MODE) {
                Err(Errno::EXIST) => {}
                opened => return Ok((path, opened?)),
            }
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is swept out a day later.
        unlink(self.tree, &self.path);
    }
}

/// Makes the directory for temporary files, which marks an initialised store: nothing can be
/// created without it.
pub(super) fn make_directory(tree: &Tree) -> Result<(), Errno> {
    tree.make_directory(TEMPORARY)?;
    rustix::fs::fsync(&tree.directory)
}

/// Removes files that nobody is writing any more.
///
/// Their age is told by the file system's own clock, `now` being the time it gave to a file just
/// written: this machine's clock may differ from that of a file server. Best effort, because
/// whoever comes next tries again.
fn sweep(tree: &Tree, now: i64) {
    let Ok(entries) = tree.open_directory(TEMPORARY).and_then(Dir::new) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        let path = format!("{TEMPORARY}/{name}");
        let stat = rustix::fs::statat(&tree.directory, &path, AtFlags::SYMLINK_NOFOLLOW);
        if name != "." && name != ".." && stat.is_ok_and(|stat| is_abandoned(&stat, now)) {
            unlink(tree, &path);
        }
    }
}

fn is_abandoned(stat: &Stat, now: i64) -> bool {
    now.saturating_sub(stat.st_mtime) > ABANDONED_AFTER_SECONDS
}

fn unlink(tree: &Tree, path: &str) {
    rustix::fs::unlinkat(&tree.directory, path, AtFlags::empty()).ok();
}
