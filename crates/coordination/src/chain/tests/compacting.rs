//! Compaction: what is merged, what is removed, and that a run may end anywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dr_model::{Lsn, ManualClock, SegmentSize, TimelineId};
use dr_provider::store::{MemoryStore, ObjectInfo, list_all};
use dr_provider::{ErrorKind, Key, ObjectStore};

use super::{Boot, CLUSTER, ORIGIN, chain, chunk, log, options, request, write};
use crate::chain::{
    Available, ChainReader, ChainWriter, CompactOptions, Compacted, Compactor, Error, KEPT_LINKS,
    Section, Span, Tail, bounds, chains, encode, find_tail, pieces, prove, seal, summarise,
};
use crate::testing::{IMPATIENT, at};

pub(super) const TIMELINE: TimelineId = TimelineId(1);
pub(super) const SEGMENT_BYTES: u64 = 1 << 20;
pub(super) const CHUNK: u64 = 8 << 10;

/// Beyond the end of every object of a chunk: the last byte is meant.
const CHUNK_OBJECT_END: usize = usize::MAX;

/// A store, how it is compacted, and the time.
pub(super) struct Bench<S> {
    pub(super) store: Arc<S>,
    boot: Boot,
    compactor: Compactor,
}

impl<S: ObjectStore + 'static> Bench<S> {
    pub(super) fn new(store: S) -> Self {
        Self {
            store: Arc::new(store),
            boot: Boot::default(),
            compactor: Compactor::default(),
        }
    }

    async fn writer(&self, epoch: u64) -> ChainWriter {
        let options = options(&self.boot);
        ChainWriter::open(self.store.clone(), chain(epoch), ORIGIN, options)
            .await
            .unwrap()
    }

    pub(super) async fn write(&self, lengths: &[u64]) -> Lsn {
        write(&mut self.writer(1).await, lengths).await
    }

    pub(super) async fn compact(&mut self) -> Result<Compacted, Error> {
        let boot = self.boot.clone();
        let options = CompactOptions {
            patience: IMPATIENT,
            boot_time: Arc::new(move || *boot.0.lock().unwrap()),
            ..CompactOptions::new("west", Arc::new(ManualClock::new(at(0))))
        };
        let store: Arc<dyn ObjectStore> = self.store.clone();
        let size = SegmentSize::try_from(u32::try_from(SEGMENT_BYTES).unwrap()).unwrap();
        self.compactor
            .run(&store, CLUSTER, TIMELINE, size, &options)
            .await
    }

    /// Lets the grace pass, so that what is held by pieces now may go.
    pub(super) async fn settle(&mut self) -> Compacted {
        self.compact().await.unwrap();
        self.boot.advance(Duration::from_secs(3601));
        self.compact().await.unwrap()
    }

    pub(super) async fn seal(&self) -> Lsn {
        let sealed = seal(&*self.store, &chain(1), &request(2), IMPATIENT).await;
        sealed.unwrap().lsn
    }

    async fn tail(&self) -> Tail {
        let found = find_tail(&*self.store, &chain(1), IMPATIENT).await;
        found.unwrap().unwrap()
    }

    async fn prove(&self, to: Lsn) -> Result<(), Error> {
        prove(
            &*self.store,
            Section::new(CLUSTER, TIMELINE, ORIGIN, to),
            IMPATIENT,
        )
        .await
    }

    pub(super) async fn read(&self, from: Lsn, to: Lsn) -> Result<Vec<u8>, Error> {
        read(self.store.clone(), from, to).await
    }

    pub(super) async fn spans(&self) -> Vec<Span> {
        let whole = Section::whole(CLUSTER, TIMELINE);
        pieces(&*self.store, whole, IMPATIENT).await.unwrap()
    }

    pub(super) async fn links(&self) -> usize {
        let all = list_all(&*self.store, &chain(1).prefix()).await.unwrap();
        all.len() - 1
    }
}

async fn read(store: Arc<dyn ObjectStore>, from: Lsn, to: Lsn) -> Result<Vec<u8>, Error> {
    let reader = ChainReader::open(store, Section::new(CLUSTER, TIMELINE, from, to), IMPATIENT);
    reader.await?.read_to_end().await
}

pub(super) fn span(from: u64, to: u64) -> Span {
    Span {
        from: ORIGIN.advance(from),
        to: ORIGIN.advance(to),
    }
}

