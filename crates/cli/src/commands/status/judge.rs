//! Whether a workload would survive the loss of its primary's region within its objective. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dr_coordination::register::EpochRecord;
use dr_model::{Epoch, RegionName, ResourceName};
use dr_postgres::{Options, Slot};
use dr_provider::driver::{Facts, Instance, LogFacts, PromiseFacts, RegionFacts, Role};
use dr_runbook::State;
use dr_runbook::executions::Summary;
use jiff::Timestamp;

use super::view::{DaemonView, OutageView, RegisterView, TrafficView, Verdict};
use crate::commands::execution::needs_somebody;
use crate::readiness::Readiness;

/// From which difference on a clock is worth a word, as the daemons have it of the primary's.
const CLOCK_LIMIT: Duration = Duration::from_secs(60);

/// What is known, with its reasons unless it is ok.
#[derive(Debug, PartialEq)]
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    pub(super) exposure_seconds: Option<f64>,
    pub(super) reasons: Vec<String>,
}

/// A workload's protection, and everything else that can be wrong with it.
#[derive(Debug)]
pub(super) struct Judgements {
    pub(super) protection: Judgement,
    pub(super) rest: Judgement,
}

/// The regions of each resource that a standby is kept running in (`standby: warm`).
pub(super) type Warm = BTreeMap<ResourceName, BTreeSet<RegionName>>;

/// Nothing to object to.
fn fine() -> Judgement {
    Judgement {
        verdict: Verdict::Ok,
        exposure_seconds: None,
        reasons: Vec::new(),
    }
}

/// Returns now − newest moment at which the store held all that the primary had reported.
pub(super) fn exposure(log: &LogFacts, now: Timestamp) -> Option<f64> {
    Some(now.duration_since(log.covered_at?).as_secs_f64().max(0.0))
}

/// Returns the newest moment of which anybody has written: by the clocks of the daemons and of the primary.
pub(super) fn newest(facts: &Facts) -> Option<Timestamp> {
    let logs = facts
        .regions
        .values()
        .filter_map(|seen| seen.log.as_ref().ok()?.as_ref());
    let moments = logs.flat_map(|log| {
        let checked = log.promise.as_ref().map(|promise| promise.checked_at);
        [log.received_at, log.shipped_at, log.covered_at, checked]
    });
    moments.flatten().max()
}

/// Judges the clock of this machine by what others have written: what is said of times here counts from theirs if it is behind.
pub(super) fn clock<'a>(facts: impl Iterator<Item = &'a Facts>, now: Timestamp) -> Judgement {
    let behind = facts.filter_map(newest).max();
    let behind = behind.map_or(0.0, |newest| newest.duration_since(now).as_secs_f64());
    match behind >= CLOCK_LIMIT.as_secs_f64() {
        true => unknown(format!(
            "the clock of this machine is at least {behind:.0} s behind that of others, or theirs is ahead: set it by a time server"
        )),
        false => fine(),
    }
}

/// Judges one resource: the best of its recovery regions counts.
fn protection(
    name: &ResourceName,
    record: &EpochRecord,
    recovery: &[RegionName],
    facts: &Facts,
    rpo: Duration,
) -> Judgement {
    // A record that changes only whom commits wait for goes on with the chain of an earlier one.
    let written = record.chain(name).map_or(record.epoch, |chain| chain.epoch);
    let looks = recovery.iter().map(|region| {
        let what = format!("{name} in {region}");
        match facts.regions.get(region) {
            None => unknown(format!("{what} could not be looked at")),
            Some(seen) => in_region(&what, written, seen, facts.observed_at, rpo),
        }
    });
    let best = looks.min_by(|a, b| {
        let exposure = |judgement: &Judgement| judgement.exposure_seconds.unwrap_or(f64::INFINITY);
        a.verdict
            .cmp(&b.verdict)
            .then(exposure(a).total_cmp(&exposure(b)))
    });
    best.unwrap_or_else(|| breach(format!("{name} has no region to recover in")))
}

