//! What a move may cost: its loss against the budget, and what will prove that the old primary has stopped
//! (PROTOCOL 7 and 8). Pure.

use std::collections::{BTreeMap, BTreeSet};

use dr_config::Runbook;
use dr_model::loss::{Bound, Estimate, Verdict, judge};
use dr_model::{RegionName, ResourceName, RunbookName};
use dr_provider::driver::{Goal, Instance, LossFacts, RegionFacts, Role, Undo};
use jiff::Timestamp;

use super::{ExpectedProof, LossPlan, Mode, PlannedStep, Refusal, lint};
use crate::old_primary::was_alive;
use crate::proof;
use crate::request::{Disruption, Request, override_reason, witness};
use crate::steps::await_approval;
use crate::world::{ResourceFacts, World};

/// Adds up what the move loses; refuses if that is more than is accepted, or unknown and nobody overrode that.
///
/// A move that leaves a region without its help (`left`) also loses what the primary did for as long as it is known to have lived
/// after the region moved to heard from it last.
pub(super) fn loss(
    world: &World,
    request: &Request,
    left: Option<&RegionName>,
    behind: BTreeSet<ResourceName>,
) -> Result<LossPlan, Refusal> {
    let of = |(name, resource): (&ResourceName, &ResourceFacts)| {
        let mut loss = resource.driver.loss(&request.to, &resource.facts);
        if behind.contains(name) {
            // All of it is about a log that the newest epoch does not go on with.
            loss.estimate = None;
            loss.bound = Bound::Growing { since: None };
            loss.sealing_proves_zero = false;
            loss.rests_on = None;
        }
        // Where commits wait for the other region's store, nothing was acknowledged without it.
        if let Some(left) = left.filter(|_| !loss.sealing_proves_zero) {
            let life = last_life(resource, left, request);
            let rate = loss.commits_per_second;
            loss.estimate = loss.estimate.map(|known| known.lived_until(life, rate));
        }
        (name.clone(), loss)
    };
    let resources: BTreeMap<ResourceName, LossFacts> = world.resources.iter().map(of).collect();
    let budget = request.max_loss.unwrap_or(world.rpo);
    let estimate = worst(&resources);
    let verdict = judge(estimate.as_ref(), budget);
    // A workload without state loses none.
    let verdict = if resources.is_empty() {
        Verdict::Within
    } else {
        verdict
    };
    match (verdict, &estimate) {
        (Verdict::Exceeds, Some(estimate)) => {
            return Err(Refusal::LossExceeds {
                estimate: Box::new(estimate.clone()),
                budget,
            });
        }
        (Verdict::Unknown, _) if override_reason(&request.statements).is_none() => {
            let unknown = resources.values().filter(|loss| loss.estimate.is_none());
            let because: Vec<_> = unknown.flat_map(|loss| loss.because.clone()).collect();
            // Without the store moved to there is nothing to go on with, whatever is accepted.
            let to = &request.to;
            let is_silent = world.resources.values().any(|resource| {
                let seen = resource.facts.regions.get(to);
                seen.is_some_and(|seen| seen.log.is_err())
            });
            return Err(Refusal::LossUnknown {
                because: because.join("; "),
                may_be_accepted: !is_silent,
            });
        }
        _ => {}
    }
    let bound = resources.values().map(|loss| loss.bound.clone());
    let bound = bound.reduce(proof::worse);
    Ok(LossPlan {
        estimate,
        bound: bound.unwrap_or(Bound::Zero),
        budget_seconds: budget.as_secs_f64(),
        verdict,
        resources,
        behind,
    })
}

