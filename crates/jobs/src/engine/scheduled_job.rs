//! A schedule's job with everything that it works with, run by its schedule or on request, never twice at once.

use std::sync::Arc;

use dr_config::Schedule;
use dr_coordination::register::EpochRecord;
use dr_model::{Clock, RegionName, ResourceId, Retention};
use dr_provider::{Error, ErrorKind, ObjectStore, ResourceDriver, Result};
use tokio::sync::{Mutex, watch};

use super::board::{Board, Condition};
use super::register_watch::View;
use crate::{Job, JobContext, Outcome};

/// One entry of a schedule file, in the daemon of one region.
#[derive(Debug)]
pub struct ScheduledJob {
    pub(super) schedule: Schedule,
    pub(super) job: Arc<dyn Job>,
    pub(super) region: RegionName,
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) driver: Arc<dyn ResourceDriver>,
    pub(super) retention: Option<Retention>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) board: Arc<Board>,
    pub(super) views: watch::Receiver<View>,
    /// Held during a run.
    pub(super) running: Mutex<()>,
}

impl ScheduledJob {
    /// Returns the schedule.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Returns the resource that it is for.
    #[must_use]
    pub fn resource(&self) -> &ResourceId {
        &self.schedule.resource
    }

    /// Returns the name of its line on the board.
    pub(super) fn task(&self) -> String {
        format!("{} {}", self.schedule.name, self.schedule.resource)
    }

    /// Returns what the job works with under an epoch.
    fn context_of(&self, record: EpochRecord) -> JobContext {
        JobContext {
            region: self.region.clone(),
            store: Arc::clone(&self.store),
            resource: self.schedule.resource.clone(),
            driver: Arc::clone(&self.driver),
            record,
            retention: self.retention,
            clock: Arc::clone(&self.clock),
        }
    }

    /// Returns what the job works with under an epoch; `None` if its place is in another region.
    pub(super) fn context(&self, record: EpochRecord) -> Option<JobContext> {
        Some(self.context_of(record)).filter(|context| context.is_at(self.schedule.place))
    }

    /// Runs the job once, after a run that is under way.
    pub(super) async fn run(&self, context: &JobContext) -> Result<Outcome> {
        let _alone = self.running.lock().await;
        let began = context.clock.now();
        let outcome = self.job.run(context).await;
        self.board
            .count(self.schedule.name.as_str(), |runs| match &outcome {
                Ok(outcome) => {
                    runs.succeeded += 1;
                    runs.last_success = Some(began);
                    runs.figures.clone_from(&outcome.figures);
                }
                Err(_) => runs.failed += 1,
            });
        if let Ok(outcome) = &outcome {
            let condition = match &outcome.alarm {
                None => Condition::Good(outcome.summary.clone()),
                Some(alarm) => Condition::Bad(alarm.clone()),
            };
            self.board.set(&self.task(), condition);
        }
        outcome
    }

    /// Runs the job once because somebody asked for it.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the register cannot be read, `Invalid` if the job's place is in another region, and what the job
    /// itself says, which is neither `Invalid` nor `NotFound`.
    pub async fn run_now(&self) -> Result<Outcome> {
        let view = self.views.borrow().clone();
        let Some(record) = view.current().cloned() else {
            let why = view
                .problem
                .unwrap_or_else(|| "the register has not been read yet".to_owned());
            return Err(Error::new(ErrorKind::Unavailable, "run", self.task()).because(why));
        };
        let context = self.context_of(record);
        if !context.is_at(self.schedule.place) {
            return Err(context.elsewhere(self.schedule.name.as_str(), self.schedule.place));
        }
        self.run(&context)
            .await
            .map_err(|error| match error.kind() {
                // Those say to whoever asked that there is no such job here; what the job itself came upon is something else.
                ErrorKind::Invalid | ErrorKind::NotFound => {
                    let hint = error.hint().map(str::to_owned);
                    let made = Error::new(ErrorKind::Failed, "run", self.task()).because(error);
                    match hint {
                        Some(hint) => made.with_hint(hint),
                        None => made,
                    }
                }
                _ => error,
            })
    }
}
