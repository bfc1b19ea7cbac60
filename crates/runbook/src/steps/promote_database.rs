//! `promote-database`: makes the standby in the region moved to the primary (PROTOCOL 6).
//!
//! It begins only with a proof that the old primary has stopped, or a named override, and with the log sealed. From here
//! there is no way back. Idempotent because the driver's actions are: what is promoted already is left as it is.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::Result;
use dr_provider::driver::{Action, Applied, Goal, Verified};
use serde_json::Value;

use super::{fence_primary, open_epoch, restore_database, seal_wal};
use crate::plan::{Idempotency, Target};
use crate::request::Rung;
use crate::step::{Impossible, Scene, Step, Unmet, Work};
use crate::{come_up, resource_goal};

/// The step's name.
pub const NAME: &str = "promote-database";

/// The step.
#[derive(Debug)]
pub struct PromoteDatabase;

#[async_trait]
impl Step for PromoteDatabase {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "make the standby the primary"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Idempotent
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn fallbacks(&self) -> &'static [&'static str] {
        &[restore_database::NAME]
    }

    fn follows(&self) -> &'static [&'static str] {
        &[open_epoch::NAME, fence_primary::NAME, seal_wal::NAME]
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
        if scene.request.rung == Some(Rung::Restore) {
            return Err(Impossible {
                why: "`--rung restore` was asked for".to_owned(),
                hint: None,
                is_forbidden: false,
            });
        }
        let goal = Goal::Promote {
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
