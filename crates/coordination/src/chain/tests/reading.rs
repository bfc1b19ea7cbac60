//! Reading: across epochs, holes, long chains, summaries.

use std::sync::Arc;

use bytes::Bytes;
use dr_model::{Lsn, TimelineId};
use dr_provider::store::{MemoryStore, ObjectInfo};
use dr_provider::{Key, ObjectStore};

use super::{Boot, CLUSTER, ORIGIN, chain, chunk, log, options, request, write, writer};
use crate::chain::{
    Available, ChainReader, ChainWriter, Error, Promise, Section, available, chains, encode,
    find_tail, newest_chain, prove, read_history, seal, summarise, write_history,
};
use crate::testing::{IMPATIENT, Scripted, at};

async fn two_epochs(gap: u64) -> Arc<Scripted> {
    let store = Scripted::new("west");
    let mut first = writer(&store).await;
    write(&mut first, &[100, 50]).await;
    let sealed = seal(&*store, &chain(1), &request(2), IMPATIENT)
        .await
        .unwrap();
    let start = sealed.lsn.advance(gap);
    let mut second = ChainWriter::open(store.clone(), chain(2), start, options(&Boot::default()))
        .await
        .unwrap();
    write(&mut second, &[30, 20]).await;
    store
}

async fn read(store: &Arc<Scripted>, from: Lsn, to: Lsn) -> Result<Vec<u8>, Error> {
    let timeline = TimelineId(1);
    let reader = ChainReader::open(
        store.clone(),
        Section::new(CLUSTER, timeline, from, to),
        IMPATIENT,
    )
    .await;
    reader?.read_to_end().await
}

#[tokio::test]
async fn epochs_of_one_timeline_follow_each_other() {
    let store = two_epochs(0).await;
    assert_eq!(
        chains(&*store, CLUSTER).await.unwrap(),
        [chain(1), chain(2)]
    );
    assert_eq!(
        newest_chain(&*store, CLUSTER).await.unwrap(),
        Some(chain(2))
    );
    for (from, to) in [
        (0, 200),
        (99, 101),
        (0, 1),
        (149, 151),
        (199, 200),
        (120, 190),
    ] {
        let bytes = read(&store, ORIGIN.advance(from), ORIGIN.advance(to))
            .await
            .unwrap();
        assert_eq!(
            bytes,
            log(ORIGIN.advance(from), to - from),
            "{from} to {to}"
        );
    }
    let all = Available {
        from: ORIGIN,
        to: ORIGIN.advance(200),
    };
    let pieces = available(&*store, Section::whole(CLUSTER, TimelineId(1)), IMPATIENT)
        .await
        .unwrap();
    assert_eq!(pieces, [all]);
}

#[tokio::test]
async fn a_hole_is_refused_and_named() {
    let store = two_epochs(7).await;
    let pieces = available(&*store, Section::whole(CLUSTER, TimelineId(1)), IMPATIENT)
        .await
        .unwrap();
    assert_eq!(pieces.len(), 2);
    for (asked, hole) in [
        ((0, 207), (150, 157)),
        ((160, 300), (207, 300)),
        ((0, 155), (150, 155)),
    ] {
        match read(&store, ORIGIN.advance(asked.0), ORIGIN.advance(asked.1)).await {
            Err(Error::Hole { from, to, .. }) => {
                assert_eq!((from, to), (ORIGIN.advance(hole.0), ORIGIN.advance(hole.1)));
            }
            other => panic!("{other:?}"),
        }
    }
    let none = ChainReader::open(
        store,
        Section::new(CLUSTER, TimelineId(2), ORIGIN, ORIGIN.advance(1)),
        IMPATIENT,
    );
    assert!(matches!(none.await, Err(Error::Hole { .. })));
}

/// Writes chunks of the given lengths without waiting for each, straight into the store.
async fn fill(store: &MemoryStore, count: u64, length: impl Fn(u64) -> u64) -> Lsn {
    let origin = super::writer(&Arc::new(MemoryStore::new("unused"))).await;
    drop(origin);
    let mut at = ORIGIN;
    for number in 0..count {
        let piece = chunk(at, length(number));
        let body = encode(&chain(1), &piece, at, "west", None);
        store.create(&chain(1).link_key(at), body).await.unwrap();
        at = piece.end();
    }
    at
}

