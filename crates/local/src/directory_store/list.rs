//! Listing in byte order.
//!
//! A directory has no order, so the names of one directory at a time are read and sorted, or [`Remembered`]; directories that
//! hold nothing of the answer are not entered. A directory sorts as its name with a `/`, as the keys in it do: `a-b`, `a/c`,
//! `a0`.
//!
//! [`Remembered`]: super::remembered::Remembered

use dr_provider::store::ObjectInfo;
use dr_provider::{Key, Result};
use rustix::fs::AtFlags;
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
        // Only the first directory can hold names outside the prefix: all others are inside.
        let prefix = self.prefix.strip_prefix(directory).unwrap_or("");
        let after = self.after;
        let follows = |name: &str| match after.strip_prefix(directory) {
            // A directory that leads to the position holds what follows it.
            Some(after) => name > after || (name.ends_with('/') && after.starts_with(name)),
            None => directory > after,
        };
        let names = self.tree.remembered.names(self.tree, directory)?;
        let first = names.partition_point(|name| name < prefix || !follows(name));
        for index in first..names.len() {
            let name = names.get(index);
            if self.found.len() == self.limit || !name.starts_with(prefix) {
                return Ok(());
            }
            let path = format!("{directory}{name}");
            match Key::new(path.trim_end_matches('/')) {
                Ok(_) if name.ends_with('/') => {
                    if !(directory.is_empty() && name.trim_end_matches('/') == TEMPORARY) {
                        self.visit(&path)?;
                    }
                }
                Ok(key) => self.add(key)?,
                // Nothing that a store has written.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn add(&mut self, key: Key) -> std::result::Result<(), Errno> {
        let stat = match rustix::fs::statat(&self.tree.directory, key.as_str(), AtFlags::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            stat => stat?,
        };
        if let Some(size_bytes) = object_size(&stat) {
            self.found.push(ObjectInfo { key, size_bytes });
        }
        Ok(())
    }
}
