//! `check-data-loss`: compares the estimated loss with the budget, on the newest facts, before anything is changed.
//!
//! The plan was judged already when it was made; here the judgement is made again with what `assess-region` saw and
//! becomes part of the record. An estimate that is missing is never within a budget (principle 6). Idempotent because it
//! only computes.

use std::time::Duration;

use async_trait::async_trait;
use dr_model::loss::{Estimate, Verdict, judge};
use dr_provider::Result;
use dr_provider::driver::{Action, Applied, LossFacts, Verified};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::assess_region;
use crate::plan::{Idempotency, Mode, Target};
use crate::request::{Disruption, override_reason};
use crate::resource_goal::failed;
use crate::step::{Impossible, Scene, Step, Work, look, look_again};

/// The step's name.
pub const NAME: &str = "check-data-loss";

/// The step.
#[derive(Debug)]
pub struct CheckDataLoss;

#[async_trait]
impl Step for CheckDataLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "compare what would be lost with the budget"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::ReadOnly
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn targets(&self, scene: &Scene<'_>) -> Vec<Target> {
        scene.resources()
    }

    fn plan(
        &self,
        scene: &Scene<'_>,
        target: &Target,
        _: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        if scene.goes_on(target) {
            return Ok(Vec::new());
        }
        let budget = scene.loss.budget_seconds;
        Ok(vec![Action {
            intended: Some(format!("at most {budget} s")),
            ..look(
                "judge-loss",
                format!("compare the loss of `{target}` with the budget of {budget} s"),
            )
        }])
    }

    async fn apply(&self, work: &Work, target: &Target, _: &Action) -> Result<Applied> {
        let plan = work.plan();
        let seen = work.history.done(assess_region::NAME, target).last();
        let seen = seen
            .and_then(|applied| applied.evidence.get("loss"))
            .and_then(|loss| serde_json::from_value::<LossFacts>(loss.clone()).ok());
        let planned = match target {
            Target::Resource(name) => plan.loss.resources.get(name).cloned(),
            _ => None,
        };
        let estimate = match seen {
            Some(seen) => as_known(work, seen, None),
            None => planned.and_then(|loss| loss.estimate),
        };
        let summary = judged(work, target, estimate.as_ref())?;
        let evidence = json!({ "estimate": estimate, "budget_seconds": plan.loss.budget_seconds });
        Ok(work.applied(summary, evidence))
    }

    async fn verify(&self, _: &Work, _: &Target, _: &Action) -> Verified {
        look_again()
    }
}

/// Returns what was estimated by a look at the region moved to alone, with what else is known of the primary's end: when it was `seen` to
/// be alive, and by whoever saw the outage.
pub(crate) fn as_known(work: &Work, loss: LossFacts, seen: Option<Timestamp>) -> Option<Estimate> {
    let plan = work.plan();
    let life = match plan.mode {
        Mode::Unplanned if !loss.sealing_proves_zero => {
            seen.max(plan.disruption.as_ref().and_then(Disruption::last_life))
        }
        _ => None,
    };
    let rate = loss.commits_per_second;
    Some(loss.estimate?.lived_until(life, rate))
}

/// Compares an estimate with the budget of the plan; says what that came to.
pub(crate) fn judged(work: &Work, target: &Target, estimate: Option<&Estimate>) -> Result<String> {
    let plan = work.plan();
    let budget = Duration::try_from_secs_f64(plan.loss.budget_seconds).unwrap_or_default();
    let text = shown(estimate);
    match judge(estimate, budget) {
        Verdict::Within | Verdict::Chosen => Ok(format!("`{target}`: {text}, within {budget:?}")),
        Verdict::Unknown if override_reason(&work.history.statements).is_some() => {
            Ok(format!("`{target}`: {text}; going on by override"))
        }
        Verdict::Unknown => {
            let why = "its loss is unknown, which is never within a budget";
            Err(failed("accept the loss of", target.to_string(), why)
                .with_hint("accept it by name with `--override \"reason\"`"))
        }
        Verdict::Exceeds => {
            let why = format!("{text} exceeds the budget of {budget:?}");
            Err(failed("accept the loss of", target.to_string(), why)
                .with_hint("name the loss that is acceptable with `--max-loss`"))
        }
    }
}

/// Writes an estimate for people.
pub(crate) fn shown(estimate: Option<&Estimate>) -> String {
    match estimate {
        None => "unknown loss".to_owned(),
        Some(estimate) => {
            let commits = match estimate.commits {
                Some(0) => ", no commit".to_owned(),
                Some(1) => ", about 1 commit".to_owned(),
                Some(commits) => format!(", about {commits} commits"),
                None => String::new(),
            };
            let seconds = estimate.delay_seconds;
            match estimate.lived_on_seconds {
                0.0 => format!("{seconds:.1} s{commits} at last contact"),
                on => format!(
                    "{seconds:.1} s{commits}, counting that the primary lived {on:.1} s after the last contact"
                ),
            }
        }
    }
}
