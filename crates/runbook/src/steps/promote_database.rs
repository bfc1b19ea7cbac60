//! `promote-database`: makes the standby in the region moved to the primary (PROTOCOL 6).
//!
//! It begins only with a proof that the old primary has stopped, or a named override, and with the log sealed. From here
//! there is no way back. Idempotent because the driver's actions are: what is promoted already is left as it is.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::driver::Goal;

use super::{fence_primary, open_epoch, restore_database, seal_wal};
use crate::come_up;
use crate::plan::{Class, Target};
use crate::request::Rung;
use crate::resource_goal::GoalStep;
use crate::step::{Impossible, Scene, Unmet, Work};

/// The step's name.
pub const NAME: &str = "promote-database";

/// The step.
#[derive(Debug)]
pub struct PromoteDatabase;

#[async_trait]
impl GoalStep for PromoteDatabase {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "make the standby the primary"
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(120)
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
        if scene.request.rung == Some(Rung::Restore) {
            return Err(Impossible {
                why: "`--rung restore` was asked for".to_owned(),
                hint: None,
                class: Class::Unavailable,
            });
        }
        Ok(Some(Goal::Promote {
            region: scene.to().clone(),
            ended: scene.ended,
        }))
    }

    async fn check(&self, work: &Work, target: &Target) -> Result<(), Unmet> {
        come_up::check(work, target)
    }
}
