//! Running one schedule's job when it is due, where its place is.
//!
//! What was done last is read from the stores, so a daemon that was away catches up with the newest occurrence it
//! missed, once.

use std::time::Duration;

use dr_config::Trigger;
use dr_provider::Result;
use tokio::sync::watch;

use super::board::Condition;
use super::scheduled_job::ScheduledJob;
use super::supervise::stopped;
use crate::JobContext;

/// How often a schedule that follows another looks for its work: the other may run in another region, whose daemon sends
/// no signals.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(5);

/// The longest sleep, so that a wall clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Runs the job when it is due, until the role of the region changes or `stop` turns true.
pub(super) async fn run_schedule(
    scheduled: &ScheduledJob,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut views = scheduled.views.clone();
    let record = views.borrow_and_update().current().cloned();
    let Some(context) = record.and_then(|record| scheduled.context(record)) else {
        let elsewhere = Condition::Good("its place is elsewhere".to_owned());
        scheduled.board.set(&scheduled.task(), elsewhere);
        tokio::select! {
            _changed = views.changed() => {}
            () = stopped(&mut stop) => {}
        }
        return Ok(());
    };
    loop {
        let wait = due_in(scheduled, &context).await?;
        if wait.is_zero() {
            scheduled.run(&context).await?;
        }
        let pause = match &scheduled.schedule.trigger {
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
async fn due_in(scheduled: &ScheduledJob, context: &JobContext) -> Result<Duration> {
    let Trigger::Cron(cron) = &scheduled.schedule.trigger else {
        return Ok(Duration::ZERO);
    };
    let now = context.clock.now();
    let Some(last) = scheduled.job.last_success(context).await? else {
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
