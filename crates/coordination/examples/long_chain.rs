//! Times what a failover asks of a long chain on a directory store: `bench/long-chain` runs it.
//!
//! Arguments: a directory, which is kept and used again if it is there, and a number of chunks. The chain is a day of log at
//! four chunks a second: half of it from an idle server, half from a busy one. Its files are written as the store would
//! write them, without the synchronisation that would take an hour. Then every call is timed on a store handle of its own,
//! first while nothing is written and then while somebody outside this process's store adds four chunks a second.
#![expect(clippy::print_stdout, reason = "figures are its product")]
#![expect(clippy::unwrap_used, reason = "a bench may stop at the first surprise")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dr_coordination::Patience;
use dr_coordination::chain::{
    ChainId, ChainReader, ChainWriter, Chunk, Facts, Options, Origin, Section, available, encode,
    find_tail, newest_chain, summarise,
};
use dr_local::DirectoryStore;
use dr_model::{Clock, Epoch, Lsn, SystemClock, SystemIdentifier, TimelineId};
use dr_provider::ObjectStore;

const CHAIN: ChainId = ChainId {
    system_identifier: SystemIdentifier(7_300_000_000_000_000_001),
    timeline: TimelineId(1),
    epoch: Epoch(1),
};
const ORIGIN: Lsn = Lsn(0x300_0000);
const REPEATS: usize = 20;
const LAST_BYTES: u64 = 16 << 20;
const BETWEEN_CHUNKS: Duration = Duration::from_millis(250);

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().expect("a directory is the first argument"));
    let count = arguments
        .next()
        .map_or(345_600, |count| count.parse().unwrap());
    if !path.exists() {
        make_chain(&path, count).await;
    }
    let store = open(&path);
    let tail = find_tail(&*store, &CHAIN, Patience::default()).await;
    let end = tail.unwrap().unwrap().end;
    println!("{count} chunks, from {ORIGIN} to {end}");
    println!("| call | quiet: first | median | worst | written to: first | median | worst |");
    println!("|---|---|---|---|---|---|---|");
    let quiet = time_all(&path, end).await;
    let writer = tokio::spawn(write_slowly(path.clone(), end));
    let written_to = time_all(&path, end).await;
    writer.abort();
    for ((name, quiet), (_, written_to)) in quiet.iter().zip(&written_to) {
        println!("| {name} | {} | {} |", row(quiet), row(written_to));
    }
}

fn open(path: &Path) -> Arc<dyn ObjectStore> {
    Arc::new(DirectoryStore::open(path).unwrap())
}

/// Runs a call again and again on one handle; returns how long each took.
async fn time<F: Future>(path: &Path, call: impl Fn(Arc<dyn ObjectStore>) -> F) -> Vec<Duration> {
    let (store, clock) = (open(path), SystemClock::new());
    let mut took = Vec::new();
    for _ in 0..REPEATS {
        let begun = clock.elapsed();
        call(Arc::clone(&store)).await;
        took.push(clock.elapsed() - begun);
        tokio::time::sleep(BETWEEN_CHUNKS / 7).await;
    }
    took
}

