//! `replace-database`: puts what was prepared into the place of the database, as the primary of a new timeline.
//!
//! What was there is kept beside its place: it has everything that was written after the moment that is gone back to. It begins only
//! with the log sealed and the old server proven to be stopped, as a promotion does. Idempotent because the driver's actions are.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::driver::Goal;

use super::{fence_primary, open_epoch, prepare_database, seal_wal};
use crate::come_up;
use crate::plan::Target;
use crate::resource_goal::GoalStep;
use crate::step::{Impossible, Scene, Unmet, Work};

/// The step's name.
pub const NAME: &str = "replace-database";

/// The step.
#[derive(Debug)]
pub struct ReplaceDatabase;

#[async_trait]
impl GoalStep for ReplaceDatabase {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "put what was prepared into the place of the database"
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

    fn brings_up(&self) -> bool {
        true
    }

    fn goal(&self, scene: &Scene<'_>, _: &Target) -> Result<Option<Goal>, Impossible> {
        Ok(Some(Goal::Replace {
            region: scene.to().clone(),
            ended: scene.ended,
        }))
    }

    async fn check(&self, work: &Work, target: &Target) -> Result<(), Unmet> {
        come_up::check(work, target)
    }
}
