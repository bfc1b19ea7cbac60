//! Listing in byte order.
//!
//! A directory has no order, so the names of one directory at a time are read and sorted;
//! directories that hold nothing of the answer are not entered. A directory sorts as its name with
//! a `/`, as the keys in it do: `a-b`, `a/c`, `a0`.

use dr_provider::store::ObjectInfo;
use dr_provider::{Key, Result};
use rustix::fs::{AtFlags, Dir, DirEntry, FileType};
use rustix::io::Errno;

use super::errno::Call;
use super::read::object_size;
use super::tree::{TEMPORARY, Tree};

/// Lists up to `limit` objects whose keys start with `prefix`, after `after`.
pub(super) fn list(
    call: Call<'_>,
    tree: &Tree,
    prefix: &str,
    after: Option<&Key>,
    limit: usize,
) -> Result<Vec<ObjectInfo>> {
    let mut walk = Walk {
        tree,
        prefix,
        after: after.map_or("", Key::as_str),
        limit,
        found: Vec::new(),
    };
    let start = prefix.rfind('/').map_or("", |end| &prefix[..=end]);
    // What cannot be the beginning of a key would lead out of the store.
    if limit > 0 && (start.is_empty() || Key::new(start.trim_end_matches('/')).is_ok()) {
        walk.visit(start).map_err(|errno| call.errno(errno))?;
    }
    Ok(walk.found)
}

struct Walk<'a> {
    tree: &'a Tree,
    prefix: &'a str,
    after: &'a str,
    limit: usize,
    found: Vec<ObjectInfo>,
}

impl Walk<'_> {
    /// Adds what is in a directory, given with its final `/`.
    fn visit(&mut self, directory: &str) -> std::result::Result<(), Errno> {
        for path in self.names(directory)? {
            if self.found.len() == self.limit {
                return Ok(());
            }
            if path.ends_with('/') {
                self.visit(&path)?;
            } else {
                self.add(path)?;
            }
        }
        Ok(())
    }

    /// Returns the paths in a directory that the answer can hold, sorted, directories with a final
    /// `/`.
    fn names(&self, directory: &str) -> std::result::Result<Vec<String>, Errno> {
        let opened = match self.tree.open_directory(directory) {
            // Nothing has been written there yet, or it has been removed meanwhile.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            opened => opened?,
        };
        let mut paths = Vec::new();
        for entry in Dir::new(opened)? {
            if let Some(path) = self.path(directory, &entry?)
                && self.is_wanted(&path)
            {
                paths.push(path);
            }
        }
        paths.sort_unstable();
        Ok(paths)
    }

    /// Returns the path of an entry; `None` if it is no part of the store.
    fn path(&self, directory: &str, entry: &DirEntry) -> Option<String> {
        let name = entry.file_name().to_str().ok()?;
        if directory.is_empty() && name == TEMPORARY {
            return None;
        }
        let mut path = format!("{directory}{name}");
        Key::new(path.as_str()).ok()?;
        let kind = match entry.file_type() {
            FileType::Unknown | FileType::Symlink => {
                let stat = rustix::fs::statat(&self.tree.directory, &path, AtFlags::empty());
                FileType::from_raw_mode(stat.ok()?.st_mode)
            }
            kind => kind,
        };
        match kind {
            FileType::RegularFile => Some(path),
            FileType::Directory => {
                path.push('/');
                Some(path)
            }
            _ => None,
        }
    }

    fn is_wanted(&self, path: &str) -> bool {
        let is_directory = path.ends_with('/');
        let in_prefix =
            path.starts_with(self.prefix) || (is_directory && self.prefix.starts_with(path));
        let follows = path > self.after || (is_directory && self.after.starts_with(path));
        in_prefix && follows
    }

    fn add(&mut self, path: String) -> std::result::Result<(), Errno> {
        let stat = match rustix::fs::statat(&self.tree.directory, &path, AtFlags::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            stat => stat?,
        };
        if let Some(size_bytes) = object_size(&stat)
            && let Ok(key) = Key::new(path)
        {
            self.found.push(ObjectInfo { key, size_bytes });
        }
        Ok(())
    }
}