/// Chunks go after their segment has come, and a grace (R24).
#[tokio::test]
async fn segments_are_merged_and_old_chunks_removed() {
    let mut bench = Bench::new(MemoryStore::new("west"));
    let end = bench.write(&[CHUNK - 1; 700]).await;
    let report = bench.compact().await.unwrap();
    let whole = end.bytes_since(ORIGIN) / SEGMENT_BYTES;
    let spans = bench.spans().await;
    for number in 0..whole {
        let segment = span(number * SEGMENT_BYTES, (number + 1) * SEGMENT_BYTES);
        assert!(spans.contains(&segment), "{spans:?}");
    }
    assert_eq!(report.pieces as usize, spans.len());
    assert!(report.stored_bytes > 0 && report.holes.is_empty());
    assert_eq!((report.removed, bench.links().await), (0, 700));

    // Nothing new: nothing to do, and nothing goes before its time.
    bench.boot.advance(Duration::from_secs(3600));
    assert_eq!(bench.compact().await.unwrap(), Compacted::default());
    bench.boot.advance(Duration::from_secs(1));
    let report = bench.compact().await.unwrap();
    let left = bench.links().await;
    assert_eq!(report.removed as usize, 700 - left);
    assert!((KEPT_LINKS..2 * KEPT_LINKS + 64).contains(&left), "{left}");

    // All of it is still there, for whoever reads, writes, summarises or seals.
    assert_eq!(
        bench.read(ORIGIN, end).await.unwrap(),
        log(ORIGIN, end.bytes_since(ORIGIN))
    );
    let (from, to) = (ORIGIN.advance(12_345), end);
    assert_eq!(
        bench.read(from, to).await.unwrap(),
        log(from, to.bytes_since(from))
    );
    let outer = bounds(&*bench.store, CLUSTER, TIMELINE, IMPATIENT);
    assert_eq!(
        outer.await.unwrap(),
        Some(Available {
            from: ORIGIN,
            to: end
        })
    );
    let summary = summarise(&*bench.store, &chain(1), 64, IMPATIENT).await;
    let summary = summary.unwrap().unwrap();
    assert_eq!((summary.end, summary.headers), (end, 64));
    assert_eq!(chains(&*bench.store, CLUSTER).await.unwrap(), [chain(1)]);
    let end = bench.write(&[CHUNK; 3]).await;
    assert_eq!(bench.seal().await, end);
    bench.settle().await;
    assert_eq!(bench.spans().await.last().unwrap().to, end);
    assert_eq!(
        bench.read(ORIGIN, end).await.unwrap(),
        log(ORIGIN, end.bytes_since(ORIGIN))
    );
}

#[tokio::test]
async fn a_segment_that_fills_slowly_is_a_few_pieces() {
    let mut bench = Bench::new(MemoryStore::new("west"));
    let mut writer = bench.writer(1).await;
    let mut most = 0;
    for _ in 0..160 {
        let end = write(&mut writer, &[16; 40]).await;
        bench.compact().await.unwrap();
        bench.boot.advance(Duration::from_secs(60));
        most = most.max(bench.spans().await.len());
        assert_eq!(
            bench.read(ORIGIN, end).await.unwrap(),
            log(ORIGIN, end.bytes_since(ORIGIN))
        );
    }
    drop(writer);
    assert!(most < 150, "{most}");
    assert!(bench.links().await < 3000);
}

#[tokio::test]
async fn epochs_of_one_timeline_are_merged_into_one_segment() {
    let mut bench = Bench::new(MemoryStore::new("west"));
    bench.write(&[CHUNK; 100]).await;
    bench.seal().await;
    // The next epoch begins with the segment that the last one ended in.
    let end = write(&mut bench.writer(2).await, &[CHUNK; 200]).await;
    bench.settle().await;
    assert!(bench.spans().await.contains(&span(0, SEGMENT_BYTES)));
    assert_eq!(
        bench.read(ORIGIN, end).await.unwrap(),
        log(ORIGIN, end.bytes_since(ORIGIN))
    );
}

