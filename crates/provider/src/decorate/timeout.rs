//! A limit on the time of each call.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::Operation;
use crate::store::{CopySource, ObjectInfo};
use crate::{Error, ErrorKind, Key, ObjectStore, Result};

/// Gives up on a call after a time: a read is then `Unavailable`, a change `Unknown`, because it
/// may still take effect.
#[derive(Debug)]
pub struct Timeout {
    inner: Arc<dyn ObjectStore>,
    limit: Duration,
}

impl Timeout {
    /// Limits each call to `inner`; the limit must suffice for the biggest object over the slowest
    /// line.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, limit: Duration) -> Self {
        Self { inner, limit }
    }

    async fn limited<T>(
        &self,
        operation: Operation,
        subject: &str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match tokio::time::timeout(self.limit, call).await {
            Ok(result) => result,
            Err(_) => {
                let kind = if operation.is_change() {
                    ErrorKind::Unknown
                } else {
                    ErrorKind::Unavailable
                };
                let subject = format!("{}/{subject}", self.inner.location());
                let error = Error::new(kind, operation.phrase(), subject);
                Err(error.because(format!("no answer within {:?}", self.limit)))
            }
        }
    }
}

#[async_trait]
impl ObjectStore for Timeout {
    fn location(&self) -> &str {
        self.inner.location()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<()> {
        let call = self.inner.create(key, body);
        self.limited(Operation::Create, key.as_str(), call).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        let call = self.inner.get(key);
        self.limited(Operation::Get, key.as_str(), call).await
    }

    async fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        let call = self.inner.get_range(key, offset, length);
        self.limited(Operation::GetRange, key.as_str(), call).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        let call = self.inner.head(key);
        self.limited(Operation::Head, key.as_str(), call).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>> {
        let call = self.inner.list(prefix, after, limit);
        self.limited(Operation::List, prefix, call).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let call = self.inner.delete(key);
        self.limited(Operation::Delete, key.as_str(), call).await
    }

    async fn free_bytes(&self) -> Option<u64> {
        let told = tokio::time::timeout(self.limit, self.inner.free_bytes()).await;
        told.ok().flatten()
    }

    fn copy_source(&self, key: &Key) -> Option<CopySource> {
        self.inner.copy_source(key)
    }

    async fn copy_from(&self, source: &CopySource, key: &Key) -> Result<()> {
        let call = self.inner.copy_from(source, key);
        self.limited(Operation::CopyFrom, key.as_str(), call).await
    }
}
