//! Makes a plan out of a runbook, facts and wishes. Pure.

use std::collections::BTreeMap;

use dr_config::Runbook;
use dr_coordination::register::{EpochRecord, next_timeline};
use dr_model::document::{Context, Problem};
use dr_model::loss::Bound;
use dr_model::{RegionName, ResourceName, TimelineId};
use dr_provider::driver::{Action, Instance};

use super::{
    Branch, Claim, Class, Lane, Mode, Plan, PlannedStep, Refusal, RegisterPlan, Replaced, Target,
    VERSION, behind, condition, elsewhere, gate, gravity, hash, in_place, lint,
};
use crate::executions::Unfinished;
use crate::past::Predictions;
use crate::request::{Request, Rung, clients_by_hand, override_reason};
use crate::sight::Sight;
use crate::step::{Impossible, Scene, Step};
use crate::steps::{registry, replace_database, restore_database, switch_traffic};
use crate::world::{RegisterFacts, ResourceFacts, TrafficFacts, World};

/// Resolves `runbook` against the facts, or says why that cannot or may not be done.
pub fn plan(runbook: &Runbook, world: &World, request: &Request) -> Result<Plan, Refusal> {
    let mode = Mode::of(runbook);
    let part;
    let world = match (&request.component, mode) {
        (Some(component), Mode::InPlace) => {
            part = in_place::only(world, component)?;
            &part
        }
        _ => world,
    };
    if request.target.is_some()
        && !(in_place::puts_back(runbook) && world.resources.keys().next().is_some())
    {
        return Err(Refusal::NoMoment {
            runbook: runbook.name.clone(),
            component: request.component.clone(),
        });
    }
    let head = target(world, request, mode)?;
    if let Some(store) = &world.unwritable {
        return Err(store.clone().into());
    }
    let switches = |step: &dr_config::Step| step.uses == switch_traffic::NAME;
    // Who sets safety rules aside has not said that they know of this.
    if clients_by_hand(&request.statements).is_none() && runbook.steps.iter().any(switches) {
        let needed = |record: &&TrafficFacts| {
            let target = Target::Traffic(record.name.clone());
            !world.optional.contains(&target)
        };
        for record in world.traffic.iter().filter(needed) {
            if let Some(denied) = &record.denied {
                return Err(denied.clone().refuses(record.name.clone()));
            }
            if let (Mode::Planned, Err(why)) = (mode, &record.state) {
                return Err(Refusal::TrafficSilent {
                    record: record.name.clone(),
                    why: why.clone(),
                });
            }
        }
    }
    let (from, ended) = (&head.primary, head.epoch);
    let behind = behind::refuse(world, request, mode)?;
    let mut accepted: Vec<String> = behind.values().cloned().collect();
    accepted.extend(elsewhere::refuse(world, request, mode)?);
    let register = register(world, head, request);
    let (loss, proofs) = match mode {
        // Nothing was promoted, so nothing is left behind.
        Mode::Undo => (gate::nothing_lost(world, request), BTreeMap::new()),
        Mode::InPlace => {
            let loss = in_place::loss(world, request)?;
            let proofs = in_place::proofs(world, from, &loss, request)?;
            (loss, proofs)
        }
        Mode::Unplanned | Mode::Planned => {
            let left = (mode == Mode::Unplanned).then_some(from);
            let behind = behind.into_keys().collect();
            let mut loss =
                gate::loss(world, request, left, behind).map_err(|refusal| match refusal {
                    Refusal::LossUnknown {
                        because,
                        may_be_accepted,
                    } => Refusal::LossUnknown {
                        because,
                        may_be_accepted: may_be_accepted && mode == Mode::Unplanned,
                    },
                    other => other,
                })?;
            let proofs = gate::proofs(world, from, &loss, request, gate::Left::of(runbook))?;
            loss.bound = match mode {
                // Nothing is promoted before that is proven.
                Mode::Planned => Bound::Zero,
                _ => gate::bound(world, from, &loss, &proofs),
            };
            (loss, proofs)
        }
    };
    let scene = Scene {
        world,
        request,
        mode,
        from,
        ended,
        register: &register,
        loss: &loss,
    };
    let steps = steps(runbook, &scene)?;
    gate::approval(world, mode, &runbook.name, &steps)?;
    let rebuilds = [restore_database::NAME, replace_database::NAME];
    let rung = Rung::of(rebuilds.iter().any(|uses| takes(&steps, uses)), mode);
    match mode {
        Mode::InPlace => lint::brought_up(&steps)?,
        Mode::Undo => lint::dependencies(&steps, from)?,
        Mode::Unplanned | Mode::Planned => {
            lint::dependencies(&steps, from)?;
            lint::taken_over(runbook, &steps, &scene)?;
        }
    }
    let contacts = loss.resources.values().filter_map(|l| l.estimate.as_ref());
    let last_contact = contacts.map(|estimate| estimate.last_contact).max();
    let mut plan = Plan {
        version: VERSION,
        runbook: runbook.name.to_string(),
        mode,
        workload: world.workload.clone(),
        from: from.clone(),
        to: request.to.clone(),
        ended,
        opens: ended.next(),
        claims: match mode {
            Mode::Undo => claims_before(world, &request.to),
            // What goes on keeps what it has.
            Mode::InPlace => {
                let mut claims = claims(world);
                claims.retain(|name, _| !in_place::goes_on(world, request, name));
                claims
            }
            Mode::Unplanned | Mode::Planned => claims(world),
        },
        proofs,
        rung,
        statements: request.statements.clone(),
        requester: request.requester.clone(),
        moment: request.target.clone(),
        disrupted_at: match &request.disruption {
            Some(disruption) => Some(disruption.not_after),
            // Nobody knows when somebody made the mistake that is undone.
            None if request.target.is_some() => None,
            None => last_contact,
        },
        disruption: request.disruption.clone(),
        heartbeat_seconds: heartbeat_seconds(world),
        definitions: world.definitions.clone(),
        warnings: in_place::superseded(world, request, mode)
            .chain(accepted)
            .chain(lint::warnings(&steps, &scene))
            .collect(),
        steps,
        sight: Sight::beyond(world, &request.to),
        register,
        loss,
        predicted_seconds: Predictions::of(&world.past, &runbook.name, &request.to).whole(),
        observed_at: world.observed_at,
        hash: String::new(),
    };
    plan.hash = hash::of(&plan);
    Ok(plan)
}

