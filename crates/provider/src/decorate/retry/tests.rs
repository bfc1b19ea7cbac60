//! Every way in which a create can end, with the calls that it took.

use std::sync::Arc;

use bytes::Bytes;
use rstest::rstest;

use super::{Retry, RetryOptions};
use crate::decorate::{Fault, Faulty, Operation, Recording, Rule};
use crate::store::MemoryStore;
use crate::{ErrorKind, Key, ObjectStore};

struct Case {
    memory: Arc<MemoryStore>,
    recording: Arc<Recording>,
    retry: Retry,
}

fn case(rules: Vec<Rule>) -> Case {
    let memory = Arc::new(MemoryStore::new("retry"));
    let faulty = Faulty::scripted(Arc::clone(&memory) as _, rules);
    let recording = Arc::new(Recording::new(Arc::new(faulty)));
    let retry = Retry::new(Arc::clone(&recording) as _, RetryOptions::default());
    Case {
        memory,
        recording,
        retry,
    }
}

fn key() -> Key {
    Key::new("a").unwrap()
}

fn on(operation: Operation, fault: Fault) -> Rule {
    Rule::on(operation, "*", fault)
}

#[rstest]
#[case::none(vec![], 1, 0)]
#[case::unavailable(
    vec![on(Operation::Create, Fault::Before(ErrorKind::Unavailable)).times(3)],
    4,
    0
)]
#[case::lost(vec![on(Operation::Create, Fault::Before(ErrorKind::Unknown)).times(1)], 2, 0)]
#[case::answer_lost(vec![on(Operation::Create, Fault::After).times(1)], 2, 1)]
#[case::answer_lost_and_reading_hard(
    vec![
        on(Operation::Create, Fault::After).times(1),
        on(Operation::Get, Fault::Before(ErrorKind::Unavailable)).times(2),
    ],
    2,
    3
)]
#[tokio::test(start_paused = true)]
async fn succeeds(#[case] rules: Vec<Rule>, #[case] creates: usize, #[case] gets: usize) {
    let case = case(rules);
    case.retry.create(&key(), Bytes::from("x")).await.unwrap();
    assert_eq!(case.memory.get(&key()).await.unwrap(), "x");
    assert_eq!(case.recording.count(Operation::Create), creates);
    assert_eq!(case.recording.count(Operation::Get), gets);
}

#[tokio::test(start_paused = true)]
async fn a_plain_loss_is_not_read_back() {
    let case = case(vec![]);
    case.memory.create(&key(), Bytes::from("x")).await.unwrap();
    let error = case.retry.create(&key(), Bytes::from("x")).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(case.recording.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_ones_object_is_not_ours() {
    let case = case(vec![
        on(Operation::Create, Fault::Before(ErrorKind::Unknown)).times(1),
    ]);
    case.memory.create(&key(), Bytes::from("y")).await.unwrap();
    let error = case.retry.create(&key(), Bytes::from("x")).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[rstest]
#[case::always(vec![on(Operation::Create, Fault::After)])]
#[case::then_away(vec![
    on(Operation::Create, Fault::After).times(1),
    on(Operation::Create, Fault::Before(ErrorKind::Unavailable)),
])]
#[case::then_full(vec![
    on(Operation::Create, Fault::After).times(1),
    on(Operation::Create, Fault::Before(ErrorKind::Full)),
])]
#[case::cannot_read_back(vec![
    on(Operation::Create, Fault::After).times(1),
    on(Operation::Get, Fault::Before(ErrorKind::Unavailable)),
])]
#[tokio::test(start_paused = true)]
async fn what_may_have_been_done_stays_unknown(#[case] rules: Vec<Rule>) {
    let case = case(rules);
    let error = case.retry.create(&key(), Bytes::from("x")).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unknown);
}

#[rstest]
#[case(ErrorKind::Unavailable, 4)]
#[case(ErrorKind::Full, 1)]
#[case(ErrorKind::Denied, 1)]
#[tokio::test(start_paused = true)]
async fn what_was_not_done_is_said_so(#[case] kind: ErrorKind, #[case] calls: usize) {
    let case = case(vec![on(Operation::Create, Fault::Before(kind))]);
    let error = case.retry.create(&key(), Bytes::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_definite()), (kind, true));
    assert_eq!(case.recording.calls().len(), calls);
}
