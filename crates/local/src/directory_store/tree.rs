//! The files below a store's directory, always reached from the one directory that was opened.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::remembered::Remembered;

/// The directory, relative to the store's, of files that are being written.
pub(super) const TEMPORARY: &str = ".tmp";

/// Permissions of what is created, before the umask.
pub(super) const FILE_MODE: Mode = Mode::from_raw_mode(0o660);
pub(super) const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o770);

const OPEN_DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// An open directory and what is known of it.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) directory: OwnedFd,
    /// To whom what is created is given: to the owner of the store's directory, where that is not up to the system. What somebody
    /// did once as root must not keep the daemon from its own store.
    owner: Option<(Uid, Gid)>,
    /// Directories whose names are known to be durable, so that only what stands in them needs
    /// synchronising.
    durable: Mutex<HashSet<String>>,
    swept: AtomicBool,
    pub(super) remembered: Remembered,
}

impl Tree {
    pub(super) fn open(path: &Path) -> Result<Self, Errno> {
        let directory = rustix::fs::open(path, OPEN_DIRECTORY, Mode::empty())?;
        let owner = match rustix::process::geteuid().is_root() {
            true => {
                let stat = rustix::fs::fstat(&directory)?;
                Some((Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid)))
            }
            false => None,
        };
        Ok(Self {
            directory,
            owner,
            durable: Mutex::default(),
            swept: AtomicBool::new(false),
            remembered: Remembered::default(),
        })
    }

    pub(super) fn open_at(&self, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.directory, path, flags | OFlags::CLOEXEC, mode)
    }

    /// Gives what was just created to the owner of the store, where root may: not on a file system without owners, nor where its server
    /// or a container makes root somebody like others. There what is created belongs to whom they say, as it does for everybody else.
    pub(super) fn give(&self, created: &OwnedFd) -> Result<(), Errno> {
        let Some((user, group)) = self.owner else {
            return Ok(());
        };
        match rustix::fs::fchown(created, Some(user), Some(group)) {
            // The last is that of an owner whom the container has no number for.
            Err(Errno::PERM | Errno::NOSYS | Errno::NOTSUP | Errno::INVAL) => Ok(()),
            given => given,
        }
    }

    /// Makes a directory of the tree, if it is not there.
    pub(super) fn make_directory(&self, path: &str) -> Result<OwnedFd, Errno> {
        match rustix::fs::mkdirat(&self.directory, path, DIRECTORY_MODE) {
            Ok(()) => {
                let made = self.open_directory(path)?;
                self.give(&made)?;
                Ok(made)
            }
            Err(Errno::EXIST) => self.open_directory(path),
            Err(errno) => Err(errno),
        }
    }

    /// Opens a directory of the tree; the empty path is the tree's own.
    pub(super) fn open_directory(&self, path: &str) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { "." } else { path };
        self.open_at(path, OPEN_DIRECTORY, Mode::empty())
    }

    /// Opens a directory of the tree, making it if need be, and makes sure that its name is
    /// durable.
    ///
    /// That somebody else has made it does not mean that its name is on disk yet, so each
    /// directory's ancestors are synchronised when it is first used.
    pub(super) fn durable_directory(&self, path: &str) -> Result<OwnedFd, Errno> {
        if path.is_empty() || self.durable().contains(path) {
            match self.open_directory(path) {
                Err(Errno::NOENT) => {}
                opened => return opened,
            }
        }
        let mut above = self.open_directory("")?;
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let here = &path[..end];
            let directory = match self.open_directory(here) {
                Err(Errno::NOENT) => self.make_directory(here)?,
                opened => opened?,
            };
            rustix::fs::fsync(&above)?;
            above = directory;
        }
        self.durable().insert(path.to_owned());
        Ok(above)
    }

    /// Tells whether both are one directory.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let number = |tree: &Self| {
            let stat = rustix::fs::fstat(&tree.directory).ok()?;
            Some((stat.st_dev, stat.st_ino))
        };
        std::ptr::eq(self, other) || number(self).is_some_and(|here| number(other) == Some(here))
    }

    /// Returns true once: to the caller that is to sweep out abandoned temporary files.
    pub(super) fn claim_sweep(&self) -> bool {
        !self.swept.load(Ordering::Relaxed) && !self.swept.swap(true, Ordering::Relaxed)
    }

    fn durable(&self) -> MutexGuard<'_, HashSet<String>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