#[tokio::test]
async fn the_tail_of_a_long_chain_is_found_by_leaps() {
    for length in [
        |_| 1,
        |n: u64| 1 + n % 7,
        |n: u64| if n < 3000 { 1 } else { 500 },
    ] {
        let store = Arc::new(MemoryStore::new("west"));
        drop(super::writer(&store).await);
        let end = fill(&store, 6500, length).await;
        let tail = find_tail(&*store, &chain(1), IMPATIENT)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(tail.end, end);
        let summary = summarise(&*store, &chain(1), 32, IMPATIENT)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(summary.headers, 32);
        let (from, to) = (Lsn(end.0 - 900), end);
        let reader = ChainReader::open(
            store,
            Section::new(CLUSTER, TimelineId(1), from, to),
            IMPATIENT,
        );
        let bytes = reader.await.unwrap().read_to_end().await.unwrap();
        assert_eq!(bytes, log(from, 900));
    }
}

#[tokio::test]
async fn a_summary_says_what_is_known_of_loss() {
    let store = Scripted::new("west");
    let mut writer = writer(&store).await;
    let summary = summarise(&*store, &chain(1), 16, IMPATIENT)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (summary.end, summary.received_at, summary.headers),
        (ORIGIN, None, 0)
    );
    write(&mut writer, &[10, 10]).await;
    let mut behind = chunk(writer.end(), 10);
    behind.facts.primary_end = behind.end().advance(100);
    behind.facts.last_commit_at = None;
    behind.facts.promise = Some(Promise {
        held: true,
        checked_at: at(20),
        reasons: Vec::new(),
        epoch: None,
        from: None,
    });
    writer.push(behind.clone()).await.unwrap();
    let end = writer.flush().await.unwrap();
    let summary = summarise(&*store, &chain(1), 16, IMPATIENT)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (summary.origin, summary.end, summary.headers),
        (ORIGIN, end, 3)
    );
    assert_eq!(summary.primary_end, Some(end.advance(100)));
    assert_eq!(summary.received_at, Some(at(21)));
    assert_eq!(summary.covered_at, Some(at(11)));
    assert_eq!(summary.last_commit_at, Some(at(10)));
    assert_eq!(summary.commits_per_second, Some(0.2));
    assert_eq!(summary.promise, behind.facts.promise);
    let other = summarise(&*store, &chain(2), 16, IMPATIENT).await.unwrap();
    assert_eq!(other, None);
}

#[tokio::test]
async fn a_history_file_is_written_once() {
    let store = Scripted::new("west");
    let (two, one) = (
        TimelineId(2),
        "1\t0/3000000\tno recovery target specified\n",
    );
    assert_eq!(read_history(&*store, CLUSTER, two).await.unwrap(), None);
    for _ in 0..2 {
        write_history(&*store, CLUSTER, two, one.into())
            .await
            .unwrap();
    }
    let other = write_history(&*store, CLUSTER, two, "1\t0/4000000\tx\n".into()).await;
    assert!(matches!(other, Err(Error::HistoryDiffers { .. })));
    assert_eq!(
        read_history(&*store, CLUSTER, two).await.unwrap().unwrap(),
        one
    );
}

/// Writes chunks of the given lengths as one that has several under way: each states where the chain ended four before.
async fn fill_in_flight(store: &MemoryStore, lengths: &[u64]) -> Vec<Lsn> {
    drop(super::writer(&Arc::new(MemoryStore::new("unused"))).await);
    let mut starts = vec![ORIGIN];
    for (number, length) in lengths.iter().enumerate() {
        let at = starts[number];
        let through = starts[number.saturating_sub(4)];
        let body = encode(&chain(1), &chunk(at, *length), through, "west", None);
        store.create(&chain(1).link_key(at), body).await.unwrap();
        starts.push(at.advance(*length));
    }
    starts
}

