//! The backup format on an object store; `docs/formats/repository.md` describes it for other readers.
//!
//! A backup is a set of *packs*, which hold file content in compressed *frames*, the *tree*, which says which frames each
//! file consists of, and one *manifest*, which is written last by a create-only write. Invariants:
//! - a backup without its manifest does not exist: it is not listed, and its remains harm nobody;
//! - a manifest stands only where everything it names is durable, also in copies (R38);
//! - every backup is logically full: it may refer to packs of older ones, never to their manifests;
//! - nothing is ever changed or overwritten;
//! - every byte read back is compared with a hash before it is used;
//! - memory is bounded whatever the size of a backup.

mod copy;
mod encryption;
mod error;
mod frame;
mod hash;
mod label;
mod manifest;
mod pack;
mod path;
mod presence;
mod prune;
mod reader;
mod references;
mod repository;
mod restore;
mod spill;
mod store;
mod tree;
mod verify;
mod writer;

pub use dr_encryption::{Key as EncryptionKey, KeyError, KeyId, Keys};

pub use copy::{CopyOptions, CopyStats, copy};
pub use error::{Error, Result};
pub use frame::{COLLECTED_BYTES, FRAME_BYTES};
pub use hash::Hash;
pub use label::{Label, LabelError};
pub use manifest::{
    Encryption, Entry, Extent, FORMAT, FileEntry, Frame, Header, Metadata, Pack, PackInfo, Stats,
    StoredFile,
};
pub use prune::{Hold, Kept, PruneFacts, PruneOptions, PrunePlan, PruneStats, Sweep};
pub use reader::BackupReader;
pub use repository::{Listing, Repository};
pub use restore::{Begin, Delta, Placement, Progress, RestoreOptions, RestoreStats};
pub use verify::{Sample, VerifyOptions, VerifyStats};
pub use writer::{BackupWriter, FrameReader, WriterOptions};
