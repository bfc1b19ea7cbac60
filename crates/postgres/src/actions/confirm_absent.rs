//! Seeing that no server runs where a data directory is gone: the fence `stopped` for a host that can be asked.
//!
//! Only for a recovery in the primary's own region. Elsewhere an empty directory may as well be a volume that is not mounted there.
//! Here the server that is going to be started takes the same address, so that another one in its place would be met.
//!
//! Idempotent because it only looks.

use std::time::Duration;

use dr_model::RegionName;
use dr_provider::Result;
use dr_provider::driver::{Applied, Evidence, Fence, Fenced, StopProof, Verified};
use dr_provider::host::{Command, PathKind};

use crate::data_directory::Claimed;
use crate::driver::PostgresDriver;

/// How long the look at all processes may take.
const LIMIT: Duration = Duration::from_millis(1500);

const OPERATION: &str = "see that no server is left of";

impl PostgresDriver {
    pub(super) async fn confirm_absent(
        &self,
        region: &RegionName,
        claimed: Claimed,
        fence: &Fence,
    ) -> Result<Applied> {
        let host = self.host(region)?;
        host.admit(&fence.workload, fence.epoch).await?;
        let directory = &self.instance_options(region)?.data_directory;
        match host.kind(directory).await? {
            PathKind::Missing | PathKind::EmptyDirectory => {}
            _ => {
                let why = format!("`{}` is not empty", directory.display());
                return Err(self.failed(OPERATION, why));
            }
        }
        let links = [
            "find",
            "/proc",
            "-mindepth",
            "2",
            "-maxdepth",
            "2",
            "-name",
            "cwd",
            "-printf",
            "%l\\n",
        ];
        let found = host.run(&Command::new(links), LIMIT).await?;
        let shown = directory.display().to_string();
        let text = String::from_utf8_lossy(&found.stdout);
        let inside = |line: &str| line.strip_suffix(" (deleted)").unwrap_or(line) == shown;
        if text.is_empty() || text.lines().any(inside) {
            let why = format!("processes still work in `{shown}`, or they cannot be looked at");
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