async fn memory(lengths: &[u64]) -> (Arc<MemoryStore>, Vec<Lsn>) {
    let store = Arc::new(MemoryStore::new("west"));
    drop(super::writer(&store).await);
    let starts = fill_in_flight(&store, lengths).await;
    (store, starts)
}

#[tokio::test]
async fn a_chunk_removed_behind_the_newest_is_named() {
    let (store, starts) = memory(&[5; 3000]).await;
    let (begin, end) = (starts[0], *starts.last().unwrap());
    let timeline = TimelineId(1);
    let all = available(
        &*store,
        Section::new(CLUSTER, timeline, begin, end),
        IMPATIENT,
    );
    assert_eq!(
        all.await.unwrap(),
        [Available {
            from: begin,
            to: end
        }]
    );
    for lost in [0, 1, 700, 2500, 2990] {
        let key = chain(1).link_key(starts[lost]);
        let body = store.get(&key).await.unwrap();
        store.delete(&key).await.unwrap();
        // The newest chunks still say that all was there.
        let tail = find_tail(&*store, &chain(1), IMPATIENT).await.unwrap();
        assert_eq!(tail.unwrap().end, end);
        let held = available(
            &*store,
            Section::new(CLUSTER, timeline, begin, end),
            IMPATIENT,
        );
        let held = held.await.unwrap();
        let before = held.iter().find(|part| part.from == begin);
        assert_eq!(
            before.map_or(begin, |part| part.to),
            starts[lost],
            "{held:?}"
        );
        // Up to four that follow cannot be told from chunks that hang on nothing.
        let last = held.last().unwrap();
        assert!(starts[lost + 1..lost + 6].contains(&last.from), "{held:?}");
        assert_eq!(last.to, end);
        for from in [begin, starts[lost]] {
            let reader = ChainReader::open(
                store.clone(),
                Section::new(CLUSTER, timeline, from, end),
                IMPATIENT,
            )
            .await;
            match reader {
                Err(Error::Hole { from, to, .. }) => {
                    assert_eq!((from, to), (starts[lost], last.from));
                }
                other => panic!("{other:?}"),
            }
        }
        let missing = prove(
            &*store,
            Section::new(CLUSTER, timeline, last.from, end),
            IMPATIENT,
        );
        missing.await.unwrap();
        store.create(&key, body).await.unwrap();
    }
}

#[tokio::test]
async fn a_chunk_that_a_listing_hides_is_found_by_its_key() {
    let (store, starts) = memory(&[5; 40]).await;
    let hidden = Arc::new(Hiding {
        inner: store,
        hidden: chain(1).link_key(starts[20]),
    });
    let (begin, end) = (starts[0], starts[40]);
    let reader = ChainReader::open(
        hidden,
        Section::new(CLUSTER, TimelineId(1), begin, end),
        IMPATIENT,
    );
    let bytes = reader.await.unwrap().read_to_end().await.unwrap();
    assert_eq!(bytes, log(begin, 200));
}

/// A store whose listings lack one object (R39).
#[derive(Debug)]
struct Hiding {
    inner: Arc<MemoryStore>,
    hidden: Key,
}

#[async_trait::async_trait]
impl ObjectStore for Hiding {
    fn location(&self) -> &str {
        self.inner.location()
    }

    async fn create(&self, key: &Key, body: Bytes) -> dr_provider::Result<()> {
        self.inner.create(key, body).await
    }

    async fn get(&self, key: &Key) -> dr_provider::Result<Bytes> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, offset: u64, length: u64) -> dr_provider::Result<Bytes> {
        self.inner.get_range(key, offset, length).await
    }

    async fn head(&self, key: &Key) -> dr_provider::Result<ObjectInfo> {
        self.inner.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> dr_provider::Result<Vec<ObjectInfo>> {
        let mut listed = self.inner.list(prefix, after, limit + 1).await?;
        listed.retain(|info| info.key != self.hidden);
        listed.truncate(limit);
        Ok(listed)
    }

    async fn delete(&self, key: &Key) -> dr_provider::Result<()> {
        self.inner.delete(key).await
    }
}
