//! `restart-database`: starts a database again in its own region, as the primary that it was.
//!
//! A server that ended has everything that it acknowledged in its own files: it goes on with its timeline and its log, in an epoch
//! that says so. Only where its files are gone is it rebuilt instead, by the fallback `restore-database`, in a plan that ends its
//! log. Idempotent because a primary that runs is left as it is.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::Result;
use dr_provider::driver::{Action, Applied, Goal, Verified};
use serde_json::Value;

use super::{fence_primary, open_epoch, restore_database, seal_wal};
use crate::plan::{Idempotency, Target};
use crate::step::{Impossible, Scene, Step, Work};
use crate::{come_up, resource_goal};

/// The step's name.
pub const NAME: &str = "restart-database";

/// The step.
#[derive(Debug)]
pub struct RestartDatabase;

#[async_trait]
impl Step for RestartDatabase {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "start the database again where it was"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Idempotent
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(3600)
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
        let goal = Goal::Restart {
            region: scene.to().clone(),
        };
        resource_goal::plan(scene, target, &goal)
    }

    async fn apply(&self, work: &Work, target: &Target, action: &Action) -> Result<Applied> {
        let applied = resource_goal::apply_and_verify(work, target, action).await?;
        Ok(come_up::with_heartbeat(work, target, applied).await)
    }

    async fn verify(&self, work: &Work, target: &Target, action: &Action) -> Verified {
        resource_goal::verify(work, target, action).await
    }
}
