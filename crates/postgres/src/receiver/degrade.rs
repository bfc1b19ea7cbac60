//! Commits that wait for a store which does not take the log (PROTOCOL 5, `on_store_loss: { degrade_after }`).
//!
//! A mark is put where the primary's log ends; if the receiver of a region has not acknowledged it after the time allowed,
//! commits on the primary stop waiting for that region, by the same change that a person would make: first the record that
//! says since when, in the register, which every failover has to read, then the setting. While that record cannot be
//! written, commits go on waiting. Nothing that is not durable is ever reported as flushed: the slot would let go of it.
//!
//! Every region's daemon looks after all of them, since a region may be gone with its daemon. Making commits wait again is
//! left to the region's own, once it has kept up for as long.

use std::collections::BTreeMap;
use std::time::Duration;

use dr_coordination::register::EpochRecord;
use dr_model::{Lsn, RegionName};
use dr_provider::Result;
use dr_provider::error::chain;

use crate::driver::PostgresDriver;
use crate::instance::Instance;
use crate::options::StoreLoss;
use crate::synchronous::{SyncWish, acknowledged};

/// How long the store may take to hold what the primary has when commits begin to wait again: it kept up before.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(5);

const OPERATION: &str = "see what is acknowledged of";

/// Where the stores' receivers were last seen, by the driver's own clock.
#[derive(Debug, Default)]
pub(super) struct StorePatience {
    /// By region: a position that the primary had, and when.
    behind: BTreeMap<RegionName, (Lsn, Duration)>,
    /// The primary's end as of the last look, and since when our own receiver has kept up with it.
    kept_up: Option<(Lsn, Duration)>,
}

impl StorePatience {
    /// Notes what a region has acknowledged; returns whether it is behind for longer than `limit`.
    fn is_lost(
        &mut self,
        region: &RegionName,
        acknowledged: Lsn,
        end: Lsn,
        now: Duration,
        limit: Duration,
    ) -> bool {
        let mark = self.behind.entry(region.clone()).or_insert((end, now));
        if acknowledged >= mark.0 {
            *mark = (end, now);
        }
        now.saturating_sub(mark.1) >= limit
    }

    /// Notes what our own receiver has acknowledged; returns whether it has kept up for `limit`.
    fn is_back(&mut self, acknowledged: Lsn, end: Lsn, now: Duration, limit: Duration) -> bool {
        let since = match self.kept_up {
            Some((goal, since)) if acknowledged >= goal => since,
            _ => now,
        };
        self.kept_up = Some((end, since));
        now.saturating_sub(since) >= limit
    }
}

impl PostgresDriver {
    /// Sees to it that commits wait no longer than allowed; does nothing under `on_store_loss: block`.
    pub(super) async fn mind_stores(
        &self,
        region: &RegionName,
        record: &EpochRecord,
        patience: &mut StorePatience,
    ) {
        let StoreLoss::DegradeAfter(limit) = self.options().on_store_loss else {
            return;
        };
        match self
            .decide_about_stores(region, record, patience, limit)
            .await
        {
            Ok(None) => {}
            Ok(Some((wish, reason))) => {
                match self
                    .change_synchronous(&wish, &reason, CATCH_UP_LIMIT)
                    .await
                {
                    Ok(change) => {
                        tracing::warn!(epoch = %change.epoch, waits_for = ?change.after, "{reason}");
                        *patience = StorePatience::default();
                    }
                    // Commits go on waiting, or not waiting; the next look tries again.
                    Err(error) => tracing::warn!("{}", chain(&error)),
                }
            }
            // A primary that does not answer is not waited for by anybody whom we could help.
            Err(error) => {
                *patience = StorePatience::default();
                tracing::warn!("{}", chain(&error));
            }
        }
    }

    async fn decide_about_stores(
        &self,
        region: &RegionName,
        record: &EpochRecord,
        patience: &mut StorePatience,
        limit: Duration,
    ) -> Result<Option<(SyncWish, String)>> {
        let resource = &self.resource().resource;
        let sync = record.synchronous(resource);
        let lost = record.sync_lost.get(resource);
        let lost = lost.is_some_and(|lost| lost.regions.contains(region));
        if sync.is_empty() && !lost {
            *patience = StorePatience::default();
            return Ok(None);
        }
        let mut instance = self.connect(&record.primary).await?;
        let end = end_of_log(&mut instance).await?;
        let now = self.clock().elapsed();
        for waited in sync {
            let acknowledged = acknowledged(&mut instance, waited).await?;
            if patience.is_lost(waited, acknowledged, end, now, limit) {
                let reason = format!(
                    "synchronous mode lost: the store of {waited} has taken nothing for {} s since {acknowledged}",
                    limit.as_secs()
                );
                return Ok(Some((SyncWish::Lost(waited.clone()), reason)));
            }
        }
        if lost {
            let acknowledged = acknowledged(&mut instance, region).await?;
            if patience.is_back(acknowledged, end, now, limit) {
                let reason = format!("synchronous mode back: the store of {region} keeps up again");
                return Ok(Some((SyncWish::Back(region.clone()), reason)));
            }
        }
        Ok(None)
    }
}

/// Where the log ends that commits may be waiting for.
async fn end_of_log(instance: &mut Instance) -> Result<Lsn> {
    instance
        .scalar(OPERATION, "select pg_current_wal_flush_lsn()")
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn who_keeps_up_is_never_lost() {
        let region = "us-west-2".parse().unwrap();
        let mut patience = StorePatience::default();
        for second in 0..100 {
            let (end, acknowledged) = (Lsn(second + 10), Lsn(second + 9));
            assert!(!patience.is_lost(&region, acknowledged, end, at(second), LIMIT));
        }
        // It stands still: the mark is what the primary had at second 99 at the latest.
        assert!(!patience.is_lost(&region, Lsn(108), Lsn(200), at(128), LIMIT));
        assert!(patience.is_lost(&region, Lsn(108), Lsn(200), at(129), LIMIT));
    }

    #[test]
    fn an_idle_primary_waits_for_nobody() {
        let region = "us-west-2".parse().unwrap();
        let mut patience = StorePatience::default();
        for second in 0..100 {
            assert!(!patience.is_lost(&region, Lsn(10), Lsn(10), at(second), LIMIT));
        }
    }

    #[test]
    fn it_is_back_only_after_it_kept_up_for_as_long() {
        let mut patience = StorePatience::default();
        assert!(!patience.is_back(Lsn(5), Lsn(10), at(0), LIMIT));
        assert!(!patience.is_back(Lsn(10), Lsn(20), at(20), LIMIT));
        // Behind what the primary had at the last look: from here anew.
        assert!(!patience.is_back(Lsn(19), Lsn(30), at(31), LIMIT));
        assert!(!patience.is_back(Lsn(30), Lsn(40), at(60), LIMIT));
        assert!(patience.is_back(Lsn(40), Lsn(41), at(61), LIMIT));
    }
}
