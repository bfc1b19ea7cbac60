//! Goes on where another process stopped, from any machine; or ends what has promoted nothing, and undoes what it did.
//!
//! Taking over is an entry in the journal, so the former executor learns of it before its next effect. Nobody waits for
//! a clock. What is not known to be done is looked at first.

mod ahead;

use std::sync::Arc;

use dr_config::Runbook;
use dr_model::{ExecutionId, ResourceName, StepId};
use dr_provider::driver::Undo;
use futures::future::join;

use crate::events::{Event, Monitor};
use crate::execute::{Error, Executor, execute};
use crate::executions::{self, Found};
use crate::history::{History, Progress, StepHistory};
use crate::outcome::{Report, State, StepState};
use crate::plan::{Lane, Mode, Target, comes_up, plan};
use crate::record::{Outcome, Record};
use crate::redact::Redactor;
use crate::report::{has_effects, passed_return};
use crate::request::{Request, Statement};
use crate::site::Site;
use crate::step::Step;
use crate::steps::{assess_region, open_epoch, registry, restart_database};
use crate::world;

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
        let obstacle = ahead::obstacle(&site, &found.history, decided, &statements).await;
        if let Some(refusal) = obstacle {
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

/// What ending an execution came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Aborted {
    /// The execution that was ended; `None` if undoing it did not come to its end, which is to be resumed first.
    pub report: Option<Report>,
    /// The execution that undid it, if it had changed anything that is undone.
    pub undone_by: Option<Report>,
    /// What it has changed and stays, one line each, where nothing is undone: in its own region everything is where it was.
    pub stays: Vec<String>,
}

/// Ends an execution that has promoted nothing. If it has changed something, that is undone by an execution of its own, after
/// the runbook `undo`: a newer epoch, and the old primary as it was. One in place is ended as it stands, unless a database is down
/// because of it.
///
/// Cut off anywhere, the same again goes on, or `resume` with the execution that undoes.
///
/// # Errors
///
/// As [`resume`], and [`Error::HasEffects`] or [`Error::Undo`] if what it has changed cannot be undone.
pub async fn abort(
    site: Arc<Site>,
    execution: &ExecutionId,
    reason: &str,
    undo: &Runbook,
    monitor: &dyn Monitor,
) -> Result<Aborted, Error> {
    let found = find(&site, execution).await?;
    refuse_what_stays(&found.history)?;
    let executor = take_over(Arc::clone(&site), execution, reason, monitor).await?;
    // Its former executor may have acted between the look and the takeover, but not after.
    refuse_what_stays(executor.history())?;
    let mut undone_by = None;
    let mut stays = Vec::new();
    if executor.history().plan.mode == Mode::InPlace {
        stays = executor.history().residue();
    } else if has_effects(executor.history()) {
        let request = Request {
            undoes: Some(execution.clone()),
            // Looked at above, and nobody adds to the journal any more.
            unpromoted: true,
            ..Request::new(executor.history().plan.from.clone())
        };
        let world = world::observe(&site, &request.to).await;
        let opened = world
            .register
            .head()
            .and_then(|head| head.execution.as_ref());
        if opened != Some(execution) {
            return Err(has_changed(executor.history()));
        }
        let refused = |refusal| Error::Undo {
            execution: execution.clone(),
            refusal: Box::new(refusal),
        };
        let plan = plan(undo, &world, &request).map_err(refused)?;
        let report = Box::pin(execute(Arc::clone(&site), plan, monitor)).await?;
        let is_back = matches!(
            report.state,
            State::Completed | State::CompletedWithExceptions
        );
        undone_by = Some(report);
        if !is_back {
            return Ok(Aborted {
                report: None,
                undone_by,
                stays,
            });
        }
    }
    let report = executor.end(State::Aborted, reason.to_owned()).await?;
    Ok(Aborted {
        report: Some(report),
        undone_by,
        stays,
    })
}

fn refuse_what_stays(history: &History) -> Result<(), Error> {
    if history.plan.mode == Mode::InPlace {
        return match is_half_way(history) {
            true => Err(has_changed(history)),
            false => Ok(()),
        };
    }
    if passed_return(history).is_some() || (history.plan.mode == Mode::Undo && has_effects(history))
    {
        return Err(has_changed(history));
    }
    Ok(())
}

