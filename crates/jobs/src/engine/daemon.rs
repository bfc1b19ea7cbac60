//! Starting and stopping all tasks of a region's daemon.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dr_config::Schedule;
use dr_coordination::Actor;
use dr_coordination::register::Register;
use dr_model::{Clock, RegionName, ResourceId, ResourceName, WorkloadName};
use dr_provider::{ObjectStore, ResourceDriver};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use super::board::Board;
use super::heartbeat::beat;
use super::register_watch::{View, other_epoch, watch_register};
use super::roster::Roster;
use super::schedule::run_schedule;
use super::scheduled_job::ScheduledJob;
use super::ship::ship;
use super::supervise::supervise;
use crate::{ShipWal, registry, retention};

/// The longest pause after a failure of what has to go on at once when it can.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The longest pause after a job that failed. What fails again and again takes the room and the bandwidth of what does not: a snapshot
/// into a full store that of the log.
const LONGEST_JOB_PAUSE: Duration = Duration::from_secs(5 * 60);

/// How old a record may be that the daemon begins with: it waits at most this long for one that it takes over from.
const LATELY: Duration = Duration::from_secs(30);

/// A workload as the daemon serves it.
#[derive(Clone, Debug)]
pub struct WorkloadSite {
    /// Its name.
    pub name: WorkloadName,
    /// Where it is at home.
    pub home: RegionName,
    /// The region whose store holds record 1 of the register.
    pub initial: RegionName,
    /// Its register.
    pub register: Register,
    /// Its resources' drivers.
    pub resources: BTreeMap<ResourceName, Arc<dyn ResourceDriver>>,
    /// The regions whose stores commits wait for, by resource.
    pub sync: BTreeMap<ResourceName, Vec<RegionName>>,
}

/// Who the daemon is.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) region: RegionName,
    pub(super) actor: Actor,
}

/// When a daemon's tasks end: whoever ends all of them ends the jobs too.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Turns true when everything ends.
    pub all: watch::Receiver<bool>,
    /// Turns true when the scheduled jobs end, and no later than `all`.
    pub jobs: watch::Receiver<bool>,
}

/// Which of a daemon's tasks have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// The scheduled jobs.
    pub jobs: bool,
    /// What follows the log, the register and the heartbeat.
    pub streams: bool,
}

/// A region's daemon.
#[derive(Debug)]
pub struct Daemon {
    identity: Identity,
    store: Arc<dyn ObjectStore>,
    workloads: Vec<Arc<WorkloadSite>>,
    schedules: Vec<Schedule>,
    clock: Arc<dyn Clock>,
    board: Arc<Board>,
    roster: Arc<Roster>,
}

