//! One session of streaming: read, cut, hand over, report.
//!
//! Nothing here waits for the store: what cannot be handed over yet waits in memory up to a bound, and the status goes
//! out all the while (R21).

use std::sync::Arc;
use std::time::Duration;

use dr_coordination::chain::{self, ChainId, ChainWriter, Chunk, Facts, Progress, Promise};
use dr_model::{Lsn, RegionName};
use dr_pgwire::{ReplicationEvent, StandbyStatus, sql_state};
use dr_provider::driver::Frontier;
use dr_provider::{Error, ErrorKind, Result};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::connect::Link;
use super::coverage::Coverage;
use super::cutter::{Cut, CutError, Cutter, FULL_BYTES};
use super::pace::Pace;
use super::promise::Found;
use super::standing::{Standing, Stream};
use crate::driver::PostgresDriver;
use crate::instance::translate;
use crate::wal::Expected;

/// How often the server is told where we are, and asked for a sign of life, when nothing else happens. A silent peer is
/// noticed after [`SILENCE`].
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// A server that has said nothing for this long, though asked every second, is gone.
const SILENCE: Duration = Duration::from_secs(15);

/// WAL kept in memory while the store is slow; beyond that it stays on the primary.
const WAITING_BYTES: usize = 4 * FULL_BYTES;

/// How long what waits may take to become durable when a session ends.
const LEAVING: Duration = Duration::from_secs(5);

const OPERATION: &str = "stream the log of";

impl PostgresDriver {
    /// Streams until `stop` turns true or something else ends the session.
    pub(super) async fn receive(
        &self,
        region: &RegionName,
        frontier: &watch::Sender<Frontier>,
        stop: &mut watch::Receiver<bool>,
        part: &Part,
    ) -> Result<Ended> {
        let link = tokio::select! {
            link = self.link(region) => link?,
            _ended = stop.wait_for(|stop| *stop) => return Ok(Ended::Stopped),
        };
        let stream = Stream {
            pid: link.pid,
            chain: ChainId::from(link.log),
        };
        part.streams.send_replace(Some(stream));
        let synchronous = link
            .record
            .synchronous(&self.resource().resource)
            .contains(region);
        let mut session = Session::new((self, region), link, synchronous, part.standing.clone());
        let result = session.run(frontier, stop).await;
        session.handing_over.abort();
        part.streams.send_replace(None);
        result
    }
}

/// What a session shares with the look at its standing.
pub(super) struct Part {
    pub(super) streams: watch::Sender<Option<Stream>>,
    pub(super) standing: watch::Receiver<Standing>,
}

/// How a session ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was asked to stop.
    Stopped,
    /// Nothing was written for so long that the chain's tail has to be read again before the next chunk: the next session
    /// does so. An idle server comes here every time it writes again, and nothing is wrong with it.
    Outdated,
    /// The chain has left out log that was written at `wal_level = minimal`, and the next session goes on behind it.
    PassedOver,
}

/// What happens next.
enum Turn<'a> {
    Event(std::result::Result<ReplicationEvent, dr_pgwire::Error>),
    /// The next chunk can be handed over; `None` if nobody takes it any more.
    Cut(Option<mpsc::Permit<'a, Chunk>>),
    /// More is durable; `false` if the writer is gone.
    Progress(bool),
    Tick,
    Stop,
}

struct Session<'a> {
    driver: &'a PostgresDriver,
    region: &'a RegionName,
    link: LinkParts,
    /// Whether commits wait for this receiver, as the record said when the session began.
    synchronous: bool,
    cutter: Cutter,
    coverage: Coverage,
    standing: watch::Receiver<Standing>,
    cuts: mpsc::Sender<Chunk>,
    progress: watch::Receiver<Progress>,
    handing_over: JoinHandle<()>,
    pace: Pace,
    /// Monotonic time of the last message.
    heard: Duration,
    primary_end: Lsn,
}

/// What of the link the session keeps for itself.
struct LinkParts {
    reader: dr_pgwire::ReplicationReader,
    status: dr_pgwire::StatusWriter,
    subject: String,
    log: crate::actions::Log,
    pid: Option<i32>,
}

