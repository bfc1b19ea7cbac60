//! Trying again, without ever turning *unknown* into a wrong *done* or *not done*.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::store::{CopySource, ObjectInfo};
use crate::{Error, ErrorKind, Key, ObjectStore, Result};

/// How often and how patiently to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOptions {
    /// Calls in all, at least one.
    pub attempts: u32,
    /// Wait after the first; each further wait is twice as long.
    pub first_wait: Duration,
    /// No wait is longer, unless the other side asks for it.
    pub longest_wait: Duration,
}

impl Default for RetryOptions {
    /// Four calls within two seconds of waiting: a failover cannot be more patient with a dead
    /// store.
    fn default() -> Self {
        Self {
            attempts: 4,
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_secs(1),
        }
    }
}

/// Repeats calls that failed as `Unavailable` or `Unknown`, waiting a random part of a growing time
/// in between.
///
/// A create whose outcome is unknown is *created again*: either call may be the one that took
/// effect, and the answer `AlreadyExists` promises durability, which reading back would not. If the
/// object then holds the same bytes, the create has succeeded; if it holds others, somebody else's
/// has. Two callers that must know apart who of them won therefore write something of their own
/// into the object.
#[derive(Debug)]
pub struct Retry {
    inner: Arc<dyn ObjectStore>,
    options: RetryOptions,
}

impl Retry {
    /// Repeats calls to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, options: RetryOptions) -> Self {
        Self { inner, options }
    }

    /// Calls until it succeeds, fails for good, or the attempts are used up.
    async fn repeat<T, F>(&self, call: impl Fn() -> F + Send + Sync) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let mut tried = 0;
        loop {
            tried += 1;
            match call().await {
                Err(error) if !error.is_permanent() && tried < self.options.attempts => {
                    self.wait(tried, &error).await;
                }
                result => return result,
            }
        }
    }

    async fn wait(&self, tried: u32, error: &Error) {
        let doubled = 2_u32.saturating_pow(tried - 1);
        let longest = self.options.longest_wait;
        let full = self.options.first_wait.saturating_mul(doubled).min(longest);
        let jittered = full.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        tokio::time::sleep(error.retry_after().unwrap_or_default().max(jittered)).await;
    }

    /// Decides what an earlier create of unknown outcome has become, now that the key is taken.
    async fn is_ours(&self, key: &Key, body: &Bytes, taken: Error) -> Result<()> {
        match self.get(key).await {
            Ok(there) if there == *body => Ok(()),
            Ok(_) => Err(taken),
            Err(error) => Err(self.unknown(key, error)),
        }
    }

    fn unknown(&self, key: &Key, cause: Error) -> Error {
        let subject = format!("{}/{key}", self.location());
        Error::new(ErrorKind::Unknown, "create object", subject).because(cause)
    }
}

#[async_trait]
impl ObjectStore for Retry {
    fn location(&self) -> &str {
        self.inner.location()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<()> {
        let mut unknown = false;
        let mut tried = 0;
        loop {
            tried += 1;
            let error = match self.inner.create(key, body.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            unknown |= error.kind() == ErrorKind::Unknown;
            match error.kind() {
                ErrorKind::AlreadyExists if unknown => {
                    return self.is_ours(key, &body, error).await;
                }
                ErrorKind::Unavailable | ErrorKind::Unknown if tried < self.options.attempts => {
                    self.wait(tried, &error).await;
                }
                // An earlier call may have taken effect, whatever became of this one.
                kind if unknown && kind != ErrorKind::Unknown => {
                    return Err(self.unknown(key, error));
                }
                _ => return Err(error),
            }
        }
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.repeat(|| self.inner.get(key)).await
    }

    async fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        self.repeat(|| self.inner.get_range(key, offset, length))
            .await
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.repeat(|| self.inner.head(key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>> {
        self.repeat(|| self.inner.list(prefix, after, limit)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.repeat(|| self.inner.delete(key)).await
    }

    async fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes().await
    }

    fn copy_source(&self, key: &Key) -> Option<CopySource> {
        self.inner.copy_source(key)
    }

    async fn copy_from(&self, source: &CopySource, key: &Key) -> Result<()> {
        let mut unknown = false;
        let mut tried = 0;
        loop {
            tried += 1;
            let error = match self.inner.copy_from(source, key).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            unknown |= error.kind() == ErrorKind::Unknown;
            match error.kind() {
                // Ours or somebody else's: the caller compares it, as it does any copy.
                ErrorKind::AlreadyExists if unknown => return Ok(()),
                ErrorKind::Unavailable | ErrorKind::Unknown if tried < self.options.attempts => {
                    self.wait(tried, &error).await;
                }
                kind if unknown && kind != ErrorKind::Unknown => {
                    let subject = format!("{}/{key}", self.location());
                    let unknown = Error::new(ErrorKind::Unknown, "copy object to", subject);
                    return Err(unknown.because(error));
                }
                _ => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests;
