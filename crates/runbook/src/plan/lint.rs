//! What is wrong, or could go wrong, with a plan before it runs.

use std::time::Duration;

use dr_config::{Runbook, Step as Document};
use dr_model::document::Span;
use dr_model::{RegionName, StepId};
use dr_provider::driver::{Instance, Undo};

use super::{Lane, Mode, PlannedStep, Refusal, Target, condition, in_place};
use crate::old_primary::is_alive;
use crate::plan::Idempotency;
use crate::step::{Scene, Step};
use crate::steps::{
    await_approval, await_fence, check_data_loss, check_health, fence_primary, open_epoch,
    prepare_database, promote_database, registry, replace_database, restart_database,
    restore_database, resume_primary, start_service, stop_service, stop_writes, switch_traffic,
    verify_traffic,
};
use crate::world::ResourceFacts;

/// The steps that leave a primary behind.
pub(crate) const COMES_UP: [&str; 5] = [
    promote_database::NAME,
    restore_database::NAME,
    replace_database::NAME,
    restart_database::NAME,
    resume_primary::NAME,
];

/// Tells whether a step of this name leaves a primary behind.
pub(crate) fn comes_up(uses: &str) -> bool {
    COMES_UP.contains(&uses)
}

/// The steps that go on without something optional: what they do for one thing nothing else rests on.
const GO_WITHOUT: [&str; 4] = [
    start_service::NAME,
    check_health::NAME,
    switch_traffic::NAME,
    verify_traffic::NAME,
];

/// Tells whether a step goes on without `target`.
pub(super) fn is_optional(scene: &Scene<'_>, kind: &dyn Step, target: &Target) -> bool {
    GO_WITHOUT.contains(&kind.name()) && scene.world.optional.contains(target)
}

/// The least that an attempt may be given: what is cut off is unknown, and an attempt that is always cut off leaves an execution stuck.
const LEAST_TIMEOUT: Duration = Duration::from_secs(1);

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
    let comes_up = |step: &&Document| COMES_UP.contains(&step.uses.as_str());
    let awaits = |step: &Document| step.uses == await_fence::NAME && step.condition.is_none();
    let mut before = ordered(&runbook.steps)
        .into_iter()
        .take_while(|step| !comes_up(step));
    Mode::of(runbook) == Mode::Unplanned && before.any(awaits)
}

/// Something in a runbook for which a plan is refused, whatever is seen on the day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// The step.
    pub(crate) step: StepId,
    /// Where it stands.
    pub(crate) span: Span,
    /// What is wrong: a lower-case fragment.
    pub(crate) what: String,
    /// What to do.
    pub(crate) hint: &'static str,
}

/// Finds all that is wrong with a runbook by itself: the plan refuses it, and `check` names it beforehand.
pub(crate) fn wrong(runbook: &Runbook) -> Vec<Wrong> {
    let steps = ordered(&runbook.steps);
    let mut found = Vec::new();
    for step in &steps {
        let Some(kind) = registry::find(&step.uses) else {
            let what = format!("there is no step `{}`", step.uses);
            found.push(at(step, what, "`docs/steps.md` has all steps"));
            continue;
        };
        found.extend(wrong_step(step, kind));
    }
    let comes_up: Vec<_> = steps
        .iter()
        .enumerate()
        .filter(|(_, step)| COMES_UP.contains(&step.uses.as_str()))
        .collect();
    // With a condition each, one of two may be left out.
    let mut certain = comes_up.iter().filter(|(_, step)| step.condition.is_none());
    if let (Some((_, first)), Some((_, second))) = (certain.next(), certain.next()) {
        let what = format!(
            "`{}` would bring up what step `{}` has brought up already",
            second.uses, first.id
        );
        found.push(at(
            second,
            what,
            "take one of the two away, or make it the `fallback` of the other",
        ));
    }
    let led = steps
        .iter()
        .position(|step| step.uses == switch_traffic::NAME);
    if let (Some(led), Some((last, brings))) = (led, comes_up.last())
        && led < *last
    {
        let what = format!(
            "`{}` leads clients to a region before step `{}` has brought anything up there",
            steps[led].uses, brings.id
        );
        found.push(at(
            steps[led],
            what,
            "put it behind that step, and behind `check-health`",
        ));
    }
    found
}