async fn time_all(path: &Path, end: Lsn) -> Vec<(&'static str, Vec<Duration>)> {
    let patience = Patience::default();
    let cluster = CHAIN.system_identifier;
    vec![
        (
            "`find_tail`",
            time(path, |store| async move {
                find_tail(&*store, &CHAIN, patience).await.unwrap().unwrap();
            })
            .await,
        ),
        (
            "`summarise`, 64 headers",
            time(path, |store| async move {
                let summary = summarise(&*store, &CHAIN, 64, patience).await;
                assert_eq!(summary.unwrap().unwrap().headers, 64);
            })
            .await,
        ),
        (
            "`newest_chain`",
            time(path, |store| async move {
                assert_eq!(newest_chain(&*store, cluster).await.unwrap(), Some(CHAIN));
            })
            .await,
        ),
        (
            "`available`, the last 16 MiB",
            time(path, |store| async move {
                let from = Lsn(end.0 - LAST_BYTES);
                let held = available(
                    &*store,
                    Section::new(cluster, CHAIN.timeline, from, end),
                    patience,
                )
                .await;
                assert_eq!(held.unwrap().len(), 1);
            })
            .await,
        ),
        (
            "`ChainReader`, to the first of the last 16 MiB",
            time(path, |store| async move {
                reader(store, end).await.next().await.unwrap().unwrap();
            })
            .await,
        ),
        (
            "`ChainReader`, all of the last 16 MiB",
            time(path, |store| async move {
                let log = reader(store, end).await.read_to_end().await.unwrap();
                assert_eq!(log.len() as u64, LAST_BYTES);
            })
            .await,
        ),
        (
            "`ChainWriter::open`",
            time(path, |store| async move {
                let options = Options::new("bench", Arc::new(SystemClock::new()));
                ChainWriter::open(store, CHAIN, ORIGIN, options)
                    .await
                    .unwrap();
            })
            .await,
        ),
    ]
}

async fn reader(store: Arc<dyn ObjectStore>, end: Lsn) -> ChainReader {
    let from = Lsn(end.0 - LAST_BYTES);
    let (cluster, timeline) = (CHAIN.system_identifier, CHAIN.timeline);
    ChainReader::open(
        store,
        Section::new(cluster, timeline, from, end),
        Patience::default(),
    )
    .await
    .unwrap()
}

/// Returns first, median and worst in milliseconds.
fn row(took: &[Duration]) -> String {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let shown = [took[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]];
    shown
        .map(|took| format!("{:.1} ms", took.as_secs_f64() * 1000.0))
        .join(" | ")
}

/// Makes a store with the chain in it.
async fn make_chain(path: &Path, count: u64) {
    let identity = Bytes::from_static(b"{\"bench\":\"long-chain\"}");
    DirectoryStore::initialise(path, identity).await.unwrap();
    let directory = path.join(CHAIN.prefix());
    std::fs::create_dir_all(&directory).unwrap();
    let origin = Origin {
        version: dr_coordination::chain::FORMAT_VERSION,
        system_identifier: CHAIN.system_identifier,
        timeline: CHAIN.timeline,
        epoch: CHAIN.epoch,
        start_lsn: ORIGIN,
        created_at: SystemClock::new().now(),
        writer: "bench".to_owned(),
    };
    std::fs::write(path.join(CHAIN.origin_key().as_str()), origin.to_bytes()).unwrap();
    let mut at = ORIGIN;
    for number in 0..count {
        let bytes = if number < count / 2 {
            // A heartbeat and a keepalive.
            256
        } else {
            256 + number * 7919 % 8192
        };
        at = add(path, at, bytes);
    }
}

/// Adds a chunk as the store does: written aside, then given its name.
fn add(path: &Path, at: Lsn, bytes: u64) -> Lsn {
    let log = (0..bytes).map(|index| u8::try_from((at.0 + index / 16) % 251).unwrap());
    let now = SystemClock::new().now();
    let chunk = Chunk {
        start: at,
        log: log.collect(),
        facts: Facts {
            commits: 1,
            last_commit_at: Some(now),
            received_at: now,
            primary_end: at.advance(bytes),
            promise: None,
        },
    };
    let aside = path.join(".tmp/bench");
    std::fs::write(&aside, encode(&CHAIN, &chunk, at, "bench", None)).unwrap();
    std::fs::rename(aside, path.join(CHAIN.link_key(at).as_str())).unwrap();
    chunk.end()
}

/// Adds to the chain until it is aborted.
async fn write_slowly(path: PathBuf, end: Lsn) {
    let mut ticks = tokio::time::interval(BETWEEN_CHUNKS);
    let mut at = end;
    loop {
        ticks.tick().await;
        at = add(&path, at, 256);
    }
}
