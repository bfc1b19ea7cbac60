//! How an execution ends: completed, failed without a trace, stuck with one, or superseded.

use dr_coordination::journal;
use dr_model::StepId;

use super::{Error, Executor, Halt};
use crate::events::Event;
use crate::outcome::{Report, State, StepState};
use crate::proof;
use crate::record::Record;
use crate::report::{has_effects, report, stuck};

impl Executor<'_> {
    /// Says what it comes to that every step is over.
    pub(super) fn completed(&self) -> Report {
        let exceptions = self.exceptions();
        if exceptions.is_empty() {
            return report(&self.history, State::Completed, None);
        }
        let reason = exceptions.join("; ");
        report(&self.history, State::CompletedWithExceptions, Some(reason))
    }

    /// Says what is not as it should be although every step is over.
    fn exceptions(&self) -> Vec<String> {
        let plan = &self.history.plan;
        let excepted = plan.steps.iter().filter_map(|step| {
            let known = self.history.step(&step.id)?;
            let why = known.summary.as_deref().unwrap_or_default();
            let excepted = matches!(known.state, StepState::Excepted | StepState::Skipped);
            excepted.then(|| format!("step `{}`: {why}", step.id))
        });
        let misnamed = plan.claims.iter().filter_map(|(name, claim)| {
            let writes = proof::recovered(&self.history, name)?.timeline;
            let claimed = claim.timeline;
            (writes != claimed).then(|| {
                format!("`{name}` writes timeline {writes}, but timeline {claimed} was claimed")
            })
        });
        excepted.chain(misnamed).collect()
    }

    /// Says what it comes to that the steps halted; the error is that of the journal.
    pub(super) fn halted(&mut self, step: &StepId, halt: Halt) -> Result<Report, journal::Error> {
        let (why, remedy) = match halt {
            Halt::Journal(source) => return Err(source),
            Halt::Superseded(why) => {
                return Ok(report(&self.history, State::Superseded, Some(why)));
            }
            Halt::Paused(why) => return Ok(report(&self.history, State::Paused, Some(why))),
            Halt::Failed(why) => (why, "put right what stands in the way".to_owned()),
            Halt::Stuck(why, remedy) => (why, remedy),
        };
        let reason = format!("step `{step}`: {why}");
        if !has_effects(&self.history) {
            return Ok(report(&self.history, State::Failed, Some(reason)));
        }
        let stuck = stuck(&self.history, step, &why, &remedy);
        self.note(Record::Stuck { stuck });
        Ok(report(&self.history, State::Stuck, Some(reason)))
    }

    /// Writes the last word, if it is ours to say.
    pub(super) async fn close(mut self, mut report: Report) -> Result<Report, Error> {
        report.finished_at = Some(self.site.clock.now());
        if let Some(rta) = self.rta {
            report.set_execution_time(&self.history, Some(rta.as_secs_f64()));
        }
        report.overhead_seconds = self.started.map(|started| {
            let all = self.site.clock.elapsed().saturating_sub(started);
            all.saturating_sub(self.busy).as_secs_f64()
        });
        if !self.taken_over {
            if report.state.is_final() {
                self.note(Record::Closed {
                    report: Box::new(report.clone()),
                });
            }
            match self.write().await {
                Ok(()) => {}
                Err(Halt::Superseded(why)) => {
                    report.state = State::Superseded;
                    report.reason = Some(why);
                }
                Err(Halt::Journal(source)) => {
                    return Err(Error::journal(&self.history.execution, source));
                }
                Err(Halt::Paused(why)) => {
                    report.state = State::Paused;
                    report.reason = Some(why);
                }
                Err(Halt::Failed(_) | Halt::Stuck(..)) => {}
            }
        }
        self.monitor.event(&Event::Ended(&report));
        Ok(report)
    }

    /// Ends the execution without doing anything more.
    pub(crate) async fn end(self, state: State, reason: String) -> Result<Report, Error> {
        let report = report(&self.history, state, Some(reason));
        self.close(report).await
    }
}
