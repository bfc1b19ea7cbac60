//! The directory that a recovery point is booted in.
//!
//! It is told from a directory that somebody needs by a file that says so: what holds anything else is refused, since what is
//! found here is removed. What an earlier run left is removed first; a lock says that no other run uses it, and a process is
//! stopped only if it works in that very directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dr_provider::{Error, ErrorKind, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::restore::free_bytes;

/// The file that makes a directory a scratch directory, and is locked while it is in use.
const MARKER: &str = "dr-scratch";
const MARK: &str = "dr removes everything in this directory\n";

/// The longest path of a socket's directory (`sun_path` less its name).
const LONGEST_SOCKET_DIRECTORY: usize = 90;

/// How often, and how many times, a server is looked at that was told to stop.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSES: u32 = 600;
/// The same where it writes what it has in memory first.
const PAUSES_TO_WRITE: u32 = 12_000;

const OPERATION: &str = "use scratch directory";

/// A scratch directory with nothing in it but what this run makes; emptied when it is dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    /// Held as long as the directory is in use.
    _lock: File,
    /// Whether what is in it stays when it is dropped.
    kept: AtomicBool,
}

impl Scratch {
    /// Takes the directory; blocks while a server of an earlier run stops.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let subject = path.display().to_string();
        let error = |kind| Error::new(kind, OPERATION, &subject);
        let failed = |cause: io::Error| {
            let kind = match cause.kind() {
                io::ErrorKind::StorageFull => ErrorKind::Full,
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                _ => ErrorKind::Unavailable,
            };
            error(kind).because(cause)
        };
        let path = std::path::absolute(path).map_err(failed)?;
        if path.as_os_str().len() > LONGEST_SOCKET_DIRECTORY {
            let why = format!(
                "its path has more than {LONGEST_SOCKET_DIRECTORY} bytes, too many for a socket"
            );
            return Err(error(ErrorKind::Invalid).because(why));
        }
        make(&path).map_err(failed)?;
        let marker = path.join(MARKER);
        let is_empty = fs::read_dir(&path).map_err(failed)?.next().is_none();
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(is_empty)
            .truncate(false)
            .open(&marker)
            .map_err(|cause| match cause.kind() {
                io::ErrorKind::NotFound => error(ErrorKind::Invalid)
                    .because("it holds something that is not of an earlier run")
                    .with_hint("give a directory of its own: everything in it is removed"),
                _ => failed(cause),
            })?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
            if errno == rustix::io::Errno::WOULDBLOCK {
                error(ErrorKind::Unavailable).because("another run is using it")
            } else {
                failed(errno.into())
            }
        })?;
        let mut mark = String::new();
        lock.read_to_string(&mut mark).map_err(failed)?;
        if mark.is_empty() {
            lock.write_all(MARK.as_bytes()).map_err(failed)?;
        } else if mark != MARK {
            return Err(error(ErrorKind::Invalid).because(format!("`{MARKER}` in it is not dr's")));
        }
        let scratch = Self {
            path,
            _lock: lock,
            kept: AtomicBool::new(false),
        };
        scratch.clear().map_err(failed)?;
        Ok(scratch)
    }

    /// Leaves what is in it when it is dropped: it was made for somebody.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.path.join("s")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Returns the bytes that are free.
    pub(super) fn free_bytes(&self) -> Result<u64> {
        free_bytes(&self.path).map_err(|error| {
            let subject = self.path.display().to_string();
            Error::new(ErrorKind::Unavailable, OPERATION, subject).because(error)
        })
    }

    /// Stops the server, if one is there, and removes everything but the marker.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.stop()?;
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name() == MARKER {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Stops the server that works in this directory and waits for its end; nothing it writes is wanted.
    pub(super) fn stop(&self) -> io::Result<()> {
        self.end(Signal::QUIT, PAUSES)
    }

    /// Shuts the server down in good order and waits for its end, with a restart point at the last checkpoint that it has replayed: started
    /// again it replays from there. Replay from the beginning over files that are further already is not the same twice: a database
    /// that `CREATE DATABASE` made by copying files would be copied again, from what its template has become since.
    pub(super) fn shut_down(&self) -> io::Result<()> {
        self.end(Signal::INT, PAUSES_TO_WRITE)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the condition is looked at in between, on a thread that may wait"
    )]
    fn end(&self, signal: Signal, pauses: u32) -> io::Result<()> {
        for _ in 0..pauses {
            let Some(pid) = self.postmaster() else {
                return Ok(());
            };
            match kill_process(pid, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
            std::thread::sleep(PAUSE);
        }
        Err(io::Error::other("the server in it does not stop"))
    }

    /// Returns the postmaster that works in this directory: its number alone would prove nothing.
    fn postmaster(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let number: i32 = text.lines().next()?.trim().parse().ok()?;
        let works_in = fs::read_link(format!("/proc/{number}/cwd")).ok()?;
        let here = fs::canonicalize(self.data()).ok()?;
        (works_in == here).then(|| Pid::from_raw(number)).flatten()
    }
}

/// Makes the directory, which then belongs to whom the one around it belongs to: no server runs as root.
fn make(path: &Path) -> io::Result<()> {
    let existing = path.ancestors().find(|place| place.exists());
    let around = fs::metadata(existing.unwrap_or(Path::new("/")))?;
    fs::create_dir_all(path)?;
    if existing != Some(path) && rustix::process::geteuid().is_root() {
        chown(path, Some(around.uid()), Some(around.gid()))?;
    }
    Ok(())
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.kept.load(Ordering::Relaxed) {
            return;
        }
        // A run that was called off: what stays is removed by the next one.
        if let Err(error) = self.clear() {
            tracing::warn!(directory = %self.path.display(), %error, "a scratch directory is not empty");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_marked_is_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let needed = directory.path().join("needed");
        fs::create_dir_all(needed.join("data")).unwrap();
        let error = Scratch::open(&needed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(needed.join("data").exists());
        // A file of the name alone is not enough either.
        fs::write(needed.join(MARKER), "mine").unwrap();
        assert_eq!(
            Scratch::open(&needed).unwrap_err().kind(),
            ErrorKind::Invalid
        );
        assert!(needed.join("data").exists());

        let ours = directory.path().join("new/scratch");
        let scratch = Scratch::open(&ours).unwrap();
        let busy = Scratch::open(&ours).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Unavailable, "{busy}");
        fs::create_dir_all(scratch.data().join("base")).unwrap();
        std::os::unix::fs::symlink(&needed, scratch.data().join("link")).unwrap();
        drop(scratch);
        let left: Vec<_> = fs::read_dir(&ours)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, [MARKER]);
        assert!(needed.join("data").exists());
        drop(Scratch::open(&ours).unwrap());
    }

    #[test]
    fn a_path_that_no_socket_fits_in_is_refused() {
        let long = format!("/tmp/{}", "x".repeat(LONGEST_SOCKET_DIRECTORY));
        let error = Scratch::open(Path::new(&long)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}
