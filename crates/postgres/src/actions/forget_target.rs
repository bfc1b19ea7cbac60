//! Taking the end of a restore out of the configuration of what was restored.
//!
//! The new primary has no use for it, but a standby that is made from it inherits the file, and would stop there.
//!
//! Idempotent because lines that are gone are not there to be removed.

use dr_model::RegionName;
use dr_provider::Result;
use dr_provider::driver::{Applied, Fence, Verified};
use serde_json::json;

use crate::driver::PostgresDriver;

/// How the names of all settings begin that say where recovery ends.
const PREFIX: &str = "recovery_target";

/// The file that the restore has written them to, in the data directory.
const FILE: &str = "postgresql.auto.conf";

/// Bytes of that file that are read.
const LONGEST: u64 = 1 << 20;

impl PostgresDriver {
    pub(super) async fn forget_target(
        &self,
        region: &RegionName,
        fence: &Fence,
    ) -> Result<Applied> {
        let host = self.host(region)?;
        host.admit(&fence.workload, fence.epoch).await?;
        let path = self.instance_options(region)?.data_directory.join(FILE);
        let text = host.read(&path, 0, LONGEST).await?;
        let text = String::from_utf8_lossy(&text);
        let kept: String = text
            .split_inclusive('\n')
            .filter(|line| !names(line))
            .collect();
        host.write(&path, kept.as_bytes()).await?;
        Ok(self.forgotten(region))
    }

    pub(super) async fn is_target_forgotten(&self, region: &RegionName) -> Result<Verified> {
        let path = self.instance_options(region)?.data_directory.join(FILE);
        let text = self.host(region)?.read(&path, 0, LONGEST).await?;
        match String::from_utf8_lossy(&text).lines().any(names) {
            true => Ok(Verified::NotDone {
                seen: format!("`{FILE}` says where recovery ends"),
            }),
            false => Ok(Verified::Done(self.forgotten(region))),
        }
    }

    fn forgotten(&self, region: &RegionName) -> Applied {
        let summary = format!("standbys of the server in {region} follow it without an end");
        self.applied(summary, json!({}))
    }
}

fn names(line: &str) -> bool {
    line.trim_start().starts_with(PREFIX)
}
