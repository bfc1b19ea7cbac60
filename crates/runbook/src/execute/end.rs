//! How an execution ends: completed, failed without a trace, stuck with one, or superseded. Whoever ends it adds that to the evidence.

use std::time::Duration;

use dr_coordination::journal;
use dr_model::StepId;

use super::trouble::Trouble;
use super::{Error, Executor, Halt, optional};
use crate::events::Event;
use crate::evidence;
use crate::history::History;
use crate::outcome::{Report, State, StepState};
use crate::proof;
use crate::record::Record;
use crate::report::{has_effects, report, stuck};
use crate::steps::record_evidence;

/// How long adding an end to the evidence may take.
const RECORD_LIMIT: Duration = Duration::from_secs(10);

/// Says what it comes to that every step is over.
#[must_use]
pub(crate) fn completed(history: &History) -> Report {
    let exceptions = exceptions(history);
    if exceptions.is_empty() {
        return report(history, State::Completed, None);
    }
    let reason = exceptions.join("; ");
    report(history, State::CompletedWithExceptions, Some(reason))
}

/// Says what is not as it should be although every step is over.
fn exceptions(history: &History) -> Vec<String> {
    let plan = &history.plan;
    let excepted = plan.steps.iter().filter_map(|step| {
        let known = history.step(&step.id)?;
        let excepted = matches!(known.state, StepState::Excepted | StepState::Skipped);
        let mut why: Vec<_> = known
            .summary
            .clone()
            .filter(|_| excepted)
            .into_iter()
            .collect();
        for index in 0..step.lanes.len() {
            let without = optional::without(history, step, index);
            let said = |line: &String| why.iter().any(|told| told.contains(line));
            let unsaid = without.filter(|line| !said(line));
            why.extend(unsaid);
        }
        (!why.is_empty()).then(|| format!("step `{}`: {}", step.id, why.join("; ")))
    });
    let misnamed = plan.claims.iter().filter_map(|(name, claim)| {
        let writes = proof::recovered(history, name)?.timeline;
        let claimed = claim.timeline;
        (writes != claimed).then(|| {
            format!("`{name}` writes timeline {writes}, but timeline {claimed} was claimed")
        })
    });
    excepted.chain(misnamed).collect()
}

impl Executor<'_> {
    /// Says what it comes to that the steps halted; the error is that of the journal.
    pub(super) fn halted(&mut self, step: &StepId, halt: Halt) -> Result<Report, journal::Error> {
        let (trouble, otherwise) = match halt {
            Halt::Journal(source) => return Err(source),
            Halt::Superseded(why) => {
                return Ok(report(&self.history, State::Superseded, Some(why)));
            }
            Halt::Paused(why) => return Ok(report(&self.history, State::Paused, Some(why))),
            Halt::Failed(trouble) => (trouble, "put right what stands in the way".to_owned()),
            Halt::Stuck(why, remedy) => (why.into(), remedy),
        };
        if !has_effects(&self.history) {
            let reason = format!("step `{step}`: {trouble}");
            return Ok(report(&self.history, State::Failed, Some(reason)));
        }
        let Trouble { why, remedy } = trouble;
        let reason = format!("step `{step}`: {why}");
        let remedy = remedy.unwrap_or(otherwise);
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
                Ok(()) if report.state.is_final() => self.record(&report).await,
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

    /// Adds the end to the evidence, unless the step of the runbook has. Its journal has it already: that it is not taken stops nobody.
    async fn record(&self, report: &Report) {
        if record_evidence::has_recorded(&self.history, report.state) {
            return;
        }
        let append = evidence::append(&self.site, &self.history, report);
        let why = match tokio::time::timeout(RECORD_LIMIT, append).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => dr_provider::error::chain(&error),
            Err(_) => format!("no answer within {RECORD_LIMIT:?}"),
        };
        let note = format!(
            "the evidence in the store of {} does not have this end, which its journal has: {why}",
            report.to
        );
        tracing::warn!(execution = %report.execution, why, "the end of an execution is not in the evidence");
        self.monitor.event(&Event::Note(&note));
    }

    /// Ends the execution without doing anything more.
    pub(crate) async fn end(self, state: State, reason: String) -> Result<Report, Error> {
        let report = report(&self.history, state, Some(reason));
        self.close(report).await
    }
}
