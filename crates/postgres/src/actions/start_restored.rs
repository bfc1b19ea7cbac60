//! Starting the rebuilt instance, as a standby that nobody leads yet.
//!
//! Idempotent because a server that answers is left alone.

use dr_model::RegionName;
use dr_provider::driver::{Applied, Fence, Verified};
use dr_provider::{ErrorKind, Result};
use serde_json::json;

use crate::driver::PostgresDriver;

const OPERATION: &str = "start the restored server of";

impl PostgresDriver {
    pub(super) async fn start_restored(
        &self,
        region: &RegionName,
        fence: &Fence,
    ) -> Result<Applied> {
        self.admitted(region, fence).await?;
        let position = self.start_server(region, OPERATION).await?;
        Ok(self.applied(
            format!(
                "the restored server in {region} answers, replayed to {}",
                position.position
            ),
            json!({ "timeline": position.timeline, "position": position.position }),
        ))
    }

    pub(super) async fn is_restored_started(&self, region: &RegionName) -> Result<Verified> {
        match self.connect(region).await {
            Ok(mut connection) => {
                let position = connection.position().await?;
                Ok(Verified::Done(self.applied(
                    format!("the server in {region} answers at {}", position.position),
                    json!({ "timeline": position.timeline, "position": position.position }),
                )))
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => Ok(Verified::NotDone {
                seen: "no server answers".to_owned(),
            }),
            Err(error) => Err(error),
        }
    }
}
