//! Whether a failover that began now would be refused: its plan is made, what it leans on is tried, and both are thrown away.
//!
//! What protects a workload is of use only if it can be moved. A plan is pure and changes nothing, so it can be made at any time,
//! and says all that is wrong before the day on which somebody needs it. Nothing here writes to a register or to a host; whether
//! the target's store takes anything is tried with one small object, by the daemon and by a rehearsal, and not by `dr status`.

mod basis;
mod prechecks;

use std::time::Duration;

use dr_config::Workload;
use dr_model::{RegionName, RunbookName, WorkloadName};
use dr_runbook::world::RegisterFacts;
use dr_runbook::{Class, ExpectedProof, Plan, Refusal, Request, Rung, Site, World};
use jiff::Timestamp;
use serde::Serialize;

use crate::commands::status::Verdict;
use crate::error::{CommandError, Result};
use crate::wiring::Setup;
pub(crate) use basis::Basis;
pub(crate) use prechecks::{Found, Precheck};

/// How long the looks for one plan may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The runbook that `dr failover` takes unless it is told otherwise.
const RUNBOOK: &str = "failover-region";

/// A move that nobody has asked for: what it would do, or why it would be refused.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Readiness {
    pub(crate) to: RegionName,
    /// Ok also where it takes a person's word that the primary has stopped.
    pub(crate) verdict: Verdict,
    /// How many of `checks` passed, in percent.
    pub(crate) score: u8,
    pub(crate) checks: Vec<Precheck>,
    pub(crate) rung: Option<Rung>,
    /// The weakest of what is expected to prove that the primary has stopped.
    pub(crate) proof: Option<ExpectedProof>,
    /// The plan's hash, by which it is recognised.
    pub(crate) plan: Option<String>,
    /// Why there is no plan.
    pub(crate) refusal: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) checked_at: Timestamp,
    /// What it rests on: if this changes, it says nothing any more.
    pub(crate) basis: Basis,
}

impl Readiness {
    /// Says it in one line.
    pub(crate) fn describe(&self) -> String {
        let would = match (&self.refusal, self.rung, self.proof) {
            (Some(why), ..) => format!("would be refused: {why}"),
            (None, Some(rung), Some(proof)) => {
                format!("would go by {}, {} expected", rung.as_str(), proof.as_str())
            }
            (None, ..) => "would go".to_owned(),
        };
        let objections: Vec<_> = self.objections().collect();
        let mut text = format!(
            "a failover to {} {would}; {} of {} checks passed",
            self.to,
            self.checks.len() - objections.len(),
            self.checks.len()
        );
        for objection in objections.iter().filter(|check| check.name != PLAN) {
            text.push_str(&format!("; {}: {}", objection.name, objection.detail));
        }
        text
    }

    /// Returns what did not pass.
    pub(crate) fn objections(&self) -> impl Iterator<Item = &Precheck> {
        let checks = self.checks.iter();
        checks.filter(|check| check.found != Found::Passed)
    }
}

/// The name of the check that a plan can be made.
const PLAN: &str = "plan";

/// Assesses a move to each region that does not have the primary, from a machine that need not be in any of them.
pub(crate) async fn all(
    setup: &Setup,
    name: &WorkloadName,
    workload: &Workload,
) -> Result<Vec<Readiness>> {
    let regions = std::iter::once(&workload.home).chain(&workload.recovery);
    let looks = regions.map(|to| assess(setup, name, workload, to, Standpoint::Anywhere));
    let found = futures::future::try_join_all(looks).await?;
    Ok(found.into_iter().flatten().collect())
}

/// Where an assessment is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standpoint {
    /// On the machine of the region moved to: a host that is `local` is this one.
    Inside,
    /// On any machine, again and again: what is on a `local` host is not seen from here, and nothing is written.
    Anywhere,
    /// On the machine that a failover would be begun on with nothing but a kit: that it can write there is a part of it.
    Rehearsal,
}

impl Standpoint {
    /// Tells whether a host that is `local` is the one that is meant.
    fn is_there(self) -> bool {
        self == Self::Inside
    }

    /// Tells whether the store is tried by writing to it.
    fn tries_writing(self) -> bool {
        self != Self::Anywhere
    }
}

