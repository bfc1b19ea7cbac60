//! `prepare-database`: restores a database to a named moment beside its place, starts that alone, and looks at it.
//!
//! Before the epoch is opened and before anything is stopped: if the moment was not the right one, or what is restored does not come
//! up or does not pass its checks, nothing has been changed. Idempotent because what is ready for this execution is left as it is.

use std::time::Duration;

use dr_provider::driver::{Goal, RestoreTarget};

use crate::plan::{Mode, Target};
use crate::resource_goal::GoalStep;
use crate::step::{Impossible, Scene};

/// The step's name.
pub const NAME: &str = "prepare-database";

/// The step.
#[derive(Debug)]
pub struct PrepareDatabase;

impl GoalStep for PrepareDatabase {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "restore the database to a moment beside its place, and prove that by starting it"
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(12 * 3600)
    }

    fn goal(&self, scene: &Scene<'_>, _: &Target) -> Result<Option<Goal>, Impossible> {
        if scene.mode != Mode::InPlace {
            return Err(Impossible::new(
                "a move goes back to no moment",
                "put them back in their own region, by a runbook as `restore-database` is",
            ));
        }
        let Some(moment) = scene.request.target.clone() else {
            return Err(Impossible::asked(
                "nobody has said to which moment",
                "name it with `--at`: a time, an LSN, a transaction or a restore point",
            ));
        };
        if moment == RestoreTarget::Latest {
            return Err(Impossible::asked(
                "`latest` is what it was last, with the damage",
                "name a moment before it: a time, an LSN, a transaction or a restore point; for a server that is lost: `recover-component`",
            ));
        }
        Ok(Some(Goal::Prepare {
            region: scene.to().clone(),
            target: moment,
        }))
    }
}
