//! The body of a manifest of format 1: packs, then all entries, in the order in which they were written.
//!
//! It is held in memory as a whole; backups of that format are read, never written.

use serde::Deserialize;

use super::{Entry, Extent, FileEntry, Frame, Header, Metadata, Pack, PackInfo};
use crate::{Error, Hash, Result, tree};

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Entry1 {
    Directory {
        path: String,
        metadata: Metadata,
    },
    Symlink {
        path: String,
        target: String,
    },
    File {
        path: String,
        metadata: Metadata,
        size: u64,
        frames: Vec<(u32, u64, u32, u32, Hash)>,
    },
}

impl From<Entry1> for Entry {
    fn from(entry: Entry1) -> Self {
        match entry {
            Entry1::Directory { path, metadata } => Self::Directory { path, metadata },
            Entry1::Symlink { path, target } => Self::Symlink { path, target },
            Entry1::File {
                path,
                metadata,
                size,
                frames,
            } => {
                let extents = frames
                    .into_iter()
                    .map(
                        |(pack, offset, stored_bytes, plain_bytes, hash)| Extent::Stored {
                            frame: Frame {
                                pack,
                                offset,
                                stored_bytes,
                                plain_bytes,
                                hash,
                            },
                            from: 0,
                            bytes: plain_bytes,
                        },
                    )
                    .collect();
                Self::File(FileEntry {
                    path,
                    metadata,
                    size,
                    extents,
                })
            }
        }
    }
}

/// Reads and checks the lines of a body; the entries come back in the order of a tree.
pub(super) fn read(object: &str, header: &Header, plain: &[u8]) -> Result<(Vec<Pack>, Vec<Entry>)> {
    let mut lines = plain
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let unreadable = |error: serde_json::Error| {
        Error::damaged(object, format!("its body cannot be read: {error}"))
    };
    let packs: Vec<Pack> = (0..)
        .take(usize::try_from(header.stats.packs).unwrap_or(usize::MAX))
        .map_while(|number| Some((number, lines.next()?)))
        .map(|(number, line)| {
            let info: PackInfo = serde_json::from_slice(line).map_err(unreadable)?;
            Ok(Pack {
                label: header.label.clone(),
                number,
                info,
                salt: None,
            })
        })
        .collect::<Result<_>>()?;
    let mut entries: Vec<Entry> = lines
        .map(|line| {
            let entry: Entry1 = serde_json::from_slice(line).map_err(unreadable)?;
            Ok(entry.into())
        })
        .collect::<Result<_>>()?;
    entries.sort_by(|a, b| tree::compare(a.path(), b.path()));
    tree::check_part(object, &entries, &packs)?;
    let mut order = tree::Order::default();
    for entry in &entries {
        order.check(entry.path(), entry)?;
    }
    Ok((packs, entries))
}
