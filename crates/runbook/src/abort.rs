//! Ends an execution that has promoted nothing, and undoes what it did.

use std::sync::Arc;

use dr_config::Runbook;
use dr_coordination::register::{self, EpochRecord};
use dr_model::{ExecutionId, ResourceName};
use dr_provider::driver::Undo;

use crate::events::Monitor;
use crate::execute::{Error, execute};
use crate::history::{History, Progress};
use crate::outcome::{Report, State};
use crate::plan::{Lane, Mode, Refusal, Target, comes_up, plan};
use crate::record::Outcome;
use crate::report::{has_effects, passed_return};
use crate::request::{Request, Statement};
use crate::resume::{find, take_over};
use crate::site::Site;
use crate::steps::{assess_region, open_epoch, restart_database};
use crate::world::{self, RegisterFacts, World};

/// What ending an execution came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Aborted {
    /// The execution that was ended; `None` if undoing it did not come to its end, which is to be resumed first.
    pub report: Option<Report>,
    /// The execution that undid it, if it had changed anything that is undone.
    pub undone_by: Option<Report>,
    /// What it has changed and stays, one line each, where nothing is undone: in its own region, and before it opened its epoch.
    pub stays: Vec<String>,
}

/// Ends an execution that has promoted nothing. If it has changed something, that is undone by an execution of its own, after
/// the runbook `undo`: a newer epoch, and the old primary as it was. If it has come no further than to the epoch that it was about to open,
/// that one is opened for the old primary, which keeps what it has. One in place is ended as it stands, unless a database is down
/// because of it.
///
/// Cut off anywhere, the same again goes on, or `resume` with the execution that undoes.
///
/// # Errors
///
/// As [`resume`](crate::resume()), and [`Error::HasEffects`] or [`Error::Undo`] if what it has changed cannot be undone.
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
        let ended = match say(&site, &world, executor.history()).await? {
            Say::Its => None,
            Say::Nobodys => Some((State::Aborted, reason.to_owned())),
            Say::Anothers(why) => Some((State::Superseded, why)),
        };
        if let Some((state, why)) = ended {
            // A runbook of one's own may have changed something before it came to its epoch.
            let stays = executor
                .history()
                .residue_of(|step| step.uses != open_epoch::NAME);
            let report = executor.end(state, why).await?;
            return Ok(Aborted {
                report: Some(report),
                undone_by,
                stays,
            });
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

/// Who has the say over a workload.
enum Say {
    /// The execution: it has opened the newest epoch, or nobody can see whether it has, which the plan of the undoing judges.
    Its,
    /// Nobody else, and it can open its epoch no more.
    Nobodys,
    /// Whoever has opened a newer one; who that is.
    Anothers(String),
}

/// Finds out who has the say. An epoch that the execution was about to open and has not is opened here, with everything as it is: its
/// former executor may be frozen in the middle of that write.
async fn say(site: &Site, world: &World, history: &History) -> Result<Say, Error> {
    let RegisterFacts::Proven(records) = &world.register else {
        return Ok(Say::Its);
    };
    let (execution, opens) = (&history.execution, history.plan.opens);
    let Some(head) = records.last() else {
        return Err(has_changed(history));
    };
    if head.execution.as_ref() == Some(execution) {
        return Ok(Say::Its);
    }
    if head.epoch >= opens {
        return Ok(Say::Anothers(assess_region::describe(head)));
    }
    if history.plan.register.unproven.is_some() || head.epoch.next() != opens {
        // Its epoch would be opened in another place than this one.
        return Err(has_changed(history));
    }
    let kept = EpochRecord {
        created_at: site.clock.now(),
        created_by: site.actor.clone(),
        reason: format!("execution {execution} was called off before it opened this epoch"),
        ..head.renewed()
    };
    match site.register.create(&kept).await {
        Ok(_) => Ok(Say::Nobodys),
        Err(register::Error::Lost { winner }) if winner.execution.as_ref() == Some(execution) => {
            Ok(Say::Its)
        }
        Err(register::Error::Lost { winner }) => {
            Ok(Say::Anothers(assess_region::describe(&winner)))
        }
        Err(error) => Err(Error::Undo {
            execution: execution.clone(),
            refusal: Box::new(Refusal::RegisterUnreachable {
                workload: site.workload.clone(),
                why: dr_provider::error::chain(&error),
                has_copy: false,
            }),
        }),
    }
}

pub(crate) fn refuse_what_stays(history: &History) -> Result<(), Error> {
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
            "nobody can tell here whether it can still open its epoch".to_owned(),
            forward,
        ),
    };
    Error::HasEffects {
        execution,
        why,
        residue: history.residue(),
        hint,
    }
}
