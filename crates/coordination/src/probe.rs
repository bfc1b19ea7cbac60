//! Finds out what a store can do, by doing it, and records the result in the store (PROTOCOL 4).
//!
//! A store whose create is not atomic would let two regions win one epoch. It is refused for register, seals and
//! synchronous mode.

use std::sync::Arc;

use bytes::Bytes;
use dr_provider::store::list_all;
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};
use futures::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::operation::{Patience, key, limited, read};
use crate::publish::publish;

/// The version of the report's format that this code writes.
pub const FORMAT_VERSION: u32 = 1;

const RACERS: u8 = 16;

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeReport {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// When it was probed.
    pub at: Timestamp,
    /// Of sixteen concurrent creates of one key, one succeeded and all others were told that it exists.
    pub atomic_create: bool,
    /// What was created can be read at once, and is what the winner wrote.
    pub read_after_write: bool,
    /// What was created is in a listing at once.
    pub list_after_write: bool,
    /// What was seen where the answer is no, one line each.
    pub findings: Vec<String>,
}

/// Probes a store and records the report in it. `entropy` names the probe's objects, two of which stay.
///
/// # Errors
///
/// If the store does not answer so much that nothing can be said, or the report cannot be recorded.
pub async fn probe_store(
    store: &Arc<dyn ObjectStore>,
    at: Timestamp,
    entropy: u64,
) -> Result<ProbeReport> {
    let name = format!("{}-{entropy:016x}", at.strftime("%Y%m%dT%H%M%SZ"));
    let raced = key(format!("probe/race/{name}"));
    let body = |racer: u8| Bytes::from(format!("racer {racer}\n"));
    let limit = Patience::default().timeout;
    let creates = (0..RACERS).map(|racer| {
        let (store, key) = (store.clone(), raced.clone());
        // Each in its own task, so that they run on several threads.
        tokio::spawn(async move {
            let subject = || format!("{}/{key}", store.location());
            limited(
                limit,
                "create object",
                subject,
                store.create(&key, body(racer)),
            )
            .await
        })
    });
    let mut findings = Vec::new();
    let mut winners = Vec::new();
    let mut told = 0;
    for (racer, result) in (0_u8..).zip(join_all(creates).await) {
        match result {
            Ok(Ok(())) => winners.push(racer),
            Ok(Err(error)) if error.kind() == ErrorKind::AlreadyExists => told += 1,
            Ok(Err(error)) if racer == 0 && error.kind() != ErrorKind::Unknown => {
                return Err(error);
            }
            Ok(Err(error)) => findings.push(dr_provider::error::chain(&error)),
            Err(error) => findings.push(error.to_string()),
        }
    }
    let atomic_create = winners.len() == 1 && told == RACERS - 1;
    if !atomic_create {
        findings.push(format!(
            "of {RACERS} creates of one key {} succeeded and {told} were told that it exists",
            winners.len()
        ));
    }
    let found = read(&**store, &raced, Patience::default()).await?;
    let read_after_write = found.is_some_and(|bytes| winners.iter().any(|w| bytes == body(*w)));
    if !read_after_write {
        findings.push("the object read is not what the winner wrote".to_owned());
    }
    let listed = list_all(&**store, raced.as_str()).await?;
    let list_after_write = listed.iter().any(|info| info.key == raced);
    if !list_after_write {
        findings.push("the object is not in a listing".to_owned());
    }
    let report = ProbeReport {
        version: FORMAT_VERSION,
        at,
        atomic_create,
        read_after_write,
        list_after_write,
        findings,
    };
    let mut text =
        serde_json::to_vec_pretty(&report).expect("plain values always have a JSON form");
    text.push(b'\n');
    let record = key(format!("probe/{name}"));
    publish(&**store, record, text.into(), Patience::default()).await?;
    Ok(report)
}

/// Creates one small object, reads it again and returns its key: a store can have become full, or read-only, since its probe. Whoever
/// tries again and again removes it, if it may.
///
/// # Errors
///
/// What the store answers.
pub async fn probe_write(store: &dyn ObjectStore, at: Timestamp, entropy: u64) -> Result<Key> {
    let name = format!("{}-{entropy:016x}", at.strftime("%Y%m%dT%H%M%SZ"));
    let written = key(format!("writable/{name}"));
    let body = Bytes::from(format!("{at}\n"));
    publish(store, written.clone(), body.clone(), Patience::default()).await?;
    if read(store, &written, Patience::default()).await? == Some(body) {
        return Ok(written);
    }
    let subject = format!("{}/{written}", store.location());
    Err(
        Error::new(ErrorKind::Corrupt, "read what was written to", subject)
            .with_hint("what the store acknowledges cannot be read: do not rely on it"),
    )
}

