//! `restore-database`: rebuilds an instance from the store of the region moved to and makes it the primary.
//!
//! The lower rung: it needs no standby, only a recovery point and the log up to the seal. It begins only with the same
//! proof as a promotion, and never on a resource whose standby has been promoted (PROTOCOL 9). Idempotent because the
//! driver's actions are: what was restored and started already is left as it is.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::Result;
use dr_provider::driver::{Action, Applied, Goal, Verified};
use serde_json::Value;

use super::{fence_primary, open_epoch, promote_database, seal_wal};
use crate::plan::{Idempotency, Target};
use crate::step::{Impossible, Scene, Step, Unmet, Work};
use crate::{come_up, resource_goal};

/// The step's name.
pub const NAME: &str = "restore-database";

/// The step.
#[derive(Debug)]
pub struct RestoreDatabase;

#[async_trait]
impl Step for RestoreDatabase {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "rebuild the database from the store"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Idempotent
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(4 * 3600)
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
        if scene.goes_on(target) {
            return Err(Impossible::new(
                "the log of what is started again goes on, and a rebuild would end it",
                "if it does not start: move its data directory away, and run it again",
            ));
        }
        let goal = Goal::Restore {
            region: scene.to().clone(),
            ended: scene.ended,
        };
        resource_goal::plan(scene, target, &goal)
    }

    async fn check(&self, work: &Work, target: &Target) -> std::result::Result<(), Unmet> {
        if come_up::is_up_by(work, target, promote_database::NAME) {
            return Err(Unmet::Forbidden {
                why: format!(
                    "the standby of `{target}` has been promoted and must not be overwritten"
                ),
                remedy: "look at the promoted instance; there is nothing to restore".to_owned(),
            });
        }
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
