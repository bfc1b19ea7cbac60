//! What is different where a workload is recovered in its own region: nothing is left behind, a database that is started again goes
//! on with its log, and one that is put back loses what it is put back for. Pure.

use std::collections::{BTreeMap, BTreeSet};

use dr_config::Runbook;
use dr_model::loss::{Bound, Estimate, Verdict};
use dr_model::{RegionName, ResourceName};
use dr_provider::driver::{Goal, LossFacts, RestoreTarget};

use super::{ExpectedProof, LossPlan, Mode, Refusal, Target, gate};
use crate::executions::Unfinished;
use crate::outcome::State;
use crate::request::{Request, override_reason};
use crate::steps::prepare_database;
use crate::world::World;

/// Tells whether a database can be started again as it was, and nothing else is asked for.
pub(crate) fn goes_on(world: &World, request: &Request, name: &ResourceName) -> bool {
    let Some(resource) = world.resources.get(name) else {
        return true;
    };
    let goal = Goal::Restart {
        region: request.to.clone(),
    };
    request.target.is_none() && resource.driver.plan(&goal, &resource.facts).is_ok()
}

/// Tells whether a runbook can put databases back to a moment.
pub(super) fn puts_back(runbook: &Runbook) -> bool {
    let mut steps = runbook.steps.iter();
    steps.any(|step| step.uses == prepare_database::NAME)
}

/// Tells whether an execution gives way to this move: one in place does to a move out of its region, if it stands still or somebody
/// overrides it. The epoch that the move opens takes its say away, as with any other.
pub(super) fn yields(other: &Unfinished, request: &Request, mode: Mode) -> bool {
    let leaves = matches!(mode, Mode::Unplanned | Mode::Planned) && other.to != request.to;
    let stands = matches!(other.state, State::Stuck | State::Paused);
    other.from == other.to && leaves && (stands || override_reason(&request.statements).is_some())
}

/// Names the executions that give way.
pub(super) fn superseded<'a>(
    world: &'a World,
    request: &'a Request,
    mode: Mode,
) -> impl Iterator<Item = String> + 'a {
    let others = world.unfinished.iter();
    let others = others.filter(move |other| yields(other, request, mode));
    others.map(|other| {
        format!(
            "execution {} in {} has not ended ({}): it loses its say to the epoch that is opened",
            other.execution,
            other.to,
            other.state.as_str()
        )
    })
}

/// Leaves in the world what is to be recovered; the error says what there is.
pub(super) fn only(world: &World, component: &str) -> Result<World, Refusal> {
    let mut part = world.clone();
    part.resources.retain(|name, _| name.as_str() == component);
    part.services
        .retain(|service| service.name.as_str() == component);
    part.services_left
        .retain(|service| service.name.as_str() == component);
    // Who asks for it by its name does not go on without it.
    let asked =
        |target: &Target| matches!(target, Target::Service(name) if name.as_str() == component);
    part.optional.retain(|target| !asked(target));
    if part.resources.is_empty() && part.services.is_empty() {
        let resources = world.resources.keys().map(|name| format!("`{name}`"));
        let services = world
            .services
            .iter()
            .map(|service| format!("`{}`", service.name));
        return Err(Refusal::NoComponent {
            component: component.to_owned(),
            workload: world.workload.clone(),
            region: world.register.head().map(|head| head.primary.clone()),
            known: resources.chain(services).collect(),
        });
    }
    Ok(part)
}

/// Returns what is lost: nothing of what goes on, what was asked for where a moment was named, and else what a rebuild loses.
pub(super) fn loss(world: &World, request: &Request) -> Result<LossPlan, Refusal> {
    if let Some(target) = &request.target {
        return Ok(put_back(world, request, target));
    }
    let (on, rebuilt): (Vec<_>, Vec<_>) = world
        .resources
        .keys()
        .partition(|name| goes_on(world, request, name));
    let mut part = world.clone();
    part.resources.retain(|name, _| rebuilt.contains(&name));
    let mut loss = gate::loss(&part, request, None, BTreeSet::new())?;
    for name in on {
        let nothing = LossFacts {
            estimate: None,
            bound: Bound::Zero,
            rests_on: None,
            commits_per_second: None,
            sealing_proves_zero: false,
            because: vec!["it goes on with its own log".to_owned()],
        };
        loss.resources.insert(name.clone(), nothing);
    }
    Ok(loss)
}

fn put_back(world: &World, request: &Request, target: &RestoreTarget) -> LossPlan {
    let since = match target {
        RestoreTarget::Time(at) => Some(*at),
        _ => None,
    };
    let estimate = since.map(|since| Estimate {
        delay_seconds: world
            .observed_at
            .duration_since(since)
            .as_secs_f64()
            .max(0.0),
        missing_bytes: 0,
        commits: None,
        last_contact: world.observed_at,
        lived_on_seconds: 0.0,
    });
    let bound = match world.resources.is_empty() {
        true => Bound::Zero,
        // Clients write until the database is stopped, which is after the restore beside it.
        false => Bound::Growing { since },
    };
    let of = |name: &ResourceName| {
        let facts = LossFacts {
            estimate: estimate.clone(),
            bound: bound.clone(),
            rests_on: None,
            commits_per_second: None,
            sealing_proves_zero: false,
            because: vec!["everything after the moment that was named is left out; it is kept beside the data directory".to_owned()],
        };
        (name.clone(), facts)
    };
    LossPlan {
        resources: world.resources.keys().map(of).collect(),
        estimate,
        bound,
        budget_seconds: request.max_loss.unwrap_or(world.rpo).as_secs_f64(),
        verdict: Verdict::Chosen,
        behind: BTreeSet::new(),
    }
}

/// Tells how each database that does not go on is expected to be proven stopped.
pub(super) fn proofs(
    world: &World,
    region: &RegionName,
    loss: &LossPlan,
    request: &Request,
) -> Result<BTreeMap<ResourceName, ExpectedProof>, Refusal> {
    let mut part = world.clone();
    part.resources
        .retain(|name, _| !goes_on(world, request, name));
    gate::proofs(&part, region, loss, request, gate::Left::InPlace)
}
