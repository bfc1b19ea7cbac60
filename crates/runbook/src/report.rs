//! The report of an execution, read out of its history. Pure.

use std::collections::BTreeMap;

use dr_model::loss::Bound;
use dr_model::{ResourceName, StepId};
use dr_provider::driver::{Recovered, Undo};
use jiff::Timestamp;

use crate::history::{History, Progress, StepHistory};
use crate::outcome::{Loss, Report, ResourceReport, SealedAt, State, StepReport, StepState, Stuck};
use crate::plan::{Mode, Plan, PlannedStep, Target};
use crate::proof;
use crate::record::{Outcome, Place};
use crate::request::{Rung, clients_by_hand, override_reason, witness};
use crate::sight;
use crate::step::Step;
use crate::steps::{
    await_approval, check_health, rearm_protection, registry, replace_database, restore_database,
    verify_traffic,
};

/// What is left out where nobody knows when the disruption began.
const RTA_EXCLUDES: &str =
    "detection and decision come before the execution and were not exercised";

impl Report {
    /// Puts the time to recover together out of its parts, once it is known how long the execution took.
    pub(crate) fn set_execution_time(&mut self, history: &History, seconds: Option<f64>) {
        let started = history.started_at;
        self.execution_seconds = seconds;
        let Some(disruption) = &history.plan.disruption else {
            self.rta_seconds = seconds;
            return;
        };
        // One that is seen only after somebody has acted took no time to be decided about.
        let detected = disruption.detected_at.map(|at| at.min(started));
        let between = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64();
        let detection = detected.map(|at| between(disruption.not_before, at).max(0.0));
        let decision = between(detected.unwrap_or(disruption.not_before), started).max(0.0);
        self.detection_seconds = detection;
        self.decision_seconds = Some(decision);
        self.rta_seconds = seconds.map(|took| detection.unwrap_or(0.0) + decision + took);
        self.rta_excludes = String::new();
    }
}

/// Returns the report of an execution that is in `state` because of `reason`.
#[must_use]
pub(crate) fn report(history: &History, state: State, reason: Option<String>) -> Report {
    let plan = &history.plan;
    let names = plan.loss.resources.keys();
    let resources: BTreeMap<_, _> = names
        .map(|name| (name.clone(), resource(history, name)))
        .collect();
    let bounds = resources.values().map(|r| r.loss.bound.clone());
    let restored = resources.values().any(|r| r.rung == Rung::Restore);
    let mut report = Report {
        execution: history.execution.clone(),
        mode: plan.mode,
        state,
        reason,
        workload: plan.workload.clone(),
        from: plan.from.clone(),
        to: plan.to.clone(),
        epoch: plan.opens,
        unproven_epoch: plan.register.unproven.is_some(),
        rung: Rung::of(restored, plan.mode),
        fence: proof::weakest(history),
        override_reason: override_reason(&history.statements).map(str::to_owned),
        witness: witness(&history.statements).map(str::to_owned),
        clients_by_hand: clients_by_hand(&history.statements).map(str::to_owned),
        sealed: resources.values().find_map(|r| r.sealed),
        loss: Loss {
            estimate: plan.loss.estimate.clone(),
            bound: bounds.reduce(proof::worse).unwrap_or(Bound::Zero),
        },
        rpa_seconds: rpa(&resources),
        rpa_at_least_seconds: resources
            .values()
            .filter_map(|r| r.rpa_at_least_seconds)
            .reduce(f64::max),
        rpa_at_most_seconds: resources
            .values()
            .any(|r| r.rpa_at_least_seconds.is_some())
            .then(|| at_most(&resources))
            .flatten(),
        approval: await_approval::report(history),
        resources,
        started_at: history.started_at,
        finished_at: None,
        rta_seconds: None,
        rta_excludes: RTA_EXCLUDES.to_owned(),
        detection_seconds: None,
        decision_seconds: None,
        execution_seconds: None,
        overhead_seconds: None,
        rpa_interval_seconds: plan
            .heartbeat_seconds
            .filter(|_| plan.mode != Mode::Planned),
        unprotected_since: unprotected_since(history),
        sight: sight::assessed(history),
        // Of one that somebody else has the say over nobody is to do anything.
        stuck: history.stuck.clone().filter(|_| state != State::Superseded),
        steps: steps(history),
    };
    report.set_execution_time(history, execution_time(history));
    report
}

