//! Faults on purpose, scripted or drawn from a seed.
//!
//! A seeded fault depends on the seed, the operation, the subject and how often that was asked, and
//! on nothing else: not on the order in which concurrent tasks happen to call. The seed, which
//! `Display` prints, therefore replays a run.

mod random;
mod rule;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::Operation;
use crate::store::{CopySource, ObjectInfo};
use crate::{Error, ErrorKind, Key, ObjectStore, Result};

pub use random::Odds;
pub use rule::Rule;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this kind and has not been done. `Unknown` is a request that was lost.
    Before(ErrorKind),
    /// It has been done, or refused, and the answer is lost: a change is `Unknown`, a read
    /// `Unavailable`.
    After,
    /// It is done after this time.
    Delay(Duration),
}

/// Makes calls to a store fail.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    source: Mutex<Source>,
}

#[derive(Debug)]
enum Source {
    Scripted(Vec<Rule>),
    Seeded {
        seed: u64,
        odds: Odds,
        asked: BTreeMap<(Operation, String), u64>,
    },
}

impl Faulty {
    /// Takes the faults from rules: the first that matches a call decides.
    #[must_use]
    pub fn scripted(inner: Arc<dyn ObjectStore>, rules: Vec<Rule>) -> Self {
        Self {
            inner,
            source: Mutex::new(Source::Scripted(rules)),
        }
    }

    /// Draws the faults from a seed.
    #[must_use]
    pub fn seeded(inner: Arc<dyn ObjectStore>, seed: u64, odds: Odds) -> Self {
        let asked = BTreeMap::new();
        Self {
            inner,
            source: Mutex::new(Source::Seeded { seed, odds, asked }),
        }
    }

    /// Replaces all rules; from now on the faults are scripted.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = Source::Scripted(rules);
    }

    fn next(&self, operation: Operation, subject: &str) -> Option<Fault> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *source {
            Source::Scripted(rules) => rule::decide(rules, operation, subject),
            Source::Seeded { seed, odds, asked } => {
                let count = asked.entry((operation, subject.to_owned())).or_default();
                *count += 1;
                odds.draw(*seed, operation, subject, *count)
            }
        }
    }

    async fn call<T>(
        &self,
        operation: Operation,
        subject: &str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let fault = self.next(operation, subject);
        let error = |kind| {
            let subject = format!("{}/{subject}", self.inner.location());
            Error::new(kind, operation.phrase(), subject).because(self.to_string())
        };
        match fault {
            None => call.await,
            Some(Fault::Before(kind)) => Err(error(kind)),
            Some(Fault::After) => {
                // Whatever the answer was, nobody hears it.
                call.await.ok();
                Err(error(if operation.is_change() {
                    ErrorKind::Unknown
                } else {
                    ErrorKind::Unavailable
                }))
            }
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                call.await
            }
        }
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.source.lock().unwrap_or_else(PoisonError::into_inner) {
            Source::Scripted(_) => f.write_str("scripted fault"),
            Source::Seeded { seed, .. } => write!(f, "fault drawn from seed {seed}"),
        }
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    fn location(&self) -> &str {
        self.inner.location()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<()> {
        let call = self.inner.create(key, body);
        self.call(Operation::Create, key.as_str(), call).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        let call = self.inner.get(key);
        self.call(Operation::Get, key.as_str(), call).await
    }

    async fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        let call = self.inner.get_range(key, offset, length);
        self.call(Operation::GetRange, key.as_str(), call).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        let call = self.inner.head(key);
        self.call(Operation::Head, key.as_str(), call).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>> {
        let call = self.inner.list(prefix, after, limit);
        self.call(Operation::List, prefix, call).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let call = self.inner.delete(key);
        self.call(Operation::Delete, key.as_str(), call).await
    }

    async fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes().await
    }

    fn copy_source(&self, key: &Key) -> Option<CopySource> {
        self.inner.copy_source(key)
    }

    async fn copy_from(&self, source: &CopySource, key: &Key) -> Result<()> {
        let call = self.inner.copy_from(source, key);
        self.call(Operation::CopyFrom, key.as_str(), call).await
    }
}

#[cfg(test)]
mod tests;
