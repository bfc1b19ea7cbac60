//! Gap records: what is said to be lost, and what came after all.

use std::sync::Arc;

use dr_model::Lsn;
use dr_provider::store::MemoryStore;
use dr_provider::{Key, ObjectStore};

use super::{CLUSTER, ORIGIN, chain, chunk, log, request, write, writer};
use crate::chain::{
    ChainReader, Error, GapRecord, MAX_LOG_BYTES, Section, available, find_tail, open_gaps,
    pass_over, record_gap, seal,
};
use crate::testing::{IMPATIENT, at};

fn gap(from: u64, to: Option<u64>) -> GapRecord {
    GapRecord {
        version: 1,
        system_identifier: CLUSTER,
        timeline: chain(1).timeline,
        from: ORIGIN.advance(from),
        to: to.map(|to| ORIGIN.advance(to)),
        found_at: at(0),
        by: "receiver west".to_owned(),
        why: "the slot was invalidated".to_owned(),
    }
}

async fn open(store: &MemoryStore) -> Vec<(Lsn, Option<Lsn>)> {
    let open = open_gaps(store, CLUSTER, IMPATIENT).await.unwrap();
    open.iter().map(|gap| (gap.from, gap.to)).collect()
}

#[tokio::test]
async fn a_gap_is_open_until_its_log_is_there() {
    let store = Arc::new(MemoryStore::new("west"));
    let mut writer = writer(&store).await;
    write(&mut writer, &[100]).await;
    record_gap(&*store, &gap(100, Some(160)), IMPATIENT)
        .await
        .unwrap();
    // The first to say so is believed; saying it again is no error.
    record_gap(&*store, &gap(100, Some(900)), IMPATIENT)
        .await
        .unwrap();
    let end = |bytes| ORIGIN.advance(bytes);
    assert_eq!(open(&store).await, [(end(100), Some(end(160)))]);
    // Bytes win over records, as far as they reach.
    write(&mut writer, &[40]).await;
    assert_eq!(open(&store).await, [(end(140), Some(end(160)))]);
    write(&mut writer, &[20]).await;
    assert_eq!(open(&store).await, []);
}

#[tokio::test]
async fn a_gap_without_an_end_is_open_while_nothing_follows() {
    let store = Arc::new(MemoryStore::new("west"));
    let mut writer = writer(&store).await;
    write(&mut writer, &[100]).await;
    record_gap(&*store, &gap(100, None), IMPATIENT)
        .await
        .unwrap();
    assert_eq!(open(&store).await, [(ORIGIN.advance(100), None)]);
    write(&mut writer, &[1]).await;
    assert_eq!(open(&store).await, []);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_a_gap() {
    let store = Arc::new(MemoryStore::new("west"));
    drop(writer(&store).await);
    let prefix = format!("postgres/{CLUSTER}/wal/00000001/gap/");
    let key = Key::new(format!("{prefix}{}", ORIGIN.to_key())).unwrap();
    store.create(&key, "nonsense".into()).await.unwrap();
    assert_eq!(open(&store).await, [(ORIGIN, None)]);
}

/// Returns where the chain ends after what is lost.
async fn pass(store: &MemoryStore, from: u64, to: u64) -> Result<Lsn, Error> {
    let (from, to) = (ORIGIN.advance(from), ORIGIN.advance(to));
    pass_over(store, &chain(1), from, to, (at(9), "west"), IMPATIENT).await
}

#[tokio::test]
async fn a_chain_goes_on_behind_what_is_lost_and_nobody_takes_it_for_whole() {
    const LOST: u64 = MAX_LOG_BYTES + 1000;
    let store = Arc::new(MemoryStore::new("west"));
    let mut first = writer(&store).await;
    write(&mut first, &[60, 40]).await;
    let end = |bytes| ORIGIN.advance(bytes);
    assert_eq!(pass(&store, 100, LOST).await.unwrap(), end(LOST));
    // Again, and by somebody who does not know: nothing changes.
    assert_eq!(pass(&store, 100, LOST).await.unwrap(), end(LOST));
    assert_eq!(pass(&store, 60, LOST).await.unwrap(), end(LOST));
    let mut second = writer(&store).await;
    assert_eq!(second.end(), end(LOST));
    write(&mut second, &[30, 20]).await;

    let tail = find_tail(&*store, &chain(1), IMPATIENT).await.unwrap();
    assert_eq!(tail.unwrap().end, end(LOST + 50));
    let timeline = chain(1).timeline;
    let (from, to) = (ORIGIN, end(LOST + 50));
    let there = available(
        &*store,
        Section::new(CLUSTER, timeline, from, to),
        IMPATIENT,
    )
    .await;
    let there: Vec<_> = there.unwrap().iter().map(|a| (a.from, a.to)).collect();
    assert_eq!(there, [(ORIGIN, end(100)), (end(LOST), end(LOST + 50))]);
    let refused = ChainReader::open(
        store.clone(),
        Section::new(CLUSTER, timeline, end(50), to),
        IMPATIENT,
    )
    .await;
    let Err(Error::Hole { from, to, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((from, to), (end(100), end(LOST)));
    let (from, to) = (end(LOST), end(LOST + 50));
    let behind = ChainReader::open(
        store.clone(),
        Section::new(CLUSTER, timeline, from, to),
        IMPATIENT,
    )
    .await;
    assert_eq!(
        behind.unwrap().read_to_end().await.unwrap(),
        log(end(LOST), 50)
    );

    // The one before does not know, and learns it before it acknowledges anything.
    let next = chunk(first.end(), 10);
    first.push(next).await.unwrap();
    assert!(first.flush().await.is_err());
    assert_eq!(first.durable(), end(100));
}

#[tokio::test]
async fn only_the_tail_of_an_open_chain_is_passed_over() {
    let store = Arc::new(MemoryStore::new("west"));
    let none = pass(&store, 0, 100).await.unwrap_err();
    assert!(matches!(none, Error::Hole { .. }), "{none:?}");
    let mut writer = writer(&store).await;
    write(&mut writer, &[100, 40]).await;
    // Somebody has written there meanwhile.
    assert_eq!(pass(&store, 100, 500).await.unwrap(), ORIGIN.advance(140));
    seal(&*store, &chain(1), &request(2), IMPATIENT)
        .await
        .unwrap();
    let sealed = pass(&store, 140, 500).await.unwrap_err();
    assert!(matches!(sealed, Error::Superseded { .. }), "{sealed:?}");
}
