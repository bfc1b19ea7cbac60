//! `follow-primary`: makes the old primary a standby of the new one.
//!
//! After a planned move: it stopped in good order, so that its log is a part of the new one's, and it is told whom to follow.
//! One that diverged is left as it is, for `dr standby create` to keep and to rewind. Idempotent because a standby that
//! streams is left alone.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::Result;
use dr_provider::driver::{Action, Applied, Goal, Verified};
use serde_json::Value;

use super::promote_database;
use crate::plan::{Idempotency, Target};
use crate::resource_goal;
use crate::step::{Impossible, Scene, Step, Work};

/// The step's name.
pub const NAME: &str = "follow-primary";

/// The step.
#[derive(Debug)]
pub struct FollowPrimary;

#[async_trait]
impl Step for FollowPrimary {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "make the old primary a standby of the new one"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Idempotent
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(300)
    }

    fn follows(&self) -> &'static [&'static str] {
        &[promote_database::NAME]
    }

    fn may_fail(&self) -> bool {
        true
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
        let goal = Goal::Follow {
            region: scene.from.clone(),
            primary: scene.to().clone(),
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