/// Returns when the primary is last known to have lived: now, if it answers; when another region's store last heard from it; or when the
/// daemon that saw the outage last had an answer.
fn last_life(resource: &ResourceFacts, left: &RegionName, request: &Request) -> Option<Timestamp> {
    let facts = &resource.facts;
    let of = |region| facts.regions.get(region).map(|seen| &seen.instance);
    let log = |seen: &RegionFacts| seen.log.as_ref().ok().cloned().flatten();
    let own = facts.regions.get(&request.to).and_then(log);
    let answers = match of(left) {
        Some(Instance::Running {
            role: Role::Primary,
            timeline,
            position,
            ..
        }) => {
            let stored = own.as_ref().map(|own| (own.timeline, own.end));
            let standby = match of(&request.to) {
                Some(Instance::Running {
                    role: Role::Standby,
                    timeline,
                    position,
                    ..
                }) => Some((*timeline, *position)),
                _ => None,
            };
            let mut held = stored.into_iter().chain(standby);
            // The region has all that the primary has written by now, however long ago that was, and whoever has heard of it since.
            if held.any(|(same, held)| same == *timeline && held >= *position) {
                return None;
            }
            Some(facts.observed_at)
        }
        // Whom it serves cannot be seen: its sessions may go on.
        Some(Instance::Unreachable { runs: true, .. }) => Some(facts.observed_at),
        _ => None,
    };
    let heard = facts.regions.values().filter_map(log).filter_map(|log| {
        let same = own
            .as_ref()
            .is_some_and(|own| (own.epoch, own.timeline) == (log.epoch, log.timeline));
        log.received_at.filter(|_| same)
    });
    let watched = request.disruption.as_ref().and_then(Disruption::last_life);
    heard.chain(answers).chain(watched).max()
}

/// Refuses a plan that changes something before the people are asked whom the workload wants to be asked.
///
/// Taking back a move that has promoted nothing needs nobody: clients are waiting for what they had.
pub(super) fn approval(
    world: &World,
    mode: Mode,
    runbook: &RunbookName,
    steps: &[PlannedStep],
) -> Result<(), Refusal> {
    let quorum = world.approval.quorum;
    if quorum == 0 || mode == Mode::Undo {
        return Ok(());
    }
    let of = |step: &PlannedStep| {
        let asks = step.uses == await_approval::NAME && !step.lanes.is_empty();
        (asks, step.undo != Undo::ReadOnly)
    };
    if lint::asks_first(steps.iter().map(of)) {
        return Ok(());
    }
    Err(Refusal::Approval {
        workload: world.workload.clone(),
        quorum,
        runbook: runbook.clone(),
    })
}

/// Returns the loss of a move that is undone: none, since nobody else accepted a write.
pub(super) fn nothing_lost(world: &World, request: &Request) -> LossPlan {
    let of = |name: &ResourceName| {
        let loss = LossFacts {
            estimate: None,
            bound: Bound::Zero,
            rests_on: None,
            commits_per_second: None,
            sealing_proves_zero: false,
            because: vec!["nothing was promoted: the old primary goes on".to_owned()],
        };
        (name.clone(), loss)
    };
    LossPlan {
        estimate: None,
        bound: Bound::Zero,
        budget_seconds: request.max_loss.unwrap_or(world.rpo).as_secs_f64(),
        verdict: Verdict::Within,
        resources: world.resources.keys().map(of).collect(),
        behind: BTreeSet::new(),
    }
}

/// Returns what is lost at most once everything has gone as expected: nothing if the seal proves it, up to now if the
/// old primary is seen or stated to have stopped, and still growing otherwise.
pub(super) fn bound(
    world: &World,
    from: &RegionName,
    loss: &LossPlan,
    proofs: &BTreeMap<ResourceName, ExpectedProof>,
) -> Bound {
    let of = |(name, resource): (&ResourceName, &ResourceFacts)| {
        let known = loss.resources.get(name).map(|loss| &loss.bound);
        let left = resource.facts.regions.get(from).map(|seen| &seen.instance);
        let covered = known.and_then(proof::since);
        match proofs.get(name) {
            Some(ExpectedProof::Sealed) => Bound::Zero,
            Some(ExpectedProof::Stopped) if !matches!(left, Some(Instance::Stopped)) => {
                Bound::Growing { since: covered }
            }
            Some(ExpectedProof::SelfStopped) => {
                let guard = world.register.guard(name);
                let after = guard.map(|guard| guard.stopped_after()).unwrap_or_default();
                Bound::new(false, covered, Some(world.observed_at + after))
            }
            Some(ExpectedProof::Stopped | ExpectedProof::Witness) => {
                Bound::new(false, covered, Some(world.observed_at))
            }
            Some(ExpectedProof::Override) | None => Bound::Growing { since: covered },
        }
    };
    let bounds = world.resources.iter().map(of);
    bounds.reduce(proof::worse).unwrap_or(Bound::Zero)
}

