//! A store in memory, for tests of what stands on the seam.

use std::collections::BTreeMap;
use std::ops::Bound;
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
}

impl MemoryStore {
    /// Makes an empty store whose location is `memory://<name>`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            location: format!("memory://{name}"),
            objects: Mutex::default(),
        }
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, kind: ErrorKind, operation: &str, key: &Key) -> Error {
        Error::new(kind, operation, format!("{}/{key}", self.location))
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    fn location(&self) -> &str {
        &self.location
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<()> {
        let mut objects = self.objects();
        if objects.contains_key(key) {
            return Err(self.error(ErrorKind::AlreadyExists, "create object", key));
        }
        objects.insert(key.clone(), body);
        Ok(())
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        let found = self.objects().get(key).cloned();
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
        let objects = self.objects();
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
        self.objects().remove(key);
        Ok(())
    }
}