fn in_region(
    what: &str,
    written: Epoch,
    seen: &RegionFacts,
    now: Timestamp,
    rpo: Duration,
) -> Judgement {
    let log = match &seen.log {
        Err(_) => return unknown(unseen(what)),
        Ok(None) => return breach(format!("{what}: no log arrives in its store")),
        Ok(Some(log)) => log,
    };
    if log.epoch < written || log.sealed {
        return breach(format!(
            "{what}: the log of epoch {written} does not arrive in its store"
        ));
    }
    if let Some(missing) = log.missing.first() {
        return breach(format!("{what}: {missing}"));
    }
    // Of another timeline, or older than the log in this store, a recovery point cannot be brought
    // up to the end.
    let points = log.recovery_points.iter();
    let mut usable =
        points.filter(|point| point.timeline == log.timeline && point.start >= log.start);
    let Some(newest) = usable.clone().next() else {
        let why = match log.unusable.first() {
            _ if !log.recovery_points.is_empty() => {
                "no recovery point in its store joins the log".to_owned()
            }
            Some(why) => format!("no recovery point in its store can be restored: {why}"),
            None => "there is no recovery point in its store".to_owned(),
        };
        return breach(format!("{what}: {why}"));
    };
    if let Some(why) = &newest.failure
        && usable.all(|point| point.failure.is_some())
    {
        return breach(format!(
            "{what}: no recovery point in its store can be relied on: {}: {why}",
            newest.label
        ));
    }
    match exposure(log, now) {
        None => unknown(format!("{what}: its exposure is unknown")),
        Some(seconds) if seconds > rpo.as_secs_f64() => Judgement {
            exposure_seconds: Some(seconds),
            ..breach(format!(
                "{what}: what it has is {seconds:.1} s old, and {rpo:?} are allowed"
            ))
        },
        Some(seconds) => Judgement {
            verdict: Verdict::Ok,
            exposure_seconds: Some(seconds),
            reasons: Vec::new(),
        },
    }
}

/// Judges whether the stores can be seen at all, that of the primary as well: what it is for, as a way back, cannot be told then.
fn stores(name: &ResourceName, facts: &Facts) -> Judgement {
    let silent = facts.regions.iter().filter(|(_, seen)| seen.log.is_err());
    let silent = silent.map(|(region, _)| unknown(unseen(&format!("{name} in {region}"))));
    silent.fold(fine(), both)
}

fn unseen(what: &str) -> String {
    format!("{what}: its store cannot be seen")
}

/// Judges the newest recovery point of each store, which is what would be used: that an older one has to stand in for it is for
/// somebody to look at, even where that one protects.
fn newest_points(name: &ResourceName, facts: &Facts) -> Judgement {
    let failed = facts.regions.iter().filter_map(|(region, seen)| {
        let log = seen.log.as_ref().ok()?.as_ref()?;
        if let Some(why) = log.newest_unusable() {
            return Some(breach(format!(
                "{name} in {region}: the newest recovery point cannot be restored: {why}"
            )));
        }
        let newest = log.recovery_points.first()?;
        let why = newest.failure.as_ref()?;
        Some(breach(format!(
            "{name} in {region}: the newest recovery point {} cannot be relied on: {why}",
            newest.label
        )))
    });
    failed.fold(fine(), both)
}

/// Judges the log of each store, that of the primary too: nothing can be restored across a hole, wherever another region's log would protect.
fn holes(name: &ResourceName, facts: &Facts) -> Judgement {
    let of_store = facts.regions.iter().flat_map(|(region, seen)| {
        let log = seen.log.as_ref().ok().and_then(Option::as_ref);
        let missing = log.map_or(&[][..], |log| &log.missing);
        missing
            .iter()
            .map(move |missing| breach(format!("{name} in {region}: {missing}")))
    });
    of_store.fold(fine(), both)
}

