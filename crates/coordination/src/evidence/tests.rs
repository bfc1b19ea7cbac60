//! A chain holds what was written, once, and says what was done to it.

use std::sync::Arc;

use dr_provider::decorate::{Fault, Faulty, Operation, Recording, Rule};
use dr_provider::store::MemoryStore;
use serde_json::json;

use super::*;
use crate::testing::at;

fn workload() -> WorkloadName {
    "orders".parse().unwrap()
}

fn draft(subject: &str) -> Draft {
    Draft {
        workload: workload(),
        kind: "execution".to_owned(),
        subject: subject.to_owned(),
        state: "completed".to_owned(),
        recorded_at: at(7),
        recorded_by: Actor::new("postgres", "db1.west", 7),
        body: json!({ "loss": 0 }),
    }
}

async fn chain(store: &dyn ObjectStore) -> Chain {
    read_all(store, &workload()).await.unwrap()
}

/// A store that takes its time to write, so that several have looked before one has written.
fn slow() -> Faulty {
    let delay = Fault::Delay(std::time::Duration::from_millis(10));
    let rule = Rule::on(Operation::Create, "*", delay);
    Faulty::scripted(Arc::new(MemoryStore::new("west")), vec![rule])
}

fn fault(chain: &Chain) -> Vec<String> {
    faults(&workload(), chain)
}

fn subjects(chain: &Chain) -> Vec<String> {
    let records = chain
        .records
        .iter()
        .map(|found| found.record.as_ref().unwrap());
    records
        .map(|record| format!("{} {}", record.subject, record.state))
        .collect()
}

/// Writes a record as somebody does who does not look, so that a long chain costs a test little.
async fn put(store: &MemoryStore, sequence: u64, previous: Option<String>) -> String {
    let Draft {
        workload,
        kind,
        subject,
        state,
        recorded_at,
        recorded_by,
        body,
    } = draft(&format!("e{sequence}"));
    let bytes = record::encode(&Evidence {
        version: FORMAT_VERSION,
        workload: workload.clone(),
        sequence,
        previous,
        kind,
        subject,
        state,
        recorded_at,
        recorded_by,
        body,
    });
    let hash = hash(&bytes);
    store
        .create(&place(&workload, sequence), bytes)
        .await
        .unwrap();
    hash
}

#[tokio::test]
async fn records_follow_each_other_and_one_is_written_once() {
    let store = MemoryStore::new("west");
    assert_eq!(fault(&chain(&store).await), Vec::<String>::new());
    for subject in ["one", "two", "two", "three", "one"] {
        append(&store, &draft(subject)).await.unwrap();
    }
    assert_eq!(find(&store, &draft("four")).await.unwrap(), None);
    let found = find(&store, &draft("two")).await.unwrap().unwrap();
    assert_eq!(found.sequence, 2);
    let chain = chain(&store).await;
    let expected = ["one completed", "two completed", "three completed"];
    assert_eq!(subjects(&chain), expected);
    assert_eq!(fault(&chain), Vec::<String>::new());
}

