//! What moving the primary to a region would lose (PROTOCOL 8), from facts alone.

use dr_model::RegionName;
use dr_model::loss::{Bound, Estimate};
use dr_provider::driver::{Facts, Instance, LogFacts, LossFacts, Role};
use jiff::SignedDuration;

use crate::observe::Detail;
use crate::options::Options;

/// How long before the seal the promise conditions must have held at the latest (PROTOCOL 5).
pub(crate) const PROMISE_AGE: SignedDuration = SignedDuration::from_secs(10);

/// Computes the loss of moving to `target`: pure.
pub(crate) fn loss(options: &Options, target: &RegionName, facts: &Facts) -> LossFacts {
    let mut because = Vec::new();
    let Some(log) = log_of(target, facts, &mut because) else {
        return LossFacts {
            estimate: None,
            bound: Bound::Growing { since: None },
            rests_on: None,
            commits_per_second: None,
            sealing_proves_zero: false,
            because,
        };
    };
    because.push(format!(
        "the store of {target} holds the log up to {} (epoch {}, timeline {})",
        log.end, log.epoch, log.timeline
    ));

    // The standby usually is ahead of the store; whichever is further is what will be served (PROTOCOL 6).
    let standby = facts.regions.get(target).map(|region| &region.instance);
    let (mut safe, mut received_at) = (log.end, log.received_at);
    // What is covered is so by the store up to its end, or by all that the primary had said, whoever holds that.
    let mut covering = log.primary_end;
    if let Some(Instance::Running {
        role: Role::Standby,
        timeline,
        position,
        replayed,
    }) = standby
    {
        because.push(format!(
            "the standby in {target} has received {position} on timeline {timeline}"
        ));
        if *timeline == log.timeline && *position >= log.end {
            safe = *position;
            // A standby that streams on while nobody ships is in contact.
            let detail = facts.regions.get(target).and_then(Detail::of);
            let replayed_at = detail.and_then(|detail| detail.replayed_at);
            if received_at < replayed_at {
                (received_at, covering) = (replayed_at, covering.max(replayed.unwrap_or(safe)));
            }
        }
    }

    let missing_bytes = log.primary_end.bytes_since(safe);
    // What covers all that the primary had said at last contact covers that moment.
    let (covered, covering) = match missing_bytes {
        0 => (received_at, covering),
        _ => (log.covered_at, log.end),
    };
    let estimate = covered.zip(received_at).map(|(covered, last_contact)| {
        let delay_seconds = last_contact.duration_since(covered).as_secs_f64().max(0.0);
        let commits = match (missing_bytes, log.commits_per_second) {
            (0, _) => Some(0),
            (_, Some(rate)) => Some(rounded_up(rate * delay_seconds)),
            (_, None) => None,
        };
        Estimate {
            delay_seconds,
            missing_bytes,
            commits,
            last_contact,
            lived_on_seconds: 0.0,
        }
    });
    if estimate.is_none() {
        because.push("no part of the log says that it covered all of the primary's".to_owned());
    }
    LossFacts {
        estimate,
        bound: Bound::Growing { since: covered },
        rests_on: Some((log.timeline, covering)),
        commits_per_second: log.commits_per_second,
        sealing_proves_zero: promise(options, target, facts, log, &mut because),
        because,
    }
}

fn log_of<'a>(
    target: &RegionName,
    facts: &'a Facts,
    because: &mut Vec<String>,
) -> Option<&'a LogFacts> {
    match facts.regions.get(target).map(|region| &region.log) {
        None => because.push(format!("{target} was not looked at")),
        Some(Err(why)) => because.push(format!("the store of {target} could not be read: {why}")),
        Some(Ok(None)) => because.push(format!("the store of {target} holds no log")),
        Some(Ok(Some(log))) => match &facts.claim {
            // What covers all of an epoch that has ended says nothing of the one that began a log of its own.
            Some(claim) if log.epoch < claim.log_epoch => because.push(format!(
                "the log in the store of {target} is of epoch {} (timeline {}): it holds nothing of what epoch {} writes (timeline {})",
                log.epoch, log.timeline, claim.log_epoch, claim.timeline
            )),
            _ => return Some(log),
        },
    }
    None
}

/// Tells whether a seal now would prove that nothing acknowledged is lost, and if not, why.
fn promise(
    options: &Options,
    target: &RegionName,
    facts: &Facts,
    log: &LogFacts,
    because: &mut Vec<String>,
) -> bool {
    let wished = options.sync.contains(target);
    let Some(claim) = &facts.claim else {
        if wished {
            because.push("conditional: no epoch says whom commits wait for".to_owned());
        }
        return false;
    };
    if let Some((since, regions)) = &claim.sync_lost
        && regions.contains(target)
    {
        because.push(format!(
            "conditional: synchronous mode was lost at {since}: what came after was acknowledged without the store of {target}"
        ));
        return false;
    }
    if !claim.sync.contains(target) {
        if wished {
            because.push(format!(
                "commits do not wait for the store of {target} in epoch {}; `dr sync enable` makes them",
                claim.epoch
            ));
        }
        return false;
    }
    if !claim.proven {
        because.push(format!(
            "conditional: the register cannot be read, and an epoch after {} may say that commits do not wait for the store of {target}",
            claim.epoch
        ));
        return false;
    }
    let Some(promise) = &log.promise else {
        because
            .push("conditional: the conditions of synchronous mode were never recorded".to_owned());
        return false;
    };
    let at = promise.checked_at;
    // Two clocks: one that shows the check in the future proves as little as one that shows it long ago.
    let why_not = if promise.epoch != claim.epoch {
        format!(
            "the conditions of synchronous mode were last looked at under epoch {}, at {at:.3}",
            promise.epoch
        )
    } else if !promise.held {
        format!(
            "the conditions of synchronous mode did not hold at {at:.3}: {}",
            promise.reasons.join("; ")
        )
    } else if facts.observed_at.duration_since(at).abs() > PROMISE_AGE {
        format!(
            "the conditions of synchronous mode last held at {at:.3}, more than {} s from now",
            PROMISE_AGE.as_secs()
        )
    } else if let Some(from) = promise.from.filter(|from| *from > log.end) {
        format!(
            "the conditions of synchronous mode hold since {from}, and the log up to there is not in the store"
        )
    } else if promise.from.is_none() {
        "since where the conditions of synchronous mode hold was not recorded".to_owned()
    } else {
        because.push(format!(
            "the conditions of synchronous mode held at {at:.3}"
        ));
        return true;
    };
    because.push(format!("conditional: {why_not}"));
    false
}

fn rounded_up(value: f64) -> u64 {
    value.ceil().clamp(0.0, 1e15) as u64
}

#[cfg(test)]
mod tests;