/// Judges the instances: one primary, and that where the newest epoch says, and a standby wherever one is configured.
fn instances(
    name: &ResourceName,
    record: &EpochRecord,
    facts: &Facts,
    warm: &BTreeSet<RegionName>,
) -> Judgement {
    let claimed = record.clusters.get(name).map(|claim| claim.timeline);
    let mut all = fine();
    for (region, seen) in &facts.regions {
        let found = match (&seen.instance, *region == record.primary) {
            (
                Instance::Running {
                    role: Role::Primary,
                    ..
                },
                true,
            ) => continue,
            (
                Instance::Running {
                    role: Role::Primary,
                    ..
                },
                false,
            ) => breach(format!(
                "{name} in {region} accepts writes although {} is primary",
                record.primary
            )),
            (Instance::Unreachable { .. }, true) => {
                unknown(format!("the primary of {name} in {region} cannot be seen"))
            }
            (_, true) => breach(format!("{name} in {region} is not running as the primary")),
            (Instance::Stopped, false)
                if let Some(timeline) = dr_postgres::would_accept_writes(seen) =>
            {
                breach(format!(
                    "{name} in {region} is stopped and not fenced, an old primary on timeline {timeline}: do not start it, it would accept writes beside {}; `dr standby create` makes a standby of it and keeps what only it has",
                    record.primary
                ))
            }
            (_, false) if !warm.contains(region) => continue,
            (
                Instance::Running {
                    role: Role::Standby,
                    timeline,
                    ..
                },
                false,
            ) => match claimed.filter(|claimed| claimed != timeline) {
                None => continue,
                Some(claimed) => breach(format!(
                    "the standby of {name} in {region} is on timeline {timeline}, the primary on {claimed}: it cannot be promoted; stop it, then `dr standby create` makes it follow"
                )),
            },
            (Instance::Stopped | Instance::Unreachable { .. }, false)
                if dr_postgres::is_quarantined(seen) =>
            {
                breach(format!(
                    "the old primary of {name} in {region} is quarantined, and answers nobody: `dr standby create` in {region} keeps what only it has, and makes a \
                     standby of it"
                ))
            }
            (Instance::Unreachable { .. }, false) => {
                unknown(format!("the standby of {name} in {region} cannot be seen"))
            }
            (Instance::Stopped, false) => breach(format!(
                "the standby of {name} in {region} is stopped: a failover neither promotes it nor overwrites its directory; start it, or build it anew with `dr standby create` if it was taken off its primary"
            )),
            (_, false) => breach(format!(
                "no standby of {name} runs in {region}: a failover has to rebuild it from the store"
            )),
        };
        all = both(all, found);
    }
    all
}

/// How long a receiver may confirm nothing while commits wait for it: it does every second, and its clock is another.
const SILENT_SECONDS: f64 = 10.0;

/// How long a statement that waits for a receiver may have been under way before it counts as hanging.
const WAITING_SECONDS: f64 = 5.0;

/// How old the conditions of synchronous mode may be: they are written down every 10 s at the latest (PROTOCOL 5).
pub(super) const CONDITIONS_SECONDS: f64 = 20.0;

/// Returns those of the regions whose stores commits wait for, and hang, with why they do.
pub(super) fn blocking<'a>(
    sync: &'a [RegionName],
    slots: &[Slot],
) -> Vec<(&'a RegionName, String)> {
    let why = |region: &'a RegionName| {
        let name = Options::receiver_name(region);
        let mut of_it = slots.iter().filter(|slot| slot.name == name);
        let Some(slot) = of_it.find(|slot| slot.active) else {
            return Some((region, "nobody receives for it".to_owned()));
        };
        let silent = slot
            .silent_seconds
            .filter(|since| *since > SILENT_SECONDS)?;
        slot.commit_waits_seconds
            .filter(|since| *since > WAITING_SECONDS)?;
        let why = format!("its receiver is connected and has confirmed nothing for {silent:.0} s");
        Some((region, why))
    };
    sync.iter().filter_map(why).collect()
}

/// Judges whether commits go on: one that waits for a store hangs while nobody receives for it.
pub(super) fn commits(
    record: Option<&EpochRecord>,
    slots: &BTreeMap<ResourceName, Vec<Slot>>,
) -> Judgement {
    let mut all = fine();
    for (name, slots) in slots {
        let sync = record.map_or(&[][..], |record| record.synchronous(name));
        for (region, why) in blocking(sync, slots) {
            let found = breach(format!(
                "commits on {name} hang: they wait for the store of {region}, and {why}; start `dr daemon --region {region}` (again), or let them go on without it with `dr sync disable`"
            ));
            all = both(all, found);
        }
    }
    all
}

