//! Faults hit what they are meant for, and a seed replays.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Fault, Faulty, Odds, Rule};
use crate::decorate::{Operation, Recording, Retry, RetryOptions, Timeout};
use crate::store::MemoryStore;
use crate::{ErrorKind, Key, ObjectStore};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

#[tokio::test]
async fn a_rule_hits_its_calls_only() {
    let rules = vec![
        Rule::on(Operation::Create, "*/wal/*/b", Fault::After)
            .skip(1)
            .times(1),
        Rule::all("secret*", Fault::Before(ErrorKind::Denied)),
    ];
    let store = Faulty::scripted(Arc::new(MemoryStore::new("rules")), rules);
    let body = Bytes::new;
    store.create(&key("x/wal/1/b"), body()).await.unwrap();
    let lost = store.create(&key("x/wal/2/b"), body()).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Unknown);
    store.get(&key("x/wal/2/b")).await.unwrap();
    store.create(&key("x/wal/3/b"), body()).await.unwrap();
    store.create(&key("x/wal/3/c"), body()).await.unwrap();
    let denied = store.list("secrets/", None, 1).await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_unknown_for_changes_only() {
    let rules = vec![Rule::all("*", Fault::Delay(Duration::from_secs(9)))];
    let memory = Arc::new(MemoryStore::new("late"));
    let late = Arc::new(Faulty::scripted(memory, rules));
    let store = Timeout::new(late, Duration::from_secs(8));
    let created = store.create(&key("a"), Bytes::new()).await.unwrap_err();
    assert_eq!(created.kind(), ErrorKind::Unknown);
    let text = crate::error::chain(&created);
    assert!(text.ends_with("no answer within 8s"), "{text}");
    let deleted = store.delete(&key("a")).await.unwrap_err();
    assert_eq!(deleted.kind(), ErrorKind::Unknown);
    let read = store.get(&key("a")).await.unwrap_err();
    assert_eq!(read.kind(), ErrorKind::Unavailable);
}

const ODDS: Odds = Odds {
    unavailable: 150,
    request_lost: 100,
    answer_lost: 150,
    delayed: 100,
    longest_delay: Duration::from_millis(50),
};

/// Creates 200 objects and says what became of each, and how many calls had faults.
async fn run(seed: u64) -> (Vec<String>, usize) {
    let memory: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("seeded"));
    let faulty = Arc::new(Faulty::seeded(Arc::clone(&memory), seed, ODDS));
    assert_eq!(faulty.to_string(), format!("fault drawn from seed {seed}"));
    let recording = Arc::new(Recording::new(faulty));
    let options = RetryOptions {
        attempts: 20,
        ..RetryOptions::default()
    };
    let store = Retry::new(Arc::clone(&recording) as _, options);
    for number in 0..200 {
        let (key, body) = (key(&format!("object/{number}")), Bytes::from("x"));
        store.create(&key, body).await.unwrap();
        memory.get(&key).await.unwrap();
    }
    let calls = recording.take();
    let faults = calls.iter().filter(|call| call.failure.is_some()).count();
    (calls.iter().map(ToString::to_string).collect(), faults)
}

#[tokio::test(start_paused = true)]
async fn a_seed_replays_and_faults_are_survived() {
    let (first, faults) = run(7).await;
    assert!((50..200).contains(&faults), "{faults}");
    assert_eq!(run(7).await.0, first);
    assert_ne!(run(8).await.0, first);
}
