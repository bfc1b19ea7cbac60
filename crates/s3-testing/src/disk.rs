//! Objects as files as well: for whoever looks into a bucket from outside, and for a server that is
//! started again.
//!
//! The file of a key is its path below the bucket's directory, so no key may be the beginning of
//! another's. Nothing is synchronised: what a power failure takes away is a test's.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// What is being written, until it has its name.
const NEW: &str = ".new";

/// The directory of a bucket.
#[derive(Clone, Debug)]
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// Opens the directory, making it if need be; returns the objects in it.
    pub(crate) fn open(directory: PathBuf) -> io::Result<(Self, Vec<(String, Bytes)>)> {
        std::fs::create_dir_all(&directory)?;
        let mut found = Vec::new();
        walk(&directory, "", &mut found)?;
        Ok((Self(directory), found))
    }

    /// Puts an object in place, whole.
    pub(crate) fn write(&self, key: &str, body: &[u8]) -> io::Result<()> {
        let path = self.0.join(key);
        std::fs::create_dir_all(path.parent().unwrap_or(&self.0))?;
        let new = self.0.join(NEW);
        std::fs::write(&new, body)?;
        std::fs::rename(new, path)
    }

    /// Removes an object, if it is there.
    pub(crate) fn remove(&self, key: &str) -> io::Result<()> {
        match std::fs::remove_file(self.0.join(key)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

fn walk(directory: &Path, prefix: &str, found: &mut Vec<(String, Bytes)>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let key = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &format!("{key}/"), found)?;
        } else if key != NEW {
            found.push((key, Bytes::from(std::fs::read(entry.path())?)));
        }
    }
    Ok(())
}
