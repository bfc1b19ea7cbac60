//! Whether a workload would survive the loss of its primary's region within its objective. Pure.

use std::time::Duration;

use dr_coordination::register::EpochRecord;
use dr_model::{RegionName, ResourceName};
use dr_provider::driver::{Facts, Instance, LogFacts, RegionFacts, Role};
use jiff::Timestamp;

use super::view::Verdict;

/// What is known, with its reasons unless it is ok.
#[derive(Debug, PartialEq)]
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    pub(super) exposure_seconds: Option<f64>,
    pub(super) reasons: Vec<String>,
}

/// Returns now − newest moment at which the store held all that the primary had reported.
pub(super) fn exposure(log: &LogFacts, now: Timestamp) -> Option<f64> {
    Some(now.duration_since(log.covered_at?).as_secs_f64().max(0.0))
}

/// Judges one resource: the best of its recovery regions counts.
pub(super) fn protection(
    name: &ResourceName,
    record: &EpochRecord,
    recovery: &[RegionName],
    facts: &Facts,
    rpo: Duration,
) -> Judgement {
    let looks = recovery.iter().map(|region| {
        let what = format!("{name} in {region}");
        match facts.regions.get(region) {
            None => unknown(format!("{what} could not be looked at")),
            Some(seen) => in_region(&what, record, seen, facts.observed_at, rpo),
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
    record: &EpochRecord,
    seen: &RegionFacts,
    now: Timestamp,
    rpo: Duration,
) -> Judgement {
    let log = match &seen.log {
        Err(why) => return unknown(format!("{what}: its store could not be seen: {why}")),
        Ok(None) => return breach(format!("{what}: no log arrives in its store")),
        Ok(Some(log)) => log,
    };
    if log.epoch < record.epoch || log.sealed {
        return breach(format!(
            "{what}: the log of epoch {} does not arrive in its store",
            record.epoch
        ));
    }
    // Of another timeline, or older than the log in this store, a recovery point cannot be brought up to the end.
    let usable = |timeline, start| timeline == log.timeline && start >= log.start;
    if !log
        .recovery_points
        .iter()
        .any(|point| usable(point.timeline, point.start))
    {
        let why = if log.recovery_points.is_empty() {
            "there is no recovery point in its store"
        } else {
            "no recovery point in its store joins the log"
        };
        return breach(format!("{what}: {why}"));
    }
    match exposure(log, now) {
        None => unknown(format!("{what}: its exposure is unknown")),
        Some(seconds) if seconds > rpo.as_secs_f64() => Judgement {
            exposure_seconds: Some(seconds),
            ..breach(format!(
                "{what}: {seconds:.1} s would be lost, and {rpo:?} are allowed"
            ))
        },
        Some(seconds) => Judgement {
            verdict: Verdict::Ok,
            exposure_seconds: Some(seconds),
            reasons: Vec::new(),
        },
    }
}

/// Judges the instances: one primary, and that where the newest epoch says.
pub(super) fn instances(name: &ResourceName, record: &EpochRecord, facts: &Facts) -> Judgement {
    let mut all = Judgement {
        verdict: Verdict::Ok,
        exposure_seconds: None,
        reasons: Vec::new(),
    };
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
            (Instance::Unreachable { why }, true) => unknown(format!(
                "the primary of {name} in {region} cannot be seen: {why}"
            )),
            (_, true) => breach(format!("{name} in {region} is not running as the primary")),
            (_, false) => continue,
        };
        all = both(all, found);
    }
    all
}

/// Puts two judgements together: the worse verdict, the larger exposure, all reasons.
pub(super) fn both(mut one: Judgement, other: Judgement) -> Judgement {
    one.verdict = one.verdict.max(other.verdict);
    one.exposure_seconds = match (one.exposure_seconds, other.exposure_seconds) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (a, b) => a.or(b),
    };
    one.reasons.extend(other.reasons);
    one
}

pub(super) fn unknown(reason: String) -> Judgement {
    Judgement {
        verdict: Verdict::Unknown,
        exposure_seconds: None,
        reasons: vec![reason],
    }
}

pub(super) fn breach(reason: String) -> Judgement {
    Judgement {
        verdict: Verdict::Breach,
        exposure_seconds: None,
        reasons: vec![reason],
    }
}

#[cfg(test)]
mod tests;
