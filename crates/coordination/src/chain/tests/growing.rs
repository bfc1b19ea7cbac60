//! A chain that grows faster than one read after the other can follow, as a store far away shows that of a busy primary.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use dr_model::Lsn;
use dr_provider::store::{MemoryStore, ObjectInfo};
use dr_provider::{Key, ObjectStore, Result};
use rstest::rstest;

use super::{ORIGIN, chain, chunk, request};
use crate::chain::{Origin, encode, find_tail, seal};
use crate::testing::{IMPATIENT, at};

/// Bytes of log in a chunk.
const LENGTH: u64 = 8;

/// Chunks that a writer has under way at once, and adds in the time of one request.
const BURST: u64 = 7;

/// A store in which a chain grows with every read.
#[derive(Debug)]
struct Growing {
    inner: MemoryStore,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    end: Lsn,
    /// How many chunks are still to come.
    left: u64,
    reads: usize,
    /// The last link that a listing shows; `None` for all.
    listed: Option<Lsn>,
}

impl Growing {
    /// Makes a store with a chain of `chunks`, to which `left` more are added.
    async fn new(chunks: u64, left: u64) -> Arc<Self> {
        let store = Arc::new(Self {
            inner: MemoryStore::new("west"),
            state: Mutex::new(State {
                end: ORIGIN,
                left: chunks,
                reads: 0,
                listed: None,
            }),
        });
        let origin = Origin {
            version: crate::chain::FORMAT_VERSION,
            system_identifier: chain(1).system_identifier,
            timeline: chain(1).timeline,
            epoch: chain(1).epoch,
            start_lsn: ORIGIN,
            created_at: at(0),
            writer: "west".to_owned(),
        };
        let key = chain(1).origin_key();
        store.inner.create(&key, origin.to_bytes()).await.unwrap();
        store.grow(chunks).await;
        store.state.lock().unwrap().left = left;
        store
    }

    async fn grow(&self, most: u64) {
        for _ in 0..most {
            let start = {
                let mut state = self.state.lock().unwrap();
                if state.left == 0 {
                    return;
                }
                state.left -= 1;
                let start = state.end;
                state.end = start.advance(LENGTH);
                start
            };
            let through = Lsn(start.0 - BURST * LENGTH).max(ORIGIN);
            let bytes = encode(&chain(1), &chunk(start, LENGTH), through, "west", None);
            // Where a seal came first the writer is over.
            if let Err(error) = self.inner.create(&chain(1).link_key(start), bytes).await {
                assert_eq!(error.kind(), dr_provider::ErrorKind::AlreadyExists);
                let mut state = self.state.lock().unwrap();
                (state.end, state.left) = (start, 0);
            }
        }
    }

    fn end(&self) -> Lsn {
        self.state.lock().unwrap().end
    }

    fn reads(&self) -> usize {
        self.state.lock().unwrap().reads
    }

    async fn count(&self) {
        self.state.lock().unwrap().reads += 1;
        self.grow(BURST).await;
    }
}

#[async_trait]
impl ObjectStore for Growing {
    fn location(&self) -> &str {
        self.inner.location()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<()> {
        self.count().await;
        self.inner.create(key, body).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.count().await;
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        self.count().await;
        self.inner.get_range(key, offset, length).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.inner.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>> {
        let mut found = self.inner.list(prefix, after, limit).await?;
        let last = self.state.lock().unwrap().listed;
        let is_shown = |info: &ObjectInfo| {
            let position = Lsn::from_key(info.key.file_name());
            position.is_none_or(|lsn| last.is_none_or(|last| lsn <= last))
        };
        found.retain(is_shown);
        Ok(found)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }
}

#[tokio::test]
async fn a_chain_that_always_grows_has_a_tail() {
    let store = Growing::new(1000, u64::MAX).await;
    let before = store.end();
    let tail = find_tail(&*store, &chain(1), IMPATIENT).await.unwrap();
    let tail = tail.unwrap();
    assert!(before <= tail.end, "{} is before {before}", tail.end);
    assert!(tail.end <= store.end());
    assert_eq!(tail.last.unwrap().end, tail.end);
    assert_eq!(tail.seal, None);
}

/// What a listing hides is followed by key, however much it is.
#[rstest]
#[case::never_shown(None)]
#[case::shown_late(Some(8))]
#[tokio::test]
async fn an_old_listing_hides_no_end(#[case] shown_after: Option<usize>) {
    let store = Growing::new(1000, 0).await;
    store.state.lock().unwrap().listed = Some(ORIGIN.advance(300 * LENGTH));
    let find = async { find_tail(&*store, &chain(1), IMPATIENT).await };
    let show = async {
        let Some(reads) = shown_after else { return };
        while store.reads() < reads {
            tokio::task::yield_now().await;
        }
        store.state.lock().unwrap().listed = None;
    };
    let (tail, ()) = tokio::join!(find, show);
    assert_eq!(tail.unwrap().unwrap().end, store.end());
}

/// A writer that is told to stop has left many chunks behind by then; few requests pass over them.
#[tokio::test]
async fn a_seal_catches_up_with_a_writer_that_stops() {
    let store = Growing::new(100, 2000).await;
    let sealed = seal(&*store, &chain(1), &request(2), IMPATIENT).await;
    let sealed = sealed.unwrap();
    assert_eq!(sealed.lsn, store.end());
    let tail = find_tail(&*store, &chain(1), IMPATIENT).await.unwrap();
    assert_eq!(tail.unwrap().end, sealed.lsn);
}
