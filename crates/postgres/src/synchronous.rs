//! Changing whom commits wait for while an epoch is open (PROTOCOL 5).
//!
//! What is promised is the sync set of the newest epoch record, and what makes commits wait is `synchronous_standby_names`
//! on the primary: two places that cannot be changed at once. The order makes a failover at any moment say no more than is
//! true:
//! - to wait for one more store: its bytes are durable, then the record, then the primary;
//! - to wait for one less: the record, then the primary.
//!
//! The record is the next epoch with the same primary, timeline and chains. Whoever changes anything holds a lock on the
//! primary from before the record until after the setting, so that no late change of one command follows another's record.
//! The lock belongs to the session that makes the change: it ends with whatever that session still does. The model check
//! holds each of these rules to be needed (`coordination`, `model`).
//!
//! Idempotent: a record that says it already is left as it is, and the setting is made again.

use std::time::Duration;

use dr_coordination::chain::find_tail;
use dr_coordination::register::{EpochRecord, SyncLost};
use dr_model::{Epoch, Lsn, RegionName};
use dr_pgwire::quote_literal;
use dr_provider::{Error, ErrorKind, Result};

use crate::driver::PostgresDriver;
use crate::instance::Instance;
use crate::options::{LONGEST_SYNCHRONOUS, Options};
use crate::register::patience;
use crate::wait::Deadline;

const OPERATION: &str = "change whom commits wait for on";

/// How long a changed setting may take to be in force.
const SETTING_LIMIT: Duration = Duration::from_secs(10);

/// What a change came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncChange {
    /// The primary's region.
    pub primary: RegionName,
    /// The newest epoch now.
    pub epoch: Epoch,
    /// Whether it was opened for this change; otherwise its record said so already.
    pub opened: bool,
    /// Regions that commits waited for.
    pub before: Vec<RegionName>,
    /// Regions that they wait for now.
    pub after: Vec<RegionName>,
}

/// A wish to change the sync set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncWish {
    /// Exactly these regions.
    Exactly(Vec<RegionName>),
    /// No longer this one, whose store does not take the log.
    Lost(RegionName),
    /// This one again, after it was lost.
    Back(RegionName),
}

impl PostgresDriver {
    /// Changes whom commits on the primary wait for; `reason` stands in the record. To wait for more, their stores have
    /// `limit` to hold what the primary has now.
    ///
    /// # Errors
    ///
    /// `Superseded` if the epoch was ended meanwhile. After an error the record may be changed and the primary not: the
    /// same again goes on from there.
    pub async fn change_synchronous(
        &self,
        wish: &SyncWish,
        reason: &str,
        limit: Duration,
    ) -> Result<SyncChange> {
        let seen = self.read_register(OPERATION).await?;
        let mut instance = self.connect(&seen.primary).await?;
        instance.lock(OPERATION).await?;
        let record = self.read_register(OPERATION).await?;
        if record.primary != seen.primary {
            return Err(self.ended(&record));
        }
        let log = self.log_of(&record, OPERATION)?;
        let position = instance.position().await?;
        instance.check_cluster(position.system_identifier, log.system_identifier)?;
        if position.in_recovery || position.timeline != log.timeline {
            return Err(self.failed(
                OPERATION,
                format!(
                    "the server in {} is not the primary of epoch {}",
                    record.primary, record.epoch
                ),
            ));
        }
        let before = record.synchronous(&self.resource().resource).to_vec();
        let (after, lost) = self.decide_sync(&record, wish, &mut instance).await?;
        let added: Vec<_> = after.iter().filter(|r| !before.contains(r)).collect();
        if !added.is_empty() {
            self.await_stores(&record, &added, position.position, limit, &mut instance)
                .await?;
        }
        let unchanged =
            before == after && record.sync_lost.get(&self.resource().resource) == lost.as_ref();
        let newest = if unchanged {
            record.clone()
        } else {
            self.record(&record, &after, lost, reason).await?
        };
        self.set_names(&mut instance, &newest, &after).await?;
        Ok(SyncChange {
            primary: newest.primary,
            epoch: newest.epoch,
            opened: newest.epoch != record.epoch,
            before,
            after,
        })
    }

    /// Returns the sync set that is wished for, and where synchronous mode was lost.
    async fn decide_sync(
        &self,
        record: &EpochRecord,
        wish: &SyncWish,
        instance: &mut Instance,
    ) -> Result<(Vec<RegionName>, Option<SyncLost>)> {
        let resource = &self.resource().resource;
        let before = record.synchronous(resource);
        let lost = record.sync_lost.get(resource);
        match wish {
            SyncWish::Exactly(regions) => {
                for region in regions {
                    self.check_region(record, region)?;
                }
                Ok((regions.clone(), None))
            }
            SyncWish::Lost(region) => {
                let after: Vec<_> = before.iter().filter(|r| *r != region).cloned().collect();
                if after.len() == before.len() {
                    return Ok((after, lost.cloned()));
                }
                let since = acknowledged(instance, region).await?;
                let mut regions = lost.map_or(Vec::new(), |lost| lost.regions.clone());
                regions.push(region.clone());
                let since = lost.map_or(since, |lost| lost.since.min(since));
                Ok((after, Some(SyncLost { since, regions })))
            }
            SyncWish::Back(region) => {
                let Some(lost) = lost.filter(|lost| lost.regions.contains(region)) else {
                    return Ok((before.to_vec(), lost.cloned()));
                };
                let mut after = before.to_vec();
                after.push(region.clone());
                let left: Vec<_> = lost
                    .regions
                    .iter()
                    .filter(|r| *r != region)
                    .cloned()
                    .collect();
                let still = (!left.is_empty()).then_some(SyncLost {
                    since: lost.since,
                    regions: left,
                });
                Ok((after, still))
            }
        }
    }

