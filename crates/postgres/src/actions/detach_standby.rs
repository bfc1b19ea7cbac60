//! Taking the standby off its primary (PROTOCOL 6, step 1).
//!
//! With `primary_conninfo` empty the walreceiver ends, flushing what it has received, and none is started again: from
//! then on the received position stands still and can be compared with the chain.
//!
//! Idempotent because the setting is the same however often it is written.

use std::time::Duration;

use dr_model::RegionName;
use dr_provider::Result;
use dr_provider::driver::{Applied, Fence, Verified};
use serde_json::json;

use crate::driver::PostgresDriver;
use crate::wait::Deadline;

/// How long the walreceiver may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

impl PostgresDriver {
    pub(super) async fn detach_standby(
        &self,
        region: &RegionName,
        fence: &Fence,
    ) -> Result<Applied> {
        self.admitted(region, fence).await?;
        let operation = "detach the standby of";
        let mut instance = self.connect(region).await?;
        let position = instance.position().await?;
        if !position.in_recovery {
            return Ok(self.applied(
                format!("{} in {region} is a primary already", self.resource()),
                json!({ "timeline": position.timeline, "position": position.position }),
            ));
        }
        // `alter system` cannot run in a transaction block, as several statements in one text would be.
        instance
            .query(operation, "alter system set primary_conninfo = ''")
            .await?;
        instance.query(operation, "select pg_reload_conf()").await?;
        let deadline = Deadline::new(self.clock(), END_LIMIT);
        let position = loop {
            let position = instance.position().await?;
            if !position.receiving {
                break position;
            }
            if !deadline.pause().await {
                let why = format!("its walreceiver still runs after {} s", END_LIMIT.as_secs());
                return Err(self.failed(operation, why));
            }
        };
        Ok(self.applied(
            format!(
                "the standby in {region} is detached: received {}, replayed {}",
                position.position,
                position.replayed.unwrap_or_default()
            ),
            json!({
                "timeline": position.timeline,
                "received": position.position,
                "replayed": position.replayed,
            }),
        ))
    }

    pub(super) async fn is_standby_detached(&self, region: &RegionName) -> Result<Verified> {
        let mut instance = self.connect(region).await?;
        let position = instance.position().await?;
        let setting: String = instance
            .scalar(
                "read the settings of",
                "select current_setting('primary_conninfo')",
            )
            .await?;
        if position.in_recovery && (position.receiving || !setting.is_empty()) {
            return Ok(Verified::NotDone {
                seen: "the standby still follows its primary".to_owned(),
            });
        }
        Ok(Verified::Done(self.applied(
            format!(
                "the standby in {region} is detached at {}",
                position.position
            ),
            json!({ "timeline": position.timeline, "received": position.position }),
        )))
    }
}
