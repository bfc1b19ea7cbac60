//! Whether a standby holds the log that its region's store holds.
//!
//! A server that was started as a primary by hand, without a promotion, writes the timeline that it followed, and can be made a standby
//! again: no position and no timeline tells that its log is another. Promoted, it would lose what the store holds. So it is looked before
//! a plan counts on it whether the last bytes that both hold are the same. Streaming writes over the log from the beginning of a segment
//! on, so that they may be by now: then the standby has replayed more than it was sent, or the store has no checkpoint where the
//! standby has its newest one, or what the standby has beyond the store does not go on where that ends. A look that fails or takes too
//! long speaks against nothing.

use std::sync::Arc;
use std::time::Duration;

use dr_coordination::chain::{ChainReader, Section};
use dr_model::{Lsn, RegionName, SegmentSize};
use dr_provider::driver::{Facts, Instance, Role};
use dr_provider::{Error, Result};
use serde_json::Value;
use tokio::time::timeout;

use super::Detail;
use crate::actions::Log;
use crate::driver::PostgresDriver;
use crate::instance::Instance as Connected;
use crate::register::patience;
use crate::wal::{Decoder, Expected, PAGE_BYTES};

/// How much is compared: log that parted anywhere before differs in each of its pages, by their contents and by where records begin.
const COMPARED_BYTES: u64 = 8192;

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
            position,
            ..
        } = &seen.instance
        else {
            return;
        };
        let (Ok(Some(held)), Some(system_identifier)) = (&seen.log, cluster) else {
            return;
        };
        if held.timeline != *timeline || held.end.min(*position) <= held.start {
            return;
        }
        let log = Log {
            system_identifier,
            timeline: *timeline,
            epoch: held.epoch,
        };
        let compared = self.parted_at(region, log, (held.start, held.end), *position);
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

    /// Returns where the log of the standby, which has it up to `position`, is seen not to be that of the store from `begin` to `end`.
    async fn parted_at(
        &self,
        region: &RegionName,
        log: Log,
        (begin, end): (Lsn, Lsn),
        position: Lsn,
    ) -> Result<Option<Lsn>> {
        let mut instance = self.connect(region).await?;
        if let Some(at) = replayed_unsent(&mut instance).await? {
            return Ok(Some(at));
        }
        let sql = "select checkpoint_lsn from pg_control_checkpoint()";
        let checkpoint: Lsn = instance.scalar("read the checkpoint of", sql).await?;
        let (_, size) = self.standby_position(region).await?;
        let to = end.min(position);
        if (begin..to).contains(&checkpoint) {
            let until = to.min(checkpoint.advance(COMPARED_BYTES));
            let stored = self.stored(region, log, checkpoint, until).await?;
            if !is_checkpoint(&stored, checkpoint, log, size) {
                return Ok(Some(checkpoint));
            }
        }
        // Within one segment, which is one file.
        let last = Lsn(to.0.saturating_sub(1));
        let from = begin
            .max(size.start_of(last))
            .max(Lsn(to.0.saturating_sub(COMPARED_BYTES)));
        let own = self.read_wal(region, log, size, from, to).await?;
        let stored = self.stored(region, log, from, to).await?;
        if own != stored {
            return Ok(Some(from));
        }
        // From the page that the store ends in, where a page begins with what is left of a record.
        let page = Lsn(last.0 - last.0 % PAGE_BYTES);
        if end >= position || page < begin {
            return Ok(None);
        }
        let beyond = position.min(end.advance(COMPARED_BYTES));
        let stored = self.stored(region, log, page, end).await?;
        let own = self.read_wal(region, log, size, end, beyond).await?;
        let mut decoder = Decoder::new(page, size, Some(expected(log)));
        let fed = decoder
            .feed(&stored, |_| {})
            .and_then(|()| decoder.feed(&own, |_| {}));
        Ok(fed.is_err().then_some(end))
    }

    async fn stored(&self, region: &RegionName, log: Log, from: Lsn, to: Lsn) -> Result<Vec<u8>> {
        let section = Section::new(log.system_identifier, log.timeline, from, to);
        let store = Arc::clone(self.store(region)?);
        let opened = ChainReader::open(store, section, patience()).await;
        let mut reader = opened.map_err(Error::from)?.with_keys(self.keys());
        reader.read_to_end().await.map_err(Error::from)
    }
}

/// Returns what a standby has replayed up to, if that is further than what it was sent, which it streams. It is sent everything from the
/// beginning of a segment on when it connects, so that a moment later tells.
async fn replayed_unsent(instance: &mut Connected) -> Result<Option<Lsn>> {
    const SQL: &str = "select max(pg_last_wal_replay_lsn()) from pg_stat_wal_receiver \
        where status = 'streaming' and flushed_lsn < pg_last_wal_replay_lsn()";
    let operation = "read the WAL position of";
    let first: Option<Lsn> = instance.scalar(operation, SQL).await?;
    if first.is_none() {
        return Ok(None);
    }
    tokio::time::sleep(SENT_AFTER).await;
    instance.scalar(operation, SQL).await
}

fn expected(log: Log) -> Expected {
    Expected {
        system_identifier: log.system_identifier,
        timeline: log.timeline,
    }
}

/// Tells whether a checkpoint record begins at `at`, where `bytes` begin; so it counts if it does not end in them.
fn is_checkpoint(bytes: &[u8], at: Lsn, log: Log, size: SegmentSize) -> bool {
    /// Bytes of the head of a record, and where in it the kind stands (`XLogRecord` in access/xlogrecord.h).
    const HEAD: usize = 24;
    const INFO: usize = 16;
    /// The resource manager of the log itself, and its records of a checkpoint (catalog/pg_control.h).
    const XLOG: u8 = 0;
    const SHUTDOWN: u8 = 0x00;
    const ONLINE: u8 = 0x10;
    let page_left = PAGE_BYTES - at.0 % PAGE_BYTES;
    if let Some(head) = bytes.get(..HEAD)
        && page_left >= HEAD as u64
        && (head[INFO + 1] != XLOG || ![SHUTDOWN, ONLINE].contains(&(head[INFO] & 0xF0)))
    {
        return false;
    }
    let mut decoder = Decoder::new(at, size, Some(expected(log)));
    let mut whole = false;
    let fed = decoder.feed(bytes, |_| whole = true);
    whole || fed.is_ok()
}

#[cfg(test)]
mod tests {
    use dr_model::{Epoch, SystemIdentifier, TimelineId};

    use super::*;

    #[test]
    fn what_is_no_record_is_no_checkpoint() {
        let log = Log {
            system_identifier: SystemIdentifier(7),
            timeline: TimelineId(1),
            epoch: Epoch(1),
        };
        let size = SegmentSize::try_from(16 << 20).unwrap();
        let is = |bytes: &[u8]| is_checkpoint(bytes, Lsn(0x100_0028), log, size);
        assert!(!is(&[0x55; 200]));
        let mut other = [0; 200];
        other[0] = 114;
        // Of the right kind, and its checksum is wrong.
        assert!(!is(&other));
        other[INFO_OF_HEAP.0] = INFO_OF_HEAP.1;
        assert!(!is(&other));
        // What is too short to tell speaks against nothing.
        assert!(is(&[]));
    }

    /// Where the resource manager stands, and that of the heap.
    const INFO_OF_HEAP: (usize, u8) = (17, 10);
}
