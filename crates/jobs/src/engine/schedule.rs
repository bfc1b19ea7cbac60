//! Running one schedule's job when it is due, where its place is.
//!
//! What was done last is read from the stores, so a daemon that was away catches up with the newest occurrence it
//! missed, once. One that failed is still missed: it is tried again after each of the growing pauses of whoever supervises it, and not
//! only when the next is due.

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use dr_config::{Cron, Place, Schedule};
    use dr_model::document::Span;
    use dr_model::{Clock, ManualClock};
    use dr_provider::store::MemoryStore;
    use dr_provider::{Error, ErrorKind};
    use jiff::Timestamp;
    use jiff::tz::TimeZone;
    use serde_json::Value;
    use tokio::sync::Mutex;

    use super::super::board::Board;
    use super::super::register_watch::other_epoch;
    use super::super::ship::tests::{Idle, first, resource, view};
    use super::super::supervise::supervise;
    use super::*;
    use crate::{Job, Outcome};

    /// A job whose store does not answer a few times.
    #[derive(Debug)]
    struct Flaky {
        failures: u32,
        runs: AtomicU32,
        succeeded_at: std::sync::Mutex<Timestamp>,
    }

    #[async_trait]
    impl Job for Flaky {
        fn name(&self) -> &'static str {
            "flaky"
        }

        async fn last_success(&self, _: &JobContext) -> Result<Option<Timestamp>> {
            Ok(Some(*self.succeeded_at.lock().unwrap()))
        }

        async fn run(&self, context: &JobContext) -> Result<Outcome> {
            if self.runs.fetch_add(1, Ordering::SeqCst) < self.failures {
                return Err(Error::new(ErrorKind::Unavailable, "write", "it"));
            }
            *self.succeeded_at.lock().unwrap() = context.clock.now();
            Ok(Outcome {
                summary: "done".to_owned(),
                detail: Value::Null,
                alarm: None,
                figures: Vec::new(),
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_failed_is_tried_again_before_it_is_due_again() {
        let now: Timestamp = "2026-11-21T02:00:05Z".parse().unwrap();
        let job = Arc::new(Flaky {
            failures: 3,
            runs: AtomicU32::new(0),
            succeeded_at: std::sync::Mutex::new("2026-11-20T02:00:00Z".parse().unwrap()),
        });
        // It stands still, so that no other occurrence comes.
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(now));
        let cron = Cron::new("0 2 * * *", TimeZone::UTC).unwrap();
        let (_views, views) = watch::channel(view(first()));
        let board = Arc::new(Board::default());
        let scheduled = ScheduledJob {
            schedule: Schedule {
                span: Span::new("orders.yaml", 1, 1),
                group: "orders".to_owned(),
                name: "daily".parse().unwrap(),
                job: "flaky".to_owned(),
                resource: resource(),
                place: Place::Primary,
                trigger: Trigger::Cron(cron),
                keep: None,
            },
            job: job.clone(),
            region: "us-east-1".parse().unwrap(),
            store: Arc::new(MemoryStore::new("here")),
            driver: Arc::new(Idle::default()),
            retention: None,
            clock,
            board: Arc::clone(&board),
            views,
            running: Mutex::new(()),
        };
        let (stop, stopped) = watch::channel(false);
        let watching = async {
            while scheduled
                .board
                .runs()
                .values()
                .all(|runs| runs.succeeded == 0)
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            stop.send_replace(true);
        };
        let wait = (Duration::from_secs(300), || other_epoch(&scheduled.views));
        let task = scheduled.task();
        let work = supervise(wait, &task, &board, stopped.clone(), || {
            run_schedule(&scheduled, stopped.clone())
        });
        let both = async { tokio::join!(work, watching) };
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, both).await.unwrap();
        assert_eq!(job.runs.load(Ordering::SeqCst), 4);
        let condition = board.conditions().remove(&task);
        assert_eq!(condition, Some(Condition::Good("done".to_owned())));
        assert_eq!(board.failures(), 1);
    }
}
