//! `resume-primary`: starts the old primary again, after a move that came to no promotion (PROTOCOL 3).
//!
//! Only in the epoch that takes the say back, and only if the server that was to be promoted is not: the journal says that no promotion
//! was begun, or it is seen to be a standby.
//! Idempotent because a primary that runs is left as it is.

use std::time::Duration;

use dr_provider::driver::Goal;

use super::open_epoch;
use crate::plan::Target;
use crate::resource_goal::GoalStep;
use crate::step::{Impossible, Scene};

/// The step's name.
pub const NAME: &str = "resume-primary";

/// The step.
#[derive(Debug)]
pub struct ResumePrimary;

impl GoalStep for ResumePrimary {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "start the old primary again, which nobody has replaced"
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(300)
    }

    fn follows(&self) -> &'static [&'static str] {
        &[open_epoch::NAME]
    }

    fn may_touch_region_left(&self) -> bool {
        true
    }

    fn goal(&self, scene: &Scene<'_>, _: &Target) -> Result<Option<Goal>, Impossible> {
        Ok(Some(Goal::ResumePrimary {
            region: scene.to().clone(),
            standby: scene.from.clone(),
            unpromoted: scene.request.unpromoted,
        }))
    }
}