/// Judges what commits wait for: that it was promised and does not hold is no line among others, whoever changed it.
fn promises(name: &ResourceName, record: &EpochRecord, facts: &Facts) -> Judgement {
    let not_kept = record.synchronous(name).iter().filter_map(|region| {
        let log = facts.regions.get(region)?.log.as_ref().ok()?.as_ref()?;
        let of_now = |promise: &&PromiseFacts| promise.epoch == record.epoch;
        let Some(promise) = log.promise.as_ref().filter(of_now) else {
            return Some(unknown(format!(
                "whether commits on {name} wait for the store of {region} has not been seen yet under epoch {}",
                record.epoch
            )));
        };
        let age = facts.observed_at.duration_since(promise.checked_at);
        let age = age.as_secs_f64();
        if !promise.held {
            return Some(breach(format!(
                "the conditions of waiting for the store of {region} do not hold, so that a commit on {name} may be acknowledged and lost: {}; `dr check --online` says what to do",
                promise.reasons.join("; ")
            )));
        }
        (age > CONDITIONS_SECONDS).then(|| {
            unknown(format!(
                "whether commits on {name} wait for the store of {region} was last seen {age:.0} s ago"
            ))
        })
    });
    not_kept.fold(fine(), both)
}

/// Judges a workload.
pub(super) fn workload(
    regions: &[RegionName],
    record: Option<&EpochRecord>,
    register: &RegisterView,
    facts: &BTreeMap<ResourceName, Facts>,
    traffic: &[TrafficView],
    warm: &Warm,
    rpo: Duration,
) -> Judgements {
    let Some(record) = record else {
        let protection = match &register.problem {
            Some(why) if register.damaged => breach(why.clone()),
            Some(why) => unknown(format!("nobody can tell who is primary: {why}")),
            None => breach(
                "there is no epoch yet: start the daemons, and the first one is opened".to_owned(),
            ),
        };
        return Judgements {
            protection,
            rest: fine(),
        };
    };
    let mut rest = fine();
    if let Some(why) = &register.problem {
        let found = if register.damaged {
            breach(why.clone())
        } else {
            unknown(format!("the newest epoch may be another: {why}"))
        };
        rest = both(rest, found);
    }
    let recovery: Vec<_> = regions
        .iter()
        .filter(|region| **region != record.primary)
        .cloned()
        .collect();
    if record.register == record.primary && !recovery.is_empty() {
        rest = both(
            rest,
            breach(format!(
                "the register is with the primary in {}: if that region is lost now, moving takes an override",
                record.primary
            )),
        );
    }
    let none = BTreeSet::new();
    let mut resources = Vec::new();
    for (name, facts) in facts {
        let warm = warm.get(name).unwrap_or(&none);
        rest = both(rest, instances(name, record, facts, warm));
        rest = both(rest, newest_points(name, facts));
        rest = both(rest, holes(name, facts));
        rest = both(rest, stores(name, facts));
        rest = both(rest, promises(name, record, facts));
        resources.push(protection(name, record, &recovery, facts, rpo));
    }
    for seen in traffic {
        rest = both(rest, leads(record, seen));
    }
    Judgements {
        protection: all(resources),
        rest,
    }
}

fn leads(record: &EpochRecord, seen: &TrafficView) -> Judgement {
    let name = &seen.name;
    let elsewhere = seen.elsewhere.iter().map(|(observer, answer)| {
        breach(format!(
            "{observer} still answers {name} with {answer}: clients that ask it are led there"
        ))
    });
    let silent = seen.silent.iter();
    let silent = silent.map(|(observer, why)| unknown(format!("{name}: {observer}: {why}")));
    let observers = elsewhere.chain(silent).fold(fine(), both);
    both(authority(record, seen), observers)
}

fn authority(record: &EpochRecord, seen: &TrafficView) -> Judgement {
    match (&seen.problem, &seen.region) {
        (Some(why), _) => unknown(format!("{}: {why}", seen.name)),
        (None, Some(region)) if *region == record.primary => fine(),
        (None, Some(region)) => breach(format!(
            "{} leads to {region}, and {} is primary",
            seen.name, record.primary
        )),
        (None, None) => breach(format!("{} leads to none of the regions", seen.name)),
    }
}

/// Judges the moves to each other region: one region that the workload can be moved to is enough.
pub(super) fn failovers(moves: &[Readiness]) -> Judgement {
    let best = moves.iter().min_by_key(|readiness| readiness.verdict);
    let mut judgement = fine();
    judgement.verdict = best.map_or(Verdict::Ok, |readiness| readiness.verdict);
    if judgement.verdict == Verdict::Ok {
        return judgement;
    }
    for readiness in moves.iter().filter(|view| view.verdict != Verdict::Ok) {
        judgement.reasons.push(match readiness.refusal {
            Some(_) => format!("a failover to {} would be refused", readiness.to),
            None => format!(
                "a failover to {} is not sure to come to its end",
                readiness.to
            ),
        });
    }
    judgement
}

