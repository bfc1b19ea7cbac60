//! The slots that receivers stream from, and what they cost the primary (R19, PROTOCOL 6).
//!
//! A slot keeps log on the primary until its receiver has taken it: too little and there is a hole, too much and the
//! primary's disk is full. Each daemon looks at its own region's slot, and the one beside the primary at all of them,
//! because a region that is gone leaves a slot that nobody else looks at.

mod pressure;

use std::path::Path;

use dr_model::{Lsn, RegionName};
use dr_pgwire::quote_literal;
use dr_provider::driver::KeptLog;
use dr_provider::{Error, ErrorKind, Result};
use serde::Serialize;

pub(crate) use pressure::Relief;

use crate::driver::PostgresDriver;
use crate::instance::{Instance, translate};
use crate::options::Options;

const OPERATION: &str = "look at the slots of";

/// A slot of a receiver, as the primary shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// The region whose receiver or standby it is; `None` if no configured region has one of that name.
    pub region: Option<RegionName>,
    /// Whether somebody streams from it now.
    pub active: bool,
    /// What the primary says of the log that it keeps: `reserved`, `extended`, `unreserved` or `lost`; `None` if it keeps
    /// nothing yet.
    pub wal_status: Option<String>,
    /// Where it begins; `None` if it keeps nothing.
    pub restart_lsn: Option<Lsn>,
    /// Bytes of log between there and the end.
    pub kept_bytes: Option<u64>,
    /// Bytes that may still be written before it loses log; `None` if the primary sets no limit.
    pub safe_bytes: Option<u64>,
    /// Bytes free where the primary keeps its log; `None` if that cannot be seen from here.
    pub free_bytes: Option<u64>,
    /// All bytes there.
    pub disk_bytes: Option<u64>,
    /// How long ago whoever streams from it has last confirmed anything, in seconds, by two clocks: a receiver does every second.
    /// `None` if nobody streams.
    pub silent_seconds: Option<f64>,
    /// For how long a statement has been under way that waits for a synchronous standby, in seconds: the longest. `None` if none waits.
    pub commit_waits_seconds: Option<f64>,
}

impl Slot {
    /// Returns what it keeps, as everybody may know it.
    pub(crate) fn kept(&self) -> KeptLog {
        KeptLog {
            name: self.name.clone(),
            kept_bytes: self.kept_bytes,
            safe_bytes: self.safe_bytes,
            free_bytes: self.free_bytes,
        }
    }

    /// Returns what is wrong with it.
    #[must_use]
    pub fn alarm(&self) -> Option<String> {
        let name = &self.name;
        let mebibytes = |bytes: u64| bytes >> 20;
        let kept = self.kept_bytes.unwrap_or(0);
        match self.wal_status.as_deref() {
            Some("lost") => {
                return Some(format!(
                    "slot `{name}` was invalidated: log that it was to keep is gone from the primary"
                ));
            }
            Some("unreserved") => {
                return Some(format!(
                    "slot `{name}` keeps more than `max_slot_wal_keep_size` allows and loses it at the next checkpoint"
                ));
            }
            _ => {}
        }
        match (self.safe_bytes, self.free_bytes) {
            (Some(safe), _) if kept > safe => Some(format!(
                "slot `{name}` keeps {} MiB, and after {} MiB more it loses log",
                mebibytes(kept),
                mebibytes(safe)
            )),
            // Half of what was free before it kept anything.
            (_, Some(free)) if kept >= free => Some(format!(
                "slot `{name}` keeps {} MiB, and {} MiB are free on the primary's disk",
                mebibytes(kept),
                mebibytes(free)
            )),
            _ if self.wal_status.as_deref() == Some("extended") => Some(format!(
                "slot `{name}` keeps {} MiB, more than `max_wal_size`",
                mebibytes(kept)
            )),
            _ => None,
        }
    }
}

/// Slots that are named as a receiver's. `safe_wal_size` is null without a limit, and of a lost slot.
const QUERY: &str = "\
    select slot_name, active, wal_status, restart_lsn, \
      pg_wal_lsn_diff(pg_current_wal_flush_lsn(), restart_lsn)::bigint as kept, \
      greatest(safe_wal_size, 0)::bigint as safe, \
      (select extract(epoch from clock_timestamp() - r.reply_time)::float8 \
        from pg_stat_replication r where r.pid = active_pid) as silent, \
      (select max(extract(epoch from clock_timestamp() - a.query_start))::float8 \
        from pg_stat_activity a where a.wait_event = 'SyncRep') as commit_waits \
    from pg_replication_slots where slot_type = 'physical' and slot_name like 'dr\\_%' order by slot_name";

impl PostgresDriver {
    /// Returns the slots of the receivers on the primary of the newest epoch.
    ///
    /// # Errors
    ///
    /// If it does not answer, or if another cluster answers in its place.
    pub async fn slots(&self) -> Result<Vec<Slot>> {
        let record = self.read_register(OPERATION).await?;
        let instance = self.connect_to_own(&record.primary).await?;
        self.slots_on(instance, &record.primary).await
    }

    /// Returns the same of the server in `primary`, whoever is primary.
    ///
    /// # Errors
    ///
    /// As [`PostgresDriver::slots`].
    pub async fn slots_of(&self, primary: &RegionName) -> Result<Vec<Slot>> {
        let instance = self.connect(primary).await?;
        self.slots_on(instance, primary).await
    }

