//! Seeing that no server runs where a data directory is gone: the fence `stopped` for a host that can be asked.
//!
//! Only for a recovery in the primary's own region. Elsewhere an empty directory may as well be a volume that is not mounted there.
//! Here the server that is going to be started takes the same address, so that another one in its place would be met.
//!
//! Idempotent because it only looks.

use dr_model::RegionName;
use dr_provider::Result;
use dr_provider::driver::{Applied, Evidence, Fence, Fenced, StopProof, Verified};
use dr_provider::host::PathKind;

use super::processes::processes_left;
use crate::data_directory::Claimed;
use crate::driver::PostgresDriver;

const OPERATION: &str = "see that no server is left of";

impl PostgresDriver {
    pub(super) async fn confirm_absent(
        &self,
        region: &RegionName,
        claimed: Claimed,
        fence: &Fence,
    ) -> Result<Applied> {
        let host = self.admitted(region, fence).await?;
        let directory = &self.instance_options(region)?.data_directory;
        match host.kind(directory).await? {
            PathKind::Missing | PathKind::EmptyDirectory => {}
            _ => {
                let why = format!("`{}` is not empty", directory.display());
                return Err(self.failed(OPERATION, why));
            }
        }
        let left = processes_left(&**host, directory).await?;
        let shown = directory.display();
        if !left.is_empty() {
            let why = format!("processes {} still work in `{shown}`", left.join(", "));
            return Err(self.failed(OPERATION, why));
        }
        self.nobody_answers(region, claimed).await?;
        let fenced = Fenced {
            proof: Some(StopProof::Stopped),
            at: self.clock().now(),
            ran: false,
            alive: None,
        };
        let summary = format!(
            "no server of {} runs in {region}: `{shown}` is empty, and nobody answers in its place",
            self.resource()
        );
        Ok(self.applied(summary, fenced.to_evidence()))
    }

    pub(super) async fn is_absent(&self, _: &RegionName, _: Claimed) -> Result<Verified> {
        Ok(Verified::NotDone {
            seen: "it only looks".to_owned(),
        })
    }
}
