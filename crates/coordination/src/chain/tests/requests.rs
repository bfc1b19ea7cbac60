//! What finding a chain's end costs: each read of a store in another region takes a round trip, and money.

use std::sync::Arc;

use dr_model::Lsn;
use dr_provider::ObjectStore;
use dr_provider::decorate::{Fault, Faulty, Operation, Recording, Rule};
use dr_provider::store::MemoryStore;
use dr_provider::{ErrorKind, Key};
use rstest::rstest;

use super::{ORIGIN, chain, chunk, request, writer};
use crate::chain::{encode, find_tail, seal, summarise};
use crate::testing::IMPATIENT;

/// Bytes of log in a chunk.
const LENGTH: u64 = 8;

/// Chunks in a chain.
const CHUNKS: u64 = 100;

/// Returns where the chunk of this number begins.
fn start_of(number: u64) -> Lsn {
    ORIGIN.advance(number * LENGTH)
}

/// Makes a chain of which `under_way` chunks were written at once.
async fn chain_of(under_way: u64) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new("west"));
    drop(writer(&store).await);
    for number in 0..CHUNKS {
        let (start, through) = (start_of(number), start_of(number.saturating_sub(under_way)));
        let bytes = encode(&chain(1), &chunk(start, LENGTH), through, "west", None);
        store
            .create(&chain(1).link_key(start), bytes)
            .await
            .unwrap();
    }
    store
}

/// Returns the keys whose heads were read, and forgets all calls.
fn heads(store: &Recording) -> Vec<String> {
    let mut heads: Vec<_> = store
        .take()
        .into_iter()
        .filter(|call| call.operation == Operation::GetRange)
        .map(|call| call.subject)
        .collect();
    heads.sort_unstable();
    heads
}

fn keys(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    let key = |number| chain(1).link_key(start_of(number)).to_string();
    numbers.into_iter().map(key).collect()
}

/// Read are the newest chunk, those from where it says that the chain hung together, and what follows it.
#[rstest]
#[case::one_after_the_other(0)]
#[case::a_few_at_once(3)]
#[case::as_many_as_a_writer_has_under_way(8)]
#[tokio::test]
async fn a_tail_costs_the_links_behind_the_last_proof(#[case] under_way: u64) {
    let store = Recording::new(chain_of(under_way).await);
    let tail = find_tail(&store, &chain(1), IMPATIENT).await.unwrap();
    assert_eq!(tail.unwrap().end, start_of(CHUNKS));
    let expected = keys(CHUNKS - 1 - under_way..=CHUNKS);
    assert_eq!(heads(&store), expected);
}

/// A seal is at the tail: besides it, only the chunk before it is read.
#[tokio::test]
async fn the_tail_of_a_sealed_chain_costs_two_links() {
    let store = chain_of(3).await;
    let sealed = seal(&*store, &chain(1), &request(2), IMPATIENT).await;
    let store = Recording::new(store);
    let tail = find_tail(&store, &chain(1), IMPATIENT).await.unwrap();
    let tail = tail.unwrap();
    assert_eq!(tail.end, sealed.unwrap().lsn);
    assert_eq!(tail.last.unwrap().start, start_of(CHUNKS - 1));
    assert_eq!(heads(&store), keys([CHUNKS - 1, CHUNKS]));
}

#[rstest]
#[case::open(None)]
#[case::sealed(Some(2))]
#[tokio::test]
async fn a_summary_reads_each_link_once(#[case] successor: Option<u64>) {
    const HEADERS: u64 = 16;
    let store = chain_of(3).await;
    if let Some(successor) = successor {
        let sealed = seal(&*store, &chain(1), &request(successor), IMPATIENT).await;
        sealed.unwrap();
    }
    let store = Recording::new(store);
    let summary = summarise(&store, &chain(1), 16, IMPATIENT).await.unwrap();
    let summary = summary.unwrap();
    assert_eq!(summary.end, start_of(CHUNKS));
    assert_eq!(summary.headers, 16);
    assert_eq!(heads(&store), keys(CHUNKS - HEADERS..=CHUNKS));
}

/// A link that cannot be read is no reason not to find an end that does not rest on it.
#[rstest]
#[case::before_the_last_proof(CHUNKS - 6)]
#[case::a_stray_one_behind_the_end(CHUNKS + 2)]
#[tokio::test]
async fn what_the_walk_does_not_need_may_fail(#[case] unreadable: u64) {
    let store = chain_of(3).await;
    let key: Key = chain(1).link_key(start_of(unreadable));
    if unreadable > CHUNKS {
        let stray = chunk(start_of(unreadable), LENGTH);
        let bytes = encode(&chain(1), &stray, start_of(CHUNKS), "west", None);
        store.create(&key, bytes).await.unwrap();
    }
    let denied = Fault::Before(ErrorKind::Denied);
    let rule = Rule::on(Operation::GetRange, key.as_str(), denied);
    let store = Faulty::scripted(store, vec![rule]);
    let tail = find_tail(&store, &chain(1), IMPATIENT).await.unwrap();
    assert_eq!(tail.unwrap().end, start_of(CHUNKS));
}

/// A link that the walk needs is asked for again, and then it is an error.
#[tokio::test]
async fn what_the_walk_needs_may_not_fail() {
    let store = chain_of(3).await;
    let key = chain(1).link_key(start_of(CHUNKS - 2));
    let denied = Fault::Before(ErrorKind::Denied);
    let rule = |times| Rule::on(Operation::GetRange, key.as_str(), denied).times(times);
    let faulty = Faulty::scripted(store, vec![rule(1)]);
    let tail = find_tail(&faulty, &chain(1), IMPATIENT).await.unwrap();
    assert_eq!(tail.unwrap().end, start_of(CHUNKS));
    faulty.set_rules(vec![rule(2)]);
    let error = find_tail(&faulty, &chain(1), IMPATIENT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
}
