//! The backup format on an object store; `docs/formats/repository.md` describes it for other readers.
//!
//! A backup is a set of *packs*, which hold file content in compressed *frames*, and one *manifest*, which is written
//! last by a create-only write. Invariants:
//! - a backup without its manifest does not exist: it is not listed, and its remains harm nobody;
//! - a manifest stands only where everything it names is durable, also in copies (R38);
//! - nothing is ever changed or overwritten;
//! - every byte read back is compared with a hash before it is used.

mod copy;
mod error;
mod frame;
mod hash;
mod label;
mod manifest;
mod pack;
mod path;
mod reader;
mod repository;
mod restore;
mod store;
mod verify;
mod writer;

pub use copy::{CopyOptions, CopyStats, copy};
pub use error::{Error, Result};
pub use frame::FRAME_BYTES;
pub use hash::Hash;
pub use label::{Label, LabelError};
pub use manifest::{Entry, FORMAT, FileEntry, Frame, Header, Manifest, Metadata, PackInfo, Stats};
pub use reader::BackupReader;
pub use repository::{Listing, Repository};
pub use restore::{Placement, Progress, RestoreOptions, RestoreStats};
pub use verify::VerifyStats;
pub use writer::{BackupWriter, WriterOptions};
