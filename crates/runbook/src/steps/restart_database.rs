//! `restart-database`: starts a database again in its own region, as the primary that it was.
//!
//! A server that ended has everything that it acknowledged in its own files: it goes on with its timeline and its log, in an epoch
//! that says so. Only where its files are gone is it rebuilt instead, by the fallback `restore-database`, in a plan that ends its
//! log. Idempotent because a primary that runs is left as it is.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::driver::Goal;

use super::{fence_primary, open_epoch, restore_database, seal_wal};
use crate::come_up;
use crate::plan::Target;
use crate::resource_goal::GoalStep;
use crate::step::{Impossible, Scene, Unmet, Work};

/// The step's name.
pub const NAME: &str = "restart-database";

/// The step.
#[derive(Debug)]
pub struct RestartDatabase;

#[async_trait]
impl GoalStep for RestartDatabase {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "start the database again where it was"
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(3600)
    }

    fn follows(&self) -> &'static [&'static str] {
        &[open_epoch::NAME, fence_primary::NAME, seal_wal::NAME]
    }

    fn fallbacks(&self) -> &'static [&'static str] {
        &[restore_database::NAME]
    }

    fn brings_up(&self) -> bool {
        true
    }

    fn goal(&self, scene: &Scene<'_>, _: &Target) -> Result<Option<Goal>, Impossible> {
        scene.refuse_moment(NAME)?;
        Ok(Some(Goal::Restart {
            region: scene.to().clone(),
        }))
    }

    /// Not what its siblings ask for. No proof that the old primary has stopped, because that is what is started; and no seal,
    /// because its log goes on. What must not be is that another has become the primary meanwhile.
    async fn check(&self, work: &Work, _: &Target) -> Result<(), Unmet> {
        come_up::is_not_superseded(work).await
    }
}
