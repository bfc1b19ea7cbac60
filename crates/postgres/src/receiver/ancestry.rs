//! What a store lacks of the timelines that led to the one it begins to receive (R22).
//!
//! A receiver that was away while its primary was promoted, once or more often, goes on with the newest timeline. The log between
//! where it left off and the fork, and all of a timeline that came and went meanwhile, is then nobody's to send. Nothing is restored
//! across it, since a restore proves the whole way; but until somebody restores, only a record says so. It is written before the
//! new timeline's log begins, and makes a new base backup due.

use std::sync::Arc;

use dr_model::{Lsn, RegionName, SegmentSize};
use dr_provider::Result;

use crate::actions::Log;
use crate::archive::{Held, Lost};
use crate::backup::Base;
use crate::driver::PostgresDriver;
use crate::wal::TimelineHistory;

impl PostgresDriver {
    /// Records the holes between the newest base backup of this history in the store of `region` and the fork of its timeline.
    ///
    /// Without a base backup nothing is lost that could have been restored.
    pub(super) async fn record_ancestral_holes(
        &self,
        region: &RegionName,
        log: Log,
        history: &TimelineHistory,
        size: SegmentSize,
    ) -> Result<()> {
        let store = Arc::clone(self.store(region)?);
        let bases = self.bases(&store, log.system_identifier).await?;
        let ours = |base: &&Base| {
            let source = &base.source;
            source.timeline < log.timeline && history.covers(source.timeline, source.stop)
        };
        let Some(base) = bases.usable.iter().find(ours) else {
            return Ok(());
        };
        let held = Held::read(&store, log.system_identifier, base.log_start()).await?;
        let (on, mut at) = (base.source.timeline, base.log_start());
        while let Some(hole) = held.reach(history, on, at, size).hole {
            let mut ancestors = history.ancestors().iter();
            let Some(ancestor) = ancestors.find(|ancestor| ancestor.timeline == hole.timeline)
            else {
                // The timeline that is about to be received.
                return Ok(());
            };
            // The segment of the fork is read from the descendant.
            let until = size.start_of(ancestor.end);
            let to = hole.to.unwrap_or(until).min(until);
            let lost = Lost {
                system_identifier: log.system_identifier,
                timeline: hole.timeline,
                from: hole.from,
                to: Some(to),
                by: format!("receiver {region}"),
                why: format!(
                    "the primary went on to timeline {} while timeline {} was not received",
                    log.timeline, hole.timeline
                ),
            };
            self.record_lost(region, &lost).await?;
            // What begins inside of a segment is of no use to a server.
            at = Lsn(to.0.next_multiple_of(size.bytes())).min(until);
        }
        Ok(())
    }
}
