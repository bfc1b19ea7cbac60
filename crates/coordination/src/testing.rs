//! A store whose answers a test scripts.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use dr_provider::store::{MemoryStore, ObjectInfo};
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};

use crate::{Actor, Patience};

/// What goes wrong with one create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It is not done and that is said.
    Unavailable,
    /// There is no room for it.
    Full,
    /// It is done and the answer is lost.
    AnswerLost,
    /// It is not done and the answer is lost.
    RequestLost,
}

/// A store in memory whose creates fail as scripted, and whose every call fails while it is down.
#[derive(Debug)]
pub(crate) struct Scripted {
    inner: MemoryStore,
    faults: Mutex<VecDeque<Fault>>,
    down: Mutex<bool>,
    hanging: Mutex<bool>,
    calls: AtomicUsize,
}

impl Scripted {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(name),
            faults: Mutex::default(),
            down: Mutex::new(false),
            hanging: Mutex::new(false),
            calls: AtomicUsize::new(0),
        })
    }

    pub(crate) fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    pub(crate) fn set_down(&self, down: bool) {
        *self.down.lock().unwrap() = down;
    }

    /// Makes every call hang.
    pub(crate) fn set_hanging(&self, hanging: bool) {
        *self.hanging.lock().unwrap() = hanging;
    }

    /// Returns how often it has been called.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    async fn check(&self) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let hanging = *self.hanging.lock().unwrap();
        if hanging {
            std::future::pending::<()>().await;
        }
        if *self.down.lock().unwrap() {
            Err(self.error(ErrorKind::Unavailable))
        } else {
            Ok(())
        }
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, "use", self.inner.location())
    }
}

#[async_trait]
impl ObjectStore for Scripted {
    fn location(&self) -> &str {
        self.inner.location()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<()> {
        self.check().await?;
        let fault = self.faults.lock().unwrap().pop_front();
        match fault.unwrap_or(Fault::None) {
            Fault::None => self.inner.create(key, body).await,
            Fault::Unavailable => Err(self.error(ErrorKind::Unavailable)),
            Fault::Full => Err(self.error(ErrorKind::Full)),
            Fault::AnswerLost => {
                let done = self.inner.create(key, body).await;
                Err(self.error(ErrorKind::Unknown).because(format!("{done:?}")))
            }
            Fault::RequestLost => Err(self.error(ErrorKind::Unknown)),
        }
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.check().await?;
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        self.check().await?;
        self.inner.get_range(key, offset, length).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.check().await?;
        self.inner.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>> {
        self.check().await?;
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }
}

/// Gives up fast.
pub(crate) const IMPATIENT: Patience = Patience {
    attempts: 3,
    timeout: std::time::Duration::from_secs(5),
};

/// An actor whose process number tells it apart.
pub(crate) fn actor(process_id: u32) -> Actor {
    Actor::new("postgres", "db1", process_id)
}

/// Second `n` of the tests' time.
pub(crate) fn at(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_790_000_000 + second).unwrap()
}
