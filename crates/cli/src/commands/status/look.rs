//! Looking at one workload, everything at once and each look with a limit. What cannot be seen says
//! so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dr_config::Workload;
use dr_coordination::outage;
use dr_coordination::register::{self, EpochRecord, Register};
use dr_model::{RegionName, ResourceId, ResourceName, WorkloadName};
use dr_postgres::{Slot, StandbyPolicy};
use dr_provider::driver::{Facts, Instance, LogFacts, PromiseFacts, RegionFacts};
use dr_provider::error::chain;
use dr_provider::traffic::Apart;
use dr_provider::{ResourceDriver, Traffic};
use dr_runbook::executions;
use futures::future::{join, join_all};
use jiff::Timestamp;
use serde_json::Value;

use super::judge::{self, both, exposure};
use super::view::{
    DaemonView, LogView, OutageView, PointView, RegionView, RegisterView, ResourceView,
    TrafficView, Verdict, WorkloadView,
};
use crate::error::Result;
use crate::exit::Exit;
use crate::readiness;
use crate::wiring::Setup;

/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Looks at a workload.
pub(super) async fn look(
    setup: &Setup,
    name: WorkloadName,
    workload: &Workload,
) -> Result<WorkloadView> {
    let regions: Vec<RegionName> = std::iter::once(&workload.home)
        .chain(&workload.recovery)
        .cloned()
        .collect();
    let register = setup.register(&name, workload);
    let drivers = setup.drivers(&name, workload)?;
    let records = setup.traffic(workload)?;
    let resources = join_all(
        drivers
            .iter()
            .map(|(name, driver)| facts(setup, name, driver, &regions)),
    );
    let ((record, register), facts, traffic, (found, unseen), failovers, others) = tokio::join!(
        newest(&register),
        resources,
        join_all(records.iter().map(traffic)),
        executions::list(&setup.stores, &setup.clock),
        readiness::all(setup, &name, workload),
        of_others(setup, &regions),
    );
    let failovers = failovers?;
    let mut facts: BTreeMap<ResourceName, Facts> = facts.into_iter().collect();
    let (record, register) = without_others(&others, &mut facts, record, register);
    let slots = slots(setup, &name, &facts, record.as_ref()).await?;
    let rpo = workload.objectives.rpo;
    let warm = warm(setup, &name, workload)?;
    let judged = judge::workload(
        &regions,
        record.as_ref(),
        &register,
        &facts,
        &traffic,
        &warm,
        rpo,
    );
    let goes_on = |summary: &executions::Summary| {
        summary.workload == name
            && record
                .as_ref()
                .map_or(!summary.state.is_final(), |head| summary.may_go_on(head))
    };
    let outage = match &record {
        Some(record) => self::outage(setup, &name, record).await,
        None => None,
    };
    let exposure_seconds = judged.protection.exposure_seconds;
    let protected = judged.protection.verdict;
    let judgement = both(judged.protection, judged.rest);
    let judgement = both(judgement, judge::commits(record.as_ref(), &slots));
    let judgement = both(judgement, judge::failovers(&failovers));
    let judgement = both(judgement, judge::outage(outage.as_ref()));
    let judgement = both(judgement, judge::clock(facts.values(), setup.clock.now()));
    let executions: Vec<_> = found.into_iter().filter(goes_on).collect();
    let judgement = both(judgement, judge::executions(&executions));
    let mut reasons = judgement.reasons;
    // Executions in a store that cannot be seen change nothing that is measured here; they are
    // worth a line.
    reasons.extend(unseen);
    Ok(WorkloadView {
        protected: match protected {
            Verdict::Ok => Some(true),
            Verdict::Breach => Some(false),
            Verdict::Unknown => None,
        },
        verdict: judgement.verdict,
        exposure_seconds,
        two_primaries: judge::two_primaries(&facts),
        reasons,
        rpo_seconds: workload.objectives.rpo.as_secs_f64(),
        rto_seconds: workload.objectives.rto.as_secs_f64(),
        epoch: record.as_ref().map(|record| record.epoch),
        primary: record.as_ref().map(|record| record.primary.clone()),
        register,
        resources: facts
            .iter()
            .map(|(name, facts)| {
                let slots = slots.get(name).cloned();
                resource(name, facts, record.as_ref(), slots)
            })
            .collect(),
        traffic,
        outage,
        failovers,
        executions,
        workload: name,
    })
}

