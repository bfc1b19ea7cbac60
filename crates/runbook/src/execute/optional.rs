//! What is optional: a move goes on without it, and says so (L17).
//!
//! A service, a check or a record that is `optional` and failed, or of which nobody can tell, stops nobody. The execution names it and ends
//! with exceptions, never as a pass. What ends the execution itself, as an epoch of somebody else, is not overlooked.

use std::time::Duration;

use super::{Executor, Halt};
use crate::events::Event;
use crate::history::History;
use crate::plan::{PlannedStep, Target};
use crate::record::Record;
use crate::step::Step;

/// How long the look may take at how something stands that is gone on without.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

impl Executor<'_> {
    /// Carries out a lane, and goes on without what it is about if that is optional.
    pub(super) async fn lane_unless_optional(
        &mut self,
        step: &PlannedStep,
        kind: &dyn Step,
        index: usize,
    ) -> Result<(), Halt> {
        let lane = &step.lanes[index];
        if !lane.optional {
            return self.lane(step, index).await;
        }
        // Whoever resumes does not try again what clients were not made to wait for.
        if self.history.went_without(&step.id, index).is_some() {
            return Ok(());
        }
        let why = match self.history.gave_up(&lane.target) {
            Some(earlier) => format!("step `{earlier}` went on without it"),
            None => {
                let why = match self.lane(step, index).await {
                    Err(Halt::Failed(trouble)) => trouble.to_string(),
                    Err(Halt::Stuck(why, _)) => why,
                    over => return over,
                };
                let work = self.work(step);
                let look = kind.left_standing(&work, &lane.target);
                match tokio::time::timeout(LOOK_LIMIT, look).await {
                    Ok(Some(stands)) => format!("{why}; {stands}"),
                    Ok(None) => why,
                    Err(_) => format!("{why}; how it stands could not be seen in time"),
                }
            }
        };
        let why = self.redactor.text(&why);
        let at = self.site.clock.now();
        self.note(Record::WentWithout {
            step: step.id.clone(),
            lane: index,
            why,
            at,
        });
        if let Some(note) = without(&self.history, step, index) {
            self.monitor.event(&Event::Note(&note));
        }
        Ok(())
    }

    /// Tells whether a step went on without everything that it is about, so that nothing of it is done.
    pub(super) fn went_without_all(&self, step: &PlannedStep) -> bool {
        let history = &self.history;
        let without = |index| history.went_without(&step.id, index).is_some();
        !step.lanes.is_empty() && (0..step.lanes.len()).all(without)
    }
}

/// Says what a lane went on without, if it did.
pub(super) fn without(history: &History, step: &PlannedStep, index: usize) -> Option<String> {
    let why = history.went_without(&step.id, index)?;
    let what = match &step.lanes[index].target {
        // It says what is looked at, and how.
        Target::Probe(check) => check.clone(),
        target => format!("`{target}`"),
    };
    Some(format!("without {what}, which is optional: {why}"))
}
