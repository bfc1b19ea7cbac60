//! Giving log up: what goes, what the chain keeps, and that compaction does not miss it.

use std::sync::Arc;

use dr_model::{Clock, Lsn, ManualClock, SegmentSize};
use dr_provider::ObjectStore;
use dr_provider::decorate::{Fault, Faulty, Rule};
use dr_provider::store::{MemoryStore, list_all};
use dr_provider::{ErrorKind, Key};

use super::compacting::{Bench, CHUNK, SEGMENT_BYTES, TIMELINE, span};
use super::{CLUSTER, ORIGIN, log};
use crate::chain::{
    Error, LogExpired, LogExpiry, LogStart, Needed, Section, Span, expire_log, log_start,
    plan_log_expiry, prove,
};
use crate::testing::{IMPATIENT, at};

fn size() -> SegmentSize {
    SegmentSize::try_from(u32::try_from(SEGMENT_BYTES).unwrap()).unwrap()
}

async fn plan(store: &dyn ObjectStore, needed: &Needed) -> Result<LogExpiry, Error> {
    plan_log_expiry(store, CLUSTER, TIMELINE, size(), needed, IMPATIENT).await
}

async fn expire(store: &dyn ObjectStore, plan: &LogExpiry) -> Result<LogExpired, Error> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(at(7)));
    expire_log(store, plan, &clock, "west", IMPATIENT).await
}

fn from(segment: u64) -> Needed {
    Needed {
        from: Some(ORIGIN.advance(segment * SEGMENT_BYTES + 77)),
        spans: Vec::new(),
    }
}

/// Six or seven segments of log in pieces, of which only the newest chunks are left.
async fn compacted() -> (Bench<MemoryStore>, Lsn) {
    let mut bench = Bench::new(MemoryStore::new("west"));
    let end = bench.write(&[2 * CHUNK - 1; 430]).await;
    bench.settle().await;
    (bench, end)
}

#[tokio::test]
async fn what_was_given_up_is_no_hole_and_is_not_made_again() {
    let (mut bench, end) = compacted().await;
    let before = bench.spans().await;
    let kept = span(SEGMENT_BYTES + 5, SEGMENT_BYTES + 50);
    let needed = Needed {
        spans: vec![kept],
        ..from(3)
    };
    let planned = plan(&*bench.store, &needed).await.unwrap();
    assert_eq!(planned.start, ORIGIN.advance(3 * SEGMENT_BYTES));
    let whole = |number: u64| span(number * SEGMENT_BYTES, (number + 1) * SEGMENT_BYTES);
    // All that is before, but for what holds any of the part that is needed.
    assert!(planned.pieces.iter().all(|gone| gone.to <= planned.start));
    assert!(planned.pieces.contains(&whole(0)) && planned.pieces.contains(&whole(2)));
    assert!(!planned.pieces.contains(&whole(1)));
    let done = expire(&*bench.store, &planned).await.unwrap();
    assert_eq!(done.removed, planned.pieces.len() as u64);
    let left: Vec<Span> = before
        .into_iter()
        .filter(|span| !planned.pieces.contains(span))
        .collect();
    assert_eq!(bench.spans().await, left);
    let recorded = log_start(&*bench.store, CLUSTER, TIMELINE, IMPATIENT).await;
    assert_eq!(recorded.unwrap(), planned.start);

    // Compaction finds nothing missing, makes nothing of it again, and goes on with what is new.
    let report = bench.compact().await.unwrap();
    assert_eq!((report.holes, report.pieces), (Vec::new(), 0));
    let later = bench.write(&[CHUNK - 1; 300]).await;
    let report = bench.settle().await;
    assert!(report.holes.is_empty() && report.removed > 0, "{report:?}");
    let log_from = ORIGIN.advance(3 * SEGMENT_BYTES);
    assert!(
        bench.read(log_from, later).await.unwrap() == log(log_from, later.bytes_since(log_from))
    );
    bench.read(kept.from, kept.to).await.unwrap();
    // Whoever asks for it is told.
    let gone = prove(
        &*bench.store,
        Section::new(CLUSTER, TIMELINE, ORIGIN, end),
        IMPATIENT,
    )
    .await;
    assert!(matches!(gone, Err(Error::Hole { from, .. }) if from == ORIGIN));
    // The same again changes nothing.
    assert_eq!(plan(&*bench.store, &needed).await.unwrap().pieces, []);
}

