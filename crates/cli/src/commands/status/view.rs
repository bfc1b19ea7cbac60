//! What `dr status` shows; with `--json`, as it is.

use std::collections::BTreeMap;

use dr_coordination::outage::{Proposal, Sign};
use dr_model::{Epoch, Lsn, RegionName, ResourceName, SystemIdentifier, TimelineId, WorkloadName};
use dr_postgres::Slot;
use dr_provider::driver::Instance;
use dr_runbook::executions::Summary;
use jiff::Timestamp;
use serde::Serialize;

use crate::readiness::Readiness;

/// How something is measured against what was promised. What is not known is not met (principle 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Ok,
    Unknown,
    Breach,
}

/// The whole.
#[derive(Debug, Serialize)]
pub(super) struct StatusView {
    pub(super) observed_at: Timestamp,
    /// The worst of all workloads and daemons.
    pub(super) verdict: Verdict,
    pub(super) workloads: Vec<WorkloadView>,
    /// What each daemon says of itself, as far as it can be reached from here.
    pub(super) daemons: Vec<DaemonView>,
}

/// One workload.
#[derive(Debug, Serialize)]
pub(super) struct WorkloadView {
    pub(super) workload: WorkloadName,
    pub(super) verdict: Verdict,
    /// Whether losing the primary's region now would keep within the objective; `None` if that
    /// cannot be told.
    pub(super) protected: Option<bool>,
    /// Whether servers of one cluster accept writes in two regions.
    pub(super) two_primaries: bool,
    /// Why it is not ok, one line each.
    pub(super) reasons: Vec<String>,
    pub(super) rpo_seconds: f64,
    pub(super) rto_seconds: f64,
    /// Exposure in the recovery region that has the least, the largest over the resources.
    pub(super) exposure_seconds: Option<f64>,
    pub(super) epoch: Option<Epoch>,
    pub(super) primary: Option<RegionName>,
    pub(super) register: RegisterView,
    pub(super) resources: Vec<ResourceView>,
    pub(super) traffic: Vec<TrafficView>,
    /// The outage of its primary that a daemon has written down, if one goes on.
    pub(super) outage: Option<OutageView>,
    /// What a failover that began now would do, by the region moved to.
    pub(super) failovers: Vec<Readiness>,
    /// Executions that have not ended.
    pub(super) executions: Vec<Summary>,
}

/// An outage of a primary, as the daemon of another region has written it down.
#[derive(Debug, Serialize)]
pub(super) struct OutageView {
    pub(super) primary: RegionName,
    /// The region that it was seen from.
    pub(super) seen_from: RegionName,
    pub(super) last_answered_at: Option<Timestamp>,
    pub(super) last_sign: Sign,
    pub(super) first_missed_at: Timestamp,
    pub(super) detected_at: Timestamp,
    /// Whether those who are to be told were told.
    pub(super) told: bool,
    /// What to do about it; nothing is done by itself.
    pub(super) proposal: Proposal,
}

/// The register.
#[derive(Debug, Serialize)]
pub(super) struct RegisterView {
    /// The region whose store decides about the next epoch.
    pub(super) region: Option<RegionName>,
    /// Whether the newest record was read where it counts; otherwise it is the newest copy.
    pub(super) proven: bool,
    /// Whether records are missing or are not what they should be: then nothing is decided by it.
    pub(super) damaged: bool,
    pub(super) problem: Option<String>,
}

/// One resource.
#[derive(Debug, Serialize)]
pub(super) struct ResourceView {
    pub(super) resource: ResourceName,
    pub(super) system_identifier: Option<SystemIdentifier>,
    /// Regions whose stores commits wait for, as the newest epoch says.
    pub(super) sync: Vec<RegionName>,
    /// Where synchronous mode was lost by itself, if it was.
    pub(super) sync_lost_since: Option<Lsn>,
    pub(super) regions: Vec<RegionView>,
    /// Slots on the primary, with what they keep; `None` if it could not be asked.
    pub(super) slots: Option<Vec<Slot>>,
}

/// A resource in one region.
#[derive(Debug, Serialize)]
pub(super) struct RegionView {
    pub(super) region: RegionName,
    /// `primary`, `recovery`, or `unknown` while nobody can tell.
    pub(super) role: &'static str,
    pub(super) instance: Instance,
    pub(super) log: Option<LogView>,
    /// Why the store could not be seen.
    pub(super) log_problem: Option<String>,
    pub(super) exposure_seconds: Option<f64>,
    pub(super) recovery_points: usize,
    pub(super) newest_recovery_point: Option<PointView>,
}

/// What a store holds of the log.
#[derive(Debug, Serialize)]
pub(super) struct LogView {
    pub(super) epoch: Epoch,
    pub(super) timeline: TimelineId,
    pub(super) start: Lsn,
    pub(super) end: Lsn,
    /// Log that is known to be missing, one line each.
    pub(super) missing: Vec<String>,
    pub(super) sealed: bool,
    pub(super) received_at: Option<Timestamp>,
    /// When a daemon last wrote of it.
    pub(super) shipped_at: Option<Timestamp>,
    pub(super) covered_at: Option<Timestamp>,
    /// Whether the conditions of synchronous mode held when they were last looked at.
    pub(super) promise_held: Option<bool>,
    /// When that was.
    pub(super) promise_checked_at: Option<Timestamp>,
    /// Why they did not hold, one line each.
    pub(super) promise_reasons: Vec<String>,
}

/// A recovery point.
#[derive(Debug, Serialize)]
pub(super) struct PointView {
    pub(super) label: String,
    pub(super) started_at: Timestamp,
    pub(super) age_seconds: f64,
}

/// What leads clients to a region.
#[derive(Debug, Serialize)]
pub(super) struct TrafficView {
    pub(super) name: String,
    pub(super) region: Option<RegionName>,
    pub(super) answer: Option<String>,
    pub(super) epoch: Option<Epoch>,
    pub(super) ttl_seconds: Option<u32>,
    pub(super) problem: Option<String>,
    /// Other name servers, and resolvers, that answer otherwise, and what.
    pub(super) elsewhere: BTreeMap<String, String>,
    /// Those that do not answer, and why.
    pub(super) silent: BTreeMap<String, String>,
}

/// A daemon.
#[derive(Debug, Serialize)]
pub(crate) struct DaemonView {
    pub(crate) region: RegionName,
    /// `healthy`, `unknown` or `unhealthy`, as it says itself; `None` if it cannot be reached.
    pub(crate) status: Option<String>,
    pub(crate) uptime_seconds: Option<f64>,
    /// When its store last took log of any workload, by its clock: what is known of a daemon that cannot be asked from here.
    pub(crate) took_log_at: Option<Timestamp>,
    /// The process that it was, if it was killed on this machine, or died, and none came after it.
    pub(crate) died: Option<u32>,
    /// What is not healthy, or why it cannot be reached.
    pub(crate) problems: Vec<String>,
}
