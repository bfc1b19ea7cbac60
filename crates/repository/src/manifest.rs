//! Manifests: what a backup consists of. Writing one is the commit.
//!
//! A short header that a listing reads comes first, protected by a hash of its own; it holds length and hash of the body,
//! so that the header's hash stands for the whole object. The body names the packs, which may be those of older backups,
//! and the parts of the tree, which are objects of their own so that nobody needs to hold them all.

mod codec;
mod extent;
mod version1;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use codec::{
    HEADER_GUESS_BYTES, Tables, authenticate, decode, decode_header, encode, header_end, unpack,
};
pub use extent::{Extent, Frame};

use crate::encryption::SaltText;
use crate::{Hash, Label};

/// The format that this version writes; it reads the older ones too.
pub const FORMAT: u32 = 2;

/// What a listing shows of a backup.
///
/// Unknown members are passed over when read: what a reader must know is in `required_features`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format's number.
    pub format: u32,
    /// Features without which the backup cannot be read rightly.
    pub required_features: Vec<String>,
    /// The backup.
    pub label: Label,
    /// What the source needs to use the files again; only the driver that wrote it knows its content.
    pub source: Value,
    /// What the backup amounts to.
    pub stats: Stats,
    /// The older backups in whose packs some of its content lies. Their manifests are not needed.
    #[serde(default)]
    pub references: Vec<Label>,
    /// How it is encrypted, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// Length of the body as stored.
    pub body_bytes: u64,
    /// Length of the body's JSON lines.
    pub body_plain_bytes: u64,
    /// Hash of the body as stored.
    pub body_hash: Hash,
}

/// How a backup is encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// The name of the key that everything in it, older packs included, is encrypted with.
    pub key: String,
    /// The salt of the manifest's authentication code.
    pub salt: SaltText,
}

/// What a backup amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Files in it.
    pub files: u64,
    /// Bytes in those files.
    pub file_bytes: u64,
    /// Packs that were written for it.
    pub packs: u64,
    /// Bytes in those packs.
    pub stored_bytes: u64,
    /// Packs of older backups that it refers to.
    #[serde(default)]
    pub referenced_packs: u64,
}

/// Length and hash of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackInfo {
    /// Its length.
    pub bytes: u64,
    /// Hash of the whole object.
    pub hash: Hash,
}

/// A pack that a backup has content in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// The backup that it was written for.
    pub label: Label,
    /// Its number there.
    pub number: u32,
    /// What it must be.
    pub info: PackInfo,
    /// What its keys are derived with, if it is encrypted.
    pub salt: Option<SaltText>,
}

/// A part of the tree, an object of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Length of the object.
    pub(crate) bytes: u64,
    /// Hash of the whole object.
    pub(crate) hash: Hash,
    /// Length of its JSON lines.
    pub(crate) plain_bytes: u64,
    /// Number of its entries.
    pub(crate) entries: u64,
    /// What its keys are derived with, if it is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) salt: Option<SaltText>,
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
    pub extents: Vec<Extent>,
}

/// A file of a backup, with the packs that its content is in: what a later backup can refer to.
#[derive(Clone, Debug)]
pub struct StoredFile {
    /// The file.
    pub entry: FileEntry,
    pub(crate) packs: Arc<[Pack]>,
    /// The name of the key that they are encrypted with.
    pub(crate) key: Option<String>,
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
