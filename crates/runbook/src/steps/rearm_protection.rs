//! `rearm-protection`: lets the new primary be protected again (L19).
//!
//! Until another region ships its log the workload is reported as unprotected. Idempotent because the driver's actions
//! are: a slot that exists is left as it is.

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
pub const NAME: &str = "rearm-protection";

/// The step.
#[derive(Debug)]
pub struct RearmProtection;

#[async_trait]
impl Step for RearmProtection {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "protect the new primary"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Idempotent
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn may_fail(&self) -> bool {
        true
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
        let goal = Goal::Rearm {
            region: scene.to().clone(),
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
