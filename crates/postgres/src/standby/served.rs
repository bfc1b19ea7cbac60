//! Whether anybody can give a stopped server the log that it would go on with: the present primary, out of its `pg_wal`, or the
//! store of the server's own region. After two moves the primary may never have had it, and a server that waits for it waits for
//! ever.

use dr_model::{RegionName, TimelineId};
use dr_pgwire::quote_literal;
use dr_provider::Result;

use super::{OPERATION, Remains};
use crate::archive::Held;
use crate::driver::PostgresDriver;
use crate::wal::TimelineHistory;

impl PostgresDriver {
    /// Says why a server that is part of the `present` history cannot go on from where its log ends; `None` if it can, or if that cannot be
    /// told.
    pub(super) async fn is_not_served(
        &self,
        region: &RegionName,
        primary: &RegionName,
        remains: &Remains,
        present: &TimelineHistory,
    ) -> Result<Option<String>> {
        if self.has_log_of(primary, remains, present).await? != Some(false) {
            return Ok(None);
        }
        let size = remains.control.segment_size;
        let (on, from) = (remains.parting.timeline, size.start_of(remains.end));
        let store = self.store(region)?;
        let held = Held::read(store, remains.control.system_identifier, from).await?;
        let reach = held.reach(present, on, from, size);
        if reach.timeline == present.timeline() && reach.end > from {
            return Ok(None);
        }
        let hole = reach
            .hole
            .map_or_else(String::new, |hole| format!(": {hole}"));
        Ok(Some(format!(
            "the primary has its log from {} on no more, and the store of {region} not all of it{hole}",
            remains.end
        )))
    }

    /// Tells whether the primary has the segment in which a server's log ends, on whichever timeline; `None` if the role may not look.
    async fn has_log_of(
        &self,
        primary: &RegionName,
        remains: &Remains,
        present: &TimelineHistory,
    ) -> Result<Option<bool>> {
        let mut instance = self.connect(primary).await?;
        let may_look =
            "select has_function_privilege('pg_catalog.pg_stat_file(text, boolean)', 'execute')";
        if !instance.scalar::<bool>(OPERATION, may_look).await? {
            return Ok(None);
        }
        let size = remains.control.segment_size;
        let ancestors = present.ancestors().iter();
        let all = ancestors.map(|ancestor| ancestor.timeline);
        let all = all.chain([present.timeline()]);
        let later = all.filter(|timeline| *timeline >= remains.parting.timeline);
        let name = |timeline: TimelineId| {
            let name = size.file_name(timeline, remains.end);
            format!("({})", quote_literal(&format!("pg_wal/{name}")))
        };
        let names: Vec<String> = later.map(name).collect();
        let sql = format!(
            "select bool_or((pg_stat_file(name, true)).size is not null) from (values {}) f(name)",
            names.join(", ")
        );
        instance.scalar(OPERATION, &sql).await.map(Some)
    }
}
