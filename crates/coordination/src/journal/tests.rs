//! Tests of the journal on a store in memory.

use std::sync::Arc;

use dr_model::ManualClock;
use dr_provider::store::record;
use dr_provider::{ErrorKind, ObjectStore as _};
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

/// Puts other bytes in the place of an entry, as no writer can.
async fn replace(store: &Scripted, sequence: u64, change: impl FnOnce(String) -> Option<String>) {
    let id = "20261121T093005Z-west-0001".parse().unwrap();
    let key = super::Entry::<String>::key(&id, sequence);
    let text = String::from_utf8(store.get(&key).await.unwrap().to_vec()).unwrap();
    store.delete(&key).await.unwrap();
    if let Some(text) = change(text) {
        store.create(&key, text.into()).await.unwrap();
    }
}

/// Changes an entry, and gives it the hash of what it is then.
fn forged(text: &str, change: impl FnOnce(&str) -> String) -> String {
    let json = record::verified(text.as_bytes()).unwrap();
    let json = change(std::str::from_utf8(json).unwrap());
    let bytes = record::with_hash(json.into_bytes(), "blake3 ");
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The newest has no next one, and says itself that it is not what was written.
#[rstest]
#[case::changed(|text: String| text.replace("three", "four"), "its hash does not match")]
#[case::without_its_hash(|text: String| text.split("blake3 ").next().unwrap().to_owned(), "its hash is gone")]
#[tokio::test]
async fn the_newest_entry_has_a_hash_of_its_own(
    #[case] change: fn(String) -> String,
    #[case] said: &str,
) {
    let store = of_three().await;
    replace(&store, 3, |text| Some(change(text))).await;
    assert_eq!(damage(&store).await, (3, said.to_owned()));
}

async fn of_three() -> Arc<Scripted> {
    let store = Scripted::new("west");
    let mut journal = begun(&store).await;
    journal.append("two".to_owned()).await.unwrap();
    journal.append("three".to_owned()).await.unwrap();
    store
}

async fn damage(store: &Arc<Scripted>) -> (u64, String) {
    let id = "20261121T093005Z-west-0001".parse().unwrap();
    let mut journal = match Text::open(store.clone(), clock(), id).await {
        Ok(journal) => journal,
        Err(Error::Damaged { sequence, why, .. }) => return (sequence, why),
        Err(error) => panic!("{error}"),
    };
    match journal.take_over(actor(2), "resumed").await {
        Err(Error::Damaged { sequence, why, .. }) => (sequence, why),
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case(1)]
#[case(2)]
#[tokio::test]
async fn an_entry_that_was_changed_is_found_out_by_the_next(#[case] sequence: u64) {
    let store = of_three().await;
    replace(&store, sequence, |text| {
        Some(text.replacen("2026", "2025", 1))
    })
    .await;
    let (found, why) = damage(&store).await;
    assert!((sequence..=sequence + 1).contains(&found), "{found}: {why}");
    // Even if nothing but white space is another, and the hash that of what is there.
    let store = of_three().await;
    replace(&store, sequence, |text| {
        Some(forged(&text, |json| format!("{json}\n")))
    })
    .await;
    let (found, why) = damage(&store).await;
    assert_eq!(found, sequence + 1);
    assert!(why.contains("changed or exchanged"), "{why}");
}

#[tokio::test]
async fn an_entry_that_is_missing_is_found_out() {
    let store = of_three().await;
    replace(&store, 2, |_| None).await;
    let (found, why) = damage(&store).await;
    assert_eq!(
        (found, why.as_str()),
        (2, "it is missing, and entry 3 is there")
    );
    // Nothing was written into the hole.
    let (found, _) = damage(&store).await;
    assert_eq!(found, 2);
}

#[tokio::test]
async fn what_lies_beside_a_journal_is_no_entry() {
    let store = of_three().await;
    let beside = "execution/20261121T093005Z-west-0001/approval/ada";
    let beside = dr_provider::Key::new(beside).unwrap();
    store.create(&beside, "{}".into()).await.unwrap();
    let mut journal = opened(&store).await;
    journal.take_over(actor(2), "resumed").await.unwrap();
    assert_eq!(journal.entries().len(), 4);
}

#[tokio::test]
async fn nobody_goes_back_to_the_version_that_names_nothing() {
    let store = of_three().await;
    let old = |text: String| {
        let json = text.split("blake3 ").next().unwrap();
        let mut entry: serde_json::Value = serde_json::from_str(json).unwrap();
        entry["version"] = 1.into();
        entry.as_object_mut().unwrap().remove("previous").unwrap();
        Some(entry.to_string())
    };
    replace(&store, 3, old).await;
    assert_eq!(damage(&store).await.0, 3);
    // Nor to the one whose entries have no hash.
    let store = of_three().await;
    let old = |text: String| {
        let json = text.split("blake3 ").next().unwrap();
        Some(json.replace("\"version\": 3", "\"version\": 2"))
    };
    replace(&store, 3, old).await;
    assert_eq!(damage(&store).await.0, 3);
}

#[tokio::test]
async fn a_record_interposed_stops_whoever_writes() {
    let store = Scripted::new("west");
    let mut first = begun(&store).await;
    assert!(first.outdone().await.unwrap().is_none());
    let mut second = opened(&store).await;
    let stop = "stop".to_owned();
    second.interpose(actor(2), stop).await.unwrap();
    let by = match first.outdone().await.unwrap() {
        Some(Error::TakenOver { by, .. }) => by,
        other => panic!("{other:?}"),
    };
    assert_eq!(*by, actor(2));
    assert_eq!(first.entries().len(), 1, "looking reads nothing in");
    assert!(first.append("two".to_owned()).await.is_err());
    assert_eq!(opened(&store).await.entries()[1].record().unwrap(), "stop");
}