impl History {
    /// Returns the report of the execution as it stands.
    #[must_use]
    pub fn report(&self) -> Report {
        match &self.closed {
            Some(report) => report.clone(),
            None => {
                let stuck = self.stuck.as_ref().map(|stuck| stuck.why.clone());
                let reason = self.paused.clone().or(stuck);
                report(self, self.state(), reason)
            }
        }
    }

    /// Says what a step would change that is not known to be done, one line each.
    pub(crate) fn undone<'a>(&'a self, step: &'a StepId) -> impl Iterator<Item = &'a str> {
        let lanes = self
            .plan
            .step(step)
            .into_iter()
            .flat_map(|step| &step.lanes);
        lanes.enumerate().flat_map(move |(lane, planned)| {
            let actions = planned.actions.iter().enumerate();
            actions.filter_map(move |(action, planned)| {
                let place = Place {
                    step: step.clone(),
                    lane,
                    fallback: false,
                    action,
                };
                let changes = !matches!(planned.undo, Undo::ReadOnly);
                let open = changes && self.applied(&place).is_none();
                open.then_some(planned.summary.as_str())
            })
        })
    }

    /// Says what has been changed so far and what may have been, one line each.
    #[must_use]
    pub fn residue(&self) -> Vec<String> {
        self.residue_of(|_| true)
    }

    /// The same of some steps.
    pub(crate) fn residue_of(&self, counts: impl Fn(&PlannedStep) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        let counts = |place: &Place| self.plan.step(&place.step).is_some_and(&counts);
        for (place, progress) in self.actions().filter(|(place, _)| counts(place)) {
            let Some(action) = self.action(place) else {
                continue;
            };
            if matches!(action.undo, Undo::ReadOnly) {
                continue;
            }
            let step = &place.step;
            match progress {
                Progress::Concluded(Outcome::Done { applied, .. }) => {
                    lines.push(format!("{step}: {}", applied.summary));
                }
                Progress::Concluded(Outcome::NotDone { .. }) => {}
                Progress::Intended | Progress::Concluded(Outcome::Unknown { .. }) => {
                    lines.push(format!(
                        "{step}: it is unknown whether this was done: {}",
                        action.summary
                    ));
                }
            }
        }
        lines
    }
}

fn resource(history: &History, name: &ResourceName) -> ResourceReport {
    let sealed = proof::sealed(history, name);
    let recovered = proof::recovered(history, name);
    let heartbeat = recovered.as_ref().and_then(|recovered| recovered.heartbeat);
    let newest_commit = recovered.as_ref().and_then(|found| found.newest_commit);
    let reaches = recovered.as_ref().and_then(Recovered::reaches);
    let planned = history.plan.loss.resources.get(name);
    let bound = proof::bound(history, name);
    let to_disruption = match (history.plan.disrupted_at, reaches) {
        (Some(disrupted), Some(reached)) => {
            Some(disrupted.duration_since(reached).as_secs_f64().max(0.0))
        }
        _ => None,
    };
    // Where nobody wrote heartbeats their age says nothing: no more is lost than the bound.
    let most = match bound {
        Bound::Zero => 0.0,
        Bound::Seconds { seconds, .. } => seconds,
        Bound::Growing { .. } => f64::INFINITY,
    };
    let grows = matches!(bound, Bound::Growing { .. });
    // Nobody can tell what came up without: the log that it would be counted in has not reached this region.
    let to_disruption = to_disruption.filter(|_| bound != Bound::Growing { since: None });
    let measured = is_measurable(history, name, &bound);
    ResourceReport {
        rung: rung(history, name),
        proofs: proof::proofs(history, name),
        seen_alive: proof::alive(history, name).filter(|_| !proof::is_seen(history, name)),
        conditions_checked_at: sealed.as_ref().and_then(|sealed| Some(sealed.promise?.1)),
        sealed: sealed.map(|sealed| SealedAt {
            timeline: sealed.timeline,
            lsn: sealed.lsn,
        }),
        loss: Loss {
            estimate: planned.and_then(|loss| loss.estimate.clone()),
            bound,
        },
        timeline: recovered.as_ref().map(|recovered| recovered.timeline),
        doubts: recovered
            .map(|recovered| recovered.doubts)
            .unwrap_or_default(),
        heartbeat,
        newest_commit,
        rpa_seconds: match (history.plan.mode, most) {
            // The end of the log was compared byte for byte, and until then the old primary went on.
            (Mode::Planned, 0.0) => Some(0.0),
            _ => to_disruption.filter(|_| measured),
        },
        rpa_at_least_seconds: to_disruption.and_then(|seconds| {
            // The newest commit that was recovered is up to one beat younger than the heartbeat.
            let beat = history.plan.heartbeat_seconds.unwrap_or(0.0);
            let uncertain = match (measured, between_looks(&history.plan)) {
                (true, Some(between)) if most > 0.0 => between,
                // It may go on.
                (true, None) if grows => 0.0,
                (true, _) => return None,
                (false, _) => 0.0,
            };
            Some((seconds - uncertain - beat).max(0.0).min(most))
        }),
    }
}

