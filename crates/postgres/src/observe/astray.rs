//! Whether a standby holds the log that its region's store holds.
//!
//! A server that was started as a primary by hand, without a promotion, writes the timeline that it followed, and can be made a standby
//! again: no position and no timeline tells that its log is another, and streaming writes over what it wrote. Promoted, it would lose what
//! the store holds. Two things give it away: it has replayed more than its primary has sent it, and the store has no checkpoint where the
//! standby has its newest one, which on a standby is always its primary's. Whether it is so is looked at before a plan counts on it. A
//! look that fails, takes too long or cannot tell speaks against nothing: a standby is worth more than a doubt.

use std::sync::Arc;
use std::time::Duration;

use dr_coordination::chain::{ChainReader, Section};
use dr_model::{Lsn, RegionName};
use dr_provider::driver::{Facts, Instance, Role};
use dr_provider::{Error, Result};
use serde_json::Value;
use tokio::time::timeout;

use super::Detail;
use crate::actions::Log;
use crate::driver::PostgresDriver;
use crate::instance::Instance as Connected;
use crate::register::patience;
use crate::wal::PAGE_BYTES;

/// How much is read where a checkpoint has to be.
const CHECKPOINT_BYTES: u64 = 64;

/// How long after it has connected a standby has been sent the rest of a segment.
const SENT_AFTER: Duration = Duration::from_millis(500);

/// How long the look may take.
const LIMIT: Duration = Duration::from_secs(2);

impl PostgresDriver {
    /// Notes in what was observed of a region that its standby's log is not that of its store, if so.
    pub(crate) async fn look_for_astray(&self, region: &RegionName, facts: &mut Facts) {
        let cluster = facts.system_identifier;
        let Some(seen) = facts.regions.get_mut(region) else {
            return;
        };
        let Instance::Running {
            role: Role::Standby,
            timeline,
            ..
        } = &seen.instance
        else {
            return;
        };
        let (Ok(Some(held)), Some(system_identifier)) = (&seen.log, cluster) else {
            return;
        };
        if held.timeline != *timeline {
            return;
        }
        let log = Log {
            system_identifier,
            timeline: *timeline,
            epoch: held.epoch,
        };
        let compared = self.parted_at(region, log, (held.start, held.end));
        let Ok(Ok(Some(at))) = timeout(LIMIT, compared).await else {
            return;
        };
        if let Ok(Some(mut detail)) = serde_json::from_value::<Option<Detail>>(seen.detail.take()) {
            detail.astray = Some(format!(
                "the standby in {region} has other log at {at} than its store: it was written to, or followed somebody else"
            ));
            seen.detail = serde_json::to_value(detail).unwrap_or(Value::Null);
        }
    }

    /// Returns where the log of the standby is seen not to be that of the store, which has it from `begin` to `end`.
    async fn parted_at(
        &self,
        region: &RegionName,
        log: Log,
        (begin, end): (Lsn, Lsn),
    ) -> Result<Option<Lsn>> {
        let mut instance = self.connect(region).await?;
        if let Some(at) = replayed_unsent(&mut instance).await? {
            return Ok(Some(at));
        }
        let sql = "select checkpoint_lsn from pg_control_checkpoint()";
        let checkpoint: Lsn = instance.scalar("read the checkpoint of", sql).await?;
        if (begin..end).contains(&checkpoint) {
            let until = end.min(checkpoint.advance(CHECKPOINT_BYTES));
            let stored = self.stored(region, log, checkpoint, until).await?;
            if !is_checkpoint(&stored, checkpoint) {
                return Ok(Some(checkpoint));
            }
        }
        Ok(None)
    }

    async fn stored(&self, region: &RegionName, log: Log, from: Lsn, to: Lsn) -> Result<Vec<u8>> {
        let section = Section::new(log.system_identifier, log.timeline, from, to);
        let store = Arc::clone(self.store(region)?);
        let opened = ChainReader::open(store, section, patience()).await;
        let mut reader = opened.map_err(Error::from)?.with_keys(self.keys());
        reader.read_to_end().await.map_err(Error::from)
    }
}

/// Returns what a standby has replayed up to, if that is further than what it was sent, which it streams. When it connects it is sent
/// everything from the beginning of a segment on, so that only a moment later tells, and nothing before anything has come.
async fn replayed_unsent(instance: &mut Connected) -> Result<Option<Lsn>> {
    const SQL: &str = "select max(pg_last_wal_replay_lsn()) from pg_stat_wal_receiver \
        where status = 'streaming' and flushed_lsn > receive_start_lsn and flushed_lsn < pg_last_wal_replay_lsn() \
        and last_msg_receipt_time > clock_timestamp() - interval '2 s'";
    let operation = "read the WAL position of";
    let first: Option<Lsn> = instance.scalar(operation, SQL).await?;
    if first.is_none() {
        return Ok(None);
    }
    tokio::time::sleep(SENT_AFTER).await;
    instance.scalar(operation, SQL).await
}

/// Tells whether a checkpoint record begins at `at`, where `bytes` begin; so it counts if not enough of it is there to tell, or if its head
/// goes on behind that of a page.
fn is_checkpoint(bytes: &[u8], at: Lsn) -> bool {
    /// Bytes of the head of a record, and where in it the kind stands (`XLogRecord` in access/xlogrecord.h).
    const HEAD: usize = 24;
    const INFO: usize = 16;
    /// The resource manager of the log itself, and its records of a checkpoint (catalog/pg_control.h).
    const XLOG: u8 = 0;
    const SHUTDOWN: u8 = 0x00;
    const ONLINE: u8 = 0x10;
    /// How long they may be: 114 bytes in versions 15 to 18.
    const LENGTHS: std::ops::RangeInclusive<u32> = 100..=200;
    let Some(head) = bytes.get(..HEAD) else {
        return true;
    };
    if PAGE_BYTES - at.0 % PAGE_BYTES < HEAD as u64 {
        return true;
    }
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let kind = (head[INFO + 1], head[INFO] & 0xF0);
    LENGTHS.contains(&length) && [(XLOG, SHUTDOWN), (XLOG, ONLINE)].contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a record of a length and a kind.
    fn head(length: u8, manager: u8, info: u8) -> Vec<u8> {
        let mut head = vec![0; 114];
        (head[0], head[16], head[17]) = (length, info, manager);
        head
    }

    #[test]
    fn a_checkpoint_is_told_by_its_head() {
        let at = Lsn(0x100_0028);
        let is = |bytes: &[u8]| is_checkpoint(bytes, at);
        assert!(is(&head(114, 0, 0x00)) && is(&head(114, 0, 0x10)));
        // Of the heap, a switch of the segment, too short, and nothing but zeros.
        assert!(!is(&head(114, 10, 0x00)) && !is(&head(114, 0, 0x40)));
        assert!(!is(&head(30, 0, 0x10)) && !is(&[0; 114]));
        // What is too short to tell, or goes on behind the head of a page, speaks against nothing.
        assert!(is(&[0; 23]));
        assert!(is_checkpoint(&[0; 114], Lsn(0x100_1FF0)));
    }
}
