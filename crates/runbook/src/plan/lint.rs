//! What is wrong, or could go wrong, with a plan before it runs.

use dr_config::{Runbook, Step as Document};
use dr_model::RegionName;
use dr_model::document::{Context, Problem};
use dr_provider::driver::Undo;

use super::{Mode, PlannedStep, Refusal, condition, in_place};
use crate::plan::Idempotency;
use crate::step::{Scene, Step};
use crate::steps::{
    await_fence, check_data_loss, prepare_database, promote_database, registry, restore_database,
};

/// The longest time to live that does not get a warning, in seconds (L9).
const MAX_TTL_SECONDS: u32 = 60;

/// Puts steps into an order in which each stands after what it needs, otherwise as written.
///
/// The configuration has made sure that the needs exist and have no circle; what is left over if not is put last.
pub(crate) fn ordered(steps: &[Document]) -> Vec<&Document> {
    let mut ordered: Vec<&Document> = Vec::new();
    let mut left: Vec<&Document> = steps.iter().collect();
    loop {
        let over = |step: &&Document| {
            let mut needs = step.needs.iter();
            needs.all(|need| ordered.iter().any(|before| before.id == *need))
        };
        match left.iter().position(over) {
            Some(next) => ordered.push(left.remove(next)),
            None => break,
        }
    }
    ordered.extend(left);
    ordered
}

/// Tells whether a runbook waits for the guard of the old primary before anything comes up. Where the region being left is there, or
/// is not left, nobody waits for one.
pub(crate) fn awaits_guards(runbook: &Runbook) -> bool {
    let comes_up = |step: &&Document| {
        [promote_database::NAME, restore_database::NAME].contains(&step.uses.as_str())
    };
    let awaits = |step: &Document| step.uses == await_fence::NAME && step.condition.is_none();
    let mut before = ordered(&runbook.steps)
        .into_iter()
        .take_while(|step| !comes_up(step));
    Mode::of(runbook) == Mode::Unplanned && before.any(awaits)
}

/// Reports what a step of the runbook may not be; returns its fallback.
pub(super) fn step(
    step: &Document,
    kind: &dyn Step,
    context: &mut Context,
) -> Option<&'static dyn Step> {
    let name = kind.name();
    if let Some(condition) = step
        .condition
        .as_ref()
        .filter(|word| !condition::is_known(word))
    {
        let what = format!("`if: {condition}` is not known");
        context.report(Problem::error(&step.span, what));
    }
    if step.continue_on_error && !kind.may_fail() {
        let what = format!("`{name}` must not fail, because what follows rests on it");
        let hint = "take `continue_on_error` away";
        context.report(Problem::error(&step.span, what).hint(hint));
    }
    let fallback = step.fallback.as_deref()?;
    if !kind.fallbacks().contains(&fallback) {
        let what = format!("`{fallback}` cannot stand in for `{name}`");
        context.report(Problem::error(&step.span, what));
        return None;
    }
    registry::find(fallback)
}

/// Refuses a plan that needs the region being left (L1). Only fencing may address it, since it may fail; and a register
/// that still is there has answered just now.
pub(crate) fn dependencies(steps: &[PlannedStep], from: &RegionName) -> Result<(), Refusal> {
    for step in steps {
        for lane in &step.lanes {
            let other = lane.fallback.iter().filter_map(|b| b.actions.as_ref().ok());
            let branches = std::iter::once((&lane.uses, &lane.actions))
                .chain(lane.fallback.iter().map(|branch| &branch.uses).zip(other));
            for (uses, actions) in branches {
                let exempt = registry::find(uses).is_some_and(Step::may_touch_region_left);
                let mut needs = actions.iter().flat_map(|action| &action.dependencies);
                if let Some(need) = needs.find(|need| need.region == *from && !exempt) {
                    return Err(Refusal::DependsOnRegionLeft {
                        step: step.id.clone(),
                        what: need.what.clone(),
                        region: from.clone(),
                    });
                }
            }
        }
    }
    Ok(())
}

/// Says what somebody should know before saying yes.
pub(super) fn warnings(steps: &[PlannedStep], scene: &Scene<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let world = scene.world;
    let in_place = scene.mode == Mode::InPlace;
    if let Some(why) = &scene.register.unproven {
        warnings.push(format!(
            "the register cannot be read ({why}): by override the new epoch rests on a copy and is unproven for ever"
        ));
    } else if scene.register.region == *scene.from && !in_place {
        warnings.push(format!(
            "the register is in {}, the region being left: if it falls silent before the epoch is opened, nothing is changed",
            scene.from
        ));
    }
    for traffic in &world.traffic {
        match &traffic.state {
            Ok(state) if state.ttl_seconds > MAX_TTL_SECONDS => warnings.push(format!(
                "`{}` may be cached for {} s; at most {MAX_TTL_SECONDS} s is advised",
                traffic.name, state.ttl_seconds
            )),
            Ok(_) => {}
            Err(why) => warnings.push(format!("`{}` does not answer now: {why}", traffic.name)),
        }
    }
    if world.traffic.is_empty() && !in_place {
        warnings.push("no traffic is configured: clients are led nowhere".to_owned());
    }
    if world.probes.is_empty() {
        warnings.push("no checks are configured: nothing will prove that it works".to_owned());
    }
    if in_place
        && !scene
            .loss
            .resources
            .keys()
            .all(|name| in_place::goes_on(world, scene.request, name))
    {
        warnings.push(
            "standbys elsewhere do not follow the new timeline: make them anew with `dr standby create`, and call `dr sync enable` where \
             commits waited for another region"
                .to_owned(),
        );
    }
    warnings.extend(ungated(steps));
    for step in steps {
        if step.idempotency == Idempotency::AtLeastOnce && !step.lanes.is_empty() {
            let id = &step.id;
            warnings.push(format!(
                "step `{id}` has its effect at least once: again after a crash"
            ));
        }
        for lane in &step.lanes {
            if let Some(replaced) = &lane.replaces {
                warnings.push(format!(
                    "`{}` is done by {}, because {} cannot be: {}",
                    lane.target, lane.uses, replaced.uses, replaced.why
                ));
            }
            if let Some(Err(why)) = lane.fallback.as_ref().map(|branch| &branch.actions) {
                let uses = &lane.uses;
                warnings.push(format!(
                    "if {uses} of `{}` fails there is no other way: {why}",
                    lane.target
                ));
            }
        }
    }
    warnings.extend(world.unseen.iter().cloned());
    warnings
}

/// Names the first point of no return that has no gate before it.
fn ungated(steps: &[PlannedStep]) -> Option<String> {
    let gate = |step: &PlannedStep| {
        let judges = step.uses == check_data_loss::NAME && !step.continue_on_error;
        // Whoever names a moment has said what is to be lost.
        (judges || step.uses == prepare_database::NAME) && step.left_out.is_none()
    };
    let irreversible = |step: &PlannedStep| matches!(step.undo, Undo::Irreversible(_));
    let first = steps.iter().position(irreversible)?;
    let gated = steps[..first].iter().any(gate);
    let id = &steps[first].id;
    (!gated).then(|| format!("step `{id}` is a point of no return without a gate before it"))
}
