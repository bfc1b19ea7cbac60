//! `prepare-database`: restores a database to a named moment beside its place, starts that alone, and looks at it.
//!
//! Before the epoch is opened and before anything is stopped: if the moment was not the right one, or what is restored does not come
//! up or does not pass its checks, nothing has been changed. Idempotent because what is ready for this execution is left as it is.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::Result;
use dr_provider::driver::{Action, Applied, Goal, Verified};
use serde_json::Value;

use crate::plan::{Idempotency, Mode, Target};
use crate::resource_goal;
use crate::step::{Impossible, Scene, Step, Work};

/// The step's name.
pub const NAME: &str = "prepare-database";

/// The step.
#[derive(Debug)]
pub struct PrepareDatabase;

#[async_trait]
impl Step for PrepareDatabase {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "restore the database to a moment beside its place, and prove that by starting it"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Idempotent
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(12 * 3600)
    }

    fn follows(&self) -> &'static [&'static str] {
        &[]
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
        let Some(target_moment) = scene
            .request
            .target
            .clone()
            .filter(|_| scene.mode == Mode::InPlace)
        else {
            return Err(Impossible::new(
                "nobody has said to which moment",
                "name it with `--at`: a time, an LSN, a transaction or a restore point",
            ));
        };
        let goal = Goal::Prepare {
            region: scene.to().clone(),
            target: target_moment,
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
