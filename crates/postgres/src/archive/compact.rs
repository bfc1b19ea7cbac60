//! Merging the chunks of a store into pieces, timeline by timeline.

use std::collections::{BTreeMap, BTreeSet};

use dr_coordination::chain::{CompactOptions, Compactor, bounds, chains, log_start};
use dr_model::{Lsn, RegionName};
use dr_provider::Result;
use dr_provider::driver::CompactReport;
use std::sync::Arc;
use tokio::sync::Mutex;

use super::gap::Lost;
use super::size::size_at;
use crate::backup::Base;
use crate::driver::PostgresDriver;
use crate::register::patience;

const OPERATION: &str = "compact the log of";

/// What compaction remembers of each region's store. One run at a time.
#[derive(Debug, Default)]
pub(crate) struct Compactors(Mutex<BTreeMap<RegionName, Compactor>>);

impl PostgresDriver {
    /// Merges the log in the store of `region`.
    pub(crate) async fn compact_log(&self, region: &RegionName) -> Result<CompactReport> {
        let store = self.store(region)?;
        let cluster = self.cluster_in(store, OPERATION).await?;
        let found = chains(&**store, cluster).await?;
        let timelines: BTreeSet<_> = found.iter().map(|chain| chain.timeline).collect();
        let writer = format!("compact-wal {region}");
        let options = CompactOptions {
            keys: self.keys().clone(),
            ..CompactOptions::new(writer, Arc::clone(&self.parts().clock))
        };
        let mut compactors = self.compactors().0.lock().await;
        let compactor = compactors.entry(region.clone()).or_default();
        let mut report = CompactReport::default();
        for timeline in timelines {
            let Some(outer) = bounds(&**store, cluster, timeline, patience()).await? else {
                continue;
            };
            let start = log_start(&**store, cluster, timeline, patience()).await?;
            let begin = outer.from.max(start);
            let Some(size) = size_at((store, self.keys()), cluster, timeline, begin).await? else {
                // The first chunk of a new chain may be shorter than the head of a segment.
                tracing::debug!(%region, %timeline, "the segment size is not known yet");
                continue;
            };
            let done = compactor
                .run(store, cluster, timeline, size, &options)
                .await?;
            report.pieces += done.pieces;
            report.log_bytes += done.log_bytes;
            report.stored_bytes += done.stored_bytes;
            report.removed += done.removed;
            report.removal_denied |= done.removal_denied;
            // What lies before the newest recovery point keeps nothing from being restored from it, and never arrives any more.
            let since = match done.holes.is_empty() {
                true => Lsn::INVALID,
                false => {
                    let bases = self.bases(store, cluster).await?;
                    bases.usable.first().map_or(Lsn::INVALID, Base::log_start)
                }
            };
            for hole in done.holes {
                let lost = Lost {
                    system_identifier: cluster,
                    timeline,
                    from: hole.from,
                    to: Some(hole.to),
                    by: format!("compact-wal {region}"),
                    why: format!("{} holds neither piece nor chunk", store.location()),
                };
                self.record_lost(region, &lost).await?;
                if hole.to <= since {
                    continue;
                }
                report.missing.push(format!(
                    "the log of timeline {timeline} has a hole from {} to {} in {}",
                    hole.from,
                    hole.to,
                    store.location()
                ));
            }
        }
        Ok(report)
    }
}
