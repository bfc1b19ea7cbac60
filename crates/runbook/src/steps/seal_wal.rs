//! `seal-wal`: ends the log of the old epoch in the store of the region moved to (PROTOCOL 3, and 6 steps 1 to 4).
//!
//! When the seal is in, its position is exactly what was promised: nothing behind it was or will be acknowledged. In
//! synchronous mode, with its conditions held, this is the proof that lets another primary come up. Idempotent because a
//! seal is a create-only write: the second time finds the first.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::Result;
use dr_provider::driver::{Action, Applied, Goal, Verified};
use serde_json::Value;

use super::open_epoch;
use crate::plan::{Idempotency, Target};
use crate::resource_goal;
use crate::step::{Impossible, Scene, Step, Work};

/// The step's name.
pub const NAME: &str = "seal-wal";

/// The step.
#[derive(Debug)]
pub struct SealWal;

#[async_trait]
impl Step for SealWal {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "end the log of the old epoch in the store moved to"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Conditional
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn follows(&self) -> &'static [&'static str] {
        &[open_epoch::NAME]
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
        if scene.goes_on(target) {
            return Ok(Vec::new());
        }
        let goal = Goal::Seal {
            region: scene.to().clone(),
            ended: scene.ended,
        };
        resource_goal::plan(scene, target, &goal)
    }

    async fn apply(&self, work: &Work, target: &Target, action: &Action) -> Result<Applied> {
        resource_goal::apply_and_verify(work, target, action).await
    }

    async fn verify(&self, work: &Work, target: &Target, action: &Action) -> Verified {
        resource_goal::verify(work, target, action).await
    }
}