#[tokio::test]
async fn what_came_to_something_else_is_written_again() {
    let store = MemoryStore::new("west");
    let failed = Draft {
        state: "failed".to_owned(),
        ..draft("one")
    };
    for draft in [&failed, &failed, &draft("one"), &draft("one"), &failed] {
        append(&store, draft).await.unwrap();
    }
    let chain = chain(&store).await;
    assert_eq!(
        subjects(&chain),
        ["one failed", "one completed", "one failed"]
    );
    assert_eq!(fault(&chain), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn of_several_at_once_each_has_its_place() {
    let store = slow();
    let names: Vec<String> = (0..8).map(|n| format!("e{n}")).collect();
    let all = names.iter().map(|name| {
        let store = &store;
        async move { append(store, &draft(name)).await.unwrap().sequence }
    });
    let mut places = futures::future::join_all(all).await;
    places.sort_unstable();
    assert_eq!(places, (1..=8).collect::<Vec<_>>());
    assert_eq!(fault(&chain(&store).await), Vec::<String>::new());
}

/// Whoever was taken over and whoever took over may both look before either has written.
#[tokio::test(start_paused = true)]
async fn of_several_who_record_the_same_at_once_one_does() {
    let store = slow();
    append(&store, &draft("one")).await.unwrap();
    let all = (0..8).map(|second| {
        let draft = Draft {
            recorded_at: at(second),
            ..draft("two")
        };
        let store = &store;
        async move { append(store, &draft).await.unwrap().sequence }
    });
    let places = futures::future::join_all(all).await;
    assert_eq!(places, [2; 8]);
    assert_eq!(subjects(&chain(&store).await).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_writes_nothing_twice() {
    let inner = Arc::new(MemoryStore::new("west"));
    append(&*inner, &draft("one")).await.unwrap();
    let lost = || Rule::on(Operation::Create, "*", Fault::After);
    let store = Faulty::scripted(inner.clone(), vec![lost().times(1)]);
    assert_eq!(append(&store, &draft("two")).await.unwrap().sequence, 2);

    // One who gives up does not know whether it was written; whoever comes next finds it.
    let deaf = Rule::on(Operation::Get, "*", Fault::Before(ErrorKind::Unavailable));
    let store = Faulty::scripted(inner.clone(), vec![lost(), deaf.skip(2)]);
    let error = append(&store, &draft("three")).await.unwrap_err();
    assert!(!error.is_definite(), "{error:?}");
    let later = Draft {
        recorded_at: at(9),
        ..draft("three")
    };
    let found = append(&*inner, &later).await.unwrap();
    assert_eq!((found.sequence, found.recorded_at), (3, at(7)));
    let expected = ["one completed", "two completed", "three completed"];
    assert_eq!(subjects(&chain(&*inner).await), expected);
}

#[tokio::test]
async fn a_long_chain_costs_no_more_than_its_names_and_its_newest_records() {
    let inner = Arc::new(MemoryStore::new("west"));
    let mut previous = None;
    for sequence in 1..=10_000 {
        previous = Some(put(&inner, sequence, previous).await);
    }
    let store = Recording::new(inner);
    assert_eq!(
        append(&store, &draft("next")).await.unwrap().sequence,
        10_001
    );
    let asked = [Operation::List, Operation::Get, Operation::Create].map(|kind| store.count(kind));
    assert_eq!(asked, [11, LATELY, 1]);
    let chain = chain(&store).await;
    assert_eq!(chain.records.len(), 10_001);
    assert_eq!(fault(&chain), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_done_to_a_chain_is_named() {
    let store = MemoryStore::new("west");
    for subject in ["one", "two", "three"] {
        append(&store, &draft(subject)).await.unwrap();
    }
    let whole = chain(&store).await;

    let mut without = whole.clone();
    without.records.remove(1);
    assert_eq!(fault(&without), ["record 2 is missing"]);
    without.records.remove(0);
    assert_eq!(fault(&without), ["records 1 to 2 are missing"]);

    // Changed and given a hash of its own that is right.
    let mut changed = whole.clone();
    let mut record = changed.records[0].record.clone().unwrap();
    record.state = "failed".to_owned();
    changed.records[0] = found(1, &record::encode(&record));
    let said = "record 1 is not the one that record 2 was written behind: one of them was changed";
    assert_eq!(fault(&changed), [said]);

    let mut flipped = record::encode(whole.records[1].record.as_ref().unwrap()).to_vec();
    let at = flipped.len() / 2;
    flipped[at] ^= 1;
    let mut damaged = whole.clone();
    damaged.records[1] = found(2, &flipped);
    assert_eq!(
        fault(&damaged),
        [
            "record 2 cannot be read: its hash does not match",
            "record 2 is not the one that record 3 was written behind: one of them was changed",
        ]
    );

    let mut moved = whole;
    moved.records[1].sequence = 4;
    moved.records.swap(1, 2);
    assert!(fault(&moved).contains(&"record 4 is that of another place".to_owned()));
}

#[tokio::test]
async fn what_is_no_record_is_named_and_stops_nobody() {
    let store = MemoryStore::new("west");
    for name in ["0000000000", "00000001", "copy of 1"] {
        let name = name.replace(' ', "-");
        let stranger = key(format!("evidence/orders/{name}"));
        store
            .create(&stranger, Bytes::from_static(b"?"))
            .await
            .unwrap();
    }
    assert_eq!(append(&store, &draft("one")).await.unwrap().sequence, 1);
    let chain = chain(&store).await;
    assert_eq!(subjects(&chain), ["one completed"]);
    assert_eq!(
        fault(&chain),
        [
            "`evidence/orders/0000000000` is no record",
            "`evidence/orders/00000001` is no record",
            "`evidence/orders/copy-of-1` is no record",
        ]
    );
}
