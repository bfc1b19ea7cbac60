//! The tree of a backup: its entries in the order of their paths, in parts that are objects of their own.
//!
//! Paths sort as trees do: what is in a directory follows it at once. In that order one look back shows an entry that
//! occurs twice or lies below a file, and one part holds a given path.
//!
//! Layout of a part: magic, salt, zstd of JSON lines, one an entry.

use std::cmp::Ordering;

use bytes::{BufMut, Bytes, BytesMut};
use dr_encryption::{ObjectCipher, SALT_BYTES};

use crate::encryption::SaltText;
use crate::manifest::{self, Pack, Part};
use crate::{Entry, Error, Hash, Result, path};

const MAGIC: &[u8; 8] = b"dr-tree2";
/// JSON lines in a part, about.
pub(crate) const PART_PLAIN_BYTES: usize = 2 << 20;
const LEVEL: i32 = 3;
/// Where what is sealed begins.
const BODY_OFFSET: u64 = (MAGIC.len() + SALT_BYTES) as u64;

/// Returns bytes whose order is that of the tree.
pub(crate) fn key(path: &str) -> Vec<u8> {
    path.bytes().map(sortable).collect()
}

/// Compares two paths as their keys.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    a.bytes().map(sortable).cmp(b.bytes().map(sortable))
}

/// A path holds no zero byte, so that its separator can take that place, before every other.
fn sortable(byte: u8) -> u8 {
    if byte == b'/' { 0 } else { byte }
}

/// Checks entries that come in the order of the tree.
#[derive(Debug, Default)]
pub(crate) struct Order {
    last: Option<String>,
    /// The last entry that is no directory.
    leaf: Option<String>,
}

impl Order {
    /// Refuses a path that is not usable, occurs twice, or lies below something that is no directory.
    pub(crate) fn check(&mut self, path: &str, entry: &Entry) -> Result<()> {
        self.check_leaf(path, !matches!(entry, Entry::Directory { .. }))
    }

    pub(crate) fn check_leaf(&mut self, path: &str, is_leaf: bool) -> Result<()> {
        path::check(path)?;
        let error = |why| {
            Err(Error::Path {
                path: path.to_owned(),
                why,
            })
        };
        match self.last.as_deref().map(|last| compare(last, path)) {
            Some(Ordering::Equal) => return error("it occurs twice"),
            Some(Ordering::Greater) => return error("it is not in the order of the tree"),
            Some(Ordering::Less) | None => {}
        }
        let below = self
            .leaf
            .as_deref()
            .and_then(|leaf| path.strip_prefix(leaf));
        if below.is_some_and(|rest| rest.starts_with('/')) {
            return error("it lies below something that is not a directory");
        }
        let replace = |place: &mut Option<String>| {
            let text = place.get_or_insert_default();
            text.clear();
            text.push_str(path);
        };
        replace(&mut self.last);
        if is_leaf {
            replace(&mut self.leaf);
        }
        Ok(())
    }
}

/// A part being filled with lines.
#[derive(Debug, Default)]
pub(crate) struct PartBuilder {
    plain: Vec<u8>,
    entries: u64,
}

impl PartBuilder {
    pub(crate) fn push(&mut self, line: &[u8]) {
        self.plain.extend_from_slice(line);
        self.plain.push(b'\n');
        self.entries += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.plain.len() >= PART_PLAIN_BYTES
    }

    /// Returns the object and what the manifest says of it.
    pub(crate) fn finish(
        self,
        seal: Option<(SaltText, ObjectCipher)>,
    ) -> std::io::Result<(Bytes, Part)> {
        let (salt, cipher) = seal.unzip();
        let mut bytes = BytesMut::new();
        bytes.put_slice(MAGIC);
        bytes.put_slice(&salt.map_or([0; SALT_BYTES], |salt: SaltText| salt.0));
        bytes.put_slice(&zstd::bulk::compress(&self.plain, LEVEL)?);
        if let Some(cipher) = cipher {
            let tag = cipher.seal(BODY_OFFSET, &mut bytes[MAGIC.len() + SALT_BYTES..]);
            bytes.put_slice(&tag);
        }
        let part = Part {
            bytes: bytes.len() as u64,
            hash: Hash::of(&bytes),
            plain_bytes: self.plain.len() as u64,
            entries: self.entries,
            salt,
        };
        Ok((bytes.freeze(), part))
    }
}

