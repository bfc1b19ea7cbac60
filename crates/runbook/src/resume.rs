//! Goes on where another process stopped, from any machine.
//!
//! Taking over is an entry in the journal, so the former executor learns of it before its next effect. Nobody waits for
//! a clock. What is not known to be done is looked at first.

mod ahead;

use std::sync::Arc;

use dr_model::{ExecutionId, StepId};
use dr_provider::driver::Undo;
use futures::future::join;

use crate::events::{Event, Monitor};
use crate::execute::{Error, Executor};
use crate::executions::{self, Found};
use crate::history::{History, Progress, StepHistory};
use crate::outcome::{Report, State, StepState};
use crate::record::{Outcome, Record};
use crate::redact::Redactor;
use crate::request::Statement;
use crate::site::Site;
use crate::step::Step;
use crate::steps::{assess_region, registry};

/// Takes an execution over and goes on with it. `statements` are added to what was stated before.
///
/// # Errors
///
/// If there is no such execution, if it is over, or if its journal cannot be used.
pub async fn resume(
    site: Arc<Site>,
    execution: &ExecutionId,
    reason: &str,
    statements: Vec<Statement>,
    monitor: &dyn Monitor,
) -> Result<Report, Error> {
    let decided = Decided::default();
    resume_with(site, execution, reason, statements, &decided, monitor).await
}

/// What a human decides of the steps of an execution that goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// Those that are left out.
    pub skip: Vec<StepId>,
    /// Those that were left out and are done after all.
    pub unskip: Vec<StepId>,
}

impl Decided {
    /// Says why any of it cannot be.
    fn refuse(&self, history: &History) -> Result<(), Error> {
        refuse_what_is_not_left_out(history, &self.skip)?;
        refuse_what_is_not_taken_back(history, &self.unskip)
    }
}

/// As [`resume`], and leaves steps out, or does after all what was left out, because of `reason`. With a step left out the end is
/// never a pass.
///
/// # Errors
///
/// As [`resume`], and before anything is written [`Error::Skip`] or [`Error::Unskip`] if that cannot be, and [`Error::NotResumed`] if
/// it would come to a halt further on and all that it has done can still be taken back.
pub async fn resume_with(
    site: Arc<Site>,
    execution: &ExecutionId,
    reason: &str,
    statements: Vec<Statement>,
    decided: &Decided,
    monitor: &dyn Monitor,
) -> Result<Report, Error> {
    let found = find(&site, execution).await?;
    decided.refuse(&found.history)?;
    let may_be_taken_back = ahead::may_be_taken_back(&found.history);
    if may_be_taken_back {
        let refusal = match ahead::disagreement(&site, &found.history, &statements) {
            None => ahead::obstacle(&site, &found.history, decided, &statements).await,
            disagreement => disagreement,
        };
        if let Some(refusal) = refusal {
            return Err(Error::NotResumed {
                execution: execution.clone(),
                refusal: Box::new(refusal),
            });
        }
    }
    let mut executor = take_over(Arc::clone(&site), execution, reason, monitor).await?;
    // Its former executor may have gone on between the look and the takeover.
    decided.refuse(executor.history())?;
    let (newer, obstacle) = join(newer_epoch(&site, executor.history()), async {
        match may_be_taken_back {
            true => None,
            false => ahead::obstacle(&site, executor.history(), decided, &statements).await,
        }
    })
    .await;
    if let Some(refusal) = obstacle {
        let hint = refusal.hint().unwrap_or_default();
        monitor.event(&Event::Note(&format!(
            "warning: {refusal}; it goes on all the same, because what was done cannot be taken back: {hint}"
        )));
    }
    // Whoever puts a command right goes on with it, and knows what has changed.
    if let Some(changed) = ahead::reconfigured(&site, executor.history()) {
        monitor.event(&Event::Note(&format!("warning: {changed}")));
    }
    for step in &decided.skip {
        executor.skip(step, reason);
    }
    for step in &decided.unskip {
        executor.unskip(step, reason);
    }
    for statement in statements {
        executor.state(statement);
    }
    match newer {
        Ok(Some(why)) => return executor.end(State::Superseded, why).await,
        Ok(None) => {}
        // Every effect carries its own fence; the register's silence stops nothing that was begun.
        Err(why) => monitor.event(&Event::Note(&why)),
    }
    executor.run(true).await
}

fn refuse_what_is_not_left_out(history: &History, skip: &[StepId]) -> Result<(), Error> {
    for id in skip {
        let refuse = |why: String| Error::Skip {
            execution: history.execution.clone(),
            step: id.clone(),
            why,
        };
        let Some(step) = history.plan.step(id) else {
            let ids = history.plan.steps.iter().map(|step| step.id.to_string());
            let ids: Vec<_> = ids.collect();
            return Err(refuse(format!("its steps are {}", ids.join(", "))));
        };
        if history.is_over(id) {
            return Err(refuse("it is over".to_owned()));
        }
        if !registry::find(&step.uses).is_some_and(Step::may_be_skipped) {
            return Err(refuse(format!(
                "what follows rests on `{}`, or it keeps a promise",
                step.uses
            )));
        }
    }
    Ok(())
}