/// Returns the largest estimate; `None` if one is missing, because then the largest is not known.
fn worst(resources: &BTreeMap<ResourceName, LossFacts>) -> Option<Estimate> {
    let mut worst: Option<&Estimate> = None;
    for loss in resources.values() {
        let estimate = loss.estimate.as_ref()?;
        if worst.is_none_or(|known| known.delay_seconds < estimate.delay_seconds) {
            worst = Some(estimate);
        }
    }
    worst.cloned()
}

/// What there is to count on in the region of the old primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The runbook waits for guards.
    Guarded,
    /// It does not.
    Unguarded,
    /// The region is not left: its host can be asked.
    InPlace,
}

impl Left {
    /// Reads it out of a runbook that moves something.
    pub(super) fn of(runbook: &Runbook) -> Self {
        match lint::awaits_guards(runbook) {
            true => Self::Guarded,
            false => Self::Unguarded,
        }
    }
}

/// Tells for each resource what is expected to prove that it has stopped; refuses if nothing is and nobody said
/// otherwise.
pub(super) fn proofs(
    world: &World,
    from: &RegionName,
    loss: &LossPlan,
    request: &Request,
    left: Left,
) -> Result<BTreeMap<ResourceName, ExpectedProof>, Refusal> {
    let awaits = left == Left::Guarded;
    let mut proofs = BTreeMap::new();
    for (name, resource) in &world.resources {
        let sealed = loss
            .resources
            .get(name)
            .is_some_and(|l| l.sealing_proves_zero);
        let stopped = can_be_fenced(resource, from, left);
        let proof = match stopped {
            _ if sealed => ExpectedProof::Sealed,
            Ok(()) => ExpectedProof::Stopped,
            Err(_) if awaits && world.register.guard(name).is_some() => ExpectedProof::SelfStopped,
            Err(_)
                if witness(&request.statements).is_some() && !was_alive(&resource.facts, from) =>
            {
                ExpectedProof::Witness
            }
            Err(_) if override_reason(&request.statements).is_some() => ExpectedProof::Override,
            Err(why) if was_alive(&resource.facts, from) => {
                return Err(Refusal::Alive {
                    resource: name.clone(),
                    from: from.clone(),
                    why,
                    hint: hint(resource, from),
                });
            }
            Err(why) => {
                let seen = resource.facts.regions.get(from);
                return Err(Refusal::NoProof {
                    resource: name.clone(),
                    from: from.clone(),
                    why,
                    hint: hint(resource, from),
                    late: seen.map(|seen| seen.late.clone()).unwrap_or_default(),
                });
            }
        };
        proofs.insert(name.clone(), proof);
    }
    Ok(proofs)
}

/// Returns what to do about an old primary that could not be seen.
fn hint(resource: &ResourceFacts, from: &RegionName) -> Option<String> {
    match &resource.facts.regions.get(from)?.instance {
        Instance::Unreachable { hint, .. } => hint.clone(),
        _ => None,
    }
}

fn can_be_fenced(resource: &ResourceFacts, from: &RegionName, left: Left) -> Result<(), String> {
    match resource.facts.regions.get(from).map(|seen| &seen.instance) {
        // One that hangs on a host that can be asked is ended there.
        Some(Instance::Unreachable { on_host: true, .. }) => {}
        Some(Instance::Unreachable { why, .. }) => return Err(format!("it cannot be seen: {why}")),
        None => return Err("it was not looked at".to_owned()),
        Some(_) => {}
    }
    let region = from.clone();
    let goal = match left {
        Left::InPlace => Goal::Vacate { region },
        Left::Guarded | Left::Unguarded => Goal::Fence { region },
    };
    match resource.driver.plan(&goal, &resource.facts) {
        Ok(actions) if actions.is_empty() => Err("it cannot be fenced".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(dr_provider::error::chain(&error)),
    }
}