#[tokio::test]
async fn what_is_lost_or_damaged_is_named_and_nothing_more_is_removed() {
    let mut bench = Bench::new(MemoryStore::new("west"));
    let end = bench.write(&[CHUNK; 600]).await;
    bench.settle().await;
    let lost = span(SEGMENT_BYTES, 2 * SEGMENT_BYTES);
    let key = lost.key(CLUSTER, TIMELINE);
    let body = bench.store.get(&key).await.unwrap();

    bench.store.delete(&key).await.unwrap();
    let report = bench.compact().await.unwrap();
    assert_eq!(report.holes, [lost]);
    match bench.prove(end).await {
        Err(Error::Hole { from, to, .. }) => assert_eq!((from, to), (lost.from, lost.to)),
        other => panic!("{other:?}"),
    }
    assert!(bench.read(ORIGIN, end).await.is_err());

    let mut damaged = body.to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    bench.store.create(&key, damaged.into()).await.unwrap();
    let error = bench.read(ORIGIN, end).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(key.as_str()), "{error}");
}

/// A segment is read before its chunks go (R24).
#[tokio::test]
async fn nothing_goes_that_cannot_be_read_back() {
    let mut bench = Bench::new(MemoryStore::new("west"));
    bench.write(&[CHUNK; 600]).await;
    bench.compact().await.unwrap();
    let key = span(0, SEGMENT_BYTES).key(CLUSTER, TIMELINE);
    let mut body = bench.store.get(&key).await.unwrap().to_vec();
    *body.last_mut().unwrap() ^= 1;
    bench.store.delete(&key).await.unwrap();
    bench.store.create(&key, body.into()).await.unwrap();
    bench.boot.advance(Duration::from_secs(3601));
    let error = bench.compact().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(bench.links().await, 600);
}

#[tokio::test]
async fn an_old_receiver_that_wakes_up_changes_nothing() {
    let mut bench = Bench::new(MemoryStore::new("west"));
    let mut old = bench.writer(1).await;
    write(&mut old, &[CHUNK; 10]).await;
    let (tail, mut late) = (old.end(), Vec::new());
    // What it is about to create lands after it was paused for hours; its cuts are its own.
    let mut next = tail;
    for _ in 0..8 {
        let piece = chunk(next, 100 * CHUNK + 7);
        late.push((next, encode(&chain(1), &piece, tail, "old", None)));
        next = piece.end();
    }
    bench.write(&[CHUNK; 600]).await;
    let sealed = bench.seal().await;
    bench.settle().await;
    assert!(bench.store.get(&chain(1).link_key(tail)).await.is_err());

    for (lsn, body) in late {
        bench
            .store
            .create(&chain(1).link_key(lsn), body)
            .await
            .unwrap();
    }
    let found = bench.tail().await;
    assert_eq!((found.end, found.seal.is_some()), (sealed, true));
    assert!(
        matches!(bench.prove(sealed.advance(1)).await, Err(Error::Hole { from, .. }) if from == sealed)
    );
    assert_eq!(bench.seal().await, sealed);
    assert_eq!(
        bench.read(ORIGIN, sealed).await.unwrap(),
        log(ORIGIN, sealed.bytes_since(ORIGIN))
    );
    // The writer itself does not act on what it knew.
    old.push(chunk(tail, 5)).await.unwrap();
    assert!(matches!(old.flush().await, Err(Error::Away { .. })));
}

#[tokio::test]
async fn without_the_right_to_remove_all_stays_and_that_is_said() {
    let mut bench = Bench::new(Failing::new(usize::MAX, true));
    let end = bench.write(&[CHUNK; 600]).await;
    let report = bench.settle().await;
    assert!(report.removal_denied);
    assert_eq!((report.removed, bench.links().await), (0, 600));
    assert_eq!(
        bench.read(ORIGIN, end).await.unwrap(),
        log(ORIGIN, end.bytes_since(ORIGIN))
    );
}

#[tokio::test]
async fn a_run_may_be_killed_at_any_call() {
    let mut calls = 0;
    loop {
        let mut bench = Bench::new(Failing::new(usize::MAX, false));
        let end = bench.write(&[CHUNK; 300]).await;
        assert_eq!(bench.seal().await, end);
        bench.compact().await.unwrap();
        // Once at the beginning of everything, once where chunks are removed.
        for hours in [0, 2] {
            bench.boot.advance(Duration::from_secs(hours * 3600));
            bench.store.left.store(calls, Ordering::SeqCst);
            let killed = bench.compact().await;
            let done = killed.is_ok();
            bench.store.left.store(usize::MAX, Ordering::SeqCst);
            assert_eq!(
                bench.read(ORIGIN, end).await.unwrap(),
                log(ORIGIN, end.bytes_since(ORIGIN)),
                "killed at call {calls}"
            );
            assert_eq!(bench.tail().await.end, end);
            if hours == 2 && done {
                assert!(bench.links().await < 300);
                return;
            }
        }
        // Another process goes on: its time begins anew.
        bench.compactor = Compactor::default();
        bench.settle().await;
        assert!(bench.links().await < 300, "killed at call {calls}");
        assert_eq!(
            bench.read(ORIGIN, end).await.unwrap(),
            log(ORIGIN, end.bytes_since(ORIGIN))
        );
        // The calls that remove a hundred chunks are much alike.
        calls += if calls < 60 { 1 } else { 17 };
    }
}

