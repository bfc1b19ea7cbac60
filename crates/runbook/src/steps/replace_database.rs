//! `replace-database`: puts what was prepared into the place of the database, as the primary of a new timeline.
//!
//! What was there is kept beside its place: it has everything that was written after the moment that is gone back to. It begins only
//! with the log sealed and the old server proven to be stopped, as a promotion does. Idempotent because the driver's actions are.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::Result;
use dr_provider::driver::{Action, Applied, Goal, Verified};
use serde_json::Value;

use super::{fence_primary, open_epoch, prepare_database, seal_wal};
use crate::plan::{Idempotency, Target};
use crate::step::{Impossible, Scene, Step, Unmet, Work};
use crate::{come_up, resource_goal};

/// The step's name.
pub const NAME: &str = "replace-database";

/// The step.
#[derive(Debug)]
pub struct ReplaceDatabase;

#[async_trait]
impl Step for ReplaceDatabase {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "put what was prepared into the place of the database"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Idempotent
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(3600)
    }

    fn follows(&self) -> &'static [&'static str] {
        &[
            open_epoch::NAME,
            fence_primary::NAME,
            seal_wal::NAME,
            prepare_database::NAME,
        ]
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
        let goal = Goal::Replace {
            region: scene.to().clone(),
            ended: scene.ended,
        };
        resource_goal::plan(scene, target, &goal)
    }

    async fn check(&self, work: &Work, target: &Target) -> std::result::Result<(), Unmet> {
        come_up::check(work, target)
    }

    async fn apply(&self, work: &Work, target: &Target, action: &Action) -> Result<Applied> {
        let applied = resource_goal::apply_and_verify(work, target, action).await?;
        Ok(come_up::with_heartbeat(work, target, applied).await)
    }

    async fn verify(&self, work: &Work, target: &Target, action: &Action) -> Verified {
        resource_goal::verify(work, target, action).await
    }
}