/// Assesses a move to `to`; `None` if the primary is there.
pub(crate) async fn assess(
    setup: &Setup,
    name: &WorkloadName,
    workload: &Workload,
    to: &RegionName,
    from: Standpoint,
) -> Result<Option<Readiness>> {
    let site = setup.site(name, workload)?;
    let look = async {
        let observed = tokio::time::timeout(LIMIT, dr_runbook::observe(&site, to));
        let tried = tokio::time::timeout(LIMIT, prechecks::all(setup, &site, workload, to, from));
        futures::future::join(observed, tried).await
    };
    let (world, tried) = look.await;
    let silent = || format!("no answer within {LIMIT:?}");
    let mut checks = Vec::new();
    let mut readiness = Readiness {
        to: to.clone(),
        verdict: Verdict::Ok,
        score: 0,
        checks: Vec::new(),
        rung: None,
        proof: None,
        plan: None,
        refusal: None,
        hint: None,
        checked_at: setup.clock.now(),
        basis: Basis::of(setup, to, world.as_ref().ok()),
    };
    match &world {
        Err(_) => {
            checks.push(Precheck::new(PLAN, Found::Unknown, silent()));
            readiness.refusal = Some(silent());
        }
        Ok(world) => {
            checks.push(register(world));
            checks.extend(recovery_points(world, to));
            checks.extend(detection(setup, &site, workload, world));
            match plan(setup, workload, world, to) {
                Ok(plan) => checks.extend(planned(setup, &site, &plan, &mut readiness)?),
                Err(NoPlan::Refused(Refusal::TargetIsPrimary { .. })) => return Ok(None),
                // What is under way brings it there.
                Err(NoPlan::Refused(Refusal::Unfinished(_)))
                    if world
                        .register
                        .head()
                        .is_some_and(|head| head.primary == *to) =>
                {
                    return Ok(None);
                }
                Err(NoPlan::Refused(refusal)) => {
                    checks.push(Precheck::new(PLAN, found(&refusal), refusal.to_string()));
                    readiness.hint = refusal.hint();
                    readiness.refusal = Some(refusal.to_string());
                }
                Err(NoPlan::Runbook(error)) => {
                    checks.push(Precheck::new(PLAN, Found::Failed, error.message.clone()));
                    readiness.hint = error.hints.into_iter().next();
                    readiness.refusal = Some(error.message);
                }
            }
        }
    }
    match tried {
        Ok(tried) => checks.extend(tried),
        Err(_) => checks.push(Precheck::new("prechecks", Found::Unknown, silent())),
    }
    readiness.verdict = verdict(&checks);
    readiness.score = score(&checks);
    readiness.checks = checks;
    Ok(Some(readiness))
}

/// Why there is no plan.
pub(crate) enum NoPlan {
    /// The runbook is not there, or cannot be used.
    Runbook(CommandError),
    /// It was refused.
    Refused(Refusal),
}

/// Makes the plan that `dr failover` would make.
pub(crate) fn plan(
    setup: &Setup,
    workload: &Workload,
    world: &World,
    to: &RegionName,
) -> std::result::Result<Plan, NoPlan> {
    let runbook: RunbookName = RUNBOOK.parse().expect("the constant is a name");
    let runbook = setup.runbook(&runbook).map_err(NoPlan::Runbook)?;
    let request = Request {
        max_loss: Some(workload.max_loss),
        ..Request::new(to.clone())
    };
    dr_runbook::plan(runbook, world, &request).map_err(NoPlan::Refused)
}

/// Takes over what the plan says, and whether the standby that is kept for it would be used.
fn planned(
    setup: &Setup,
    site: &Site,
    plan: &Plan,
    readiness: &mut Readiness,
) -> Result<Vec<Precheck>> {
    readiness.rung = Some(plan.rung);
    readiness.proof = plan.proofs.values().copied().max();
    readiness.plan = Some(plan.hash.clone());
    let steps = format!("{} steps, plan {:.12}", plan.steps.len(), plan.hash);
    let mut checks = vec![Precheck::new(PLAN, Found::Passed, steps)];
    if setup.keeps_standby(&site.workload, &plan.to)? {
        let (found, detail) = match plan.rung {
            Rung::Promote => (Found::Passed, "it would be promoted"),
            Rung::Restore | Rung::Restart => (
                Found::Warning,
                "it cannot be promoted: the database would be rebuilt from the store",
            ),
        };
        checks.push(Precheck::new("standby", found, detail.to_owned()));
    }
    Ok(checks)
}

