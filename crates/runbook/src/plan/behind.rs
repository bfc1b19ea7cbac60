//! Whether anything of the log of the newest epoch has reached the region moved to. Pure.
//!
//! An epoch that began a timeline of its own, as a recovery in place does, ended what the region may still follow: a standby on
//! the timeline before is whole, its store covers all that it was ever told of, and it is the branch that was thrown away. So a move
//! to it is measured by what the register claims, not by the chain that happens to be there.

use std::collections::BTreeMap;

use dr_coordination::register::EpochRecord;
use dr_model::{RegionName, ResourceName};
use dr_provider::driver::{ClaimFacts, Instance, RegionFacts, Role};

use super::{Mode, Refusal, in_place};
use crate::request::{Request, override_reason};
use crate::world::{ResourceFacts, World};

/// Refuses to bring up what the newest epoch left behind; where that is overridden, returns what it means, to be warned of.
pub(super) fn refuse(
    world: &World,
    request: &Request,
    mode: Mode,
) -> Result<BTreeMap<ResourceName, String>, Refusal> {
    let mut accepted = BTreeMap::new();
    for (name, resource) in &world.resources {
        // What goes on needs nothing of its log, and what is undone is looked at by whoever undoes it.
        let goes_on = mode == Mode::InPlace && in_place::goes_on(world, request, name);
        if mode == Mode::Undo || goes_on {
            continue;
        }
        let Some(why) = behind(world, request, resource) else {
            continue;
        };
        if override_reason(&request.statements).is_none() {
            return Err(Refusal::Behind {
                resource: name.clone(),
                to: request.to.clone(),
                why,
            });
        }
        let warning = format!(
            "nothing of what `{name}` wrote since has reached {}, by override: all of that is lost, and what was taken back \
             comes back: {why}",
            request.to
        );
        accepted.insert(name.clone(), warning);
    }
    Ok(accepted)
}

/// Tells whether a region is seen to have nothing of what a database writes in the newest epoch: what it has is older, and so is every sign of
/// life in it.
#[must_use]
pub fn is_behind(world: &World, region: &RegionName) -> bool {
    let mut resources = world.resources.values();
    resources.any(|resource| {
        let claim = resource.facts.claim.as_ref();
        let seen = resource.facts.regions.get(region);
        claim
            .zip(seen)
            .is_some_and(|(claim, seen)| lacks(claim, seen).is_some())
    })
}

/// Refuses what rests on a primary that only the register knows of, because nobody can tell how far the execution came that opened the
/// epoch; in place somebody may override it.
pub(super) fn refuse_unreadable(
    world: &World,
    head: &EpochRecord,
    request: &Request,
    mode: Mode,
) -> Result<(), Refusal> {
    let Some(unreadable) = &world.unreadable else {
        return Ok(());
    };
    let overridden = mode == Mode::InPlace && override_reason(&request.statements).is_some();
    let is_primary = |resource: &ResourceFacts| {
        let seen = resource.facts.regions.get(&request.to);
        matches!(
            seen.map(|seen| &seen.instance),
            Some(Instance::Running {
                role: Role::Primary,
                ..
            })
        )
    };
    if overridden || head.primary != request.to || world.resources.values().all(is_primary) {
        return Ok(());
    }
    Err(Refusal::Unreadable {
        to: request.to.clone(),
        workload: world.workload.clone(),
        epoch: head.epoch,
        execution: unreadable.execution.clone(),
        why: unreadable.why.clone(),
    })
}

/// Returns what the newest epoch claims and the region moved to has instead, if it has nothing of it.
fn behind(world: &World, request: &Request, resource: &ResourceFacts) -> Option<String> {
    let claim = resource.facts.claim.as_ref()?;
    let has = lacks(claim, resource.facts.regions.get(&request.to)?)?;
    let records = world.register.records().iter();
    let mut began = records.filter(|record| record.epoch == claim.log_epoch);
    let began = match began.next() {
        Some(record) => match &record.execution {
            Some(id) => format!("{}, by execution {id}", record.reason),
            None => record.reason.clone(),
        },
        None => "its record was not read".to_owned(),
    };
    Some(format!(
        "epoch {} ({began}) writes timeline {}, and {has}",
        claim.log_epoch, claim.timeline
    ))
}

/// Says what a region has instead of the log that is claimed; `None` if it has some of that, or if that cannot be seen.
fn lacks(claim: &ClaimFacts, seen: &RegionFacts) -> Option<String> {
    let held = match &seen.log {
        Err(_) => return None,
        Ok(Some(held)) if held.epoch >= claim.log_epoch => return None,
        Ok(held) => held.as_ref(),
    };
    let standby = match &seen.instance {
        // It follows the new timeline, whatever its region's receiver has written.
        Instance::Running { timeline, .. } if *timeline == claim.timeline => return None,
        Instance::Running {
            role: Role::Standby,
            timeline,
            position,
            ..
        } => Some(format!("a standby on timeline {timeline} at {position}")),
        _ => None,
    };
    let log = held.map(|held| {
        let (epoch, timeline) = (held.epoch, held.timeline);
        format!("the log of epoch {epoch} on timeline {timeline}")
    });
    let has: Vec<_> = standby.into_iter().chain(log).collect();
    // Where there is nothing at all there is nothing to mistake for it.
    (!has.is_empty()).then(|| format!("there is only {}", has.join(" and ")))
}
