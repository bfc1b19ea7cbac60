//! `follow-primary`: makes the old primary a standby of the new one.
//!
//! After a planned move: it stopped in good order, so that its log is a part of the new one's, and it is told whom to follow.
//! One that diverged is left as it is, for `dr standby create` to keep and to rewind. Idempotent because a standby that
//! streams is left alone.

use std::time::Duration;

use dr_provider::driver::Goal;

use super::promote_database;
use crate::plan::Target;
use crate::resource_goal::GoalStep;
use crate::step::{Impossible, Scene};

/// The step's name.
pub const NAME: &str = "follow-primary";

/// The step.
#[derive(Debug)]
pub struct FollowPrimary;

impl GoalStep for FollowPrimary {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "make the old primary a standby of the new one"
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(300)
    }

    fn follows(&self) -> &'static [&'static str] {
        &[promote_database::NAME]
    }

    fn may_fail(&self) -> bool {
        true
    }

    fn may_touch_region_left(&self) -> bool {
        true
    }

    fn goal(&self, scene: &Scene<'_>, _: &Target) -> Result<Option<Goal>, Impossible> {
        Ok(Some(Goal::Follow {
            region: scene.from.clone(),
            primary: scene.to().clone(),
        }))
    }
}
