//! What the newest epoch says of a receiver's part, and whether the conditions of synchronous mode hold.
//!
//! Looked at every few seconds as long as the receiver runs, streaming or not: a record that changes only whom commits
//! wait for leaves the stream as it is, so nobody has to connect anew to learn of it.

use std::time::Duration;

use dr_coordination::chain::ChainId;
use dr_coordination::register::EpochRecord;
use dr_model::{Epoch, Lsn, RegionName};
use dr_provider::Result;
use dr_provider::driver::{Frontier, KeptLog};
use dr_provider::error::chain;
use jiff::Timestamp;
use tokio::sync::watch;

use super::degrade::StorePatience;
use super::promise::Found;
use crate::driver::PostgresDriver;
use crate::options::StoreLoss;
use crate::slots::{Relief, Slot};

/// How often it is looked at; the conditions are written into chunks at least every 10 s.
const INTERVAL: Duration = Duration::from_secs(4);

/// How often it is looked whether log is recorded as lost, a listing or two of the store, and what the primary's clock says.
const LOST_INTERVAL: Duration = Duration::from_secs(60);

/// By how much two clocks may differ before it is worth a line.
const CLOCKS_DIFFER_SECONDS: i64 = 60;

/// A session that streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    /// The process of its walsender; `None` if the server did not tell, as a pooler does not.
    pub(super) pid: Option<i32>,
    /// The chain that it writes.
    pub(super) chain: ChainId,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Whether commits wait for this receiver; `None` until a record was read.
    pub(super) synchronous: Option<bool>,
    /// The conditions as last looked at, of the session whose walsender is named in them.
    pub(super) found: Option<Found>,
}

/// Since where the conditions have held without a break that could be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Streak {
    stream: Stream,
    epoch: Epoch,
    loaded_at: String,
    from: Lsn,
}