/// Returns how long lay between the look that the primary answered last and the one that it did not, if the disruption was seen so:
/// nobody knows when in between it began.
fn between_looks(plan: &Plan) -> Option<f64> {
    let seen = plan.disruption.as_ref()?;
    let seconds = seen.not_after.duration_since(seen.not_before).as_secs_f64();
    Some(seconds).filter(|seconds| *seconds > 0.0)
}

/// Tells whether a heartbeat measures what was lost: it was seen when the disruption began, or nothing can be missing. The last
/// contact alone says nothing, and no more does the disruption where the primary was seen alive after it: it may have gone on for as
/// long as the bound.
fn is_measurable(history: &History, resource: &ResourceName, bound: &Bound) -> bool {
    let plan = &history.plan;
    let ended = || plan.disruption.is_some() && !proof::lived_on(history, resource);
    plan.mode != Mode::Unplanned || *bound == Bound::Zero || ended()
}

fn rung(history: &History, name: &ResourceName) -> Rung {
    let target = Target::Resource(name.clone());
    let rebuilds = [restore_database::NAME, replace_database::NAME];
    let restores = history.plan.steps.iter().any(|step| {
        let mut lanes = step.lanes.iter().enumerate();
        lanes.any(|(index, lane)| {
            lane.target == target && rebuilds.contains(&history.uses(&step.id, index, lane))
        })
    });
    Rung::of(restores, history.plan.mode)
}

/// Returns the largest achieved recovery point; `None` if one was not measured, because then the largest is not known. A workload without
/// databases has nothing to lose.
fn rpa(resources: &BTreeMap<ResourceName, ResourceReport>) -> Option<f64> {
    if resources.is_empty() {
        return Some(0.0);
    }
    let each: Option<Vec<f64>> = resources.values().map(|r| r.rpa_seconds).collect();
    each?.into_iter().reduce(f64::max)
}

/// Returns what the achieved recovery point is at most over all resources: the measured ones, and the bounds of the others.
fn at_most(resources: &BTreeMap<ResourceName, ResourceReport>) -> Option<f64> {
    let each: Option<Vec<f64>> = resources
        .values()
        .map(
            |resource| match (resource.rpa_seconds, &resource.loss.bound) {
                (_, Bound::Growing { .. }) => None,
                (Some(measured), _) => Some(measured),
                (None, Bound::Zero) => Some(0.0),
                (None, Bound::Seconds { seconds, .. }) => {
                    Some(seconds.max(resource.rpa_at_least_seconds.unwrap_or(0.0)))
                }
            },
        )
        .collect();
    each?.into_iter().reduce(f64::max)
}