/// Returns the newest recorded probe of a store; `None` if it was never probed.
pub async fn newest_probe(store: &dyn ObjectStore) -> Result<Option<ProbeReport>> {
    let is_report = |key: &Key| key.as_str().matches('/').count() == 1;
    let mut listed = list_all(store, "probe/").await?;
    listed.retain(|info| is_report(&info.key));
    let Some(newest) = listed.last() else {
        return Ok(None);
    };
    let Some(bytes) = read(store, &newest.key, Patience::default()).await? else {
        return Ok(None);
    };
    let report = serde_json::from_slice(&bytes).map_err(|cause| {
        let subject = format!("{}/{}", store.location(), newest.key);
        Error::new(ErrorKind::Corrupt, "read probe report", subject).because(cause)
    })?;
    Ok(Some(report))
}

/// Refuses a store that may hold neither register nor seals nor synchronous log.
pub fn require_atomic_create(store: &dyn ObjectStore, report: &ProbeReport) -> Result<()> {
    if report.atomic_create && report.read_after_write {
        return Ok(());
    }
    let error = Error::new(
        ErrorKind::Unsupported,
        "keep register and seals in",
        store.location(),
    );
    Err(error
        .because(report.findings.join("; "))
        .with_hint("use a store with conditional creates; this one can hold plain copies only"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use dr_provider::store::{MemoryStore, ObjectInfo};

    use super::*;
    use crate::testing::at;

    /// How a store is wrong.
    #[derive(Clone, Copy, Debug)]
    enum Fault {
        /// Checks first and writes then.
        Racy,
        /// Acknowledges what it does not keep.
        Forgetful,
    }

    #[derive(Debug)]
    struct Unsound(MemoryStore, Fault);

    #[async_trait]
    impl ObjectStore for Unsound {
        fn location(&self) -> &str {
            self.0.location()
        }

        async fn create(&self, key: &Key, body: Bytes) -> Result<()> {
            if matches!(self.1, Fault::Forgetful) {
                return Ok(());
            }
            if self.0.head(key).await.is_ok() {
                return self.0.create(key, body).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.0.delete(key).await?;
            self.0.create(key, body).await
        }

        async fn get(&self, key: &Key) -> Result<Bytes> {
            self.0.get(key).await
        }

        async fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
            self.0.get_range(key, offset, length).await
        }

        async fn head(&self, key: &Key) -> Result<ObjectInfo> {
            self.0.head(key).await
        }

        async fn list(
            &self,
            prefix: &str,
            after: Option<&Key>,
            limit: usize,
        ) -> Result<Vec<ObjectInfo>> {
            self.0.list(prefix, after, limit).await
        }

        async fn delete(&self, key: &Key) -> Result<()> {
            self.0.delete(key).await
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_sound_store_passes_and_the_newest_report_is_found() {
        let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("west"));
        assert_eq!(newest_probe(&*store).await.unwrap(), None);
        for second in [0, 5] {
            let report = probe_store(&store, at(second), 7).await.unwrap();
            assert_eq!(report.findings, Vec::<String>::new());
            assert_eq!(newest_probe(&*store).await.unwrap(), Some(report.clone()));
            require_atomic_create(&*store, &report).unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_store_that_checks_and_then_writes_is_refused() {
        let store: Arc<dyn ObjectStore> = Arc::new(Unsound(MemoryStore::new("racy"), Fault::Racy));
        let report = probe_store(&store, at(0), 7).await.unwrap();
        assert!(!report.atomic_create);
        let refused = require_atomic_create(&*store, &report).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
    }

    #[tokio::test]
    async fn a_store_is_asked_for_what_was_written_to_it() {
        let sound = MemoryStore::new("west");
        probe_write(&sound, at(0), 7).await.unwrap();
        assert_eq!(list_all(&sound, "writable/").await.unwrap().len(), 1);
        assert_eq!(newest_probe(&sound).await.unwrap(), None);

        let forgetful = Unsound(MemoryStore::new("void"), Fault::Forgetful);
        let error = probe_write(&forgetful, at(0), 7).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