fn heartbeat_seconds(world: &World) -> Option<f64> {
    let intervals = world.resources.values().filter_map(|r| r.heartbeat);
    intervals.max().map(|interval| interval.as_secs_f64())
}

fn takes(steps: &[PlannedStep], uses: &str) -> bool {
    let mut lanes = steps.iter().flat_map(|step| &step.lanes);
    lanes.any(|lane| lane.uses == uses)
}

/// Checks what has to hold before anything can be planned; returns the newest epoch's record.
fn target<'a>(world: &'a World, request: &Request, mode: Mode) -> Result<&'a EpochRecord, Refusal> {
    let workload = &world.workload;
    let allowed = || std::iter::once(&world.home).chain(&world.recovery);
    if !allowed().any(|region| *region == request.to) {
        return Err(Refusal::NotARegion {
            to: request.to.clone(),
            workload: workload.clone(),
            allowed: allowed().cloned().collect(),
        });
    }
    let head = match &world.register {
        RegisterFacts::Unreachable { why, newest_copy } => match newest_copy {
            // In its own region the new record goes on with what the old one says, which has to be the newest.
            Some(copy)
                if mode != Mode::InPlace && override_reason(&request.statements).is_some() =>
            {
                copy
            }
            copy => {
                return Err(Refusal::RegisterUnreachable {
                    workload: workload.clone(),
                    why: why.clone(),
                    has_copy: copy.is_some(),
                });
            }
        },
        RegisterFacts::Damaged { why, hint } => {
            return Err(Refusal::RegisterDamaged {
                why: why.clone(),
                hint: hint.clone(),
            });
        }
        known => known.head().ok_or_else(|| Refusal::NoEpoch {
            workload: workload.clone(),
        })?,
    };
    // Before the target: one that has opened its epoch and died leaves a primary that does not serve yet.
    let mut others = world.unfinished.iter();
    let stands_in_the_way = |other: &&Unfinished| {
        request.undoes.as_ref() != Some(&other.execution) && !in_place::yields(other, request, mode)
    };
    if let Some(other) = others.find(stands_in_the_way) {
        return Err(Refusal::Unfinished(Box::new(other.clone())));
    }
    behind::refuse_unreadable(world, head, request, mode)?;
    if mode == Mode::InPlace && head.primary != request.to {
        return Err(Refusal::NotPrimary {
            workload: workload.clone(),
            primary: head.primary.clone(),
            region: request.to.clone(),
        });
    }
    if mode != Mode::InPlace && head.primary == request.to {
        return Err(Refusal::TargetIsPrimary {
            to: request.to.clone(),
            workload: workload.clone(),
            epoch: head.epoch,
        });
    }
    Ok(head)
}