    fn check_region(&self, record: &EpochRecord, region: &RegionName) -> Result<()> {
        self.store(region)?;
        if *region == record.primary {
            return Err(self.invalid(
                OPERATION,
                format!("the primary is in {region}: a copy there is lost with it"),
            ));
        }
        if self.options().heartbeat > LONGEST_SYNCHRONOUS {
            return Err(self.invalid(
                OPERATION,
                format!(
                    "its heartbeat is longer than {} s, and the conditions have to be written down that often",
                    LONGEST_SYNCHRONOUS.as_secs()
                ),
            ));
        }
        Ok(())
    }

    /// Waits until the stores of `regions` hold the log up to `goal` and their receivers stream: else every commit would
    /// hang from now on.
    async fn await_stores(
        &self,
        record: &EpochRecord,
        regions: &[&RegionName],
        goal: Lsn,
        limit: Duration,
        instance: &mut Instance,
    ) -> Result<()> {
        let chain = self.log_of(record, OPERATION)?.into();
        let deadline = Deadline::new(self.clock(), limit);
        for region in regions {
            let mut before = None;
            loop {
                let tail = find_tail(&**self.store(region)?, &chain, patience()).await?;
                let end = tail.map(|tail| tail.end);
                let replied = last_reply(instance, region).await?;
                // One that stands still goes on to be shown as streaming for as long as `wal_sender_timeout`.
                let confirms = replied.is_some() && before.is_some_and(|old| replied != Some(old));
                before = before.or(replied);
                if confirms && end.is_some_and(|end| end >= goal) {
                    break;
                }
                if !deadline.pause().await {
                    let why = match end {
                        _ if replied.is_none() => {
                            format!("no receiver of {region} streams from the primary")
                        }
                        _ if !confirms => format!(
                            "the receiver of {region} is connected to the primary and confirms nothing"
                        ),
                        Some(end) => format!(
                            "the store of {region} holds the log up to {end}, the primary has {goal}"
                        ),
                        None => format!(
                            "the store of {region} holds no log of epoch {}",
                            record.epoch
                        ),
                    };
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        OPERATION,
                        self.resource().to_string(),
                    )
                    .because(why)
                    .with_hint(format!(
                        "nothing was changed; see `dr daemon --region {region}` and its /health"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Opens the next epoch with another sync set.
    async fn record(
        &self,
        record: &EpochRecord,
        after: &[RegionName],
        lost: Option<SyncLost>,
        reason: &str,
    ) -> Result<EpochRecord> {
        let mut next = record.with_synchronous(&self.resource().resource, after.to_vec(), lost);
        next.created_at = self.clock().now();
        next.created_by = self.actor();
        reason.clone_into(&mut next.reason);
        match self.parts().register.create(&next).await {
            Ok(opened) => Ok(opened.record),
            Err(dr_coordination::register::Error::Lost { winner }) => Err(self.ended(&winner)),
            Err(error) => Err(error.into()),
        }
    }

    fn ended(&self, winner: &EpochRecord) -> Error {
        Error::new(
            ErrorKind::Superseded,
            OPERATION,
            self.resource().to_string(),
        )
        .because(format!(
            "epoch {} was opened meanwhile by {} at {:.0}: {}",
            winner.epoch, winner.created_by, winner.created_at, winner.reason
        ))
        .with_hint("see `dr status`, and run it again if it is still wanted")
    }

    /// Makes commits wait for `regions`, and sees that the setting is in force.
    async fn set_names(
        &self,
        instance: &mut Instance,
        record: &EpochRecord,
        regions: &[RegionName],
    ) -> Result<()> {
        let names = quote_literal(&Options::standby_names_of(regions));
        instance
            .query(
                OPERATION,
                &format!("alter system set synchronous_standby_names = {names}"),
            )
            .await?;
        instance.query(OPERATION, "select pg_reload_conf()").await?;
        let deadline = Deadline::new(self.clock(), SETTING_LIMIT);
        loop {
            // A session takes a changed configuration before its next statement, once the postmaster has told it.
            let sql = format!("select current_setting('synchronous_standby_names') = {names}");
            if instance.scalar::<bool>(OPERATION, &sql).await? {
                return Ok(());
            }
            if !deadline.pause().await {
                return Err(self
                    .failed(
                        OPERATION,
                        format!(
                            "epoch {} says whom commits wait for, but `synchronous_standby_names` does not change to {names}",
                            record.epoch
                        ),
                    )
                    .with_hint("something overrides `ALTER SYSTEM`, as an option on the server's command line does"));
            }
        }
    }
}

/// Returns the position up to which the receiver of a region has ever acknowledged: its slot keeps nothing before it.
pub(crate) async fn acknowledged(instance: &mut Instance, region: &RegionName) -> Result<Lsn> {
    let name = quote_literal(&Options::receiver_name(region));
    let sql = format!(
        "select coalesce((select restart_lsn from pg_replication_slots where slot_name = {name}), '0/0'::pg_lsn)"
    );
    instance.scalar("look at the slots of", &sql).await
}

/// Returns when the receiver of a region last sent a message to the primary that it streams from, by its clock, in microseconds; `None`
/// if none streams.
async fn last_reply(instance: &mut Instance, region: &RegionName) -> Result<Option<i64>> {
    let name = quote_literal(&Options::receiver_name(region));
    let sql = format!(
        "select max((extract(epoch from reply_time) * 1000000)::bigint) from pg_stat_replication \
         where application_name = {name} and state = 'streaming'"
    );
    instance.scalar("look at the walsenders of", &sql).await
}
