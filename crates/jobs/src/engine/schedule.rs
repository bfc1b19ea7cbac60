//! Running one schedule's job when it is due, where its place is.
//!
//! What was done last is read from the stores, so a daemon that was away catches up with the newest occurrence it
//! missed, once.

use std::sync::Arc;
use std::time::Duration;

use dr_config::{Place, Schedule, Trigger};
use dr_coordination::register::EpochRecord;
use dr_model::RegionName;
use dr_provider::Result;
use tokio::sync::watch;

use super::board::{Board, Condition};
use super::register_watch::View;
use super::supervise::stopped;
use crate::{Job, JobContext};

/// How often a schedule that follows another looks for its work: the other may run in another region, whose daemon sends
/// no signals.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(5);

/// The longest sleep, so that a wall clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Tells whether `place` is `region` under the newest epoch.
pub(super) fn is_here(place: Place, region: &RegionName, record: &EpochRecord) -> bool {
    match place {
        Place::Primary => record.primary == *region,
        Place::Recovery => record.primary != *region,
        Place::All => true,
    }
}

/// Runs the job when it is due, until the role of the region changes or `stop` turns true.
pub(super) async fn run_schedule(
    schedule: &Schedule,
    job: &Arc<dyn Job>,
    context: impl Fn(EpochRecord) -> JobContext,
    board: &Board,
    mut views: watch::Receiver<View>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let task = format!("{} {}", schedule.name, schedule.resource);
    let record = views.borrow_and_update().current().cloned();
    let context = record
        .map(&context)
        .filter(|c| is_here(schedule.place, &c.region, &c.record));
    let Some(context) = context else {
        board.set(&task, Condition::Good("its place is elsewhere".to_owned()));
        tokio::select! {
            _changed = views.changed() => {}
            () = stopped(&mut stop) => {}
        }
        return Ok(());
    };
    loop {
        let wait = due_in(schedule, job, &context).await?;
        if wait.is_zero() {
            run(schedule, job, &context, board, &task).await?;
        }
        let pause = match &schedule.trigger {
            Trigger::After(_) => FOLLOW_INTERVAL,
            _ => wait.clamp(Duration::from_millis(100), LONGEST_SLEEP),
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _changed = views.changed() => return Ok(()),
            () = stopped(&mut stop) => return Ok(()),
        }
    }
}

/// Returns how long it is until the job is due; zero if an occurrence was missed or it never ran.
async fn due_in(schedule: &Schedule, job: &Arc<dyn Job>, context: &JobContext) -> Result<Duration> {
    let Trigger::Cron(cron) = &schedule.trigger else {
        return Ok(Duration::ZERO);
    };
    let now = context.clock.now();
    let Some(last) = job.last_success(context).await? else {
        return Ok(Duration::ZERO);
    };
    let missed = cron
        .at_or_before(now)
        .is_some_and(|occurrence| last < occurrence);
    if missed {
        return Ok(Duration::ZERO);
    }
    // A pattern that never matches again has no next time; it is looked at again after the longest sleep.
    let next = cron.after(now).map_or(LONGEST_SLEEP, |next| {
        Duration::try_from(next.duration_since(now)).unwrap_or(Duration::ZERO)
    });
    Ok(next.max(Duration::from_millis(1)))
}

async fn run(
    schedule: &Schedule,
    job: &Arc<dyn Job>,
    context: &JobContext,
    board: &Board,
    task: &str,
) -> Result<()> {
    let began = context.clock.now();
    let outcome = job.run(context).await;
    board.count(schedule.name.as_str(), |runs| match &outcome {
        Ok(_) => {
            runs.succeeded += 1;
            runs.last_success = Some(began);
        }
        Err(_) => runs.failed += 1,
    });
    board.set(task, Condition::Good(outcome?.summary));
    Ok(())
}
