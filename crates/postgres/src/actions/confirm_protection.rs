//! Seeing that the new primary's log reaches the store (L19).
//!
//! Nothing is changed: the region's daemon sees the new epoch by itself and begins its chain. Until it has, the workload
//! is UNPROTECTED, and this step says so.

use std::time::Duration;

use dr_coordination::chain::{ChainId, find_tail};
use dr_model::{Lsn, RegionName, TimelineId};
use dr_provider::Result;
use dr_provider::driver::{Applied, Fence, Verified};
use serde_json::json;

use crate::driver::PostgresDriver;
use crate::register::patience;
use crate::wait::Deadline;

/// How long the daemon may take: it reads the register every second.
const LIMIT: Duration = Duration::from_secs(15);

const OPERATION: &str = "confirm the protection of";

impl PostgresDriver {
    pub(super) async fn confirm_protection(
        &self,
        region: &RegionName,
        fence: &Fence,
    ) -> Result<Applied> {
        // What is written now has to arrive: a part of the old timeline, which the new one begins with, proves nothing.
        let goal = self.connect(region).await?.position().await?.position;
        let deadline = Deadline::new(self.clock(), LIMIT);
        loop {
            if let Verified::Done(applied) = self.is_shipped(region, fence, goal).await? {
                return Ok(applied);
            }
            if !deadline.pause().await {
                let why = format!(
                    "UNPROTECTED: the log of epoch {} has not reached the store of {region} up to {goal}",
                    fence.epoch
                );
                return Err(self.failed(OPERATION, why).with_hint(format!(
                    "start `dr daemon --region {region}`, and see its /health"
                )));
            }
        }
    }

    pub(super) async fn is_protection_confirmed(
        &self,
        region: &RegionName,
        fence: &Fence,
    ) -> Result<Verified> {
        let record = self.read_register(OPERATION).await?;
        let timeline = self.claimed_timeline(&record, OPERATION)?;
        // The first timeline of a cluster has branched off from nothing.
        let fork = match timeline {
            TimelineId(1) => Lsn::INVALID,
            _ => self.fork_point(region, timeline).await?,
        };
        // At least the record that ends recovery lies behind the fork.
        self.is_shipped(region, fence, fork.advance(1)).await
    }

    /// Tells whether the store holds the log of the fence's epoch up to `goal`.
    async fn is_shipped(&self, region: &RegionName, fence: &Fence, goal: Lsn) -> Result<Verified> {
        let record = self.read_register(OPERATION).await?;
        if record.epoch != fence.epoch {
            let seen = format!("epoch {} is the newest", record.epoch);
            return Ok(Verified::NotDone { seen });
        }
        let log = self.log_of(&record, OPERATION)?;
        let tail = find_tail(&**self.store(region)?, &ChainId::from(log), patience()).await?;
        match tail {
            Some(tail) if tail.end >= goal => Ok(Verified::Done(self.applied(
                format!(
                    "the log of epoch {} reaches the store of {region}: {}",
                    log.epoch, tail.end
                ),
                json!({ "epoch": log.epoch, "durable": tail.end }),
            ))),
            Some(tail) => Ok(Verified::NotDone {
                seen: format!(
                    "the log of epoch {} ends at {} in {region}",
                    log.epoch, tail.end
                ),
            }),
            None => Ok(Verified::NotDone {
                seen: format!("no log of epoch {} in {region}", log.epoch),
            }),
        }
    }
}
