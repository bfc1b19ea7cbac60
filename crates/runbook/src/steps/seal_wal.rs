//! `seal-wal`: ends the log of the old epoch in the store of the region moved to (PROTOCOL 3, and 6 steps 1 to 4).
//!
//! When the seal is in, its position is exactly what was promised: nothing behind it was or will be acknowledged. In
//! synchronous mode, with its conditions held, this is the proof that lets another primary come up. Idempotent because a
//! seal is a create-only write: the second time finds the first.

use std::time::Duration;

use dr_provider::driver::Goal;

use super::open_epoch;
use crate::plan::{Idempotency, Target, elsewhere};
use crate::resource_goal::GoalStep;
use crate::step::{Impossible, Scene};

/// The step's name.
pub const NAME: &str = "seal-wal";

/// The step.
#[derive(Debug)]
pub struct SealWal;

impl GoalStep for SealWal {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "end the log of the old epoch in the store moved to"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Conditional
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn follows(&self) -> &'static [&'static str] {
        &[open_epoch::NAME]
    }

    fn goal(&self, scene: &Scene<'_>, target: &Target) -> Result<Option<Goal>, Impossible> {
        if scene.goes_on(target) {
            return Ok(None);
        }
        Ok(Some(Goal::Seal {
            region: scene.to().clone(),
            ended: scene.ended,
            gather: elsewhere::gathered(scene, target),
        }))
    }
}
