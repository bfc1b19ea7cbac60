//! Writing: races, faults, pauses.

use std::time::Duration;

use dr_model::Lsn;
use dr_provider::ErrorKind;
use proptest::prelude::*;

use super::{Boot, CLUSTER, ORIGIN, chain, chunk, log, options, write, writer};
use crate::chain::{ChainReader, ChainWriter, Error, Section, find_tail};
use crate::testing::{Fault, IMPATIENT, Scripted};

#[tokio::test]
async fn what_is_written_is_found_again() {
    let store = Scripted::new("west");
    let mut first = writer(&store).await;
    assert_eq!(first.end(), ORIGIN);
    assert_eq!(write(&mut first, &[100, 50, 7]).await, Lsn(ORIGIN.0 + 157));
    let tail = find_tail(&*store, &chain(1), IMPATIENT)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(tail.end, Lsn(ORIGIN.0 + 157));
    assert_eq!(tail.last.unwrap().start, Lsn(ORIGIN.0 + 150));
    let second = writer(&store).await;
    assert_eq!(second.end(), tail.end);
    let progress = first.progress().borrow().clone();
    assert_eq!((progress.chunks, progress.log_bytes), (3, 157));
}

#[tokio::test]
async fn a_chunk_that_does_not_continue_is_refused_and_nothing_else_changes() {
    let store = Scripted::new("west");
    let mut writer = writer(&store).await;
    for bad in [chunk(ORIGIN.advance(1), 5), chunk(ORIGIN, 0)] {
        let error = writer.push(bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    write(&mut writer, &[5]).await;
}

#[tokio::test]
async fn two_writers_with_other_cuts_write_one_chain() {
    let store = Scripted::new("west");
    let (mut a, mut b) = (writer(&store).await, writer(&store).await);
    let (left, right) = tokio::join!(write(&mut a, &[10, 20, 30]), write(&mut b, &[25, 15, 20]));
    assert_eq!((left, right), (ORIGIN.advance(60), ORIGIN.advance(60)));
    let mut reader = ChainReader::open(
        store,
        Section::new(CLUSTER, chain(1).timeline, ORIGIN, left),
        IMPATIENT,
    )
    .await
    .unwrap();
    assert_eq!(reader.read_to_end().await.unwrap(), log(ORIGIN, 60));
}

#[tokio::test]
async fn a_slower_writer_adopts_what_is_ahead_of_it_and_acknowledges_only_its_own() {
    let store = Scripted::new("west");
    let (mut slow, mut fast) = (writer(&store).await, writer(&store).await);
    write(&mut fast, &[100]).await;
    assert_eq!(write(&mut slow, &[10]).await, ORIGIN.advance(10));
    assert_eq!(write(&mut slow, &[60, 60]).await, ORIGIN.advance(130));
}

#[tokio::test]
async fn other_bytes_stop_the_writer_for_ever() {
    let store = Scripted::new("west");
    let (mut a, mut b) = (writer(&store).await, writer(&store).await);
    write(&mut a, &[10]).await;
    let mut forged = chunk(ORIGIN, 20);
    forged.log = vec![0xEE; 20].into();
    b.push(forged).await.unwrap();
    assert_eq!(b.flush().await.unwrap_err().kind(), ErrorKind::Corrupt);
    let again = b.push(chunk(b.end(), 5)).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Corrupt);
    assert_eq!(b.durable(), ORIGIN);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_while_the_store_is_away_and_all_of_it_afterwards() {
    let store = Scripted::new("west");
    let mut writer = writer(&store).await;
    write(&mut writer, &[10]).await;
    store.set_down(true);
    for length in [5, 6, 7] {
        let next = chunk(writer.end(), length);
        writer.push(next).await.unwrap();
    }
    let mut progress = writer.progress();
    progress.wait_for(|p| p.problem.is_some()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(writer.durable(), ORIGIN.advance(10));
    store.set_down(false);
    assert_eq!(writer.flush().await.unwrap(), ORIGIN.advance(28));
    assert!(progress.borrow().problem.is_none());
}

#[tokio::test(start_paused = true)]
async fn push_waits_only_for_a_free_place() {
    let store = Scripted::new("west");
    let mut writer = writer(&store).await;
    store.set_down(true);
    let mut accepted = 0;
    loop {
        let next = chunk(writer.end(), 4);
        let push = writer.push(next);
        if tokio::time::timeout(Duration::from_secs(1), push)
            .await
            .is_err()
        {
            break;
        }
        accepted += 1;
    }
    // Eight under way and one in the channel.
    assert_eq!(accepted, 9);
}

#[tokio::test]
async fn a_writer_that_was_away_too_long_has_to_open_again() {
    let store = Scripted::new("west");
    let boot = Boot::default();
    let mut writer = ChainWriter::open(store.clone(), chain(1), ORIGIN, options(&boot))
        .await
        .unwrap();
    write(&mut writer, &[10]).await;
    boot.advance(Duration::from_secs(1801));
    let next = chunk(writer.end(), 10);
    writer.push(next).await.unwrap();
    assert!(matches!(writer.flush().await, Err(Error::Away { .. })));
    let mut again = ChainWriter::open(store, chain(1), ORIGIN, options(&boot))
        .await
        .unwrap();
    assert_eq!(again.end(), ORIGIN.advance(10));
    write(&mut again, &[10]).await;
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let one = prop_oneof![
        3 => Just(Fault::None),
        1 => Just(Fault::Unavailable),
        1 => Just(Fault::AnswerLost),
        1 => Just(Fault::RequestLost),
    ];
    proptest::collection::vec(one, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever the cuts and the faults: the chain reads back as the log, up to what was acknowledged.
    #[test]
    fn any_cuts_and_faults_give_one_log(
        a in proptest::collection::vec(1_u64..40, 1..12),
        b in proptest::collection::vec(1_u64..40, 1..12),
        faults in faults(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = Scripted::new("west");
            let (mut left, mut right) = (writer(&store).await, writer(&store).await);
            store.script(faults);
            let ends = tokio::join!(write(&mut left, &a), write(&mut right, &b));
            let end = ends.0.max(ends.1);
            let tail = find_tail(&*store, &chain(1), IMPATIENT).await.unwrap().unwrap();
            assert!(tail.end >= end);
            let timeline = chain(1).timeline;
            let reader = ChainReader::open(store, Section::new(CLUSTER, timeline, ORIGIN, tail.end), IMPATIENT);
            let all = reader.await.unwrap().read_to_end().await.unwrap();
            assert_eq!(all, log(ORIGIN, tail.end.bytes_since(ORIGIN)));
        });
    }
}

/// Who waits for a chunk is told what the store says; a full one is not asked again, one that does not answer a few times.
#[rstest::rstest]
#[case::full(Fault::Full, 1, ErrorKind::Full)]
#[case::silent(Fault::Unavailable, 4, ErrorKind::Unavailable)]
#[tokio::test(start_paused = true)]
async fn a_writer_that_is_waited_for_gives_up(
    #[case] fault: Fault,
    #[case] faults: usize,
    #[case] kind: ErrorKind,
) {
    let store = Scripted::new("west");
    writer(&store).await;
    let options = crate::chain::Options {
        give_up_after: Some(4),
        ..options(&Boot::default())
    };
    let mut writer = ChainWriter::open(store.clone(), chain(1), ORIGIN, options)
        .await
        .unwrap();
    store.script(vec![fault; faults]);
    writer.push(chunk(ORIGIN, 10)).await.unwrap();
    let error = writer.flush().await.unwrap_err();
    assert_eq!(error.kind(), kind);
    let error: dr_provider::Error = error.into();
    let said = dr_provider::error::chain(&error);
    assert!(said.contains("memory://west"), "{said}");
    assert_eq!(error.hint().is_some(), kind == ErrorKind::Full, "{said}");
    assert!(writer.push(chunk(ORIGIN.advance(10), 10)).await.is_err());
}