#[tokio::test]
async fn nothing_above_a_floor_goes_whatever_is_needed() {
    let (bench, end) = compacted().await;
    let needed = Needed::default();
    let planned = plan(&*bench.store, &needed).await.unwrap();
    let floor = end.bytes_since(ORIGIN) - bench.links().await as u64 * (2 * CHUNK - 1);
    assert!(planned.start <= ORIGIN.advance(floor), "{planned:?}");
    expire(&*bench.store, &planned).await.unwrap();
    // The chain is what it was: it is written on, and sealed where it ends.
    let later = bench.write(&[CHUNK]).await;
    assert_eq!(bench.seal().await, later);

    // Where nothing was compacted, nothing goes.
    let bench = Bench::new(MemoryStore::new("west"));
    bench.write(&[CHUNK - 1; 300]).await;
    let planned = plan(&*bench.store, &needed).await.unwrap();
    assert_eq!(
        (planned.start, planned.pieces.as_slice()),
        (ORIGIN, &[][..])
    );
}

/// An open chain that ends exactly at a segment's end goes on there: what its links are read back by stays, and what is written later is
/// compacted like everything else.
#[tokio::test]
async fn a_chain_goes_on_where_all_before_was_given_up() {
    let mut bench = Bench::new(MemoryStore::new("west"));
    let end = bench.write(&[CHUNK; 512]).await;
    bench.settle().await;
    let planned = plan(&*bench.store, &Needed::default()).await.unwrap();
    assert_eq!(end, ORIGIN.advance(4 * SEGMENT_BYTES));
    assert!(planned.start < end, "{planned:?}");
    expire(&*bench.store, &planned).await.unwrap();

    let later = bench.write(&[CHUNK; 512]).await;
    let report = bench.settle().await;
    assert!(report.holes.is_empty() && report.removed > 0, "{report:?}");
    assert!(bench.read(end, later).await.unwrap() == log(end, later.bytes_since(end)));
}

async fn keys(store: &dyn ObjectStore) -> Vec<Key> {
    let all = list_all(store, "").await.unwrap();
    all.into_iter().map(|object| object.key).collect()
}

#[tokio::test]
async fn a_run_that_is_cut_off_is_finished_by_the_next() {
    for fault in [Fault::Before(ErrorKind::Unavailable), Fault::After] {
        for killed in [false, true] {
            for n in 0.. {
                let (mut bench, _) = compacted().await;
                let faults = Faulty::scripted(bench.store.clone(), Vec::new());
                let planned = plan(&*bench.store, &from(4)).await.unwrap();
                let expected: Vec<Key> = {
                    let gone: Vec<Key> = planned
                        .pieces
                        .iter()
                        .map(|span| span.key(CLUSTER, TIMELINE))
                        .collect();
                    let mut left = keys(&*bench.store).await;
                    left.retain(|key| !gone.contains(key));
                    left.push(LogStart::key(CLUSTER, TIMELINE, planned.start));
                    left.sort();
                    left
                };
                let rule = Rule::all("*", fault).skip(n);
                faults.set_rules(vec![if killed { rule } else { rule.times(1) }]);
                let first = expire(&faults, &planned).await;
                // Whatever has gone by then: it is no hole.
                assert_eq!(bench.compact().await.unwrap().holes, []);
                let again = plan(&*bench.store, &from(4)).await.unwrap();
                expire(&*bench.store, &again).await.unwrap();
                assert_eq!(keys(&*bench.store).await, expected, "{fault:?} {n}");
                if first.is_ok() && n > 3 {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_record_says_where_it_stands() {
    let start = LogStart {
        version: 1,
        system_identifier: CLUSTER,
        timeline: TIMELINE,
        lsn: ORIGIN,
        created_at: at(7),
        writer: "west".to_owned(),
    };
    let bytes = start.to_bytes();
    let read = |lsn| LogStart::from_bytes(&bytes, CLUSTER, TIMELINE, lsn);
    assert_eq!(read(ORIGIN).unwrap(), start);
    assert!(read(ORIGIN.advance(1)).is_err());
}