impl PostgresDriver {
    /// Looks again and again, for the session that `streams` names. Never ends by itself.
    pub(super) async fn watch_standing(
        &self,
        region: &RegionName,
        mut streams: watch::Receiver<Option<Stream>>,
        standing: watch::Sender<Standing>,
        frontier: &watch::Sender<Frontier>,
    ) {
        let mut streak = None;
        let mut patience = StorePatience::default();
        let mut lost = Vec::new();
        let mut lost_looked_at = None;
        let mut relief = Relief::default();
        let mut clocks = None;
        let mut clocks_read_at = None;
        let interval = self.standing_interval();
        loop {
            let stream = streams.borrow_and_update().clone();
            match self.follow_register("look at the epoch of").await {
                Ok(record) => {
                    let found = self
                        .stand(region, &record, stream.as_ref(), &mut streak)
                        .await;
                    standing.send_replace(found);
                    self.mind_stores(region, &record, &mut patience).await;
                    let now = self.clock().elapsed();
                    let is_due = |at| now.saturating_sub(at) >= LOST_INTERVAL;
                    if lost_looked_at.is_none_or(is_due) {
                        match self.lost_and_needed(region).await {
                            Ok(found) => (lost, lost_looked_at) = (found, Some(now)),
                            Err(error) => tracing::warn!("{}", chain(&error)),
                        }
                    }
                    if clocks_read_at.is_none_or(is_due) {
                        clocks_read_at = Some(now);
                        let read = self.clock_difference(&record.primary).await;
                        // A primary that cannot be asked is what the stream itself complains of.
                        clocks = read.unwrap_or_else(|error| {
                            tracing::debug!("{}", chain(&error));
                            None
                        });
                    }
                    let (mut alarms, kept) = self.alarms(region, &record, &mut relief).await;
                    alarms.extend_from_slice(&lost);
                    alarms.extend(clocks.clone());
                    frontier.send_if_modified(|frontier| {
                        let changed = frontier.alarms != alarms || frontier.kept != kept;
                        (frontier.alarms, frontier.kept) = (alarms, kept);
                        changed
                    });
                }
                // Not seen is not held: nothing is recorded, and the last finding grows old.
                Err(error) => tracing::warn!("{}", chain(&error)),
            }
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                changed = streams.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // A new session may have found that something is lost.
                    lost_looked_at = None;
                }
            }
        }
    }

    /// Returns what a person has to see to, and what the primary keeps: of our own slot, and beside the primary of all of them.
    /// There one is dropped if it fills the disk.
    async fn alarms(
        &self,
        region: &RegionName,
        record: &EpochRecord,
        relief: &mut Relief,
    ) -> (Vec<String>, Vec<KeptLog>) {
        let mut kept = Vec::new();
        let lost = record.sync_lost.get(&self.resource().resource);
        let mut alarms: Vec<String> = lost
            .map(|lost| format!("synchronous mode is lost since {}", lost.since))
            .into_iter()
            .collect();
        match self.slots_of(&record.primary).await {
            Ok(slots) => {
                let is_back = |name: &String| slots.iter().any(|slot| slot.name == *name);
                relief.dropped.retain(|name, _| !is_back(name));
                if record.primary == *region
                    && let Err(error) = self.relieve_primary(record, &slots, relief).await
                {
                    alarms.push(chain(&error));
                }
                let dropped = &relief.dropped;
                alarms.extend(dropped.values().cloned());
                let ours = |slot: &&Slot| {
                    slot.region.as_ref() == Some(region) || record.primary == *region
                };
                let stand = |slot: &&Slot| !dropped.contains_key(&slot.name);
                let slots: Vec<&Slot> = slots.iter().filter(ours).filter(stand).collect();
                alarms.extend(slots.iter().filter_map(|slot| slot.alarm()));
                kept = slots.iter().map(|slot| slot.kept()).collect();
            }
            // A primary that cannot be asked is what the stream itself complains of.
            Err(error) => tracing::debug!("{}", chain(&error)),
        }
        (alarms, kept)
    }

    /// Says so if the primary's clock is far from ours: what is measured between the two is then off by as much.
    async fn clock_difference(&self, primary: &RegionName) -> Result<Option<String>> {
        const OPERATION: &str = "read the clock of";
        const SQL: &str = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
        let mut instance = self.connect(primary).await?;
        let before = self.clock().now();
        let micros: i64 = instance.scalar(OPERATION, SQL).await?;
        let after = self.clock().now();
        let theirs = Timestamp::from_microsecond(micros)
            .map_err(|error| self.failed(OPERATION, error.to_string()))?;
        let (seconds, how) = if theirs < before {
            (before.duration_since(theirs).as_secs(), "behind")
        } else {
            (theirs.duration_since(after).as_secs(), "ahead of")
        };
        let said = || {
            format!(
                "the clock of the primary's server is {seconds} s {how} this machine's: exposure, and times that are restored to, \
                 are off by as much; set the wrong one right"
            )
        };
        Ok((seconds >= CLOCKS_DIFFER_SECONDS).then(said))
    }

    fn standing_interval(&self) -> Duration {
        match self.options().on_store_loss {
            StoreLoss::Block => INTERVAL,
            StoreLoss::DegradeAfter(limit) => INTERVAL.min(limit / 4),
        }
    }

    async fn stand(
        &self,
        region: &RegionName,
        record: &EpochRecord,
        stream: Option<&Stream>,
        streak: &mut Option<Streak>,
    ) -> Standing {
        let resource = &self.resource().resource;
        let sync = record.synchronous(resource);
        let synchronous = sync.contains(region);
        let same = |stream: &&Stream| Some(stream.chain) == record.chain(resource);
        let mut standing = Standing {
            synchronous: Some(synchronous),
            found: None,
        };
        let Some(stream) = stream.filter(same).filter(|_| synchronous) else {
            *streak = None;
            return standing;
        };
        match self.check(region, record, sync, stream, streak).await {
            Ok(found) => {
                if !found.held() {
                    tracing::warn!(reasons = ?found.reasons, "the conditions of synchronous mode do not hold");
                }
                standing.found = Some(found);
            }
            Err(error) => {
                *streak = None;
                tracing::warn!("{}", chain(&error));
            }
        }
        standing
    }

    async fn check(
        &self,
        region: &RegionName,
        record: &EpochRecord,
        sync: &[RegionName],
        stream: &Stream,
        streak: &mut Option<Streak>,
    ) -> Result<Found> {
        let checked_at = self.clock().now();
        let conditions = self
            .look_at_conditions(&record.primary, sync, (region, stream.pid))
            .await?;
        let held = conditions.reasons.is_empty();
        let now = Streak {
            stream: stream.clone(),
            epoch: record.epoch,
            loaded_at: conditions.loaded_at,
            from: conditions.position,
        };
        *streak = match streak.take() {
            _ if !held => None,
            // A configuration that was loaded meanwhile may have been another for a while.
            Some(before)
                if before
                    == Streak {
                        from: before.from,
                        ..now.clone()
                    } =>
            {
                Some(before)
            }
            _ => Some(now),
        };
        Ok(Found {
            epoch: record.epoch,
            pid: stream.pid,
            checked_at,
            from: streak.as_ref().map(|streak| streak.from),
            reasons: conditions.reasons,
        })
    }
}
