//! Ending the primary in an orderly way, for a planned move: every session is ended, and a server that shuts down hands all of
//! its log, the last checkpoint included, to whoever streams from it before it goes.
//!
//! `standby.signal` is left first, as for a fence: whatever starts the server again starts a standby. What is proven is that
//! the server has stopped *and* where its log ends; a promotion compares that with what the other region holds.
//!
//! Idempotent because a server that is stopped is only looked at.

use std::time::Duration;

use dr_model::RegionName;
use dr_provider::driver::{Applied, Drained, Evidence, Fence, Fenced, StopProof, Verified};
use dr_provider::{Error, ErrorKind, Result};
use serde_json::json;

use crate::data_directory::Claimed;
use crate::driver::PostgresDriver;
use crate::standby::{Control, drained};

use super::processes;

/// How long a checkpoint before the end may take. What it writes need not be written while nobody can write.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(300);

/// How long the server may take to stop: it waits for whoever streams to confirm everything.
const STOP_LIMIT: Duration = Duration::from_secs(60);

const OPERATION: &str = "stop the primary of";

impl PostgresDriver {
    pub(super) async fn checkpoint_primary(&self, region: &RegionName) -> Result<Applied> {
        let checkpoint = async {
            let mut instance = self.connect(region).await?;
            instance
                .query_within(OPERATION, "checkpoint", CHECKPOINT_LIMIT)
                .await
        };
        match checkpoint.await {
            Ok(_) => Ok(self.applied(
                format!("{} in {region} has written a checkpoint", self.resource()),
                json!({}),
            )),
            // It only makes the next step shorter; a guard that has seen the new epoch may be ahead of both.
            Err(error) => Ok(self.applied(
                format!("no checkpoint: {}", dr_provider::error::chain(&error)),
                json!({ "checkpoint": false }),
            )),
        }
    }

    pub(super) async fn stop_writes(
        &self,
        region: &RegionName,
        claimed: Claimed,
        fence: &Fence,
    ) -> Result<Applied> {
        let directory = &self.instance_options(region)?.data_directory;
        let host = self.admitted(region, fence).await?;
        self.identify(region, claimed).await?;
        host.write(&directory.join("standby.signal"), claimed.mark().as_bytes())
            .await?;
        let mut said = None;
        if !processes(&**host, directory).await?.is_empty() {
            // A configured command may end it in any way; only this one is known to let others have the log.
            let timeout = format!("--timeout={}", STOP_LIMIT.as_secs());
            let stop = self.pg_ctl(directory, &["stop", "--mode=fast", "--wait", &timeout]);
            let stopped = host.run(&stop, STOP_LIMIT + Duration::from_secs(5)).await?;
            said = (stopped.status != Some(0))
                .then(|| String::from_utf8_lossy(&stopped.stderr).trim().to_owned());
        }
        let left = processes(&**host, directory).await?;
        if !left.is_empty() {
            // If it was asked to it will, and nobody can write any more.
            let subject = self.resource().to_string();
            let mut why = "something that streams from it may not confirm the log".to_owned();
            if let Some(said) = said.filter(|said| !said.is_empty()) {
                why = format!("{said} ({why})");
            }
            return Err(
                Error::new(ErrorKind::Unknown, OPERATION, subject).because(format!(
                    "processes {} still run in `{}`: {why}",
                    left.join(", "),
                    directory.display()
                )),
            );
        }
        match self.is_drained(region, claimed).await? {
            Verified::Done(applied) => Ok(applied),
            Verified::NotDone { seen } => Err(self.failed(OPERATION, seen)),
            Verified::Unknown { why } => Err(self.failed(OPERATION, why)),
        }
    }

    pub(super) async fn are_writes_stopped(
        &self,
        region: &RegionName,
        claimed: Claimed,
    ) -> Result<Verified> {
        let directory = &self.instance_options(region)?.data_directory;
        let host = self.host(region)?;
        let found = self.identify(region, claimed).await?;
        if found.fenced != Some(claimed.timeline) {
            return Ok(Verified::NotDone {
                seen: format!("no standby.signal of ours in `{}`", directory.display()),
            });
        }
        let left = processes(&**host, directory).await?;
        if !left.is_empty() {
            return Ok(Verified::NotDone {
                seen: format!("processes {} run there", left.join(", ")),
            });
        }
        self.is_drained(region, claimed).await
    }

    /// Looks where the log of a stopped primary ends.
    async fn is_drained(&self, region: &RegionName, claimed: Claimed) -> Result<Verified> {
        let directory = &self.instance_options(region)?.data_directory;
        let host = self.host(region)?;
        let control = Control::read(&**host, &self.parts().binaries, directory).await?;
        let fenced = Fenced {
            proof: Some(StopProof::Stopped),
            at: self.clock().now(),
            // What it acknowledged until then is not in doubt: the end of its log is known.
            ran: false,
            alive: None,
        };
        let mut evidence = fenced.to_evidence();
        if !control.is_shut_down() {
            // Stopped, but not in an orderly way: that is a fence, and no proof of where the log ends.
            let summary = format!(
                "{} in {region} is stopped, but was not shut down: its control file says `{}`",
                self.resource(),
                control.state
            );
            return Ok(Verified::Done(self.applied(summary, evidence)));
        }
        let end = drained(&**host, directory, &control).await?;
        let drained = Drained {
            timeline: claimed.timeline,
            end,
        };
        if let (Some(all), Some(more)) =
            (evidence.as_object_mut(), drained.to_evidence().as_object())
        {
            all.extend(more.clone());
        }
        Ok(Verified::Done(self.applied(
            format!(
                "{} in {region} is shut down; its log ends at {end}",
                self.resource()
            ),
            evidence,
        )))
    }
}
