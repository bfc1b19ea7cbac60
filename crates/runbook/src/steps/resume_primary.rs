//! `resume-primary`: starts the old primary again, after a move that came to no promotion (PROTOCOL 3).
//!
//! Only in the epoch that takes the say back, and only while the server that was to be promoted is seen to be a standby.
//! Idempotent because a primary that runs is left as it is.

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
pub const NAME: &str = "resume-primary";

/// The step.
#[derive(Debug)]
pub struct ResumePrimary;

#[async_trait]
impl Step for ResumePrimary {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "start the old primary again, which nobody has replaced"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Idempotent
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(300)
    }

    fn follows(&self) -> &'static [&'static str] {
        &[open_epoch::NAME]
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
        let goal = Goal::ResumePrimary {
            region: scene.to().clone(),
            standby: scene.from.clone(),
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