/// Finds the stores that stand in the place of a region's and are another's, by what is wrong with each. One that does not answer, or
/// that nobody has initialised, says so to whoever reads it.
async fn of_others(setup: &Setup, regions: &[RegionName]) -> BTreeMap<RegionName, String> {
    let looks = regions.iter().map(|region| async move {
        let look = tokio::time::timeout(LIMIT, setup.identity(region)).await;
        let error = look.ok()?.err()?;
        (error.exit == Exit::Refused).then(|| (region.clone(), error.message))
    });
    join_all(looks).await.into_iter().flatten().collect()
}

/// Leaves out what such stores hold: none of it protects this region, and their register is not its register.
fn without_others(
    others: &BTreeMap<RegionName, String>,
    facts: &mut BTreeMap<ResourceName, Facts>,
    record: Option<EpochRecord>,
    mut register: RegisterView,
) -> (Option<EpochRecord>, RegisterView) {
    for (region, why) in others {
        for facts in facts.values_mut() {
            if let Some(seen) = facts.regions.get_mut(region) {
                seen.log = Err(why.clone());
            }
        }
        if register.region.as_ref() == Some(region) || register.damaged {
            register.proven = false;
            register.damaged = false;
            register.problem = Some(why.clone());
        }
    }
    (record, register)
}

/// Asks the primaries that answer what they keep for the receivers.
async fn slots(
    setup: &Setup,
    workload: &WorkloadName,
    facts: &BTreeMap<ResourceName, Facts>,
    record: Option<&EpochRecord>,
) -> Result<BTreeMap<ResourceName, Vec<Slot>>> {
    let mut found = BTreeMap::new();
    for (resource, facts) in facts {
        let Some(EpochRecord { primary, .. }) = record else {
            continue;
        };
        let seen = facts.regions.get(primary);
        if !seen.is_some_and(|seen| matches!(seen.instance, Instance::Running { .. })) {
            continue;
        }
        let driver = setup.postgres(&ResourceId {
            workload: workload.clone(),
            resource: resource.clone(),
        })?;
        if let Ok(Ok(slots)) = tokio::time::timeout(LIMIT, driver.slots_of(primary)).await {
            found.insert(resource.clone(), slots);
        }
    }
    Ok(found)
}

/// Returns where a standby is kept running.
fn warm(setup: &Setup, name: &WorkloadName, workload: &Workload) -> Result<judge::Warm> {
    let mut warm = judge::Warm::new();
    for resource in workload.resources.keys() {
        let options = setup.postgres_options(&ResourceId {
            workload: name.clone(),
            resource: resource.clone(),
        })?;
        let regions = options.instances.into_iter();
        let regions = regions.filter(|(_, instance)| instance.standby == StandbyPolicy::Warm);
        warm.insert(
            resource.clone(),
            regions.map(|(region, _)| region).collect(),
        );
    }
    Ok(warm)
}

/// Looks for an outage that goes on, in the stores of the regions that could have seen it.
async fn outage(setup: &Setup, name: &WorkloadName, record: &EpochRecord) -> Option<OutageView> {
    let stores = setup.stores.iter();
    let others = stores.filter(|(region, _)| **region != record.primary);
    let looks = others.map(|(_, store)| async move {
        let look = outage::newest(&**store, name, record.epoch);
        tokio::time::timeout(LIMIT, look).await.ok()?.ok()?
    });
    let seen = join_all(looks).await.into_iter().flatten();
    let seen = seen
        .filter(|seen| !seen.ended)
        .min_by_key(|seen| seen.outage.detected_at)?;
    let outage = seen.outage;
    Some(OutageView {
        primary: outage.primary,
        seen_from: outage.seen_from,
        last_answered_at: outage.last_answered_at,
        last_sign: outage.last_sign,
        first_missed_at: outage.first_missed_at,
        detected_at: outage.detected_at,
        told: seen.told,
        proposal: outage.proposal,
    })
}

