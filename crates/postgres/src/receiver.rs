//! The receiver: the primary's WAL, as it is written, into one region's store.
//!
//! Each region has a receiver of its own with a slot of its own; the recovery region's reaches across to the primary
//! (PROTOCOL 1). Bytes become chunks, chunks a chain, and only what is durable and contiguous in the chain is reported
//! as flushed: in synchronous mode a commit waits for exactly that (PROTOCOL 3 and 5, R19 to R24).

mod ancestry;
mod connect;
mod coverage;
mod cutter;
mod degrade;
mod pace;
mod promise;
mod session;
mod slot;
mod standing;

use std::time::Duration;

use async_trait::async_trait;
use dr_model::{Epoch, Lsn, RegionName};
use dr_provider::driver::{CompactReport, Frontier, LogStream};
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind, Result};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::driver::PostgresDriver;

pub(crate) use cutter::FULL_BYTES;
use session::{Ended, Part};
use standing::Standing;

/// The first pause before connecting again; doubled with each failure in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause. Exposure grows during it, so it is short.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause while somebody else has the slot. The server sees in a moment that the receiver before this one is gone, and commits
/// may wait for as long as this one then pauses.
const SLOT_PAUSE: Duration = Duration::from_millis(400);

/// How long the receiver before this one may take to be gone. Whoever has the slot then has it for longer, and is not asked for it all the
/// time.
const SLOT_PATIENCE: Duration = Duration::from_secs(30);

/// What is waited between sessions.
#[derive(Debug, Default)]
struct Pauses {
    last: Option<Duration>,
    /// What was waited for the slot alone.
    taken: Duration,
}

impl Pauses {
    /// Returns how long to wait after a session has ended with `error`.
    fn next(&mut self, error: &Error, streamed: bool) -> Duration {
        let is_taken = error.kind() == ErrorKind::Conflict;
        if streamed || !is_taken {
            self.taken = Duration::ZERO;
        }
        let longest = match is_taken && self.taken < SLOT_PATIENCE {
            true => SLOT_PAUSE,
            false => LONGEST_PAUSE,
        };
        let pause = match self.last {
            Some(last) if !streamed => (last * 2).min(longest),
            _ => FIRST_PAUSE,
        };
        if is_taken {
            self.taken += pause;
        }
        self.last = Some(pause);
        pause
    }
}

#[async_trait]
impl LogStream for PostgresDriver {
    async fn ship(
        &self,
        region: &RegionName,
        frontier: watch::Sender<Frontier>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<()> {
        let (streams, streaming) = watch::channel(None);
        let (found, standing) = watch::channel(Standing::default());
        let part = Part { streams, standing };
        let looking = self.watch_standing(region, streaming, found, &frontier);
        tokio::select! {
            ended = self.keep_streaming(region, &frontier, &mut stop, &part) => ended,
            () = looking => Ok(()),
        }
    }

    async fn compact(&self, region: &RegionName) -> Result<CompactReport> {
        self.compact_log(region).await
    }

    async fn lost_since(&self, region: &RegionName, since: Lsn) -> Result<Vec<String>> {
        let cluster = self
            .cluster_in(self.store(region)?, "look for holes in the log of")
            .await?;
        let mut lost = self.describe_lost(region, cluster, since).await?;
        // Recovery points are taken here for the other regions too, whose receivers have holes of their own.
        for other in self.parts().stores.keys().filter(|other| *other != region) {
            match self.describe_lost(other, cluster, since).await {
                Ok(lines) => lost.extend(lines.iter().map(|line| format!("in {other}, {line}"))),
                // What cannot be seen is no reason for a recovery point that the other region could not get.
                Err(error) => tracing::warn!(region = %other, "{}", chain(&error)),
            }
        }
        Ok(lost)
    }

    fn heartbeat_interval(&self) -> Duration {
        self.options().heartbeat
    }

    async fn beat(&self, region: &RegionName, epoch: Epoch) -> Result<Timestamp> {
        self.beat_on_kept_connection(region, epoch).await
    }

    async fn last_beat(&self, region: &RegionName) -> Result<Option<Timestamp>> {
        let mut instance = self.connect(region).await?;
        self.read_beat(&mut instance, None).await
    }
}

impl PostgresDriver {
    /// Streams, connecting again whenever a session ends.
    async fn keep_streaming(
        &self,
        region: &RegionName,
        frontier: &watch::Sender<Frontier>,
        stop: &mut watch::Receiver<bool>,
        part: &Part,
    ) -> Result<()> {
        let mut pauses = Pauses::default();
        while !*stop.borrow() {
            let error = match self.receive(region, frontier, stop, part).await {
                Ok(Ended::Stopped) => return Ok(()),
                Ok(Ended::Outdated | Ended::PassedOver) => {
                    frontier.send_modify(|frontier| "connecting".clone_into(&mut frontier.state));
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Superseded => {
                    frontier.send_modify(|frontier| "sealed".clone_into(&mut frontier.state));
                    return Err(error);
                }
                Err(error) => error,
            };
            let streamed = frontier.borrow().state == "streaming";
            let wait = pauses.next(&error, streamed);
            frontier.send_modify(|frontier| {
                "connecting".clone_into(&mut frontier.state);
                frontier.problem = Some(chain(&error));
            });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ended = stop.wait_for(|stop| *stop) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_less_while_the_slot_is_still_taken() {
        let error = |kind| Error::new(kind, "stream the log of", "it");
        let pauses = |kind, streamed| {
            let mut pauses = Pauses::default();
            [(); 8].map(|()| pauses.next(&error(kind), streamed).as_millis())
        };
        let growing = [100, 200, 400, 800, 1600, 3200, 5000, 5000];
        assert_eq!(pauses(ErrorKind::Unavailable, false), growing);
        assert_eq!(pauses(ErrorKind::Unavailable, true), [100; 8]);
        let taken = [100, 200, 400, 400, 400, 400, 400, 400];
        assert_eq!(pauses(ErrorKind::Conflict, false), taken);
        // Not for ever: then it is somebody else who streams.
        let mut pauses = Pauses::default();
        let mut next = |kind| pauses.next(&error(kind), false);
        let waited: Vec<Duration> = (0..90).map(|_| next(ErrorKind::Conflict)).collect();
        let short = waited.iter().take_while(|pause| **pause <= SLOT_PAUSE);
        let short: Duration = short.sum();
        assert!(
            short >= SLOT_PATIENCE && short < SLOT_PATIENCE + SLOT_PAUSE,
            "{short:?}"
        );
        assert_eq!(waited.last(), Some(&LONGEST_PAUSE));
        next(ErrorKind::Unavailable);
        assert_eq!(next(ErrorKind::Conflict), SLOT_PAUSE);
    }
}