/// Gives the region that a move has left its place back, where nobody can tell from the move's journal what was done: by override,
/// from what the register says and from what is seen of the servers. The runbook `undo` starts the old primary only where the standby
/// is seen not to be promoted, under the lock that a promotion holds, so that the journal is not needed for it.
///
/// # Errors
///
/// [`Error::NotTakenBack`] if it was not this execution that moved the workload last, [`Error::Undo`] if what is seen does not
/// allow it, and as [`execute`].
pub async fn take_back(
    site: Arc<Site>,
    execution: &ExecutionId,
    reason: &str,
    undo: &Runbook,
    monitor: &dyn Monitor,
) -> Result<Report, Error> {
    let refuse = |why: String| Error::NotTakenBack {
        execution: execution.clone(),
        why,
    };
    let records = site.register.read_all().await;
    let records = records.map_err(|error| refuse(dr_provider::error::chain(&error)))?;
    let (head, before) = match records.as_slice() {
        [.., before, head] if head.execution.as_ref() == Some(execution) => (head, before),
        _ => return Err(refuse("it has not opened the newest epoch".to_owned())),
    };
    let left = before.primary.clone();
    if left == head.primary {
        return Err(refuse(format!(
            "it is about {left} alone, and left nothing"
        )));
    }
    let request = Request {
        undoes: Some(execution.clone()),
        statements: vec![Statement::Override(reason.to_owned())],
        ..Request::new(left)
    };
    let world = world::observe(&site, &request.to).await;
    let plan = plan(undo, &world, &request).map_err(|refusal| Error::Undo {
        execution: execution.clone(),
        refusal: Box::new(refusal),
    })?;
    execute(site, plan, monitor).await
}

/// Tells whether an execution in place has taken a database down, or has claimed a timeline for it, and has not brought it up: then
/// the register names a primary that there is not, and only going on, or a move, makes one.
fn is_half_way(history: &History) -> bool {
    let plan = &history.plan;
    let opened = history.actions().any(|(place, progress)| {
        let done = !matches!(progress, Progress::Concluded(Outcome::NotDone { .. }));
        done && plan
            .step(&place.step)
            .is_some_and(|step| step.uses == open_epoch::NAME)
    });
    let is_down = |name: &ResourceName| {
        let target = Target::Resource(name.clone());
        let up = plan.steps.iter().any(|step| {
            let mut lanes = step.lanes.iter();
            let brings = |lane: &Lane| lane.target == target && comes_up(&lane.uses);
            lanes.any(brings) && history.is_over(&step.id)
        });
        // Whatever came of it, it has been told to stop, and to be a standby when it is started again.
        let stopped = history.actions().any(|(place, _)| {
            let step = plan.step(&place.step);
            step.filter(|step| step.uses == restart_database::NAME)
                .and_then(|step| step.lanes.get(place.lane))
                .filter(|lane| lane.target == target)
                .and_then(|lane| lane.actions.get(place.action))
                .is_some_and(|action| matches!(action.undo, Undo::Reversible(_)))
        });
        !up && (plan.claims.contains_key(name) || stopped)
    };
    opened && plan.loss.resources.keys().any(is_down)
}

impl History {
    /// Tells whether `dr execution abort` can end it, as far as the journal tells.
    #[must_use]
    pub fn may_be_aborted(&self) -> bool {
        !self.state().is_final() && refuse_what_stays(self).is_ok()
    }
}

fn has_changed(history: &History) -> Error {
    let execution = history.execution.clone();
    let forward = format!("go forward with `dr execution resume {execution}`");
    let (why, hint) = match (history.plan.mode, passed_return(history)) {
        (Mode::InPlace, _) => (
            "a database is down because of it".to_owned(),
            format!("{forward}; or leave the region: a failover out of it can be begun at once"),
        ),
        (_, Some(Ok(done))) => (
            format!("a point of no return was passed: {done}"),
            format!("{forward}, then move back"),
        ),
        (_, Some(Err(begun))) => (
            format!("a point of no return was passed, or nobody knows whether it was: {begun}"),
            format!("{forward}, which finds out, then move back"),
        ),
        (Mode::Undo, None) => ("it takes back a move itself".to_owned(), forward),
        (_, None) => (
            "the newest epoch is not the one that it has opened".to_owned(),
            "`dr status` shows who is primary; a new move can be begun".to_owned(),
        ),
    };
    Error::HasEffects {
        execution,
        why,
        residue: history.residue(),
        hint,
    }
}

async fn find(site: &Site, execution: &ExecutionId) -> Result<Found, Error> {
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

async fn take_over<'a>(
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