/// Decides where the new record is created and where the one after it will be.
///
/// A third region whose store answers is the best place: in one that does not, nobody could read it. Without one it stays where it is: in the region moved to until that one is
/// protected again, or in the one being left if the register answered there just now.
fn register(world: &World, head: &EpochRecord, request: &Request) -> RegisterPlan {
    let to = &request.to;
    let third = |region: &&RegionName| **region != head.primary && *region != to;
    let stays = Some(&head.register).filter(third);
    let answers = |region: &&RegionName| {
        let mut resources = world.resources.values();
        resources.all(|resource| {
            let seen = resource.facts.regions.get(*region);
            seen.is_some_and(|seen| seen.log.is_ok())
        })
    };
    let others = || {
        let all = std::iter::once(&world.home).chain(&world.recovery);
        all.filter(third).find(answers)
    };
    match &world.register {
        RegisterFacts::Unreachable { why, .. } | RegisterFacts::Damaged { why, .. } => {
            RegisterPlan {
                region: to.clone(),
                next: to.clone(),
                unproven: Some(why.clone()),
            }
        }
        _ if head.primary == *to => RegisterPlan {
            region: head.register.clone(),
            next: head.register.clone(),
            unproven: None,
        },
        RegisterFacts::Proven(_) | RegisterFacts::Empty => RegisterPlan {
            region: head.register.clone(),
            next: stays.or_else(others).unwrap_or(&head.register).clone(),
            unproven: None,
        },
    }
}

/// Claims a timeline for each cluster: one more than any in a record or seen anywhere.
fn claims(world: &World) -> BTreeMap<ResourceName, Claim> {
    let records = world.register.records();
    let mut claims = BTreeMap::new();
    for (name, resource) in &world.resources {
        let recorded = records
            .iter()
            .rev()
            .find_map(|record| record.clusters.get(name));
        let seen = resource.facts.system_identifier;
        let Some(system_identifier) = seen.or(recorded.map(|claim| claim.system_identifier)) else {
            continue;
        };
        let claimed = next_timeline(records, system_identifier);
        let running = timelines(resource).max().map(TimelineId::next);
        let Some(timeline) = claimed.max(running) else {
            continue;
        };
        claims.insert(
            name.clone(),
            Claim {
                system_identifier,
                timeline,
                start_lsn: None,
            },
        );
    }
    claims
}

/// Claims again what `region` had when it was the primary last: its log goes on behind what every store holds of it.
fn claims_before(world: &World, region: &RegionName) -> BTreeMap<ResourceName, Claim> {
    let mut claims = BTreeMap::new();
    for (name, resource) in &world.resources {
        let mut records = world.register.records().iter().rev();
        let had = records
            .find(|record| record.primary == *region)
            .and_then(|record| record.clusters.get(name));
        let Some(had) = had else { continue };
        let held = resource.facts.regions.values().filter_map(|seen| {
            let log = seen.log.as_ref().ok()?.as_ref()?;
            (log.timeline == had.timeline).then_some(log.end)
        });
        let claim = Claim {
            system_identifier: had.system_identifier,
            timeline: had.timeline,
            start_lsn: held.min(),
        };
        claims.insert(name.clone(), claim);
    }
    claims
}

fn timelines(resource: &ResourceFacts) -> impl Iterator<Item = TimelineId> {
    resource.facts.regions.values().flat_map(|region| {
        let running = match &region.instance {
            Instance::Running { timeline, .. } => Some(*timeline),
            _ => None,
        };
        let stored = match &region.log {
            Ok(Some(log)) => Some(log.timeline),
            _ => None,
        };
        running.into_iter().chain(stored)
    })
}