/// Returns how long it took until clients were proven to be led to the new region.
fn execution_time(history: &History) -> Option<f64> {
    // Nobody is led anywhere else in place.
    let proven_by = match history.plan.mode {
        Mode::InPlace => check_health::NAME,
        _ => verify_traffic::NAME,
    };
    let proven = history
        .plan
        .steps
        .iter()
        .rev()
        .find(|step| step.uses == proven_by)?;
    let known = history.step(&proven.id)?;
    if known.state != StepState::Done || !verify_traffic::is_proven(history, &proven.id) {
        return None;
    }
    let took = known.finished_at?.duration_since(history.started_at);
    Some(took.as_secs_f64())
}

fn unprotected_since(history: &History) -> Option<Timestamp> {
    if history.has_done(rearm_protection::NAME) {
        return None;
    }
    let changed = history.actions().filter_map(|(place, progress)| {
        let action = history.action(place)?;
        match progress {
            Progress::Concluded(Outcome::Done { applied, .. })
                if !matches!(action.undo, Undo::ReadOnly) =>
            {
                Some(applied.at)
            }
            _ => None,
        }
    });
    changed.min()
}

fn steps(history: &History) -> Vec<StepReport> {
    let of = |step: &crate::plan::PlannedStep| {
        let known = history.step(&step.id);
        let first = step.lanes.first();
        let uses = first.map_or(step.uses.as_str(), |lane| history.uses(&step.id, 0, lane));
        StepReport {
            id: step.id.clone(),
            uses: uses.to_owned(),
            state: known.map_or(StepState::Pending, |known| known.state),
            started_at: known.map(|known| known.began_at),
            took_seconds: known.and_then(StepHistory::took_seconds),
            summary: known.and_then(|known| known.summary.clone()),
        }
    };
    history.plan.steps.iter().map(of).collect()
}

/// Says why an execution cannot go on, with what it leaves behind.
#[must_use]
pub(crate) fn stuck(history: &History, place: &StepId, why: &str, remedy: &str) -> Stuck {
    let id = &history.execution;
    let mut remedies = vec![remedy.to_owned()];
    // What is taken back is not gone on with.
    if !remedy.contains("dr execution abort") {
        remedies.push(format!(
            "then `dr execution resume {id}`: it looks before it does anything again"
        ));
    }
    // Some only hold the others up, as a check that was written wrong.
    let kind = history.plan.step(place);
    let kind = kind.and_then(|step| registry::find(&step.uses));
    if kind.is_some_and(Step::may_be_skipped) {
        remedies.push(format!(
            "or, if step `{place}` itself is what is wrong, see to what it does by hand: `dr execution resume {id} --skip {place} --reason \"…\"`"
        ));
    }
    Stuck {
        step: place.clone(),
        why: why.to_owned(),
        residue: history.residue(),
        remedy: remedies,
    }
}

/// Returns what passed a point of no return; the error is what may have.
#[must_use]
pub(crate) fn passed_return(history: &History) -> Option<Result<String, String>> {
    let beyond = |(place, progress): (&Place, &Progress)| {
        let action = history.action(place)?;
        match progress {
            _ if !matches!(action.undo, Undo::Irreversible(_)) => None,
            Progress::Concluded(Outcome::NotDone { .. }) => None,
            Progress::Concluded(Outcome::Done { applied, .. }) => Some(Ok(applied.summary.clone())),
            Progress::Intended | Progress::Concluded(Outcome::Unknown { .. }) => {
                Some(Err(action.summary.clone()))
            }
        }
    };
    let mut actions = history.actions();
    actions.find_map(beyond)
}

/// Returns whether anything was changed, or may have been.
#[must_use]
pub(crate) fn has_effects(history: &History) -> bool {
    let changes = |(place, progress): (&Place, &Progress)| {
        let changes = history
            .action(place)
            .is_some_and(|a| !matches!(a.undo, Undo::ReadOnly));
        changes && !matches!(progress, Progress::Concluded(Outcome::NotDone { .. }))
    };
    history.actions().any(changes)
}