/// What makes a move.
pub(super) const MOVES: &str = "`open-epoch`, and `promote-database` with `fallback: restore-database` behind it, are what moves a workload: \
     `dr runbook show failover-region` has them in their places";

/// Finds a move that takes the workload from its primary and, whatever is seen on the day or on some days only, brings up nothing in its
/// place, and one that takes nothing from anybody. The plan of the day refuses what would ([`taken_over`]).
pub(crate) fn left_down(runbook: &Runbook) -> Option<Wrong> {
    let steps = ordered(&runbook.steps);
    if !matches!(Mode::of(runbook), Mode::Unplanned | Mode::Planned) {
        return None;
    }
    let takes = |step: &&Document| step.uses == open_epoch::NAME;
    let Some(taken) = steps.iter().position(takes) else {
        let what = "no step opens an epoch, so that no command can carry it out as a move";
        let first = steps.first()?;
        return Some(at(first, what.to_owned(), MOVES));
    };
    let later = steps[taken..].iter();
    let comes_up: Vec<_> = later.filter(|step| comes_up(&step.uses)).collect();
    let conditions: Option<Vec<&str>> = comes_up
        .iter()
        .map(|step| step.condition.as_deref())
        .collect();
    // One without a condition is always taken.
    if conditions.is_none_or(|words| condition::one_holds(&words)) {
        return None;
    }
    let on = match comes_up.as_slice() {
        [] => "",
        _ => "on some days ",
    };
    let what = format!(
        "`{}` takes the workload from its primary, and {on}no step behind it brings it up again",
        open_epoch::NAME
    );
    Some(at(
        steps[taken],
        what,
        "put `promote-database` with `fallback: restore-database` behind it, without `if`",
    ))
}

fn at(step: &Document, what: String, hint: &'static str) -> Wrong {
    Wrong {
        step: step.id.clone(),
        span: step.span.clone(),
        what,
        hint,
    }
}

fn wrong_step(step: &Document, kind: &dyn Step) -> Vec<Wrong> {
    let name = kind.name();
    let mut found = Vec::new();
    if let Some(word) = step
        .condition
        .as_ref()
        .filter(|word| !condition::is_known(word))
    {
        let what = format!("`if: {word}` is not known");
        found.push(at(step, what, "`docs/steps.md` has the words"));
    }
    if step.continue_on_error && !kind.may_fail() {
        let what = format!("`{name}` must not fail, because what follows rests on it");
        found.push(at(step, what, "take `continue_on_error` away"));
    }
    if let Some(timeout) = step.timeout.filter(|timeout| *timeout < LEAST_TIMEOUT) {
        let what = format!(
            "no attempt at `{name}` can be counted on to end within a `timeout` of {timeout:?}"
        );
        found.push(at(
            step,
            what,
            "take `timeout` away, or let it be long enough",
        ));
    }
    if let Some(other) = step.fallback.as_deref()
        && !kind.fallbacks().contains(&other)
    {
        let what = format!("`{other}` cannot stand in for `{name}`");
        let hint = match kind.fallbacks() {
            [] => "take `fallback` away: nothing can",
            _ => "`docs/steps.md` says what can",
        };
        found.push(at(step, what, hint));
    }
    found
}

/// Returns the step that stands in for another one.
pub(super) fn fallback(step: &Document, kind: &dyn Step) -> Option<&'static dyn Step> {
    let other = step.fallback.as_deref()?;
    kind.fallbacks()
        .contains(&other)
        .then(|| registry::find(other))?
}

/// Tells of steps in their order, of each whether it asks the people who approve and whether it changes something, whether they are
/// asked before anything is changed.
pub(crate) fn asks_first(steps: impl IntoIterator<Item = (bool, bool)>) -> bool {
    let decides = steps.into_iter().find(|(asks, changes)| *asks || *changes);
    decides.is_some_and(|(asks, _)| asks)
}

/// Tells the same of a runbook by itself: of a step that is not read-only it is taken that it changes something, and of a condition
/// that it holds for what changes something and not for who asks.
pub(crate) fn asks_people(runbook: &Runbook) -> bool {
    asks(runbook, false)
}

