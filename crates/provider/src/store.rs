//! A region's object store: the only shared truth of `dr` (principle 4, PROTOCOL 4).

mod key;
mod memory;
pub mod record;

use async_trait::async_trait;
use bytes::Bytes;

pub use key::{InvalidKey, Key};
pub use memory::MemoryStore;

use crate::{Error, ErrorKind, Result};

/// The key of a store's identity object, written once when the store is initialised.
pub const IDENTITY_KEY: &str = "identity.json";

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: Key,
    /// Its length in bytes.
    pub size_bytes: u64,
}

/// An object as another store of the same service can name it; nothing for anybody else to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopySource {
    /// The service, such as a server's URL: only stores of one service copy from each other.
    pub service: String,
    /// The object, in that service's own terms.
    pub object: String,
}

/// Objects under keys, written once and never changed.
///
/// An implementation
/// - MUST make [`create`](Self::create) atomic: of any number of concurrent creates of one key exactly one succeeds, the
///   others get `AlreadyExists`, and no reader ever sees part of an object. A store that cannot promise this says so
///   through the probe at initialisation and is refused for register, seals and synchronous mode;
/// - MUST have made an object durable before `create` returns success, and also before it returns `AlreadyExists`: who
///   loses a race may go on to rely on the winner's object;
/// - MUST answer `NotFound` only while the identity object is readable through the same handle, and `Unavailable`
///   otherwise: an unmounted directory is not an empty one;
/// - MUST answer `Unknown` when it cannot tell whether a change was made (time-out, lost answer);
/// - SHOULD show a new object in listings at once; correctness never rests on it (R39).
///
/// Dropping the future of a call cancels the wait, not necessarily the effect: the outcome is then unknown. Calls have no
/// time limit of their own beyond the implementation's; callers set one.
#[async_trait]
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// Returns where the store is, as a URL without credentials, for messages.
    fn location(&self) -> &str;

    /// Creates the object, or fails with `AlreadyExists` without changing anything.
    async fn create(&self, key: &Key, body: Bytes) -> Result<()>;

    /// Reads a whole object.
    async fn get(&self, key: &Key) -> Result<Bytes>;

    /// Reads `length` bytes from `offset`; fewer if the object ends before, none if it ends before `offset`.
    async fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes>;

    /// Reads an object's length.
    async fn head(&self, key: &Key) -> Result<ObjectInfo>;

    /// Lists up to `limit` objects whose keys start with `prefix`, in byte order of the keys, after `after`.
    ///
    /// `prefix` is plain text and need not end at a `/`. An empty answer means that nothing follows.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>>;

    /// Deletes an object; succeeds if it does not exist. Needs the right to prune, which a writer does not have.
    async fn delete(&self, key: &Key) -> Result<()>;

    /// Returns how many bytes more can be written, where the store has such a limit and tells; `None` otherwise.
    async fn free_bytes(&self) -> Option<u64> {
        None
    }

    /// Returns what another store of the same service can copy the object by; `None` if there is no
    /// such service. Looks at nothing.
    fn copy_source(&self, _key: &Key) -> Option<CopySource> {
        None
    }

    /// Creates the object as a copy that the service makes by itself, under the same rules as
    /// [`create`](Self::create).
    ///
    /// That the copy is the object that was meant is **not** promised: the service's word for it is
    /// no hash of ours. Whoever relies on it reads the copy back and compares (R38). Fails with
    /// `Unsupported` where there is no such service, or the source is in another one; the caller
    /// then moves the bytes.
    async fn copy_from(&self, _source: &CopySource, key: &Key) -> Result<()> {
        let subject = format!("{}/{key}", self.location());
        Err(Error::new(
            ErrorKind::Unsupported,
            "copy object to",
            subject,
        ))
    }
}

/// Lists everything under `prefix`, page by page.
pub async fn list_all(store: &dyn ObjectStore, prefix: &str) -> Result<Vec<ObjectInfo>> {
    const PAGE: usize = 1000;
    let mut all: Vec<ObjectInfo> = Vec::new();
    loop {
        let page = store
            .list(prefix, all.last().map(|info| &info.key), PAGE)
            .await?;
        let full = page.len() == PAGE;
        all.extend(page);
        if !full {
            return Ok(all);
        }
    }
}
