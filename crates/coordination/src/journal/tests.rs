//! Tests of the journal on a store in memory.

use std::sync::Arc;

use dr_model::ManualClock;
use dr_provider::ErrorKind;
use rstest::rstest;

use super::{Body, Error, Journal, list};
use crate::testing::{Fault, IMPATIENT, Scripted, actor, at};

type Text = Journal<String>;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(at(0)))
}

async fn begun(store: &Arc<Scripted>) -> Text {
    let id = "20261121T093005Z-west-0001".parse().unwrap();
    Journal::create(store.clone(), clock(), id, actor(1), "one".to_owned())
        .await
        .unwrap()
        .with_patience(IMPATIENT)
}

async fn opened(store: &Arc<Scripted>) -> Text {
    let id = "20261121T093005Z-west-0001".parse().unwrap();
    Journal::open(store.clone(), clock(), id)
        .await
        .unwrap()
        .with_patience(IMPATIENT)
}

#[tokio::test]
async fn entries_are_dense_and_read_back() {
    let store = Scripted::new("west");
    let mut journal = begun(&store).await;
    assert_eq!(journal.append("two".to_owned()).await.unwrap().sequence, 2);
    let read = opened(&store).await;
    assert_eq!(read.entries(), journal.entries());
    assert_eq!(list(&*store).await.unwrap(), [read.execution().clone()]);
}

#[tokio::test]
async fn whoever_was_taken_over_stops_for_ever() {
    let store = Scripted::new("west");
    let mut first = begun(&store).await;
    let mut second = opened(&store).await;
    assert!(second.append("x".to_owned()).await.is_err(), "only opened");
    second.take_over(actor(2), "resumed").await.unwrap();
    second.append("two".to_owned()).await.unwrap();
    for _ in 0..2 {
        match first.append("two".to_owned()).await {
            Err(Error::TakenOver { by, .. }) => assert_eq!(*by, actor(2)),
            other => panic!("{other:?}"),
        }
    }
    let read = opened(&store).await;
    assert_eq!(read.entries().len(), 3);
    assert_eq!(read.holder(), Some(&actor(2)));
    assert!(matches!(read.entries()[1].body, Body::Takeover { .. }));
}

#[tokio::test]
async fn a_takeover_lets_a_writer_past_but_not_another_takeover() {
    let store = Scripted::new("west");
    let mut first = begun(&store).await;
    let (mut a, mut b) = (opened(&store).await, opened(&store).await);
    first.append("two".to_owned()).await.unwrap();
    let (a, b) = tokio::join!(a.take_over(actor(2), "a"), b.take_over(actor(3), "b"));
    // Without a pause between reading and writing both may succeed one after the other; never both at one number.
    assert!(a.is_ok() || b.is_ok());
    assert!(matches!(
        first.append("three".to_owned()).await,
        Err(Error::TakenOver { .. })
    ));
}

#[rstest]
#[case(Fault::AnswerLost)]
#[case(Fault::RequestLost)]
#[case(Fault::Unavailable)]
#[tokio::test(start_paused = true)]
async fn an_append_with_a_fault_is_resolved(#[case] fault: Fault) {
    let store = Scripted::new("west");
    let mut journal = begun(&store).await;
    store.script([fault]);
    journal.append("two".to_owned()).await.unwrap();
    assert_eq!(opened(&store).await.entries(), journal.entries());
}

#[tokio::test(start_paused = true)]
async fn an_unsettled_entry_is_settled_and_not_written_twice() {
    let store = Scripted::new("west");
    let mut journal = begun(&store).await;
    store.script([Fault::AnswerLost, Fault::Unavailable, Fault::Unavailable]);
    let error = journal.append("two".to_owned()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    journal.append("two".to_owned()).await.unwrap();
    assert_eq!(opened(&store).await.entries().len(), 2);
    store.script([Fault::AnswerLost, Fault::Unavailable, Fault::Unavailable]);
    journal.append("three".to_owned()).await.unwrap_err();
    journal.append("four".to_owned()).await.unwrap();
    let read = opened(&store).await;
    let records: Vec<_> = read.entries().iter().filter_map(|e| e.record()).collect();
    assert_eq!(records, ["one", "two", "three", "four"]);
}

#[tokio::test]
async fn a_missing_journal_is_not_found() {
    let store = Scripted::new("west");
    let id = "20261121T093005Z-west-0001".parse().unwrap();
    let error = Text::open(store, clock(), id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
