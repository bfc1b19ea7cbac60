//! Starting the installed directory, and waiting until it stands where the restore is to end.
//!
//! It replayed up to there once, beside its place, and does so again from its last restart point. A promotion before it pauses would
//! end it too early.
//!
//! Idempotent because a server that answers is only waited for.

use std::time::Duration;

use dr_model::RegionName;
use dr_provider::Result;
use dr_provider::driver::{Applied, Fence, Verified};
use serde_json::json;

use crate::driver::PostgresDriver;
use crate::instance::Instance;
use crate::wait::Standstill;

/// How long replay may stand still before it is given up.
const STANDSTILL: Duration = Duration::from_secs(60);

const OPERATION: &str = "start what was restored of";

impl PostgresDriver {
    pub(super) async fn start_installed(
        &self,
        region: &RegionName,
        fence: &Fence,
    ) -> Result<Applied> {
        self.admitted(region, fence).await?;
        self.start_server(region, OPERATION).await?;
        let mut instance = self.connect(region).await?;
        let mut standstill = Standstill::new(self.clock(), STANDSTILL);
        loop {
            if instance.has_recovered(OPERATION).await? {
                return self.started(region, &mut instance).await;
            }
            let replayed = instance.position().await?.replayed.unwrap_or_default();
            if !standstill.pause(Some(replayed)).await {
                let why =
                    format!("it stands still at {replayed}, and not where the restore is to end");
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
        match instance.has_recovered(OPERATION).await? {
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