/// Reads and checks a part.
pub(crate) fn decode_part(
    object: &str,
    bytes: &[u8],
    part: &Part,
    packs: &[Pack],
    cipher: Option<&ObjectCipher>,
) -> Result<Vec<Entry>> {
    let damaged = |what: &str| Error::damaged(object, what);
    if bytes.len() as u64 != part.bytes || Hash::of(bytes) != part.hash {
        return Err(damaged("it is not the part that the manifest names"));
    }
    let stored = bytes
        .strip_prefix(MAGIC)
        .and_then(|rest| rest.get(SALT_BYTES..))
        .ok_or_else(|| damaged("it does not begin as a part of a tree"))?;
    let mut opened;
    let stored = match cipher {
        None => stored,
        Some(cipher) => {
            opened = stored.to_vec();
            let opened = cipher.open(BODY_OFFSET, &mut opened);
            opened.map_err(|error| damaged(&format!("it cannot be decrypted: {error}")))?
        }
    };
    let plain = manifest::unpack(stored, part.plain_bytes).map_err(|what| damaged(&what))?;
    let entries: Vec<Entry> = plain
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| damaged(&format!("it cannot be read: {error}")))?;
    if entries.len() as u64 != part.entries {
        return Err(damaged("it has the wrong number of entries"));
    }
    check_part(object, &entries, packs)?;
    Ok(entries)
}

/// Checks that the files make sense.
pub(crate) fn check_part(object: &str, entries: &[Entry], packs: &[Pack]) -> Result<()> {
    for entry in entries {
        if let Entry::File(file) = entry {
            file.check(packs)
                .map_err(|what| Error::damaged(object, format!("`{}`: {what}", file.path)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metadata;

    fn check(paths: &[(&str, bool)]) -> Option<&'static str> {
        let mut order = Order::default();
        for (path, is_file) in paths {
            let metadata = Metadata { mode: 0, mtime: 0 };
            let path = (*path).to_owned();
            let entry = if *is_file {
                Entry::Symlink {
                    path: path.clone(),
                    target: String::new(),
                }
            } else {
                Entry::Directory {
                    path: path.clone(),
                    metadata,
                }
            };
            match order.check(&path, &entry) {
                Ok(()) => {}
                Err(Error::Path { why, .. }) => return Some(why),
                Err(error) => panic!("{error}"),
            }
        }
        None
    }

    #[test]
    fn what_is_in_a_directory_follows_it_at_once() {
        let mut paths = ["a-b", "a", "a/b", "a/b/c", "a b", "a/b-c", "b"];
        paths.sort_by(|a, b| compare(a, b));
        assert_eq!(paths, ["a", "a/b", "a/b/c", "a/b-c", "a b", "a-b", "b"]);
        paths.sort_by_key(|path| key(path));
        assert_eq!(paths, ["a", "a/b", "a/b/c", "a/b-c", "a b", "a-b", "b"]);
    }

    #[test]
    fn order() {
        assert_eq!(check(&[("a", false), ("a/b", true), ("a b", true)]), None);
        assert!(
            check(&[("a", true), ("a", true)])
                .unwrap()
                .contains("twice")
        );
        assert!(
            check(&[("a", true), ("a/b", true)])
                .unwrap()
                .contains("below")
        );
        assert!(
            check(&[("b", true), ("a", true)])
                .unwrap()
                .contains("order")
        );
    }
}