fn register(world: &World) -> Precheck {
    let (found, detail) = match &world.register {
        RegisterFacts::Proven(records) => {
            let epoch = records
                .last()
                .map_or(dr_model::Epoch(0), |record| record.epoch);
            (Found::Passed, format!("epoch {epoch} is the newest"))
        }
        RegisterFacts::Empty => (Found::Unknown, "there is no epoch yet".to_owned()),
        RegisterFacts::Unreachable { why, .. } => (Found::Unknown, why.clone()),
        RegisterFacts::Damaged { why, .. } => (Found::Failed, why.clone()),
    };
    Precheck::new("register", found, detail)
}

/// Whether the newest recovery point in the store of the region moved to is one that its proofs speak against.
fn recovery_points(world: &World, to: &RegionName) -> Vec<Precheck> {
    let seen = world.resources.iter().filter_map(|(name, resource)| {
        let log = resource
            .facts
            .regions
            .get(to)?
            .log
            .as_ref()
            .ok()?
            .as_ref()?;
        let (found, detail) = match (log.newest_unusable(), log.recovery_points.first()) {
            (Some(why), _) => (Found::Failed, format!("it cannot be restored: {why}")),
            (None, None) => return None,
            (None, Some(newest)) => match &newest.failure {
                None => (
                    Found::Passed,
                    format!("nothing speaks against {}", newest.label),
                ),
                Some(why) => (
                    Found::Failed,
                    format!("{} cannot be relied on: {why}", newest.label),
                ),
            },
        };
        Some(Precheck::new(
            format!("recovery point of {name}"),
            found,
            detail,
        ))
    });
    seen.collect()
}

/// Whether anybody would be told that it has to be made.
fn detection(setup: &Setup, site: &Site, workload: &Workload, world: &World) -> Option<Precheck> {
    let primary = &world.register.head()?.primary;
    let (found, detail) = match setup.blind(workload, site, primary) {
        Some((why, remedy)) => (Found::Warning, format!("{why}; {remedy}")),
        None => {
            let detail = format!("an outage of {primary} can be told from a broken network");
            (Found::Passed, detail)
        }
    };
    Some(Precheck::new("detection", found, detail))
}

/// The worst check decides; a warning is for a person to weigh.
fn verdict(checks: &[Precheck]) -> Verdict {
    let judge = |check: &Precheck| match check.found {
        Found::Passed | Found::Warning => Verdict::Ok,
        Found::Unknown => Verdict::Unknown,
        Found::Failed => Verdict::Breach,
    };
    checks.iter().map(judge).max().unwrap_or(Verdict::Unknown)
}

/// Rounds down: only what passes whole is 100.
fn score(checks: &[Precheck]) -> u8 {
    let passed = checks.iter().filter(|check| check.found == Found::Passed);
    let percent = (passed.count() * 100).checked_div(checks.len());
    percent.map_or(0, |percent| u8::try_from(percent).unwrap_or(100))
}

fn found(refusal: &Refusal) -> Found {
    match refusal {
        // It takes a person who has seen it stopped, as it always does where nobody else can see that.
        Refusal::NoProof { .. } => Found::Warning,
        // Before the first epoch nobody can tell; that it is missing is said where the register is judged.
        Refusal::LossUnknown { .. } | Refusal::NoEpoch { .. } => Found::Unknown,
        _ => match refusal.class() {
            // One is under way: it is shown.
            Class::Busy => Found::Warning,
            Class::Unavailable => Found::Unknown,
            Class::Safety | Class::Asked | Class::Invalid => Found::Failed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(found: &[Found]) -> Vec<Precheck> {
        let check = |found: &Found| Precheck::new("x", *found, String::new());
        found.iter().map(check).collect()
    }

    #[test]
    fn only_what_passes_whole_is_full_marks() {
        use Found::{Failed, Passed, Unknown, Warning};
        for (found, expected, percent) in [
            (&[][..], Verdict::Unknown, 0),
            (&[Passed, Passed], Verdict::Ok, 100),
            (&[Passed, Warning, Passed], Verdict::Ok, 66),
            (&[Passed, Unknown], Verdict::Unknown, 50),
            (&[Unknown, Failed], Verdict::Breach, 0),
        ] {
            let checks = checks(found);
            assert_eq!((verdict(&checks), score(&checks)), (expected, percent));
        }
    }
}
