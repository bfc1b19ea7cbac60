//! Following a workload's register: who is primary now.
//!
//! The daemon of the region that holds the register also opens epoch 1, once every cluster of the workload is seen as a
//! running primary at home. Later epochs are opened by executions only.

use std::collections::BTreeMap;
use std::time::Duration;

use dr_coordination::register::{self, ClusterClaim, EpochRecord, FORMAT_VERSION};
use dr_model::{Clock, Epoch, RegionName};
use dr_provider::Result;
use dr_provider::driver::{Instance, Role};
use dr_provider::error::chain;
use tokio::sync::watch;

use super::board::{Board, Condition};
use super::daemon::{Identity, WorkloadSite};
use super::supervise::stopped;

/// How often the register is read. A seal, not this, stops a receiver; this only decides how soon roles change.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often what lies in all stores is held against it.
const AUDIT_INTERVAL: Duration = Duration::from_secs(60);

/// What is known of a workload's register.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// The newest record read; kept while the register cannot be read.
    pub record: Option<EpochRecord>,
    /// Why the register could not be read the last time.
    pub problem: Option<String>,
}

impl View {
    /// Returns the record if it may be acted on: the register was readable the last time (PROTOCOL 2).
    #[must_use]
    pub fn current(&self) -> Option<&EpochRecord> {
        self.record.as_ref().filter(|_| self.problem.is_none())
    }
}

/// Waits for an epoch other than that of the moment of the call: where the work is may be another place then.
pub(super) fn other_epoch(views: &watch::Receiver<View>) -> impl Future<Output = ()> + use<> {
    let mut views = views.clone();
    let epoch = |view: &View| view.record.as_ref().map(|record| record.epoch);
    let before = epoch(&views.borrow());
    async move {
        let changed = views.wait_for(|view| epoch(view) != before).await.is_ok();
        if !changed {
            std::future::pending::<()>().await;
        }
    }
}

/// Follows the register of `workload` until `stop` turns true.
pub(super) async fn watch_register(
    workload: &WorkloadSite,
    identity: &Identity,
    clock: &dyn Clock,
    board: &Board,
    views: watch::Sender<View>,
    mut stop: watch::Receiver<bool>,
) {
    let task = format!("register {}", workload.name);
    let mut seen = Seen::default();
    while !*stop.borrow() {
        let condition = tokio::select! {
            condition = look(workload, identity, clock, &views, &mut seen) => condition,
            // While a daemon ends commits may wait for the next one: no store that is slow to answer is waited for. What is cut off
            // is a reading, or something create-only that the next one repeats.
            () = stopped(&mut stop) => return,
        };
        board.set(&task, condition);
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stopped(&mut stop) => {}
        }
    }
}

/// What earlier looks came to.
#[derive(Debug, Default)]
struct Seen {
    /// The newest epoch whose record is copied to this region's store.
    copied: Option<Epoch>,
    /// When everything was last held against the register.
    audited: Option<Duration>,
}

/// Looks once, and tells those who follow.
async fn look(
    workload: &WorkloadSite,
    identity: &Identity,
    clock: &dyn Clock,
    views: &watch::Sender<View>,
    seen: &mut Seen,
) -> Condition {
    let read = match seen.audited {
        Some(at) if clock.elapsed().saturating_sub(at) < AUDIT_INTERVAL => {
            workload.register.follow().await
        }
        _ => {
            let read = workload.register.read().await;
            // One that is damaged stays so until a whole look says otherwise.
            seen.audited = matches!(read, Ok(Some(_))).then(|| clock.elapsed());
            read
        }
    };
    let read = match read {
        Ok(None) if workload.initial == identity.region => {
            open_first(workload, identity, clock).await
        }
        Ok(record) => Ok(record.ok_or_else(|| {
            format!(
                "waiting for the daemon of {} to open epoch 1",
                workload.initial
            )
        })),
        Err(error) => Err(error.into()),
    };
    match read {
        Ok(Ok(record)) => {
            views.send_if_modified(|view| {
                let next = View {
                    record: Some(record.clone()),
                    problem: None,
                };
                let changed = *view != next;
                *view = next;
                changed
            });
            // Receivers do not wait for the copies.
            publish(workload, identity, &record, &mut seen.copied).await
        }
        Ok(Err(waiting)) => Condition::Unknown(waiting),
        Err(error) => {
            let problem = chain(&error);
            views.send_if_modified(|view| {
                let changed = view.problem.as_ref() != Some(&problem);
                view.problem = Some(problem.clone());
                changed
            });
            Condition::Bad(problem)
        }
    }
}

/// Keeps copies of all records in this region's store, for reading when the register's own region is gone.
async fn publish(
    workload: &WorkloadSite,
    identity: &Identity,
    record: &EpochRecord,
    copied: &mut Option<Epoch>,
) -> Condition {
    if *copied != Some(record.epoch) {
        if let Err(error) = workload.register.copy_to(&identity.region).await {
            let error: dr_provider::Error = error.into();
            return Condition::Bad(format!(
                "the records cannot be copied here: {}",
                chain(&error)
            ));
        }
        *copied = Some(record.epoch);
    }
    Condition::Good(format!(
        "epoch {}: {} is primary",
        record.epoch, record.primary
    ))
}

/// Opens epoch 1, or says what it waits for.
async fn open_first(
    workload: &WorkloadSite,
    identity: &Identity,
    clock: &dyn Clock,
) -> Result<std::result::Result<EpochRecord, String>> {
    let home: &RegionName = &workload.home;
    let mut clusters = BTreeMap::new();
    let mut sync = BTreeMap::new();
    for (resource, driver) in &workload.resources {
        let facts = driver.observe(std::slice::from_ref(home)).await;
        let instance = facts.regions.get(home).map(|seen| &seen.instance);
        match (instance, facts.system_identifier) {
            (
                Some(Instance::Running {
                    role: Role::Primary,
                    timeline,
                    position,
                    ..
                }),
                Some(system_identifier),
            ) => {
                let claim = ClusterClaim {
                    system_identifier,
                    timeline: *timeline,
                    start_lsn: Some(*position),
                    log_epoch: None,
                };
                clusters.insert(resource.clone(), claim);
                sync.insert(
                    resource.clone(),
                    workload.sync.get(resource).cloned().unwrap_or_default(),
                );
            }
            (Some(Instance::Unreachable { why, .. }), _) => {
                return Ok(Err(format!("waiting for {resource} in {home}: {why}")));
            }
            _ => {
                return Ok(Err(format!(
                    "waiting for {resource} in {home} to be a running primary"
                )));
            }
        }
    }
    let record = EpochRecord {
        version: FORMAT_VERSION,
        epoch: Epoch::FIRST,
        workload: workload.name.clone(),
        primary: home.clone(),
        register: identity.region.clone(),
        clusters,
        sync,
        created_at: clock.now(),
        created_by: identity.actor.clone(),
        reason: "first epoch: the primary as found at home".to_owned(),
        sync_lost: std::collections::BTreeMap::new(),
        guards: std::collections::BTreeMap::new(),
        execution: None,
        override_reason: None,
    };
    match workload.register.create(&record).await {
        Ok(opened) => Ok(Ok(opened.record)),
        Err(register::Error::Lost { winner }) => Ok(Ok(*winner)),
        Err(error) => Err(error.into()),
    }
}
