//! What the daemon answers with over HTTP: its board, asked anew at each request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dr_jobs::engine::{Board, Condition};
use dr_model::{Clock, RegionName, WorkloadName};
use dr_server::{Component, Family, Health, Source, Status};

use super::check_readiness::CheckReadiness;
use super::metrics;
use super::watch_primary::WatchPrimaries;
use super::watch_writers::WatchWriters;
use crate::wiring::Setup;

/// The daemon as its server sees it.
pub(super) struct DaemonSource {
    region: RegionName,
    board: Arc<Board>,
    clock: Arc<dyn Clock>,
    started: Duration,
    objectives: BTreeMap<WorkloadName, dr_config::Objectives>,
    readiness: Arc<CheckReadiness>,
    primaries: Arc<WatchPrimaries>,
    writers: Arc<WatchWriters>,
}

impl DaemonSource {
    pub(super) fn new(
        setup: &Setup,
        region: RegionName,
        board: Arc<Board>,
        readiness: Arc<CheckReadiness>,
        primaries: Arc<WatchPrimaries>,
        writers: Arc<WatchWriters>,
    ) -> Self {
        let objectives = setup.config.workloads.iter();
        Self {
            region,
            board,
            started: setup.clock.elapsed(),
            clock: Arc::clone(&setup.clock),
            objectives: objectives
                .map(|(name, workload)| (name.clone(), workload.objectives))
                .collect(),
            readiness,
            primaries,
            writers,
        }
    }

    fn uptime(&self) -> Duration {
        self.clock.elapsed().saturating_sub(self.started)
    }
}

impl Source for DaemonSource {
    fn health(&self) -> Health {
        let conditions = self.board.conditions();
        // Each task writes its line once it has been looked after for the first time.
        let started = !conditions.is_empty();
        let checks = conditions.into_iter().map(|(task, condition)| {
            let (status, detail) = match condition {
                Condition::Good(detail) => (Status::Healthy, detail),
                Condition::Unknown(detail) => (Status::Unknown, detail),
                Condition::Bad(detail) => (Status::Unhealthy, detail),
            };
            (task, Component { status, detail })
        });
        Health::new(
            env!("CARGO_PKG_VERSION"),
            self.region.to_string(),
            self.uptime().as_secs_f64(),
            started,
            checks.collect(),
        )
    }

    fn metrics(&self) -> Vec<Family> {
        metrics::families(&metrics::Snapshot {
            region: &self.region,
            now: self.clock.now(),
            uptime: self.uptime(),
            frontiers: self.board.frontiers(),
            runs: self.board.runs(),
            conditions: self.board.conditions(),
            objectives: &self.objectives,
            readiness: self.readiness.known(),
            primaries: self.primaries.states(),
            writers: self.writers.seen(),
        })
    }
}