/// Judges executions that have not ended: while nobody goes on with one, it stands in the way of every other; one that waits for people goes
/// on only if they know of it.
pub(super) fn executions(unfinished: &[Summary]) -> Judgement {
    let judged = unfinished.iter().filter_map(|summary| {
        let execution = &summary.execution;
        if needs_somebody(summary) {
            return Some(format!(
                "execution {execution} has not ended and nobody goes on with it: {}",
                summary.ways_on()
            ));
        }
        (summary.state == State::AwaitingApproval).then(|| {
            format!(
                "execution {execution} waits for approvals: `dr execution approve {execution} --key FILE`"
            )
        })
    });
    judged.map(unknown).fold(fine(), both)
}

/// Judges an outage: whoever reads it has to decide.
pub(super) fn outage(view: Option<&OutageView>) -> Judgement {
    let Some(view) = view else { return fine() };
    breach(format!(
        "{} does not answer since {:.0}, seen from {}: `{}`",
        view.primary, view.first_missed_at, view.seen_from, view.proposal.command
    ))
}

/// Judges what the daemons say of themselves. One that says that something fails is believed: what is in the stores shows only
/// later what it has come to. One that cannot be asked from here may be well, if its store takes log.
pub(super) fn daemons<'a>(
    views: impl IntoIterator<Item = &'a DaemonView>,
    now: Timestamp,
) -> Judgement {
    let judge = |view: &DaemonView| {
        let region = &view.region;
        match view.status.as_deref() {
            Some("healthy") => fine(),
            Some("unhealthy") => {
                breach(format!("the daemon of {region} says that something fails"))
            }
            Some(_) => unknown(format!(
                "the daemon of {region} does not know whether all is well"
            )),
            None if view.is_seen_at_work(now) => fine(),
            None if let Some(process) = view.died => unknown(format!(
                "nothing shows that the daemon of {region} runs: process {process}, which it was on this machine, was killed or died; start it again"
            )),
            None => {
                let log = match view.took_log_at {
                    Some(at) => format!("has taken no log since {at:.0}"),
                    None => "is not known to take log".to_owned(),
                };
                unknown(format!(
                    "nothing shows that the daemon of {region} runs: it cannot be asked, and its store {log}"
                ))
            }
        }
    };
    views.into_iter().map(judge).fold(fine(), both)
}

/// Tells whether servers of one cluster accept writes in two regions.
pub(super) fn two_primaries(facts: &BTreeMap<ResourceName, Facts>) -> bool {
    let is_primary = |seen: &&RegionFacts| {
        matches!(
            seen.instance,
            Instance::Running {
                role: Role::Primary,
                ..
            }
        )
    };
    let mut resources = facts.values();
    resources.any(|facts| facts.regions.values().filter(is_primary).count() > 1)
}

/// Puts the protection of all resources together. The exposure is known if that of each is.
fn all(resources: Vec<Judgement>) -> Judgement {
    let exposures: Option<Vec<f64>> = resources
        .iter()
        .map(|judgement| judgement.exposure_seconds)
        .collect();
    let exposure_seconds = exposures.and_then(|all| all.into_iter().max_by(f64::total_cmp));
    let judgement = resources.into_iter().fold(fine(), both);
    Judgement {
        exposure_seconds,
        ..judgement
    }
}

/// Puts two judgements together: the worse verdict and all reasons, each once.
pub(super) fn both(mut one: Judgement, other: Judgement) -> Judgement {
    one.verdict = one.verdict.max(other.verdict);
    for reason in other.reasons {
        if !one.reasons.contains(&reason) {
            one.reasons.push(reason);
        }
    }
    one
}

fn unknown(reason: String) -> Judgement {
    Judgement {
        verdict: Verdict::Unknown,
        ..objection(reason)
    }
}

fn breach(reason: String) -> Judgement {
    Judgement {
        verdict: Verdict::Breach,
        ..objection(reason)
    }
}

fn objection(reason: String) -> Judgement {
    Judgement {
        reasons: vec![reason],
        ..fine()
    }
}

#[cfg(test)]
mod tests;