    async fn slots_on(&self, mut instance: Instance, primary: &RegionName) -> Result<Vec<Slot>> {
        let (free_bytes, disk_bytes) = self.room(primary).unzip();
        let rows = instance.query(OPERATION, QUERY).await?;
        let mut slots = Vec::new();
        for row in &rows {
            let read = || {
                let bytes = |name| {
                    let bytes: Option<i64> = row.get(name)?;
                    Ok(bytes.map(|bytes| u64::try_from(bytes).unwrap_or(0)))
                };
                let name: String = row.get("slot_name")?;
                Ok(Slot {
                    region: self.region_of_slot(&name),
                    active: row.get("active")?,
                    wal_status: row.get("wal_status")?,
                    restart_lsn: row.get("restart_lsn")?,
                    kept_bytes: bytes("kept")?,
                    safe_bytes: bytes("safe")?,
                    free_bytes,
                    disk_bytes,
                    silent_seconds: row.get("silent")?,
                    commit_waits_seconds: row.get("commit_waits")?,
                    name,
                })
            };
            let slot = read().map_err(|error| translate(OPERATION, instance.subject(), error))?;
            slots.push(slot);
        }
        Ok(slots)
    }

    pub(crate) fn region_of_slot(&self, name: &str) -> Option<RegionName> {
        let mut regions = self.parts().stores.keys();
        regions
            .find(|region| {
                [
                    Options::receiver_name(region),
                    Options::standby_name(region),
                ]
                .iter()
                .any(|known| known == name)
            })
            .cloned()
    }

    /// Returns the space that is left for the primary's log, and all of it, if its host is this machine.
    fn room(&self, primary: &RegionName) -> Option<(u64, u64)> {
        let instance = self.instance_options(primary).ok()?;
        let log = instance.data_directory.join("pg_wal");
        (instance.is_here()).then(|| room(&log)).flatten()
    }

    /// Drops a slot of a receiver, for a region that will not come back or a slot that was invalidated.
    ///
    /// # Errors
    ///
    /// `Conflict` if somebody streams from it, or if commits wait for its region; `NotFound`.
    pub async fn drop_slot(&self, name: &str) -> Result<Slot> {
        const OPERATION: &str = "drop a slot of";
        let subject = self.resource().to_string();
        let record = self.read_register(OPERATION).await?;
        let instance = self.connect_to_own(&record.primary).await?;
        let slots = self.slots_on(instance, &record.primary).await?;
        let slot = slots.into_iter().find(|slot| slot.name == name);
        let slot = slot.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, OPERATION, &subject)
                .because(format!(
                    "the primary in {} has no slot `{name}` of a receiver",
                    record.primary
                ))
                .with_hint("`dr slot list` shows those that there are")
        })?;
        let conflict =
            |why: String| Error::new(ErrorKind::Conflict, OPERATION, &subject).because(why);
        if slot.active {
            return Err(conflict(format!("somebody streams from `{name}`"))
                .with_hint("stop the daemon of its region first"));
        }
        if let Some(region) = &slot.region
            && record
                .synchronous(&self.resource().resource)
                .contains(region)
        {
            return Err(conflict(format!("commits wait for the store of {region}"))
                .with_hint(format!("`dr sync disable {}` first", self.resource())));
        }
        let mut instance = self.connect_to_own(&record.primary).await?;
        drop_on(&mut instance, OPERATION, name).await?;
        Ok(slot)
    }
}

async fn drop_on(instance: &mut Instance, operation: &str, name: &str) -> Result<()> {
    let sql = format!("select pg_drop_replication_slot({})", quote_literal(name));
    instance.query(operation, &sql).await?;
    Ok(())
}

fn room(path: &Path) -> Option<(u64, u64)> {
    let found = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.checked_mul(found.f_frsize);
    Some((bytes(found.f_bavail)?, bytes(found.f_blocks)?))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    impl Slot {
        /// Makes one that keeps nothing and of whose disk nothing is known.
        pub(super) fn for_tests() -> Self {
            Self {
                name: "dr_west".to_owned(),
                region: None,
                active: true,
                wal_status: Some("reserved".to_owned()),
                restart_lsn: Some(Lsn(1)),
                kept_bytes: None,
                safe_bytes: None,
                free_bytes: None,
                disk_bytes: None,
                silent_seconds: None,
                commit_waits_seconds: None,
            }
        }
    }

    fn slot(status: &str, kept: u64, safe: Option<u64>, free: Option<u64>) -> Slot {
        let mebibytes = |count: u64| count << 20;
        Slot {
            wal_status: Some(status.to_owned()),
            kept_bytes: Some(mebibytes(kept)),
            safe_bytes: safe.map(mebibytes),
            free_bytes: free.map(mebibytes),
            ..Slot::for_tests()
        }
    }

    #[rstest]
    #[case::well(slot("reserved", 10, Some(100), Some(1000)), None)]
    #[case::nothing_known(slot("reserved", 10, None, None), None)]
    #[case::half_of_what_is_allowed(
        slot("reserved", 51, Some(50), Some(1000)),
        Some("after 50 MiB more")
    )]
    #[case::half_of_the_disk(slot("reserved", 500, None, Some(500)), Some("500 MiB are free"))]
    #[case::beyond_max_wal_size(slot("extended", 10, Some(100), None), Some("max_wal_size"))]
    #[case::about_to_be_lost(slot("unreserved", 10, Some(0), None), Some("next checkpoint"))]
    #[case::lost(slot("lost", 0, None, None), Some("was invalidated"))]
    fn it_says_what_is_wrong(#[case] slot: Slot, #[case] said: Option<&str>) {
        let alarm = slot.alarm();
        match said {
            None => assert_eq!(alarm, None),
            Some(said) => assert!(
                alarm.as_ref().is_some_and(|a| a.contains(said)),
                "{alarm:?}"
            ),
        }
    }
}
