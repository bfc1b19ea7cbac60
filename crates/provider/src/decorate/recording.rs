//! What was asked of a store, for tests that assert the cost of a path.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::Operation;
use crate::store::{CopySource, ObjectInfo};
use crate::{ErrorKind, Key, ObjectStore, Result};

/// One call that has been answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was asked.
    pub operation: Operation,
    /// The key, or the prefix of a listing.
    pub subject: String,
    /// Why it failed; `None` if it did not.
    pub failure: Option<ErrorKind>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.subject)?;
        match self.failure {
            Some(kind) => write!(f, ": {}", kind.as_str()),
            None => Ok(()),
        }
    }
}

/// Remembers every call, in the order of the answers.
#[derive(Debug)]
pub struct Recording {
    inner: Arc<dyn ObjectStore>,
    calls: Mutex<Vec<Call>>,
}

impl Recording {
    /// Records the calls to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self {
            inner,
            calls: Mutex::default(),
        }
    }

    /// Returns the calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().clone()
    }

    /// Returns the calls so far and forgets them.
    #[must_use]
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.lock())
    }

    /// Counts the calls of one kind so far.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        let calls = self.lock();
        calls
            .iter()
            .filter(|call| call.operation == operation)
            .count()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record<T>(&self, operation: Operation, subject: &str, result: Result<T>) -> Result<T> {
        self.lock().push(Call {
            operation,
            subject: subject.to_owned(),
            failure: result.as_ref().err().map(crate::Error::kind),
        });
        result
    }
}

#[async_trait]
impl ObjectStore for Recording {
    fn location(&self) -> &str {
        self.inner.location()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<()> {
        let result = self.inner.create(key, body).await;
        self.record(Operation::Create, key.as_str(), result)
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        let result = self.inner.get(key).await;
        self.record(Operation::Get, key.as_str(), result)
    }

    async fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        let result = self.inner.get_range(key, offset, length).await;
        self.record(Operation::GetRange, key.as_str(), result)
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        let result = self.inner.head(key).await;
        self.record(Operation::Head, key.as_str(), result)
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>> {
        let result = self.inner.list(prefix, after, limit).await;
        self.record(Operation::List, prefix, result)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let result = self.inner.delete(key).await;
        self.record(Operation::Delete, key.as_str(), result)
    }

    async fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes().await
    }

    fn copy_source(&self, key: &Key) -> Option<CopySource> {
        self.inner.copy_source(key)
    }

    async fn copy_from(&self, source: &CopySource, key: &Key) -> Result<()> {
        let result = self.inner.copy_from(source, key).await;
        self.record(Operation::CopyFrom, key.as_str(), result)
    }
}
