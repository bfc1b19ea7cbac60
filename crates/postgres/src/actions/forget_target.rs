//! Taking the end of a restore out of the configuration of what was restored.
//!
//! The new primary has no use for it, but a standby that is made from it inherits its files, and would stop there. The server does it
//! itself, as it alone may write the file while it runs. Each target is set to nothing rather than reset: so one in a file that
//! is read before does not count again.
//!
//! Idempotent because what is set to nothing is set to nothing again.

use dr_model::RegionName;
use dr_pgwire::quote_literal;
use dr_provider::Result;
use dr_provider::driver::{Applied, Fence, Verified};
use serde_json::json;

use crate::driver::PostgresDriver;
use crate::restore::TARGETS;

const OPERATION: &str = "take the end of the restore out of the configuration of";

impl PostgresDriver {
    pub(super) async fn forget_target(
        &self,
        region: &RegionName,
        fence: &Fence,
    ) -> Result<Applied> {
        self.admitted(region, fence).await?;
        let mut instance = self.connect(region).await?;
        for target in TARGETS {
            let sql = format!("alter system set {target} = ''");
            instance.query(OPERATION, &sql).await?;
        }
        // A number would keep a standby from following the next promotion.
        let sql = "alter system set recovery_target_timeline = 'latest'";
        instance.query(OPERATION, sql).await?;
        Ok(self.forgotten(region))
    }

    pub(super) async fn is_target_forgotten(&self, region: &RegionName) -> Result<Verified> {
        let targets: Vec<String> = TARGETS.iter().map(|target| quote_literal(target)).collect();
        // As the next start reads it: the last line of several counts.
        let sql = format!(
            "select string_agg(name, ', ') from (select distinct on (name) name, setting from pg_file_settings \
             where name in ({}, 'recovery_target_timeline') order by name, seqno desc) s \
             where setting <> case name when 'recovery_target_timeline' then 'latest' else '' end",
            targets.join(", ")
        );
        let mut instance = self.connect(region).await?;
        match instance.scalar::<Option<String>>(OPERATION, &sql).await? {
            Some(names) => Ok(Verified::NotDone {
                seen: format!("{names} say where recovery ends"),
            }),
            None => Ok(Verified::Done(self.forgotten(region))),
        }
    }

    fn forgotten(&self, region: &RegionName) -> Applied {
        let summary = format!("standbys of the server in {region} follow it without an end");
        self.applied(summary, json!({}))
    }
}
