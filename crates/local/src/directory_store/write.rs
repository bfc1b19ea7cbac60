//! Creating and deleting.

use dr_provider::{Error, ErrorKind, Key, Result};
use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::errno::Call;
use super::temporary::Temporary;
use super::tree::{TEMPORARY, Tree};

/// Creates an object, or fails without changing anything; after `Unknown` either may be true.
pub(super) fn create(call: Call<'_>, tree: &Tree, key: &Key, content: &[u8]) -> Result<()> {
    let (parent, name) = key.as_str().rsplit_once('/').unwrap_or(("", key.as_str()));
    if key.as_str().split('/').next() == Some(TEMPORARY) {
        return Err(call
            .error(ErrorKind::Invalid)
            .because(format!("`{TEMPORARY}` is reserved in a directory store")));
    }
    // Cheaper than to write all of it and then lose.
    match stat(tree, key.as_str()) {
        Ok(there) => return Err(taken(call, tree, parent, &there)),
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(call.errno(errno)),
    }
    let temporary = Temporary::write(tree, content).map_err(|errno| failed(call, errno))?;
    let directory = tree
        .durable_directory(parent)
        .map_err(|errno| call.errno(errno))?;
    match rustix::fs::linkat(
        &tree.directory,
        &temporary.path,
        &directory,
        name,
        AtFlags::empty(),
    ) {
        Ok(()) => {}
        Err(Errno::EXIST) => match stat(tree, key.as_str()) {
            // A file server did it and was asked again because its answer was lost.
            Ok(there) if there.st_ino == temporary.stat.st_ino => {}
            Ok(there) => return Err(taken(call, tree, parent, &there)),
            Err(errno) => return Err(call.errno(errno)),
        },
        Err(errno @ (Errno::IO | Errno::STALE | Errno::TIMEDOUT)) => {
            return Err(unknown(call, errno));
        }
        Err(errno) => return Err(failed(call, errno)),
    }
    drop(temporary);
    rustix::fs::fsync(&directory).map_err(|errno| unknown(call, errno))
}

/// Deletes an object. Not synchronised: after a power failure a deleted object may be back, and is
/// deleted again.
pub(super) fn delete(call: Call<'_>, tree: &Tree, key: &Key) -> Result<()> {
    match rustix::fs::unlinkat(&tree.directory, key.as_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR) => Ok(()),
        Err(errno @ (Errno::IO | Errno::STALE | Errno::TIMEDOUT)) => Err(unknown(call, errno)),
        Err(errno) => Err(call.errno(errno)),
    }
}

/// Makes the error for a key that is taken, once what is there is as durable as if it had been
/// created here.
fn taken(call: Call<'_>, tree: &Tree, parent: &str, there: &Stat) -> Error {
    if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
        return call.error(ErrorKind::Invalid).because(
            "other keys continue this one; in a directory store no object's key is the beginning \
             of another's",
        );
    }
    let durable = tree
        .durable_directory(parent)
        .and_then(|directory| rustix::fs::fsync(&directory));
    match durable {
        Ok(()) => call.error(ErrorKind::AlreadyExists),
        Err(errno) => call.errno(errno),
    }
}

/// Makes the error for a step that failed before the object had its name.
fn failed(call: Call<'_>, errno: Errno) -> Error {
    match errno {
        Errno::NOENT => call
            .error(ErrorKind::Unavailable)
            .because(format!("the store's directory `{TEMPORARY}` is missing"))
            .with_hint("if the store was copied there, make that directory as well"),
        errno => call.errno(errno),
    }
}

fn unknown(call: Call<'_>, errno: Errno) -> Error {
    call.error(ErrorKind::Unknown)
        .because(std::io::Error::from(errno))
}

fn stat(tree: &Tree, path: &str) -> rustix::io::Result<Stat> {
    rustix::fs::statat(&tree.directory, path, AtFlags::empty())
}