impl<'a> Session<'a> {
    fn new(
        (driver, region): (&'a PostgresDriver, &'a RegionName),
        link: Link,
        synchronous: bool,
        standing: watch::Receiver<Standing>,
    ) -> Self {
        let expected = Expected {
            system_identifier: link.log.system_identifier,
            timeline: link.log.timeline,
        };
        let cutter = Cutter::new(link.writer.end(), link.segment_size, expected);
        let progress = link.writer.progress();
        let (cuts, incoming) = mpsc::channel(1);
        Self {
            driver,
            region,
            synchronous,
            cutter,
            coverage: Coverage::default(),
            standing,
            cuts,
            progress,
            handing_over: tokio::spawn(hand_over(link.writer, incoming)),
            pace: Pace::default(),
            heard: driver.clock().elapsed(),
            primary_end: Lsn::INVALID,
            link: LinkParts {
                reader: link.reader,
                status: link.status,
                subject: link.subject,
                log: link.log,
                pid: link.pid,
            },
        }
    }

    async fn run(
        &mut self,
        frontier: &watch::Sender<Frontier>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Ended> {
        let mut ticks = tokio::time::interval(STATUS_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.show(frontier);
        let cuts = self.cuts.clone();
        loop {
            let now = self.driver.clock().elapsed();
            let due_in = self.cutter.waiting().and_then(|waiting| {
                let commits_wait = self.commits_wait();
                self.pace.due_in(waiting, commits_wait, now)
            });
            let ready = due_in.is_some_and(|wait| wait.is_zero());
            let room = self.cutter.waiting_bytes() < WAITING_BYTES;
            let turn = tokio::select! {
                event = self.link.reader.next(), if room => Turn::Event(event),
                permit = cuts.reserve(), if ready => Turn::Cut(permit.ok()),
                () = tokio::time::sleep(due_in.unwrap_or(STATUS_INTERVAL)), if due_in.is_some() && !ready => continue,
                changed = self.progress.changed() => Turn::Progress(changed.is_ok()),
                _tick = ticks.tick() => Turn::Tick,
                _ended = stop.wait_for(|stop| *stop) => Turn::Stop,
            };
            match turn {
                Turn::Event(event) => {
                    self.take(event.map_err(|error| self.broken(error))?)?;
                    if self.cutter.left_out().is_some() {
                        self.pass_over_minimal().await?;
                        return Ok(Ended::PassedOver);
                    }
                }
                Turn::Cut(None) | Turn::Progress(false) => return self.stopped(),
                Turn::Cut(Some(permit)) => {
                    if let Some(cut) = self.cutter.cut(now) {
                        let end = cut.start.advance(cut.payload.len() as u64);
                        self.pace.cut(end, now);
                        permit.send(self.chunk(cut));
                    }
                }
                Turn::Progress(true) => {
                    let durable = {
                        let progress = self.progress.borrow_and_update();
                        progress.failure.is_none().then_some(progress.durable)
                    };
                    let Some(durable) = durable else {
                        return self.stopped();
                    };
                    self.pace.durable(durable, self.driver.clock().elapsed());
                    self.report(false).await?;
                    self.show(frontier);
                }
                Turn::Tick => {
                    self.check_silence()?;
                    self.report(true).await?;
                    self.show(frontier);
                }
                Turn::Stop => {
                    self.finish().await?;
                    return Ok(Ended::Stopped);
                }
            }
        }
    }

    fn take(&mut self, event: ReplicationEvent) -> Result<()> {
        let now = self.driver.clock().elapsed();
        self.heard = now;
        match event {
            ReplicationEvent::Wal {
                start,
                server_wal_end,
                sent_at,
                data,
            } => {
                // Never shorter than what it sends: a walsender may learn of the end after it has read the bytes.
                let end = server_wal_end.max(start.advance(data.len() as u64));
                self.primary_end = end;
                let at = self.said_at(sent_at);
                self.cutter.report(end, at);
                self.coverage.reported(end, at);
                self.cutter.push(start, &data, now).map_err(|error| {
                    let kind = match &error {
                        CutError::NotContiguous { .. } => ErrorKind::Unavailable,
                        CutError::NotWal(_) => ErrorKind::Corrupt,
                    };
                    Error::new(kind, OPERATION, &self.link.subject).because(error)
                })
            }
            ReplicationEvent::KeepAlive {
                server_wal_end,
                sent_at,
                ..
            } => {
                // It says how far the server has *sent*: it covers the present only if nothing reported is still to come.
                if server_wal_end >= self.primary_end && self.cutter.received() >= server_wal_end {
                    self.primary_end = server_wal_end;
                    let at = self.said_at(sent_at);
                    self.cutter.report(server_wal_end, at);
                    self.coverage.reported(server_wal_end, at);
                }
                Ok(())
            }
            ReplicationEvent::End { .. } => Err(Error::new(
                ErrorKind::Unavailable,
                OPERATION,
                &self.link.subject,
            )
            .because("the timeline ended: the server is no longer the primary that it was")),
            ReplicationEvent::ServerStopped => {
                Err(
                    Error::new(ErrorKind::Unavailable, OPERATION, &self.link.subject)
                        .because("the server was shut down"),
                )
            }
        }
    }

    /// Returns when a message was sent: by the primary's clock, but never later than it was heard by ours. With a clock that is
    /// ahead, a primary that has gone silent would pass for covered for as long as it is.
    fn said_at(&self, sent_at: Timestamp) -> Timestamp {
        sent_at.min(self.driver.clock().now())
    }

    /// Tells whether commits wait for what is received here.
    fn commits_wait(&self) -> bool {
        let synchronous = self.standing.borrow().synchronous;
        synchronous.unwrap_or(self.synchronous)
    }

    /// Makes a chunk of what was cut, with what is known of the conditions of this session.
    fn chunk(&self, cut: Cut) -> Chunk {
        let standing = self.standing.borrow();
        let of_ours = |found: &&Found| found.pid == self.link.pid;
        let found = standing.found.as_ref().filter(of_ours);
        Chunk {
            start: cut.start,
            log: cut.payload,
            facts: Facts {
                commits: cut.commits,
                last_commit_at: cut.last_commit_at,
                received_at: cut.reported_at,
                primary_end: cut.primary_end,
                promise: found.map(|found| Promise {
                    held: found.held(),
                    checked_at: found.checked_at,
                    reasons: found.reasons.clone(),
                    epoch: (found.epoch != self.link.log.epoch).then_some(found.epoch),
                    from: found.from,
                }),
            },
        }
    }

    fn broken(&self, error: dr_pgwire::Error) -> Error {
        let removed = error.sql_state() == Some(sql_state::UNDEFINED_FILE);
        let error = translate(OPERATION, &self.link.subject, error);
        if removed {
            return error.with_hint(
                "the primary has dropped WAL that this region's store lacks: there is a hole, and what needs it cannot be \
                 restored from here",
            );
        }
        error
    }

    fn check_silence(&self) -> Result<()> {
        if self.driver.clock().elapsed().saturating_sub(self.heard) < SILENCE {
            return Ok(());
        }
        Err(
            Error::new(ErrorKind::Unavailable, OPERATION, &self.link.subject)
                .because(format!("it has said nothing for {} s", SILENCE.as_secs())),
        )
    }

    /// Tells the server what is received and what is durable, which in synchronous mode releases commits.
    async fn report(&self, reply_requested: bool) -> Result<()> {
        let durable = self.progress.borrow().durable;
        let status = StandbyStatus {
            write: self.cutter.received(),
            flush: durable,
            apply: durable,
            sent_at: self.driver.clock().now(),
            reply_requested,
        };
        self.link
            .status
            .send(&status)
            .await
            .map_err(|error| translate(OPERATION, &self.link.subject, error))
    }

    fn show(&mut self, frontier: &watch::Sender<Frontier>) {
        let progress = self.progress.borrow().clone();
        let covered_at = self.coverage.durable(progress.durable);
        let heard_at = self.driver.clock().now();
        frontier.send_modify(|frontier| {
            "streaming".clone_into(&mut frontier.state);
            frontier.epoch = Some(self.link.log.epoch);
            frontier.timeline = Some(self.link.log.timeline);
            frontier.received = self.cutter.received();
            frontier.durable = progress.durable;
            frontier.primary_end = self.primary_end;
            frontier.heard_at = Some(heard_at);
            frontier.covered_at = covered_at.or(frontier.covered_at);
            frontier.chunks = progress.chunks;
            frontier.log_bytes = progress.log_bytes;
            frontier.stored_bytes = progress.stored_bytes;
            frontier.problem = progress.problem;
        });
    }

    /// Hands over what waits, lets it become durable, reports it, and leaves.
    async fn finish(&mut self) -> Result<()> {
        // What does not become durable in time is on the primary still, and streamed again.
        let _late = tokio::time::timeout(LEAVING, self.hand_over_all()).await;
        self.report(false).await
    }

    /// Hands over what waits and lets it become durable; returns where that ends.
    async fn hand_over_all(&mut self) -> Lsn {
        while let Some(cut) = self.cutter.cut(Duration::ZERO) {
            let chunk = self.chunk(cut);
            if self.cuts.send(chunk).await.is_err() {
                break;
            }
        }
        let end = self.cutter.tail();
        let ended = |p: &Progress| p.durable >= end || p.failure.is_some();
        // A writer that is gone has made its last progress.
        drop(self.progress.wait_for(ended).await);
        self.progress.borrow().durable
    }

    /// Records that log written at `wal_level = minimal` is no log that anything can be recovered with, and lets the chain go on
    /// behind it.
    ///
    /// No commit waited for it, whoever commits wait for now: at that level a server has no walsenders, and waits for nobody.
    async fn pass_over_minimal(&mut self) -> Result<()> {
        let failed = |kind| Error::new(kind, OPERATION, &self.link.subject);
        let late = failed(ErrorKind::Unavailable)
            .because("the log before a time of `wal_level = minimal` is not in the store in time");
        let durable = tokio::time::timeout(LEAVING, self.hand_over_all()).await;
        let Some((from, to)) = self.cutter.left_out() else {
            return Ok(());
        };
        if durable.ok() != Some(from) {
            return match self.stopped() {
                Err(error) if error.kind() == ErrorKind::Superseded => Err(error),
                _ => Err(late),
            };
        }
        let chain = ChainId::from(self.link.log);
        self.driver
            .leave_out_minimal(
                (self.region, format!("receiver {}", self.region)),
                &chain,
                (from, to),
            )
            .await
            .map(drop)
    }

    /// Ends the session as the chain's writer has ended.
    fn stopped(&self) -> Result<Ended> {
        let failure = self.progress.borrow().failure.clone();
        ended_by(failure, &self.link.subject)
    }
}

/// Says what the end of the chain's writer means for the session.
fn ended_by(failure: Option<Arc<chain::Error>>, subject: &str) -> Result<Ended> {
    match failure {
        Some(error) if matches!(*error, chain::Error::Away { .. }) => Ok(Ended::Outdated),
        Some(error) => Err(Error::new(error.kind(), OPERATION, subject).because(ToText(error))),
        None => Err(Error::new(ErrorKind::Cancelled, OPERATION, subject)),
    }
}

/// A shared error as the cause of another.
#[derive(Debug)]
struct ToText(Arc<chain::Error>);

impl std::fmt::Display for ToText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ToText {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// Pushes chunks into the chain; ends when either side does. Keeping the writer in a task of its own lets a push wait for
/// the store without being cancelled.
async fn hand_over(mut writer: ChainWriter, mut incoming: mpsc::Receiver<Chunk>) {
    while let Some(chunk) = incoming.recv().await {
        if writer.push(chunk).await.is_err() {
            // The reason stands in the progress, which the session looks at.
            return;
        }
    }
    let _stopped = writer.flush().await;
}

#[cfg(test)]
mod tests {
    use dr_coordination::Actor;
    use dr_coordination::chain::{ChainId, SealRecord};
    use dr_model::{Epoch, SystemIdentifier, TimelineId};
    use jiff::Timestamp;

    use super::*;

    const CHAIN: ChainId = ChainId {
        system_identifier: SystemIdentifier(7_300_000_000_000_000_001),
        timeline: TimelineId(1),
        epoch: Epoch(1),
    };

    #[test]
    fn an_outdated_tail_is_no_error() {
        let away = Arc::new(chain::Error::Away { chain: CHAIN });
        assert_eq!(ended_by(Some(away), "it").unwrap(), Ended::Outdated);
    }

    #[test]
    fn a_seal_supersedes_and_says_by_whom() {
        let seal = SealRecord {
            version: chain::FORMAT_VERSION,
            system_identifier: CHAIN.system_identifier,
            timeline: CHAIN.timeline,
            epoch: CHAIN.epoch,
            lsn: Lsn(0x300_0000),
            successor: Epoch(2),
            execution: None,
            sealed_by: Actor::new("mira", "laptop", 1),
            sealed_at: Timestamp::UNIX_EPOCH,
        };
        let sealed = chain::Error::Superseded {
            chain: CHAIN,
            seal: Box::new(seal),
        };
        let error = ended_by(Some(Arc::new(sealed)), "it").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Superseded);
        let text = dr_provider::error::chain(&error);
        assert!(text.contains("mira") && text.contains("epoch 2"), "{text}");
    }

    #[test]
    fn a_writer_that_died_is_an_error() {
        let error = ended_by(None, "it").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
}
