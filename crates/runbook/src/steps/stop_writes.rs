//! `stop-writes`: shuts the primary down in good order, and learns where its log ends.
//!
//! For a planned move: the region being left is there, and what it wrote last is not to be lost. A server that shuts down hands
//! its log to whoever streams from it before it goes. The promotion begins only if the other region holds all of it. Proves
//! that the primary has stopped, as a fence does. Idempotent because what is stopped is only looked at.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::Result;
use dr_provider::driver::{Action, Applied, Goal, Instance, Undo, Verified};
use serde_json::Value;

use super::{fence_primary, open_epoch};
use crate::come_up;
use crate::plan::{Idempotency, Target};
use crate::resource_goal;
use crate::step::{Impossible, Scene, Step, Unmet, Work};

/// The step's name.
pub const NAME: &str = "stop-writes";

/// How far the standby may be behind: clients wait until it has the rest.
const MAX_BEHIND_BYTES: u64 = 256 << 20;

/// The step.
#[derive(Debug)]
pub struct StopWrites;

#[async_trait]
impl Step for StopWrites {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "shut the primary down, and learn where its log ends"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Idempotent
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(330)
    }

    fn follows(&self) -> &'static [&'static str] {
        &[open_epoch::NAME]
    }

    fn stands_for(&self) -> &'static [&'static str] {
        &[fence_primary::NAME]
    }

    fn may_touch_region_left(&self) -> bool {
        true
    }

    fn targets(&self, scene: &Scene<'_>) -> Vec<Target> {
        scene.resources()
    }

    fn plan(
        &self,
        scene: &Scene<'_>,
        target: &Target,
        _: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        if let Some(behind) = behind(scene, target).filter(|bytes| *bytes > MAX_BEHIND_BYTES) {
            let mebibytes = behind >> 20;
            return Err(Impossible::now(
                format!(
                    "the standby in {} is {mebibytes} MiB behind the primary",
                    scene.to()
                ),
                "wait until it has caught up: clients would wait for it",
            ));
        }
        let goal = Goal::StopWrites {
            region: scene.from.clone(),
            to: scene.to().clone(),
        };
        resource_goal::plan(scene, target, &goal)
    }

    /// Long after the epoch was opened, if the execution was resumed.
    async fn check(&self, work: &Work, target: &Target) -> std::result::Result<(), Unmet> {
        let mut lanes = work.step.lanes.iter();
        let stops = lanes.any(|lane| {
            let mut actions = lane.actions.iter();
            lane.target == *target && actions.any(|action| !matches!(action.undo, Undo::ReadOnly))
        });
        match stops {
            true => come_up::is_still_possible(work, Some(target)).await,
            false => Ok(()),
        }
    }

    async fn apply(&self, work: &Work, target: &Target, action: &Action) -> Result<Applied> {
        resource_goal::apply(work, target, action).await
    }

    async fn verify(&self, work: &Work, target: &Target, action: &Action) -> Verified {
        resource_goal::verify(work, target, action).await
    }
}

/// Returns how many bytes of log the standby lacks, if both were seen.
fn behind(scene: &Scene<'_>, target: &Target) -> Option<u64> {
    let Target::Resource(name) = target else {
        return None;
    };
    let regions = &scene.world.resources.get(name)?.facts.regions;
    let position = |region| match &regions.get(region)?.instance {
        Instance::Running { position, .. } => Some(*position),
        _ => None,
    };
    Some(position(scene.from)?.bytes_since(position(scene.to())?))
}