/// Tells it with every condition as is best for it: if even then nobody is asked, a condition is no way out.
pub(crate) fn may_ask_people(runbook: &Runbook) -> bool {
    asks(runbook, true)
}

fn asks(runbook: &Runbook, is_lenient: bool) -> bool {
    let of = |step: &Document| {
        let is_certain = step.condition.is_none();
        let asks = step.uses == await_approval::NAME && (is_certain || is_lenient);
        let kind = registry::find(&step.uses);
        let changes = kind.is_none_or(|kind| kind.idempotency() != Idempotency::ReadOnly);
        (asks, changes && (is_certain || !is_lenient))
    };
    Mode::of(runbook) == Mode::Undo || asks_first(ordered(&runbook.steps).into_iter().map(of))
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

/// Refuses a plan that takes a database from its primary and does not bring it up in the other region, and one that moves nothing: carried
/// out, it would say that the workload is served from there.
pub(crate) fn taken_over(
    runbook: &Runbook,
    steps: &[PlannedStep],
    scene: &Scene<'_>,
) -> Result<(), Refusal> {
    let opens = |step: &PlannedStep| step.uses == open_epoch::NAME && !step.lanes.is_empty();
    let Some(taken) = steps.iter().position(opens) else {
        return Err(Refusal::MovesNothing {
            runbook: runbook.name.clone(),
        });
    };
    let up = |target: &Target| {
        let mut later = steps[taken..].iter().flat_map(|step| &step.lanes);
        later.any(|lane| lane.target == *target && comes_up(&lane.uses))
    };
    match scene.resources().into_iter().find(|target| !up(target)) {
        None => Ok(()),
        Some(target) => Err(Refusal::TakenAway {
            step: steps[taken].id.clone(),
            target,
        }),
    }
}

/// Refuses a plan that stops something in its own place and does not bring it up again: nobody else would.
pub(crate) fn brought_up(steps: &[PlannedStep]) -> Result<(), Refusal> {
    const STOPS: [&str; 3] = [fence_primary::NAME, stop_writes::NAME, stop_service::NAME];
    let acts = |lane: &Lane| {
        let mut actions = lane.actions.iter();
        actions.any(|action| !matches!(action.undo, Undo::ReadOnly))
    };
    let brings = |lane: &Lane| {
        let uses = lane.uses.as_str();
        acts(lane) && (COMES_UP.contains(&uses) || uses == start_service::NAME)
    };
    for (index, step) in steps.iter().enumerate() {
        let stops = |lane: &&Lane| STOPS.contains(&lane.uses.as_str()) && acts(lane);
        for lane in step.lanes.iter().filter(stops) {
            let mut later = steps[index + 1..].iter().flat_map(|step| &step.lanes);
            if !later.any(|other| other.target == lane.target && brings(other)) {
                return Err(Refusal::LeftDown {
                    step: step.id.clone(),
                    target: lane.target.clone(),
                });
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
    let left = |resource: &ResourceFacts| {
        let seen = resource.facts.regions.get(scene.from)?;
        is_alive(Some(&seen.instance)).then(|| seen.instance.clone())
    };
    let mut alive = world.resources.values().filter_map(left);
    if scene.mode == Mode::Unplanned
        && let Some(instance) = alive.next()
    {
        let from = scene.from;
        warnings.push(match instance {
            Instance::Running { .. } => format!(
                "the primary in {from} is alive: `dr failover --planned` moves without losing anything"
            ),
            _ => format!("the primary in {from} runs and does not answer us, and may serve others: it is stopped, or killed"),
        });
    }
    let switches = steps
        .iter()
        .find(|step| step.uses == switch_traffic::NAME && !step.lanes.is_empty());
    for traffic in &world.traffic {
        if let (Some(denied), Some(step)) = (&traffic.denied, switches) {
            let optional = world
                .optional
                .contains(&Target::Traffic(traffic.name.clone()));
            let then = match optional {
                true => "goes on without it, because it is optional".to_owned(),
                false => format!(
                    "stops at step `{}`, which `dr execution resume` can leave out",
                    step.id
                ),
            };
            warnings.push(format!(
                "the switch of `{}` would be refused: {}; unless that is put right by then, the execution {then}",
                traffic.name, denied.why
            ));
        }
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
    warnings.extend(world.unseen.iter().map(ToString::to_string));
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
