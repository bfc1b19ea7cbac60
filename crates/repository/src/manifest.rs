//! Manifests: what a backup consists of. Writing one is the commit.
//!
//! A short header that a listing reads comes first, protected by a hash of its own; it holds length and hash of the body,
//! so that the header's hash stands for the whole object. The body is JSON lines, compressed.

mod codec;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use codec::{HEADER_GUESS_BYTES, decode, decode_header, encode, header_end};

use crate::{Hash, Label};

/// The format that this version writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// What a listing shows of a backup.
///
/// Unknown members are passed over when read: what a reader must know is in `required_features`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format's number.
    pub format: u32,
    /// Features without which the backup cannot be read rightly. This version knows none.
    pub required_features: Vec<String>,
    /// The backup.
    pub label: Label,
    /// What the source needs to use the files again; only the driver that wrote it knows its content.
    pub source: Value,
    /// What the backup amounts to.
    pub stats: Stats,
    /// Length of the body as stored.
    pub body_bytes: u64,
    /// Length of the body's JSON lines.
    pub body_plain_bytes: u64,
    /// Hash of the body as stored.
    pub body_hash: Hash,
}

/// What a backup amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Files in it.
    pub files: u64,
    /// Bytes in those files.
    pub file_bytes: u64,
    /// Packs that it is stored in.
    pub packs: u64,
    /// Bytes in those packs.
    pub stored_bytes: u64,
}

/// A whole manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The header.
    pub header: Header,
    /// The packs, by number from 0.
    pub packs: Vec<PackInfo>,
    /// The entries in the order in which they were added.
    pub entries: Vec<Entry>,
}

/// What a pack must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackInfo {
    /// Its length.
    pub bytes: u64,
    /// Hash of the whole object.
    pub hash: Hash,
}

/// Attributes of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Permission bits.
    pub mode: u32,
    /// Time of the last change, in seconds since 1970.
    pub mtime: i64,
}

/// Something in the tree that was backed up. Paths are relative and use `/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// A directory.
    Directory {
        /// Where it is.
        path: String,
        /// Its attributes.
        metadata: Metadata,
    },
    /// A symbolic link.
    Symlink {
        /// Where it is.
        path: String,
        /// What it points to.
        target: String,
    },
    /// A regular file.
    File(FileEntry),
}

/// A regular file and where its content is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Where it is.
    pub path: String,
    /// Its attributes.
    pub metadata: Metadata,
    /// Its length.
    pub size: u64,
    /// Its content, in order.
    pub frames: Vec<Frame>,
}

/// Where a piece of a file is. In JSON an array: pack, offset, stored length, plain length, hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "FrameTuple", into = "FrameTuple")]
pub struct Frame {
    /// Number of the pack.
    pub pack: u32,
    /// Where in the pack's object it begins.
    pub offset: u64,
    /// Its length there; equal to the plain length if it is not compressed.
    pub stored_bytes: u32,
    /// Its length in the file.
    pub plain_bytes: u32,
    /// Hash of the plain bytes.
    pub hash: Hash,
}

type FrameTuple = (u32, u64, u32, u32, Hash);

impl From<FrameTuple> for Frame {
    fn from((pack, offset, stored_bytes, plain_bytes, hash): FrameTuple) -> Self {
        Self {
            pack,
            offset,
            stored_bytes,
            plain_bytes,
            hash,
        }
    }
}

impl From<Frame> for FrameTuple {
    fn from(frame: Frame) -> Self {
        (
            frame.pack,
            frame.offset,
            frame.stored_bytes,
            frame.plain_bytes,
            frame.hash,
        )
    }
}

impl Entry {
    /// Returns where the entry is.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Directory { path, .. } | Self::Symlink { path, .. } => path,
            Self::File(file) => &file.path,
        }
    }
}

impl Manifest {
    /// Returns the files.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::File(file) => Some(file),
            _ => None,
        })
    }
}
