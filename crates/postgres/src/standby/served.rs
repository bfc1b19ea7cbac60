//! Whether anybody can give a server the log that it would go on with: the present primary, out of its `pg_wal`, or the store of the
//! server's own region and the primary from there on. After two moves the primary may never have had it, and a server that waits for
//! it waits for ever.

use dr_model::{Lsn, RegionName, SegmentSize, SystemIdentifier, TimelineId};
use dr_pgwire::quote_literal;
use dr_provider::Result;

use super::OPERATION;
use crate::archive::Held;
use crate::driver::PostgresDriver;
use crate::wal::TimelineHistory;

/// Where a server would go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogEnd {
    pub(super) system_identifier: SystemIdentifier,
    pub(super) size: SegmentSize,
    /// The newest timeline of the present history that its log is of.
    pub(super) timeline: TimelineId,
    /// Where its log ends.
    pub(super) end: Lsn,
}

impl PostgresDriver {
    /// Says why a server that is part of the `present` history cannot go on from where its log ends; `None` if it can, or if that cannot be
    /// told.
    pub(super) async fn is_not_served(
        &self,
        region: &RegionName,
        primary: &RegionName,
        from: LogEnd,
        present: &TimelineHistory,
    ) -> Result<Option<String>> {
        if self.has_log(primary, from, present).await? != Some(false) {
            return Ok(None);
        }
        let begin = from.size.start_of(from.end);
        let held = Held::read(self.store(region)?, from.system_identifier, begin).await?;
        let reach = held.reach(present, from.timeline, begin, from.size);
        let further = LogEnd {
            timeline: reach.timeline,
            end: reach.end,
            ..from
        };
        if reach.end > from.end && self.has_log(primary, further, present).await? != Some(false) {
            return Ok(None);
        }
        let until = match reach.end > from.end {
            true => format!(
                "has it only to {} on timeline {}",
                reach.end, reach.timeline
            ),
            false => "has not that either".to_owned(),
        };
        Ok(Some(format!(
            "the primary has the log from {} on no more, and the store of {region} {until}",
            from.end
        )))
    }

    /// Tells whether the primary has the segment in which some log ends, on that timeline or a later one; `None` if the role may not look.
    async fn has_log(
        &self,
        primary: &RegionName,
        from: LogEnd,
        present: &TimelineHistory,
    ) -> Result<Option<bool>> {
        let mut instance = self.connect(primary).await?;
        let may_look =
            "select has_function_privilege('pg_catalog.pg_stat_file(text, boolean)', 'execute')";
        if !instance.scalar::<bool>(OPERATION, may_look).await? {
            return Ok(None);
        }
        let ancestors = present.ancestors().iter();
        let all = ancestors.map(|ancestor| ancestor.timeline);
        let all = all.chain([present.timeline()]);
        let later = all.filter(|timeline| *timeline >= from.timeline);
        let name = |timeline: TimelineId| {
            let name = from.size.file_name(timeline, from.end);
            format!("({})", quote_literal(&format!("pg_wal/{name}")))
        };
        let names: Vec<String> = later.map(name).collect();
        // The one that it writes next need not be there yet.
        let next = Lsn(from.size.start_of(from.end).0 + from.size.bytes());
        let sql = format!(
            "select bool_or((pg_stat_file(name, true)).size is not null) or pg_current_wal_insert_lsn() < '{next}' \
             from (values {}) f(name)",
            names.join(", ")
        );
        instance.scalar(OPERATION, &sql).await.map(Some)
    }
}
