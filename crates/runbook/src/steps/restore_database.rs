//! `restore-database`: rebuilds an instance from the store of the region moved to and makes it the primary.
//!
//! The lower rung: it needs no standby, only a recovery point and the log up to the seal. It begins only with the same
//! proof as a promotion, and never on a resource whose standby has been promoted (PROTOCOL 9). Idempotent because the
//! driver's actions are: what was restored and started already is left as it is.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::driver::Goal;

use super::{fence_primary, open_epoch, promote_database, seal_wal};
use crate::come_up;
use crate::plan::Target;
use crate::resource_goal::GoalStep;
use crate::step::{Impossible, Scene, Unmet, Work};

/// The step's name.
pub const NAME: &str = "restore-database";

/// The step.
#[derive(Debug)]
pub struct RestoreDatabase;

#[async_trait]
impl GoalStep for RestoreDatabase {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "rebuild the database from the store"
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(4 * 3600)
    }

    fn follows(&self) -> &'static [&'static str] {
        &[open_epoch::NAME, fence_primary::NAME, seal_wal::NAME]
    }

    fn brings_up(&self) -> bool {
        true
    }

    fn goal(&self, scene: &Scene<'_>, target: &Target) -> Result<Option<Goal>, Impossible> {
        scene.refuse_moment(NAME)?;
        if scene.goes_on(target) {
            return Err(Impossible::now(
                "the log of what is started again goes on, and a rebuild would end it",
                "if it does not start: move its data directory away, and run it again",
            ));
        }
        Ok(Some(Goal::Restore {
            region: scene.to().clone(),
            ended: scene.ended,
        }))
    }

    async fn check(&self, work: &Work, target: &Target) -> Result<(), Unmet> {
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
}
