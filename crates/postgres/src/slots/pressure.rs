//! Slots that are given up before they fill the primary's disk.
//!
//! `max_slot_wal_keep_size` bounds what a slot keeps in bytes, chosen once, and is looked at by checkpoints only. It knows
//! nothing of the disk. A server that cannot write its log stops, and with it everything that `dr` protects; a slot that is given up
//! costs exposure in one region until its next recovery point, is recorded there as a gap, and loses nothing that was archived.
//! So the daemon beside the primary, which sees the disk, drops the slot that keeps most when less is free than
//! `slot: { drop_below }` says, if that helps: if the slot keeps at least as much as is free.
//!
//! A slot whose region commits wait for is left: they would go on waiting, and the server writes nothing meanwhile.
//!
//! What a slot kept is removed by the next checkpoint. Until one has come to its end that began after the drop, nobody knows whether
//! it was enough, and no other slot is dropped.

use std::collections::BTreeMap;
use std::time::Duration;

use dr_coordination::register::EpochRecord;
use dr_model::{Lsn, RegionName};
use dr_pgwire::quote_literal;
use dr_provider::Result;
use dr_provider::error::chain;

use super::{Slot, drop_on};
use crate::driver::PostgresDriver;
use crate::options::SlotPolicy;

const OPERATION: &str = "drop a slot before it fills the disk of";

/// How often a receiver that holds the slot is ended before it is given up for this time: it connects again at once.
const ATTEMPTS: u32 = 20;

/// How long an ended receiver may take to let go of the slot.
const LETTING_GO: Duration = Duration::from_millis(25);

/// How long is waited for the checkpoint that removes what the slot kept. It goes on by itself, and whether it has come to its end is
/// looked at later: who waits has other things to do meanwhile.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(2);

/// What was done for a primary's disk.
#[derive(Debug, Default)]
pub(crate) struct Relief {
    /// Why slots were dropped, by name, until they are there again.
    pub(crate) dropped: BTreeMap<String, String>,
    /// Where the primary's log ended when the last one was dropped, until a checkpoint from there on has come to its end.
    awaits: Option<Lsn>,
}

/// Chooses the slot to be dropped; `None` if there is room, or none of them is to blame.
pub(super) fn to_drop<'a>(
    slots: &'a [Slot],
    policy: SlotPolicy,
    waited_for: &[RegionName],
) -> Option<&'a Slot> {
    let percent = policy.drop_below_percent?;
    let pressed = |slot: &&Slot| {
        let (Some(free), Some(disk)) = (slot.free_bytes, slot.disk_bytes) else {
            return false;
        };
        let is_low = u128::from(free) * 100 < u128::from(disk) * u128::from(percent);
        let is_waited_for = slot
            .region
            .as_ref()
            .is_some_and(|region| waited_for.contains(region));
        is_low && !is_waited_for && slot.kept_bytes.is_some_and(|kept| kept >= free)
    };
    let slots = slots.iter().filter(pressed);
    slots.max_by_key(|slot| slot.kept_bytes)
}

impl PostgresDriver {
    /// Drops a slot if the primary's disk is nearly full because of it, and sees to it that what it kept is removed.
    pub(crate) async fn relieve_primary(
        &self,
        record: &EpochRecord,
        slots: &[Slot],
        relief: &mut Relief,
    ) -> Result<()> {
        if let Some(since) = relief.awaits {
            let mut instance = self.connect(&record.primary).await?;
            let sql = "select redo_lsn from pg_control_checkpoint()";
            if instance.scalar::<Lsn>(OPERATION, sql).await? >= since {
                relief.awaits = None;
            }
            // What is free now is seen next time.
            return Ok(());
        }
        let waited_for = record.synchronous(&self.resource().resource);
        let Some(slot) = to_drop(slots, self.options().slot, waited_for) else {
            return Ok(());
        };
        let name = slot.name.clone();
        let mebibytes = |bytes: Option<u64>| bytes.unwrap_or(0) >> 20;
        let why = format!(
            "slot `{name}` was dropped at {:.0}: it kept {} MiB and {} MiB of {} were free on the primary's disk (`slot: {{ drop_below }}`)",
            self.clock().now(),
            mebibytes(slot.kept_bytes),
            mebibytes(slot.free_bytes),
            mebibytes(slot.disk_bytes),
        );
        let since = self.drop_by_force(record, &name).await?;
        tracing::error!(slot = name, "{why}");
        relief.dropped.insert(name, why);
        relief.awaits = Some(since);
        // It is dropped, whatever becomes of this: asked for once, since each who asks again waits beside the first.
        match self.checkpoint(&record.primary).await {
            Ok(()) => relief.awaits = None,
            Err(error) => tracing::warn!("{}", chain(&error)),
        }
        Ok(())
    }

