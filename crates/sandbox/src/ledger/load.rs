//! The load: workers that commit at a bounded rate through the DNS name, and the record of what became of it.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dr_model::{Clock, RegionName, SystemClock};
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::app::Request;
use super::client::Connection;
use super::resolver::Resolver;
use super::{Commit, Outcome};
use crate::layout::{Layout, NAME};
use crate::{Error, Result};

/// How hard the load drives.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Number of workers, each with one connection.
    pub workers: u16,
    /// Commits a second that all workers together attempt at most.
    pub rate: u32,
    /// How long a commit may take before the client gives up on it.
    pub limit: Duration,
    /// The number of the first worker, which the keys of commits are made of: two loads must not share one.
    pub first_worker: u16,
    /// Whether it asks for the name's address once, and keeps the answer for ever.
    pub stale: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 8,
            rate: 240,
            limit: Duration::from_secs(1),
            first_worker: 0,
            stale: false,
        }
    }
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    cancel: CancellationToken,
    workers: JoinSet<()>,
}

/// Everything that a load wrote down.
#[derive(Clone, Debug)]
pub struct Record {
    /// All commits, in the order of their end.
    pub commits: Vec<Commit>,
    /// The wall-clock time at which the commits' times are zero.
    pub origin: Timestamp,
}

#[derive(Debug)]
struct Shared {
    resolver: Resolver,
    clock: SystemClock,
    port: u16,
    regions: BTreeMap<IpAddr, RegionName>,
    options: Options,
    book: Mutex<Book>,
    acknowledged: AtomicU64,
    last_acknowledged_us: AtomicU64,
}

#[derive(Debug)]
struct Book {
    commits: Vec<Commit>,
    file: std::io::BufWriter<std::fs::File>,
    failure: Option<std::io::Error>,
}

impl Load {
    /// Starts the workers against the application of `layout`. Each commit is also written to `file`, one JSON object
    /// a line.
    pub fn start(
        layout: &Layout,
        clock: SystemClock,
        options: Options,
        file: PathBuf,
    ) -> Result<Self> {
        let writer = std::fs::File::create(&file).map_err(Error::file("create", &file))?;
        let shared = Arc::new(Shared {
            resolver: Resolver::new(layout.dns, NAME, clock, options.stale),
            clock,
            port: layout
                .regions
                .values()
                .next()
                .map_or(0, |place| place.app_port),
            regions: layout
                .regions
                .iter()
                .map(|(region, place)| (place.address, region.clone()))
                .collect(),
            options,
            book: Mutex::new(Book {
                commits: Vec::new(),
                file: std::io::BufWriter::new(writer),
                failure: None,
            }),
            acknowledged: AtomicU64::new(0),
            last_acknowledged_us: AtomicU64::new(0),
        });
        let cancel = CancellationToken::new();
        let mut workers = JoinSet::new();
        for number in 0..options.workers {
            let work = Worker {
                number: options.first_worker + number,
                shared: Arc::clone(&shared),
                connection: None,
            };
            workers.spawn(work.run(cancel.clone()));
        }
        Ok(Self {
            shared,
            cancel,
            workers,
        })
    }

    /// Returns how many commits have been acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Returns when the newest acknowledged commit began, in microseconds of the clock.
    #[must_use]
    pub fn last_acknowledged_us(&self) -> u64 {
        self.shared.last_acknowledged_us.load(Ordering::Relaxed)
    }

    /// Lets every worker finish the commit that it is at, and returns the record.
    pub async fn stop(mut self) -> Result<Record> {
        self.cancel.cancel();
        while self.workers.join_next().await.is_some() {}
        let clock = self.shared.clock;
        let mut book = self
            .shared
            .book
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let failure = book.failure.take().or_else(|| book.file.flush().err());
        if let Some(source) = failure {
            return Err(Error::File {
                operation: "write",
                path: "the record of commits".into(),
                source,
            });
        }
        let mut commits = std::mem::take(&mut book.commits);
        commits.sort_by_key(|commit| commit.ended_us);
        let since = jiff::SignedDuration::try_from(clock.elapsed()).unwrap_or_default();
        let origin = clock
            .now()
            .checked_sub(since)
            .unwrap_or(Timestamp::UNIX_EPOCH);
        Ok(Record { commits, origin })
    }
}

struct Worker {
    number: u16,
    shared: Arc<Shared>,
    connection: Option<Connection>,
}

impl Worker {
    async fn run(mut self, cancel: CancellationToken) {
        let Options { workers, rate, .. } = self.shared.options;
        let mut ticks = interval(Duration::from_secs(1) * u32::from(workers) / rate.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for sequence in 0.. {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.commit(sequence).await;
        }
    }

    async fn commit(&mut self, sequence: u32) {
        let shared = Arc::clone(&self.shared);
        let now = || u64::try_from(shared.clock.elapsed().as_micros()).unwrap_or(u64::MAX);
        let started_us = now();
        let (region, outcome, reason) = self.attempt(sequence).await;
        let ended_us = now();
        if outcome == Outcome::Acknowledged {
            shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            shared
                .last_acknowledged_us
                .fetch_max(started_us, Ordering::Relaxed);
        }
        let id = Commit::key(self.number, sequence);
        let commit = Commit {
            id,
            region,
            started_us,
            ended_us,
            outcome,
            reason,
        };
        let mut book = shared.book.lock().unwrap_or_else(PoisonError::into_inner);
        let Book {
            file,
            failure,
            commits,
        } = &mut *book;
        let written = serde_json::to_writer(&mut *file, &commit)
            .map_err(std::io::Error::from)
            .and_then(|()| file.write_all(b"\n"));
        if let Err(error) = written {
            failure.get_or_insert(error);
        }
        commits.push(commit);
    }

    /// Resolves, connects if need be, and asks; all of it within the limit.
    async fn attempt(&mut self, sequence: u32) -> (Option<RegionName>, Outcome, Option<String>) {
        let Shared {
            resolver,
            options,
            port,
            regions,
            ..
        } = &*self.shared;
        let kept = &mut self.connection;
        // Known as soon as the request is on its way: from then on silence no longer means refusal.
        let mut asked = None;
        let attempt = async {
            let ip = resolver
                .address()
                .await
                .map_err(|error| error.to_string())?;
            let address = SocketAddr::new(ip, *port);
            let mut connection = match kept.take() {
                Some(kept) if kept.address == address && !kept.is_closed() => kept,
                _ => Connection::open(address).await?,
            };
            asked = regions.get(&ip).cloned();
            let wanted = Request {
                id: Commit::key(self.number, sequence),
                client: i32::from(self.number),
                sequence: i64::from(sequence),
            };
            let answer = connection.commit(wanted).await;
            *kept = Some(connection);
            Ok::<_, String>(answer)
        };
        let (outcome, reason) = match timeout(options.limit, attempt).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(reason)) => (Outcome::Refused, Some(reason)),
            // The connection went with the attempt: a late answer is not taken for the next commit's.
            Err(_) => {
                let outcome = if asked.is_some() {
                    Outcome::Indeterminate
                } else {
                    Outcome::Refused
                };
                (outcome, Some("no answer within the time limit".to_owned()))
            }
        };
        (asked, outcome, reason)
    }
}
