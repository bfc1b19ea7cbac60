//! The receiver's slot, and what is lost with it (R19).
//!
//! A slot keeps log on the primary until its receiver has it. One that was invalidated or dropped keeps nothing, and is made
//! anew; whether log was lost meanwhile is then seen by whether the primary still has the segment in which the store's log
//! ends. Where it has not, the loss is recorded before anything else, and the chain goes on behind it.

use dr_coordination::chain::{ChainId, pass_over};
use dr_coordination::register::EpochRecord;
use dr_model::{Lsn, RegionName, SegmentSize, TimelineId};
use dr_pgwire::{Connection, quote_literal};
use dr_provider::{Error, ErrorKind, Result};

use crate::actions::Log;
use crate::archive::Lost;
use crate::driver::PostgresDriver;
use crate::instance::translate;
use crate::register::patience;

const OPERATION: &str = "prepare the replication slot of";

/// A slot that keeps log.
#[derive(Debug)]
pub(super) struct Reserved {
    /// The oldest position that it keeps.
    pub(super) from: Lsn,
    /// Why it was made anew; `None` if it was there.
    made_because: Option<&'static str>,
}

impl Reserved {
    /// Says that the slot was made. That is as it should be where this region has received nothing so far, and a warning where there
    /// should have been one.
    pub(super) fn report(&self, slot: &str, has_received: bool) {
        let from = self.from;
        match self.made_because {
            None => {}
            Some(ABSENT) if !has_received => tracing::info!(slot, %from, "the slot was made"),
            Some(because) => tracing::warn!(slot, %from, "the slot was made anew: {because}"),
        }
    }
}

/// Why a slot was made that nobody made before, or that was dropped.
const ABSENT: &str = "it was not there";

/// Whose log goes where.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) region: &'a RegionName,
    pub(super) record: &'a EpochRecord,
    pub(super) log: Log,
    pub(super) segment_size: SegmentSize,
    pub(super) slot: &'a str,
    pub(super) subject: &'a str,
}

impl PostgresDriver {
    /// Makes sure that the receiver's slot is there and keeps log.
    ///
    /// One that was invalidated can never be used again: it is dropped. So is one that claims to keep what the primary has removed. PostgreSQL
    /// takes a receiver's word for where its slot begins, also where a checkpoint has removed that a moment before, and calls it reserved
    /// from then on.
    pub(super) async fn ensure_slot(
        &self,
        primary: &RegionName,
        connection: &mut Connection,
        (name, subject): (&str, &str),
        segment_size: SegmentSize,
    ) -> Result<Reserved> {
        let wire = |error| translate(OPERATION, subject, error);
        let found = connection.read_slot(name).await.map_err(wire)?;
        let slots = self.slots_of(primary).await?;
        // PostgreSQL 18 leaves one that was idle for too long the position that it can no longer keep.
        let is_lost = slots
            .iter()
            .any(|slot| slot.name == name && slot.wal_status.as_deref() == Some("lost"));
        let reserved = found.as_ref().and_then(|slot| slot.restart_lsn);
        let is_gone = match reserved {
            Some(from) if !is_lost => self.has_removed(primary, from, segment_size).await?,
            _ => false,
        };
        let made_because = match (&found, reserved) {
            (Some(_), Some(_)) if is_gone => {
                connection.drop_slot(name).await.map_err(wire)?;
                "the primary has removed what it was to keep"
            }
            (Some(_), Some(from)) if !is_lost => {
                return Ok(Reserved {
                    from,
                    made_because: None,
                });
            }
            (Some(_), _) => {
                connection.drop_slot(name).await.map_err(wire)?;
                "it was invalidated"
            }
            (None, _) => ABSENT,
        };
        connection
            .create_physical_slot(name, true)
            .await
            .map_err(wire)?;
        let made = connection.read_slot(name).await.map_err(wire)?;
        let from = made.and_then(|slot| slot.restart_lsn).ok_or_else(|| {
            Error::new(ErrorKind::Failed, OPERATION, subject)
                .because(format!("slot `{name}` was made and keeps nothing"))
        })?;
        Ok(Reserved {
            from,
            made_because: Some(made_because),
        })
    }

    /// Returns where a chain that ends at `end` goes on: there, or behind what the primary has dropped.
    ///
    /// # Errors
    ///
    /// `Failed` if log is lost for which commits wait: going on would tell them that it is safe.
    pub(super) async fn go_on(&self, way: Way<'_>, end: Lsn, reserved: &Reserved) -> Result<Lsn> {
        let begin = way.segment_size.start_of(end);
        let to = way.segment_size.start_of(reserved.from);
        if to <= end || self.has_wal(way, begin).await? {
            return Ok(end);
        }
        let gone = way.segment_size.file_name(way.log.timeline, begin);
        let slot = way.slot;
        let why = match reserved.made_because {
            Some(because) => {
                format!(
                    "slot `{slot}` was made anew because {because}, and the primary has no {gone}"
                )
            }
            None => format!(
                "slot `{slot}` begins at {}, and the primary has no {gone}",
                reserved.from
            ),
        };
        let by = format!("receiver {}", way.region);
        let lost = Lost {
            system_identifier: way.log.system_identifier,
            timeline: way.log.timeline,
            from: end,
            to: Some(to),
            by: by.clone(),
            why,
        };
        self.record_lost(way.region, &lost).await?;
        // As of now, not as of when the connection was begun.
        let record = self.read_register(OPERATION).await?;
        let resource = &self.resource().resource;
        if record.synchronous(resource).contains(way.region) {
            return Err(Error::new(ErrorKind::Failed, OPERATION, way.subject)
                .because(format!(
                    "the log from {end} to {to} is lost, and commits wait for the store of {}: going on \
                     would tell those in between that it holds them",
                    way.region
                ))
                .with_hint(format!(
                    "`dr sync disable {}` lets them go on; the next backup closes the hole, and then \
                     `dr sync enable` again",
                    self.resource()
                )));
        }
        if record.epoch != way.record.epoch {
            return Err(Error::new(ErrorKind::Unavailable, OPERATION, way.subject)
                .because(format!("epoch {} has begun meanwhile", record.epoch)));
        }
        let store = self.store(way.region)?;
        let written = (self.clock().now(), by.as_str());
        let chain = ChainId::from(way.log);
        Ok(pass_over(&**store, &chain, end, to, written, patience()).await?)
    }

    /// Tells whether the primary has written past the segment with `position` and has it on no timeline.
    async fn has_removed(
        &self,
        primary: &RegionName,
        position: Lsn,
        segment_size: SegmentSize,
    ) -> Result<bool> {
        let start = segment_size.start_of(position);
        let end = start.advance(segment_size.bytes());
        let name = segment_size.file_name(TimelineId(1), start);
        let sql = format!(
            "select pg_current_wal_lsn() >= '{end}'::pg_lsn and not exists \
               (select from pg_ls_waldir() where length(name) = 24 and right(name, 16) = '{}')",
            &name[8..]
        );
        let mut instance = self.connect(primary).await?;
        instance.scalar("look at the WAL of", &sql).await
    }

    /// Tells whether the primary still has the segment that begins at `start`.
    pub(super) async fn has_wal(&self, way: Way<'_>, start: Lsn) -> Result<bool> {
        let name = quote_literal(&way.segment_size.file_name(way.log.timeline, start));
        let sql = format!("select exists (select from pg_ls_waldir() where name = {name})");
        self.connect(&way.record.primary)
            .await?
            .scalar("look at the WAL of", &sql)
            .await
    }
}
