//! Starting the installed directory, and waiting until it stands where the restore is to end.
//!
//! It replayed up to there once, beside its place, and does so again from its last restart point. A promotion before it pauses would
//! end it too early.
//!
//! Idempotent because a server that answers is only waited for.

use std::time::Duration;

use dr_model::{Lsn, RegionName};
use dr_provider::Result;
use dr_provider::driver::{Applied, Fence, Verified};
use serde_json::json;

use crate::driver::PostgresDriver;
use crate::instance::Instance;
use crate::wait::Deadline;

/// How long replay may stand still before it is given up.
const STANDSTILL: Duration = Duration::from_secs(60);

const OPERATION: &str = "start what was restored of";

impl PostgresDriver {
    pub(super) async fn start_installed(
        &self,
        region: &RegionName,
        fence: &Fence,
    ) -> Result<Applied> {
        self.host(region)?
            .admit(&fence.workload, fence.epoch)
            .await?;
        self.start_server(region, OPERATION).await?;
        let mut instance = self.connect(region).await?;
        let mut deadline = Deadline::new(self.clock(), STANDSTILL);
        let mut furthest = Lsn::INVALID;
        loop {
            if has_ended(&mut instance).await? {
                return self.started(region, &mut instance).await;
            }
            let replayed = instance.position().await?.replayed.unwrap_or_default();
            if replayed > furthest {
                furthest = replayed;
                deadline.extend(STANDSTILL);
            }
            if !deadline.pause().await {
                let why =
                    format!("it stands still at {furthest}, and not where the restore is to end");
                return Err(self.failed(OPERATION, why));
            }
        }
    }

    pub(super) async fn is_installed_started(&self, region: &RegionName) -> Result<Verified> {
        let Ok(mut instance) = self.connect(region).await else {
            return Ok(Verified::NotDone {
                seen: "no server answers".to_owned(),
            });
        };
        match has_ended(&mut instance).await? {
            true => Ok(Verified::Done(self.started(region, &mut instance).await?)),
            false => Ok(Verified::NotDone {
                seen: "it replays".to_owned(),
            }),
        }
    }

    async fn started(&self, region: &RegionName, instance: &mut Instance) -> Result<Applied> {
        let found = instance.position().await?;
        let reached = found.replayed.unwrap_or(found.position);
        Ok(self.applied(
            format!("the restored server in {region} answers, and stands at {reached}"),
            json!({ "timeline": found.timeline, "position": reached }),
        ))
    }
}

async fn has_ended(instance: &mut Instance) -> Result<bool> {
    let sql = "select not pg_is_in_recovery() or pg_get_wal_replay_pause_state() = 'paused'";
    instance.scalar::<bool>(OPERATION, sql).await
}
