//! In what situation a plan moves a workload: what it may rely on, and what it has to prove.

use dr_config::Runbook;
use serde::{Deserialize, Serialize};

use crate::steps::{replace_database, restart_database, resume_primary, stop_writes};

/// How a plan takes the region being left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It may be gone: nothing is asked of it.
    #[default]
    Unplanned,
    /// It is there: its primary is shut down, and nothing is promoted before the other region is proven to hold all that it
    /// wrote.
    Planned,
    /// It is not left: something in it is started again, or put back, in its own place.
    InPlace,
    /// Nothing was promoted there: the region moved to gets back what was taken from it.
    Undo,
}

impl Mode {
    /// Reads it out of what a runbook does.
    #[must_use]
    pub fn of(runbook: &Runbook) -> Self {
        let uses = |name| runbook.steps.iter().any(|step| step.uses == name);
        if uses(restart_database::NAME) || uses(replace_database::NAME) {
            return Self::InPlace;
        }
        match (uses(resume_primary::NAME), uses(stop_writes::NAME)) {
            (true, _) => Self::Undo,
            (false, true) => Self::Planned,
            (false, false) => Self::Unplanned,
        }
    }

    /// Tells whether nothing is to be written about it: what is written of an earlier version means the same.
    pub(crate) fn is_unplanned(&self) -> bool {
        *self == Self::Unplanned
    }
}

impl super::Plan {
    /// Says in a few words what is done, for records that stay.
    #[must_use]
    pub fn reason(&self) -> String {
        if self.mode == Mode::InPlace {
            let moment = self.moment.as_ref();
            let moment = moment.map_or_else(String::new, |moment| format!(" to {moment}"));
            return format!("{} in {}{moment}", self.runbook, self.to);
        }
        format!("{} from {} to {}", self.runbook, self.from, self.to)
    }
}