/// A step that was left out is done when somebody notices, and so after steps behind it: not if one of them has changed the same thing
/// since. To stop a service that was started behind it would undo what was done.
fn refuse_what_is_not_taken_back(history: &History, unskip: &[StepId]) -> Result<(), Error> {
    let steps = &history.plan.steps;
    for id in unskip {
        let refuse = |why: String| Error::Unskip {
            execution: history.execution.clone(),
            step: id.clone(),
            why,
        };
        let place = steps.iter().position(|step| &step.id == id);
        let is_skipped = |known: &StepHistory| known.state == StepState::Skipped;
        let Some(place) = place.filter(|_| history.step(id).is_some_and(is_skipped)) else {
            return Err(refuse("it was not left out".to_owned()));
        };
        let since = history.actions().find_map(|(at, progress)| {
            let behind = steps[place + 1..].iter().find(|step| step.id == at.step)?;
            let target = &behind.lanes.get(at.lane)?.target;
            let changes = !matches!(history.action(at)?.undo, Undo::ReadOnly)
                && !matches!(progress, Progress::Concluded(Outcome::NotDone { .. }));
            let same = steps[place].lanes.iter().any(|lane| lane.target == *target);
            (changes && same).then(|| format!("`{}` has acted on {target} since", behind.id))
        });
        if let Some(since) = since {
            return Err(refuse(since));
        }
    }
    Ok(())
}

/// Stops an execution before its next action, wherever it runs, until it is resumed. What it does at this moment is done to
/// its end.
///
/// # Errors
///
/// If there is no such execution, if nobody runs it, or if its journal cannot be used.
pub async fn pause(site: Arc<Site>, execution: &ExecutionId, reason: &str) -> Result<(), Error> {
    let Found {
        mut journal,
        history,
        ..
    } = find(&site, execution).await?;
    let state = history.state();
    if !matches!(state, State::Running | State::AwaitingApproval) {
        return Err(Error::NotRunning {
            execution: execution.clone(),
            state,
        });
    }
    let paused = Record::Paused {
        why: Redactor::new(&site.secrets).text(reason),
        by: site.actor.to_string(),
        at: site.clock.now(),
    };
    let written = journal.interpose(site.actor.clone(), vec![paused]).await;
    written.map_err(|source| Error::journal(execution, source))?;
    // Its executor may have come to the end just before.
    let records = journal.entries().iter().filter_map(|entry| entry.record());
    let history = History::from_records(execution.clone(), records.flatten()).unwrap_or(history);
    refuse(&site, &history)
}

pub(crate) async fn find(site: &Site, execution: &ExecutionId) -> Result<Found, Error> {
    let found = executions::find(&site.stores, &site.clock, execution).await?;
    refuse(site, &found.history)?;
    Ok(found)
}

fn refuse(site: &Site, history: &History) -> Result<(), Error> {
    let execution = history.execution.clone();
    if history.plan.workload != site.workload {
        return Err(Error::OtherWorkload {
            execution,
            workload: history.plan.workload.clone(),
        });
    }
    let state = history.state();
    if state.is_final() {
        return Err(Error::Over { execution, state });
    }
    Ok(())
}

pub(crate) async fn take_over<'a>(
    site: Arc<Site>,
    execution: &ExecutionId,
    reason: &str,
    monitor: &'a dyn Monitor,
) -> Result<Executor<'a>, Error> {
    let Found {
        mut journal,
        history,
        ..
    } = find(&site, execution).await?;
    let reason = Redactor::new(&site.secrets).text(reason);
    let taken = journal.take_over(site.actor.clone(), &reason).await;
    taken.map_err(|source| Error::journal(execution, source))?;
    // The former executor may have written on until the takeover.
    let records = journal.entries().iter().filter_map(|entry| entry.record());
    let history = History::from_records(execution.clone(), records.flatten()).unwrap_or(history);
    refuse(&site, &history)?;
    Ok(Executor::new(site, journal, history, monitor))
}

/// Returns who has opened an epoch that ends this execution's say, if somebody has; the error is why nobody can tell.
async fn newer_epoch(site: &Site, history: &History) -> Result<Option<String>, String> {
    let records = site.register.read_all().await;
    let records = records.map_err(|error| dr_provider::error::chain(&error))?;
    let opens = history.plan.opens;
    let other = records.iter().find(|record| {
        let ours = record.execution.as_ref() == Some(&history.execution);
        record.epoch >= opens && !ours
    });
    Ok(other.map(assess_region::describe))
}