fn steps(runbook: &Runbook, scene: &Scene<'_>) -> Result<Vec<PlannedStep>, Refusal> {
    let mut context = Context::without_references("");
    for wrong in lint::wrong(runbook) {
        context.report(Problem::error(&wrong.span, wrong.what).hint(wrong.hint));
    }
    // What no day changes is said before what this one does not allow.
    if context.errors() > 0 {
        return Err(unusable(runbook, context));
    }
    let mut planned = Vec::new();
    let predictions = Predictions::of(&scene.world.past, &runbook.name, scene.to());
    for step in lint::ordered(&runbook.steps) {
        let Some(kind) = registry::find(&step.uses) else {
            continue;
        };
        let parameters = kind.parameters(&step.with, &mut context);
        let other = lint::fallback(step, kind);
        let word = step.condition.as_deref();
        let left_out = word.and_then(|word| condition::left_out(word, scene));
        let targets = match left_out {
            Some(_) => Vec::new(),
            None => kind.targets(scene),
        };
        let lanes = targets
            .into_iter()
            .map(|target| lane(step, kind, other, scene, target, &parameters));
        let mut lanes = lanes.collect::<Result<Vec<_>, _>>()?;
        // Nothing that has to be waits for what need not be.
        lanes.sort_by_key(|lane| lane.optional);
        let actions = || lanes.iter().flat_map(|lane| &lane.actions);
        let gravest = actions()
            .map(|action| &action.undo)
            .max_by_key(|undo| gravity(undo));
        let timeout = step.timeout.unwrap_or_else(|| kind.timeout_in(scene));
        planned.push(PlannedStep {
            id: step.id.clone(),
            uses: step.uses.clone(),
            needs: step.needs.clone(),
            continue_on_error: step.continue_on_error,
            timeout_seconds: timeout.as_secs_f64(),
            attempts: step.retry.attempts.saturating_add(1),
            retry_delay_seconds: step.retry.wait.as_secs_f64(),
            background: kind.in_background(scene),
            undo: gravest
                .cloned()
                .unwrap_or(dr_provider::driver::Undo::ReadOnly),
            idempotency: kind.idempotency(),
            predicted_seconds: predictions.step(&step.id, &step.uses),
            parameters,
            left_out,
            lanes,
        });
    }
    match context.errors() {
        0 => Ok(planned),
        _ => Err(unusable(runbook, context)),
    }
}

fn unusable(runbook: &Runbook, context: Context) -> Refusal {
    Refusal::Runbook {
        runbook: runbook.name.to_string(),
        problems: context.into_problems(),
    }
}

fn lane(
    step: &dr_config::Step,
    kind: &dyn Step,
    other: Option<&'static dyn Step>,
    scene: &Scene<'_>,
    target: Target,
    parameters: &serde_json::Value,
) -> Result<Lane, Refusal> {
    let nothing = serde_json::Value::Null;
    let alternative = other.map(|other| (other, other.plan(scene, &target, &nothing)));
    let optional = lint::is_optional(scene, kind, &target);
    let refuse = |why: String, hint: Option<String>, class| Refusal::Impossible {
        step: step.id.clone(),
        target: target.clone(),
        why,
        hint,
        class,
    };
    match (kind.plan(scene, &target, parameters), alternative) {
        (Ok(actions), alternative) => Ok(Lane {
            uses: kind.name().to_owned(),
            replaces: None,
            actions,
            fallback: alternative.map(|(other, actions)| branch(kind, other, actions)),
            target,
            optional,
        }),
        (Err(main), Some((other, Ok(actions)))) => Ok(Lane {
            uses: other.name().to_owned(),
            replaces: Some(Replaced {
                uses: kind.name().to_owned(),
                why: main.why,
            }),
            actions,
            fallback: None,
            target,
            optional,
        }),
        (Err(main), Some((other, Err(also)))) => {
            let (one, two) = (kind.name(), other.name());
            let why = format!("{one}: {}; {two}: {}", main.why, also.why);
            // Who asks for a restore where a server is asks for what a restore never does.
            let class = match (main.class, also.class) {
                (_, Class::Safety) if scene.request.rung.is_some() => Class::Safety,
                (Class::Asked, _) | (_, Class::Asked) => Class::Asked,
                (Class::Invalid, Class::Invalid) => Class::Invalid,
                _ => Class::Unavailable,
            };
            Err(refuse(why, also.hint.or(main.hint), class))
        }
        (Err(main), None) => {
            let class = match main.class {
                known @ (Class::Asked | Class::Invalid) => known,
                // A move can be made another way; there is one way only to take one back.
                Class::Safety if scene.request.undoes.is_some() => Class::Safety,
                _ => Class::Unavailable,
            };
            Err(refuse(main.why, main.hint, class))
        }
    }
}

fn branch(kind: &dyn Step, other: &dyn Step, actions: Result<Vec<Action>, Impossible>) -> Branch {
    Branch {
        uses: other.name().to_owned(),
        condition: format!("if {} definitely cannot be done", kind.name()),
        actions: actions.map_err(|impossible| impossible.why),
    }
}
