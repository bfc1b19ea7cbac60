//! Recording that log is lost.

use std::sync::Arc;

use dr_coordination::chain::{
    Available, ChainId, GapRecord, open_gaps, open_gaps_of, pass_over, record_gap,
};
use dr_model::{Lsn, RegionName, SystemIdentifier, TimelineId};
use dr_provider::{ObjectStore, Result};

use crate::backup::Base;
use crate::driver::PostgresDriver;
use crate::register::patience;

/// Log that somebody has proven to be lost.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub(crate) system_identifier: SystemIdentifier,
    pub(crate) timeline: TimelineId,
    /// The first position that is lost.
    pub(crate) from: Lsn,
    /// Where the log goes on, if that is known.
    pub(crate) to: Option<Lsn>,
    /// Who found it: `receiver us-west-2`.
    pub(crate) by: String,
    /// How it is known.
    pub(crate) why: String,
}

/// Why log that was there is no log to recover with; stored, and known again by: `docs/formats/wal.md`.
const MINIMAL: &str =
    "the server ran with `wal_level = minimal`, and nothing can be recovered past that";

impl PostgresDriver {
    /// Records in the store of `region` that log is lost, once and for good. It is an alarm from then on, until the log
    /// arrives after all or a base backup makes it needless.
    pub(crate) async fn record_lost(&self, region: &RegionName, lost: &Lost) -> Result<()> {
        let record = GapRecord {
            version: dr_coordination::chain::FORMAT_VERSION,
            system_identifier: lost.system_identifier,
            timeline: lost.timeline,
            from: lost.from,
            to: lost.to,
            found_at: self.clock().now(),
            by: lost.by.clone(),
            why: lost.why.clone(),
        };
        record_gap(&**self.store(region)?, &record, patience()).await?;
        tracing::error!(%region, "{}", describe(&record));
        Ok(())
    }

    /// Records that a stretch of the log was written at `wal_level = minimal`, and lets the chain that ends where it begins go on
    /// behind it: the hole is what keeps everybody from recovering across. Returns where the chain ends then.
    pub(crate) async fn leave_out_minimal(
        &self,
        (region, by): (&RegionName, String),
        chain: &ChainId,
        (from, to): (Lsn, Lsn),
    ) -> Result<Lsn> {
        let lost = Lost {
            system_identifier: chain.system_identifier,
            timeline: chain.timeline,
            from,
            to: Some(to),
            by: by.clone(),
            why: MINIMAL.to_owned(),
        };
        self.record_lost(region, &lost).await?;
        let store = self.store(region)?;
        let written = (self.clock().now(), by.as_str());
        Ok(pass_over(&**store, chain, from, to, written, patience()).await?)
    }

    /// Returns what is recorded in a store as written at `wal_level = minimal` on a timeline, and has no bytes there.
    pub(super) async fn lost_as_minimal(
        &self,
        store: &Arc<dyn ObjectStore>,
        (cluster, timeline): (SystemIdentifier, TimelineId),
    ) -> Result<Vec<Available>> {
        let gaps = open_gaps_of(&**store, cluster, timeline, patience()).await?;
        let gaps = gaps.iter().filter(|gap| gap.why == MINIMAL);
        let parts = gaps.filter_map(|gap| {
            Some(Available {
                from: gap.from,
                to: gap.to?,
            })
        });
        Ok(parts.collect())
    }

    /// Says what is recorded as lost behind `since` in the store of `region` and has not arrived since, one line each.
    pub(crate) async fn describe_lost(
        &self,
        region: &RegionName,
        cluster: SystemIdentifier,
        since: Lsn,
    ) -> Result<Vec<String>> {
        let open = open_gaps(&**self.store(region)?, cluster, patience()).await?;
        let needed = open.iter().filter(|gap| gap.to.is_none_or(|to| since < to));
        Ok(needed.map(describe).collect())
    }
}

impl PostgresDriver {
    /// Says what is recorded as lost in the store of `region` and needed by the newest recovery point there.
    pub(crate) async fn lost_and_needed(&self, region: &RegionName) -> Result<Vec<String>> {
        let store = self.store(region)?;
        let cluster = self
            .cluster_in(store, "look for holes in the log of")
            .await?;
        if self
            .describe_lost(region, cluster, Lsn::INVALID)
            .await?
            .is_empty()
        {
            return Ok(Vec::new());
        }
        let bases = self.bases(store, cluster).await?;
        let newest = bases.usable.first().map(Base::log_start);
        let since = newest.unwrap_or(Lsn::INVALID);
        self.describe_lost(region, cluster, since).await
    }
}

/// Says what is missing, and since when that is known.
fn describe(gap: &GapRecord) -> String {
    let to = match gap.to {
        Some(to) => format!("to {to}"),
        None => "on".to_owned(),
    };
    format!(
        "the log of timeline {} is missing from {} {to} ({} found at {:.0}: {})",
        gap.timeline, gap.from, gap.by, gap.found_at, gap.why
    )
}
