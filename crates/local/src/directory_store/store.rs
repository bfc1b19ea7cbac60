//! The asynchronous face: each call is one piece of blocking work.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dr_provider::store::ObjectInfo;
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};

use super::anchor::{Anchor, Away, Root};
use super::errno::Call;
use super::{initialise, list, read, write};

/// An [`ObjectStore`] on a directory, for any number of processes at once.
///
/// The file system must have hard links and an atomic `link`: every local one and NFS do.
#[derive(Debug)]
pub struct DirectoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    location: String,
    anchor: Anchor,
}

impl DirectoryStore {
    /// Makes a handle of the store at a path; looks at nothing and creates nothing.
    ///
    /// While the store is not there every call answers `Unavailable`, and once it is back, with the
    /// identity that was seen first, they succeed again. Fails with `Invalid` if the path cannot be
    /// one.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = absolute("open store", path.as_ref())?;
        Ok(Self {
            shared: Arc::new(Shared {
                location: location(&path),
                anchor: Anchor::new(path),
            }),
        })
    }

    /// Makes a directory into a store with the given identity object, creating it and its parents
    /// where missing.
    ///
    /// Fails with `AlreadyExists` if it is a store already and with `Invalid` if it holds anything
    /// else.
    pub async fn initialise(path: impl AsRef<Path>, identity: Bytes) -> Result<()> {
        let path = absolute("initialise store", path.as_ref())?;
        let location = location(&path);
        blocking("initialise store", location.clone(), move || {
            initialise::initialise(&location, &path, &identity)
        })
        .await
    }

    /// Runs an operation on the directory as it is now.
    async fn with_root<T: Send + 'static>(
        &self,
        operation: &'static str,
        subject: String,
        work: impl FnOnce(Call<'_>, &Shared, &Root) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        blocking(operation, self.shared.location.clone(), move || {
            let call = Call::new(operation, &shared.location, &subject);
            let root = shared.anchor.root().map_err(|away| is_away(call, away))?;
            work(call, &shared, &root)
        })
        .await
    }

    /// Runs a read, and says *not found* only while the store is proven to be there.
    async fn find<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &Key,
        work: impl FnOnce(Call<'_>, &Root, &Key) -> Result<Option<T>> + Send + 'static,
    ) -> Result<T> {
        let key = key.clone();
        self.with_root(
            operation,
            key.to_string(),
            move |call, shared, root| match work(call, root, &key)? {
                Some(found) => Ok(found),
                None => {
                    shared.prove(call, root)?;
                    Err(call.error(ErrorKind::NotFound))
                }
            },
        )
        .await
    }
}

impl Shared {
    fn prove(&self, call: Call<'_>, root: &Root) -> Result<()> {
        self.anchor.prove(root).map_err(|away| is_away(call, away))
    }
}

#[async_trait]
impl ObjectStore for DirectoryStore {
    fn location(&self) -> &str {
        &self.shared.location
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<()> {
        let key = key.clone();
        self.with_root("create object", key.to_string(), move |call, _, root| {
            write::create(call, &root.tree, &key, &body)
        })
        .await
    }

    async fn free_bytes(&self) -> Option<u64> {
        let look = self.with_root("look at", "its room".to_owned(), |call, _, root| {
            let room = rustix::fs::fstatvfs(&root.tree.directory);
            let room = room.map_err(|errno| call.error(ErrorKind::Failed).because(errno))?;
            Ok(room.f_bavail.saturating_mul(room.f_frsize))
        });
        look.await.ok()
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.find("read object", key, |call, root, key| {
            read::range(call, &root.tree, key, 0, u64::MAX)
        })
        .await
    }

    async fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        self.find("read object", key, move |call, root, key| {
            read::range(call, &root.tree, key, offset, length)
        })
        .await
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.find("look at object", key, |call, root, key| {
            read::head(call, &root.tree, key)
        })
        .await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>> {
        let (wanted, after) = (prefix.to_owned(), after.cloned());
        self.with_root(
            "list objects",
            prefix.to_owned(),
            move |call, shared, root| {
                let found = list::list(call, &root.tree, &wanted, after.as_ref(), limit)?;
                if found.is_empty() {
                    shared.prove(call, root)?;
                }
                Ok(found)
            },
        )
        .await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let key = key.clone();
        self.with_root("delete object", key.to_string(), move |call, _, root| {
            write::delete(call, &root.tree, &key)
        })
        .await
    }
}

/// Runs blocking work off the runtime's own threads.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    location: String,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(ErrorKind::Unknown, operation, location).because(error)),
    }
}

fn is_away(call: Call<'_>, away: Away) -> Error {
    let error = call.error(ErrorKind::Unavailable);
    let error = match &away {
        Away::NoIdentity { .. } => {
            error.with_hint("mount it; a new store is initialised by the daemon of its region")
        }
        Away::NoDirectory { .. } => error.with_hint("see whether `store` names the right place"),
        Away::Unreadable { .. } => error.with_hint("see who may read it, and the system's log"),
        Away::Replaced { .. } => error.with_hint(
            "mount the right directory; if the change is intended, restart whatever uses the store",
        ),
    };
    error.because(away)
}

fn absolute(operation: &'static str, path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| {
        Error::new(ErrorKind::Invalid, operation, path.display().to_string()).because(error)
    })
}

fn location(path: &Path) -> String {
    format!("file://{}", path.display())
}