/// Reads the newest record where it counts, or else the newest copy.
async fn newest(register: &Register) -> (Option<EpochRecord>, RegisterView) {
    let (proven, copies) = join(
        tokio::time::timeout(LIMIT, register.read()),
        tokio::time::timeout(LIMIT, register.read_copies()),
    )
    .await;
    let mut damaged = false;
    let problem = match proven {
        Ok(Ok(record)) => {
            let region = record.as_ref().map(|record| record.register.clone());
            return (
                record,
                RegisterView {
                    region,
                    proven: true,
                    damaged: false,
                    problem: None,
                },
            );
        }
        Ok(Err(error)) => {
            damaged = matches!(error, register::Error::Damaged { .. });
            match error.hint() {
                Some(hint) if damaged => format!("{error}; {hint}"),
                _ => chain(&error),
            }
        }
        Err(_) => format!("no answer within {LIMIT:?}"),
    };
    let copies = copies.unwrap_or_default();
    let newest = copies
        .into_iter()
        .filter_map(|copy| copy.newest.ok().flatten())
        .max_by_key(|record| record.epoch);
    let region = newest.as_ref().map(|record| record.register.clone());
    (
        newest,
        RegisterView {
            region,
            proven: false,
            damaged,
            problem: Some(problem),
        },
    )
}

async fn facts(
    setup: &Setup,
    name: &ResourceName,
    driver: &Arc<dyn ResourceDriver>,
    regions: &[RegionName],
) -> (ResourceName, Facts) {
    // Apart from each other, so that a region that hangs hides no other.
    let looks = regions.iter().map(|region| async move {
        let look = driver.observe(std::slice::from_ref(region));
        (region, tokio::time::timeout(LIMIT, look).await)
    });
    let mut all = Facts {
        observed_at: setup.clock.now(),
        system_identifier: None,
        claim: None,
        regions: BTreeMap::new(),
    };
    for (region, found) in join_all(looks).await {
        match found {
            Ok(facts) => {
                all.system_identifier = all.system_identifier.or(facts.system_identifier);
                all.claim = all.claim.or(facts.claim);
                all.regions.extend(facts.regions);
            }
            Err(_) => {
                let why = format!("no answer within {LIMIT:?}");
                let instance = Instance::Unreachable {
                    why: why.clone(),
                    runs: false,
                    on_host: false,
                    hint: None,
                };
                all.regions.insert(
                    region.clone(),
                    RegionFacts {
                        instance,
                        log: Err(why),
                        detail: Value::Null,
                        late: Vec::new(),
                    },
                );
            }
        }
    }
    let now = setup.clock.now();
    // What somebody has seen already is not in the future: a clock that is behind would make every exposure smaller.
    all.observed_at = judge::newest(&all).map_or(now, |newest| newest.max(now));
    (name.clone(), all)
}

async fn traffic(record: &Arc<dyn Traffic>) -> TrafficView {
    let name = record.describe();
    let none = TrafficView {
        name,
        region: None,
        answer: None,
        epoch: None,
        ttl_seconds: None,
        problem: None,
        elsewhere: BTreeMap::new(),
        silent: BTreeMap::new(),
    };
    let observe = tokio::time::timeout(LIMIT, record.observe());
    let (observed, views) = tokio::join!(observe, tokio::time::timeout(LIMIT, record.views()));
    match observed {
        Ok(Ok(state)) => {
            let (mut elsewhere, mut silent) = (BTreeMap::new(), BTreeMap::new());
            for view in views.unwrap_or_default() {
                match view.apart(&state) {
                    Some(Apart::Elsewhere(answer)) => elsewhere.insert(view.observer, answer),
                    Some(Apart::Silent(why)) => silent.insert(view.observer, why),
                    None => None,
                };
            }
            TrafficView {
                region: state.region,
                answer: Some(state.answer),
                epoch: state.epoch,
                ttl_seconds: Some(state.ttl_seconds),
                elsewhere,
                silent,
                ..none
            }
        }
        Ok(Err(error)) => TrafficView {
            problem: Some(chain(&error)),
            ..none
        },
        Err(_) => TrafficView {
            problem: Some(format!("no answer within {LIMIT:?}")),
            ..none
        },
    }
}

