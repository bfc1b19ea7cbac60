//! `rearm-protection`: lets the new primary be protected again (L19).
//!
//! Until another region ships its log the workload is reported as unprotected. Idempotent because the driver's actions
//! are: a slot that exists is left as it is.

use std::time::Duration;

use dr_provider::driver::Goal;

use super::open_epoch;
use crate::plan::Target;
use crate::resource_goal::GoalStep;
use crate::step::{Impossible, Scene};

/// The step's name.
pub const NAME: &str = "rearm-protection";

/// The step.
#[derive(Debug)]
pub struct RearmProtection;

impl GoalStep for RearmProtection {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "protect the new primary"
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn follows(&self) -> &'static [&'static str] {
        &[open_epoch::NAME]
    }

    fn may_fail(&self) -> bool {
        true
    }

    fn goal(&self, scene: &Scene<'_>, _: &Target) -> Result<Option<Goal>, Impossible> {
        Ok(Some(Goal::Rearm {
            region: scene.to().clone(),
        }))
    }
}
