//! A store in memory, for tests of what stands on the seam.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Key, ObjectInfo, ObjectStore};
use crate::{Error, ErrorKind, Result};

/// Keeps objects in a sorted map; passes the conformance suite, forgets everything when dropped.
#[derive(Debug)]
pub struct MemoryStore {
    location: String,
    objects: Mutex<BTreeMap<Key, Bytes>>,
    away: AtomicBool,
}

impl MemoryStore {
    /// Makes an empty store whose location is `memory://<name>`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            location: format!("memory://{name}"),
            objects: Mutex::default(),
            away: AtomicBool::new(false),
        }
    }

    /// Makes every call answer `Unavailable` until it is called with `false`, like a store whose region is lost.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    fn objects(
        &self,
        operation: &str,
        key: impl Display,
    ) -> Result<MutexGuard<'_, BTreeMap<Key, Bytes>>> {
        if self.away.load(Ordering::SeqCst) {
            return Err(self.error(ErrorKind::Unavailable, operation, key));
        }
        Ok(self.objects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn error(&self, kind: ErrorKind, operation: &str, key: impl Display) -> Error {
        Error::new(kind, operation, format!("{}/{key}", self.location))
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    fn location(&self) -> &str {
        &self.location
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<()> {
        let mut objects = self.objects("create object", key)?;
        if objects.contains_key(key) {
            return Err(self.error(ErrorKind::AlreadyExists, "create object", key));
        }
        objects.insert(key.clone(), body);
        Ok(())
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        let found = self.objects("read object", key)?.get(key).cloned();
        found.ok_or_else(|| self.error(ErrorKind::NotFound, "read object", key))
    }

    async fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        let body = self.get(key).await?;
        let size = body.len() as u64;
        let start = offset.min(size);
        let end = offset.saturating_add(length).min(size);
        let index =
            |at: u64| usize::try_from(at).expect("an object in memory fits the address space");
        Ok(body.slice(index(start)..index(end)))
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        let body = self.get(key).await?;
        Ok(ObjectInfo {
            key: key.clone(),
            size_bytes: body.len() as u64,
        })
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>> {
        let objects = self.objects("list objects", prefix)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(objects
            .range::<Key, _>((from, Bound::Unbounded))
            .filter(|(key, _)| key.as_str().starts_with(prefix))
            .take(limit)
            .map(|(key, body)| ObjectInfo {
                key: key.clone(),
                size_bytes: body.len() as u64,
            })
            .collect())
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.objects("delete object", key)?.remove(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::MemoryStore;
    use crate::conformance::object_store::Subject;

    async fn subject() -> Subject {
        let store = Arc::new(MemoryStore::new("conformance"));
        Subject::new(Arc::clone(&store) as _, move || store.set_away(true))
    }

    crate::object_store_conformance!(subject);
}
