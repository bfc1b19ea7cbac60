//! Making a directory into a store.

use std::path::Path;

use dr_provider::store::IDENTITY_KEY;
use dr_provider::{Error, ErrorKind, Key, Result};
use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;

use super::errno::Call;
use super::tree::{DIRECTORY_MODE, TEMPORARY, Tree};
use super::{temporary, write};

/// What may stand in a directory that is made into a store: an earlier attempt, and what `mkfs`
/// leaves in a new volume.
const ALLOWED: [&str; 4] = [".", "..", TEMPORARY, "lost+found"];

/// Makes the directory, its parents and everything that marks it as a store.
pub(super) fn initialise(location: &str, path: &Path, identity: &[u8]) -> Result<()> {
    let call = Call::new("initialise store", location, "");
    if identity.is_empty() {
        let error = call.error(ErrorKind::Invalid);
        return Err(error.because("the identity object is empty"));
    }
    make_directories(path).map_err(|errno| call.errno(errno))?;
    let tree = Tree::open(path).map_err(|errno| call.errno(errno))?;
    refuse_foreign_content(call, &tree)?;
    temporary::make_directory(&tree).map_err(|errno| call.errno(errno))?;
    let key = Key::new(IDENTITY_KEY).expect("the name of the identity object is a key");
    write::create(call, &tree, &key, identity)
}

/// Refuses a directory that is used for something else.
fn refuse_foreign_content(call: Call<'_>, tree: &Tree) -> Result<()> {
    let errno = |errno| call.errno(errno);
    let mut foreign = None;
    for entry in tree.open_directory("").and_then(Dir::new).map_err(errno)? {
        let entry = entry.map_err(errno)?;
        let name = entry.file_name().to_string_lossy();
        if name == IDENTITY_KEY {
            return Err(call.error(ErrorKind::AlreadyExists));
        }
        if !ALLOWED.contains(&&*name) {
            foreign = Some(name.into_owned());
        }
    }
    match foreign {
        None => Ok(()),
        Some(name) => Err(not_empty(call, &name)),
    }
}

fn not_empty(call: Call<'_>, name: &str) -> Error {
    call.error(ErrorKind::Invalid)
        .because(format!("the directory is not empty: it holds `{name}`"))
        .with_hint("give the store a directory of its own")
}

/// Makes a directory and its parents; each name is durable when it returns.
fn make_directories(path: &Path) -> std::result::Result<(), Errno> {
    match rustix::fs::mkdir(path, DIRECTORY_MODE) {
        Ok(()) => synchronise_parent(path),
        Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOENT) => {
            let parent = path.parent().ok_or(Errno::NOENT)?;
            make_directories(parent)?;
            match rustix::fs::mkdir(path, DIRECTORY_MODE) {
                Ok(()) | Err(Errno::EXIST) => synchronise_parent(path),
                Err(errno) => Err(errno),
            }
        }
        Err(errno) => Err(errno),
    }
}

fn synchronise_parent(path: &Path) -> std::result::Result<(), Errno> {
    let parent = path.parent().unwrap_or(path);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::fsync(rustix::fs::open(parent, flags, Mode::empty())?)
}
