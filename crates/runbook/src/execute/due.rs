//! An action that is due, with the place at which the journal has it.

use std::time::Duration;

use dr_provider::driver::{Action, Applied, Undo, Verified};
use tokio::time::error::Elapsed;

use crate::plan::{Lane, PlannedStep};
use crate::record::Place;
use crate::step::{Step, Work};

/// What an action answered, unless it did not in time.
pub(super) type Applying = Result<dr_provider::Result<Applied>, Elapsed>;

/// An action of a lane.
pub(super) struct Due<'a> {
    pub(super) step: &'a PlannedStep,
    /// What does it: the step's own way, or the one that it falls back to.
    pub(super) kind: &'a dyn Step,
    pub(super) lane: &'a Lane,
    pub(super) place: Place,
    pub(super) action: &'a Action,
}

impl Due<'_> {
    /// Tells whether it changes anything; what does not is a look.
    pub(super) fn changes(&self) -> bool {
        changes(self.action)
    }

    /// Returns how long one attempt may take.
    pub(super) fn limit(&self) -> Duration {
        limit(self.step)
    }

    /// Does it, for no longer than its step allows.
    pub(super) async fn apply(&self, work: &Work) -> Applying {
        let apply = self.kind.apply(work, &self.lane.target, self.action);
        tokio::time::timeout(self.limit(), apply).await
    }

    /// Looks whether it is done.
    pub(super) async fn verify(&self, work: &Work) -> Verified {
        self.kind.verify(work, &self.lane.target, self.action).await
    }
}

pub(super) fn changes(action: &Action) -> bool {
    !matches!(action.undo, Undo::ReadOnly)
}

/// Returns how long one attempt may take.
pub(super) fn limit(step: &PlannedStep) -> Duration {
    Duration::try_from_secs_f64(step.timeout_seconds).unwrap_or(Duration::MAX)
}