    async fn checkpoint(&self, primary: &RegionName) -> Result<()> {
        let mut instance = self.connect(primary).await?;
        let asked = instance.query_within(OPERATION, "checkpoint", CHECKPOINT_LIMIT);
        asked.await.map(drop)
    }

    /// Drops a slot whoever streams from it; returns where the primary's log ended before.
    async fn drop_by_force(&self, record: &EpochRecord, name: &str) -> Result<Lsn> {
        let cluster = self.log_of(record, OPERATION)?.system_identifier;
        let mut instance = self.connect(&record.primary).await?;
        instance.require_cluster(cluster).await?;
        let end_of_log = "select pg_current_wal_insert_lsn()";
        let since = instance.scalar(OPERATION, end_of_log).await?;
        let end = format!(
            "select pg_terminate_backend(active_pid) from pg_replication_slots \
             where slot_name = {} and active_pid is not null",
            quote_literal(name)
        );
        let mut attempt = 0;
        loop {
            attempt += 1;
            instance.query(OPERATION, &end).await?;
            match drop_on(&mut instance, OPERATION, name).await {
                Err(_) if attempt < ATTEMPTS => tokio::time::sleep(LETTING_GO).await,
                done => return done.map(|()| since),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const POLICY: SlotPolicy = SlotPolicy {
        unlimited: false,
        drop_below_percent: Some(5),
    };

    fn slot(region: &str, kept: u64, free: u64) -> Slot {
        let region: RegionName = region.parse().unwrap();
        Slot {
            name: format!("dr_{region}"),
            kept_bytes: Some(kept),
            free_bytes: Some(free),
            disk_bytes: Some(1000),
            region: Some(region),
            ..Slot::for_tests()
        }
    }

    #[rstest]
    #[case::room(&[("west", 500, 50)], None)]
    #[case::low(&[("west", 500, 49)], Some("dr_west"))]
    #[case::the_one_that_keeps_most(&[("west", 500, 10), ("north", 600, 10)], Some("dr_north"))]
    #[case::it_would_not_help(&[("west", 9, 10)], None)]
    #[case::commits_wait(&[("south", 900, 10)], None)]
    #[case::not_for_the_other(&[("south", 900, 10), ("west", 20, 10)], Some("dr_west"))]
    fn what_is_dropped(#[case] slots: &[(&str, u64, u64)], #[case] expected: Option<&str>) {
        let slots: Vec<Slot> = slots
            .iter()
            .map(|(region, kept, free)| slot(region, *kept, *free))
            .collect();
        let waited_for = ["south".parse().unwrap()];
        let found = to_drop(&slots, POLICY, &waited_for);
        assert_eq!(found.map(|slot| slot.name.as_str()), expected);
        let never = SlotPolicy {
            drop_below_percent: None,
            ..POLICY
        };
        assert_eq!(to_drop(&slots, never, &waited_for), None);
    }

    #[test]
    fn a_disk_that_cannot_be_seen_drops_nothing() {
        let unseen = Slot {
            free_bytes: None,
            ..slot("west", 900, 1)
        };
        assert_eq!(to_drop(&[unseen], POLICY, &[]), None);
    }
}