fn resource(
    name: &ResourceName,
    facts: &Facts,
    record: Option<&EpochRecord>,
    slots: Option<Vec<Slot>>,
) -> ResourceView {
    let region = |(region, seen): (&RegionName, &RegionFacts)| {
        let log = seen.log.as_ref().ok().and_then(Option::as_ref);
        let newest = log.and_then(|log| log.recovery_points.first());
        RegionView {
            region: region.clone(),
            role: match record {
                None => "unknown",
                Some(record) if record.primary == *region => "primary",
                Some(_) => "recovery",
            },
            instance: seen.instance.clone(),
            exposure_seconds: log.and_then(|log| exposure(log, facts.observed_at)),
            log: log.map(|log| self::log(log, record)),
            log_problem: seen.log.as_ref().err().cloned(),
            recovery_points: log.map_or(0, |log| log.recovery_points.len()),
            newest_recovery_point: newest.map(|point| PointView {
                label: point.label.clone(),
                started_at: point.started_at,
                age_seconds: facts
                    .observed_at
                    .duration_since(point.started_at)
                    .as_secs_f64()
                    .max(0.0),
            }),
        }
    };
    ResourceView {
        resource: name.clone(),
        system_identifier: facts.system_identifier,
        sync: record.map_or_else(Vec::new, |record| record.synchronous(name).to_vec()),
        sync_lost_since: record
            .and_then(|record| record.sync_lost.get(name))
            .map(|lost| lost.since),
        regions: facts.regions.iter().map(region).collect(),
        slots,
    }
}

impl WorkloadView {
    /// Adds what the daemons of the workload's regions say.
    pub(super) fn with_daemons(mut self, daemons: &[DaemonView], now: Timestamp) -> Self {
        let has = |region: &RegionName| {
            let mut resources = self.resources.iter();
            resources.any(|resource| resource.regions.iter().any(|seen| seen.region == *region))
        };
        let found = judge::daemons(daemons.iter().filter(|daemon| has(&daemon.region)), now);
        self.verdict = self.verdict.max(found.verdict);
        self.reasons.extend(found.reasons);
        self
    }
}

/// Returns when the daemon of each region was last seen to write log of any of these workloads into its store.
pub(super) fn took_log_at(workloads: &[WorkloadView]) -> BTreeMap<RegionName, Timestamp> {
    let mut newest = BTreeMap::new();
    let resources = workloads.iter().flat_map(|workload| &workload.resources);
    for seen in resources.flat_map(|resource| &resource.regions) {
        if let Some(at) = seen.log.as_ref().and_then(|log| log.shipped_at) {
            let known = newest.entry(seen.region.clone()).or_insert(at);
            *known = at.max(*known);
        }
    }
    newest
}

fn log(log: &LogFacts, record: Option<&EpochRecord>) -> LogView {
    // What was found under an epoch with another sync set says nothing of this one.
    let of_now = |promise: &&PromiseFacts| record.is_none_or(|now| now.epoch == promise.epoch);
    let promise = log.promise.as_ref().filter(of_now);
    LogView {
        epoch: log.epoch,
        timeline: log.timeline,
        start: log.start,
        end: log.end,
        missing: log.missing.clone(),
        sealed: log.sealed,
        received_at: log.received_at,
        shipped_at: log.shipped_at,
        covered_at: log.covered_at,
        promise_held: promise.map(|promise| promise.held),
        promise_checked_at: promise.map(|promise| promise.checked_at),
        promise_reasons: promise.map_or_else(Vec::new, |promise| promise.reasons.clone()),
    }
}