/// A store that answers so many calls and then none; it may refuse to remove.
#[derive(Debug)]
struct Failing {
    inner: MemoryStore,
    left: AtomicUsize,
    denies: bool,
}

impl Failing {
    fn new(left: usize, denies: bool) -> Self {
        Self {
            inner: MemoryStore::new("west"),
            left: AtomicUsize::new(left),
            denies,
        }
    }

    fn check(&self) -> dr_provider::Result<()> {
        let take = |left: usize| left.checked_sub(1);
        match self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(self.error(ErrorKind::Failed)),
        }
    }

    fn error(&self, kind: ErrorKind) -> dr_provider::Error {
        dr_provider::Error::new(kind, "use", self.inner.location())
    }
}

#[async_trait::async_trait]
impl ObjectStore for Failing {
    fn location(&self) -> &str {
        self.inner.location()
    }

    async fn create(&self, key: &Key, body: Bytes) -> dr_provider::Result<()> {
        self.check()?;
        self.inner.create(key, body).await
    }

    async fn get(&self, key: &Key) -> dr_provider::Result<Bytes> {
        self.check()?;
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, offset: u64, length: u64) -> dr_provider::Result<Bytes> {
        self.check()?;
        self.inner.get_range(key, offset, length).await
    }

    async fn head(&self, key: &Key) -> dr_provider::Result<ObjectInfo> {
        self.check()?;
        self.inner.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> dr_provider::Result<Vec<ObjectInfo>> {
        self.check()?;
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> dr_provider::Result<()> {
        self.check()?;
        if self.denies {
            return Err(self.error(ErrorKind::Denied));
        }
        self.inner.delete(key).await
    }
}

/// A segment that fills slowly is looked through each time, although nothing of it is merged.
#[tokio::test]
async fn what_is_missing_in_an_open_segment_is_told_at_once() {
    let mut bench = Bench::new(MemoryStore::new("west"));
    bench.write(&[CHUNK; 5]).await;
    // What is known to be durable is said by a later chunk: those five were under way together.
    bench.write(&[CHUNK]).await;
    assert_eq!(bench.compact().await.unwrap(), Compacted::default());
    let gone = chain(1).link_key(ORIGIN.advance(CHUNK));
    bench.store.delete(&gone).await.unwrap();
    bench
        .store
        .delete(&chain(1).link_key(ORIGIN.advance(3 * CHUNK)))
        .await
        .unwrap();
    let holes = bench.compact().await.unwrap().holes;
    // How far a hole reaches is known only where the next link is looked for; what is missing is in one, all the same.
    for missing in [CHUNK, 3 * CHUNK] {
        let at = ORIGIN.advance(missing);
        assert!(
            holes.iter().any(|hole| hole.from <= at && at < hole.to),
            "{at}: {holes:?}"
        );
    }
    assert_eq!(holes[0].from, ORIGIN.advance(CHUNK));
}

/// What is there and not what it was is called damaged, by its key: header or log.
#[rstest::rstest]
#[case::header(8)]
#[case::log(CHUNK_OBJECT_END)]
#[tokio::test]
async fn what_is_damaged_in_an_open_segment_is_named(#[case] position: usize) {
    let mut bench = Bench::new(MemoryStore::new("west"));
    bench.write(&[CHUNK; 5]).await;
    let key = chain(1).link_key(ORIGIN.advance(CHUNK));
    let mut bytes = bench.store.get(&key).await.unwrap().to_vec();
    let position = position.min(bytes.len() - 1);
    bytes[position] ^= 0x10;
    bench.store.delete(&key).await.unwrap();
    bench.store.create(&key, bytes.into()).await.unwrap();
    let error = bench.compact().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let said = error.to_string();
    assert!(
        said.contains(key.as_str()) && said.contains("is damaged"),
        "{said}"
    );
}