impl Daemon {
    /// Makes the daemon of `region`, whose store is `store`; starts nothing.
    #[must_use]
    pub fn new(
        region: RegionName,
        actor: Actor,
        store: Arc<dyn ObjectStore>,
        workloads: Vec<WorkloadSite>,
        schedules: Vec<Schedule>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            identity: Identity { region, actor },
            store,
            workloads: workloads.into_iter().map(Arc::new).collect(),
            schedules,
            clock,
            board: Arc::default(),
            roster: Arc::default(),
        }
    }

    /// Returns the board that its tasks write on.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Returns the list of its scheduled jobs, which fills when it runs.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster)
    }

    /// Runs all tasks until each has come to a clean end: the jobs once `ends.jobs` or `ends.all` turns true, and what follows
    /// the log, the register and the heartbeat once `ends.all` does. `ended` says which have.
    pub async fn run(&self, ends: Ends, ended: &watch::Sender<Ended>) {
        let (mut tasks, mut jobs) = (JoinSet::new(), JoinSet::new());
        let stop = ends.all;
        for workload in &self.workloads {
            // What this process read before it took over, so that commits that wait need not wait for another reading.
            let known = View {
                record: workload.register.read_lately(LATELY),
                problem: None,
            };
            let (sender, views) = watch::channel(known);
            self.start_register(&mut tasks, workload, sender, &stop);
            for (name, driver) in &workload.resources {
                let resource = ResourceId {
                    workload: workload.name.clone(),
                    resource: name.clone(),
                };
                self.start_heartbeat(&mut tasks, &resource, driver, &views, &stop);
                self.start_shipping(&mut tasks, &resource, driver, &views, &stop);
                self.start_jobs(&mut jobs, &resource, driver, &views, &ends.jobs);
            }
        }
        let jobs = async {
            all_ended(jobs).await;
            ended.send_modify(|ended| ended.jobs = true);
        };
        let streams = async {
            all_ended(tasks).await;
            ended.send_modify(|ended| ended.streams = true);
        };
        tokio::join!(streams, jobs);
    }

    fn start_register(
        &self,
        tasks: &mut JoinSet<()>,
        workload: &Arc<WorkloadSite>,
        views: watch::Sender<View>,
        stop: &watch::Receiver<bool>,
    ) {
        let (workload, identity) = (Arc::clone(workload), self.identity.clone());
        let (clock, board, stop) = (Arc::clone(&self.clock), self.board(), stop.clone());
        tasks.spawn(async move {
            watch_register(&workload, &identity, &*clock, &board, views, stop).await;
        });
    }

    fn start_heartbeat(
        &self,
        tasks: &mut JoinSet<()>,
        resource: &ResourceId,
        driver: &Arc<dyn ResourceDriver>,
        views: &watch::Receiver<View>,
        stop: &watch::Receiver<bool>,
    ) {
        let (resource, driver, identity) =
            (resource.clone(), Arc::clone(driver), self.identity.clone());
        let (board, views, stop) = (self.board(), views.clone(), stop.clone());
        tasks.spawn(async move {
            let task = format!("heartbeat {resource}");
            // What fails because the primary has just gone elsewhere is not wrong for as long as a pause takes.
            let wait = (LONGEST_PAUSE, || other_epoch(&views));
            supervise(wait, &task, &board, stop.clone(), || {
                beat(
                    &resource,
                    &driver,
                    &identity,
                    &board,
                    views.clone(),
                    stop.clone(),
                )
            })
            .await;
        });
    }

    fn start_shipping(
        &self,
        tasks: &mut JoinSet<()>,
        resource: &ResourceId,
        driver: &Arc<dyn ResourceDriver>,
        views: &watch::Receiver<View>,
        stop: &watch::Receiver<bool>,
    ) {
        let shipped = |schedule: &&Schedule| schedule.job == ShipWal::NAME;
        for _ in self.schedules_of(resource).filter(shipped) {
            let (resource, board) = (resource.clone(), self.board());
            let (views, stop, store) = (views.clone(), stop.clone(), Arc::clone(&self.store));
            let stream = ShipWal {
                region: self.identity.region.clone(),
                driver: Arc::clone(driver),
            };
            tasks.spawn(async move {
                let task = format!("{} {resource}", ShipWal::NAME);
                let wait = (LONGEST_PAUSE, || other_epoch(&views));
                supervise(wait, &task, &board, stop.clone(), || {
                    ship(
                        &resource,
                        &stream,
                        &store,
                        &board,
                        views.clone(),
                        stop.clone(),
                    )
                })
                .await;
            });
        }
    }

    fn schedules_of(&self, resource: &ResourceId) -> impl Iterator<Item = &Schedule> {
        let of = move |schedule: &&Schedule| schedule.resource == *resource;
        self.schedules.iter().filter(of)
    }

    fn start_jobs(
        &self,
        tasks: &mut JoinSet<()>,
        resource: &ResourceId,
        driver: &Arc<dyn ResourceDriver>,
        views: &watch::Receiver<View>,
        stop: &watch::Receiver<bool>,
    ) {
        let is_job = |schedule: &&Schedule| schedule.job != ShipWal::NAME;
        for schedule in self.schedules_of(resource).filter(is_job) {
            let driver = Arc::clone(driver);
            let (board, views, stop) = (self.board(), views.clone(), stop.clone());
            let Some(job) = registry::job(&schedule.job) else {
                // The configuration was checked against the registry when it was loaded.
                tracing::error!(job = schedule.job, "no such job");
                continue;
            };
            let scheduled = Arc::new(ScheduledJob {
                schedule: schedule.clone(),
                job,
                region: self.identity.region.clone(),
                store: Arc::clone(&self.store),
                driver,
                retention: retention(&self.schedules, &schedule.resource),
                clock: Arc::clone(&self.clock),
                board: Arc::clone(&board),
                views,
                running: Mutex::new(()),
            });
            self.roster.add(Arc::clone(&scheduled));
            tasks.spawn(async move {
                let wait = (LONGEST_JOB_PAUSE, || other_epoch(&scheduled.views));
                supervise(wait, &scheduled.task(), &board, stop.clone(), || {
                    run_schedule(&scheduled, stop.clone())
                })
                .await;
            });
        }
    }
}

async fn all_ended(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            // A task that panicked is a defect of ours: end as loudly as it did.
            std::panic::resume_unwind(panic);
        }
    }
}

#[cfg(test)]
mod tests;
