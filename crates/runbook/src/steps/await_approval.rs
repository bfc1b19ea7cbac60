//! `await-approval`: waits until as many people as the workload wants have approved this very plan.
//!
//! An approval lies beside the journal, signed, and is for one plan of one execution; what counts is decided by
//! [`dr_coordination::approval`]. The policy stands in the plan, and so in what is approved. People take their time, so
//! what the plan rests on is looked at again once they have all said yes: the register, and the loss against the budget.
//! The wait is measured, because it is a part of the time to recover (L33). Idempotent because it only looks: cut short, it
//! is waited again, until the request expires.

use std::time::Duration;

use async_trait::async_trait;
use dr_coordination::approval::{self, Request as Asked, Tally, tally};
use dr_model::approval::MAX_EXPIRY;
use dr_model::{ApprovalPolicy, Approver};
use dr_provider::driver::{Action, Applied, Verified};
use dr_provider::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{assess_region, check_data_loss};
use crate::history::History;
use crate::outcome::{ApprovalReport, StepState};
use crate::plan::{Idempotency, Plan, Target};
use crate::step::{Impossible, Scene, Step, Work, look, look_again};

/// The step's name.
pub const NAME: &str = "await-approval";

/// The action that waits, as opposed to the one that notes that nobody is waited for.
pub const WAIT: &str = "await-approval";

/// The pause between two looks for approvals.
const INTERVAL: Duration = Duration::from_secs(2);

/// The step.
#[derive(Debug)]
pub struct AwaitApproval;

#[async_trait]
impl Step for AwaitApproval {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "wait until enough people have approved"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::ReadOnly
    }

    /// The request ends by itself; this only has to be longer.
    fn timeout(&self) -> Duration {
        MAX_EXPIRY + Duration::from_secs(60)
    }

    fn waits(&self, action: &Action) -> bool {
        action.name == WAIT
    }

    fn targets(&self, _: &Scene<'_>) -> Vec<Target> {
        vec![Target::Workload]
    }

    fn plan(
        &self,
        scene: &Scene<'_>,
        _: &Target,
        _: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        let policy = &scene.world.approval;
        if policy.quorum == 0 {
            let summary = "record that no approval is required (quorum 0)";
            return Ok(vec![look("record-approval", summary)]);
        }
        let names: Vec<_> = policy.approvers.iter().map(|a| a.name.as_str()).collect();
        let parameters = Parameters {
            quorum: policy.quorum,
            expires_milliseconds: milliseconds(policy.expires),
            approvers: policy.approvers.clone(),
        };
        Ok(vec![Action {
            intended: Some(format!("{} approvals", policy.quorum)),
            dependencies: vec![scene.needs_target(format!("store of {}", scene.to()))],
            parameters: json!(parameters),
            ..look(
                WAIT,
                format!(
                    "wait for {} of {} to approve this plan, at most {}",
                    policy.quorum,
                    names.join(", "),
                    humantime::format_duration(policy.expires)
                ),
            )
        }])
    }

    async fn apply(&self, work: &Work, _: &Target, action: &Action) -> Result<Applied> {
        if action.name != WAIT {
            let evidence = json!({ "quorum": 0, "requested_by": work.site.actor });
            return Ok(work.applied("not required", evidence));
        }
        wait(work).await
    }

    async fn verify(&self, _: &Work, _: &Target, _: &Action) -> Verified {
        look_again()
    }
}

/// What the plan says of the policy.
#[derive(Debug, Serialize, Deserialize)]
struct Parameters {
    quorum: u32,
    expires_milliseconds: u64,
    approvers: Vec<Approver>,
}

/// Tells whether an execution has come to the step and waits there.
#[must_use]
pub(crate) fn is_waiting(history: &History) -> bool {
    let mut steps = history.plan.steps.iter().filter(|step| step.uses == NAME);
    let running = |id| {
        history
            .step(id)
            .is_some_and(|step| step.state == StepState::Running)
    };
    steps.any(|step| running(&step.id)) && asked(history).is_some()
}

/// Returns what an execution asks people to approve; `None` if it asks nobody.
#[must_use]
pub fn asked(history: &History) -> Option<Asked> {
    let plan = &history.plan;
    let steps = plan.steps.iter().filter(|step| step.uses == NAME);
    let mut actions = steps.flat_map(|step| &step.lanes).flat_map(|l| &l.actions);
    let action = actions.find(|action| action.name == WAIT)?;
    let Parameters {
        quorum,
        expires_milliseconds,
        approvers,
    } = serde_json::from_value(action.parameters.clone()).ok()?;
    Some(Asked {
        execution: history.execution.clone(),
        plan: plan.hash.clone(),
        accepted_loss_milliseconds: accepted_loss_milliseconds(plan),
        // Nobody can be told apart from one who is not known.
        requested_by: plan.requester.clone()?,
        requested_at: history.started_at,
        policy: ApprovalPolicy {
            quorum,
            expires: Duration::from_millis(expires_milliseconds),
            approvers,
        },
    })
}

/// Returns the largest estimated loss that a plan accepts.
fn accepted_loss_milliseconds(plan: &Plan) -> u64 {
    let budget = Duration::try_from_secs_f64(plan.loss.budget_seconds).unwrap_or(Duration::MAX);
    milliseconds(budget)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns who approved an execution, if enough have.
pub(crate) fn report(history: &History) -> Option<ApprovalReport> {
    let applied = history.done(NAME, &Target::Workload).last()?;
    serde_json::from_value(applied.evidence.get("approval")?.clone()).ok()
}

async fn wait(work: &Work) -> Result<Applied> {
    let Some(asked) = asked(&work.history) else {
        let why = "the plan does not say who asked, or whose approval it needs";
        return Err(error(work, ErrorKind::Invalid).because(why));
    };
    let quorum = usize::try_from(asked.policy.quorum).unwrap_or(usize::MAX);
    let tally = loop {
        let seen = look_for_approvals(work, &asked).await;
        match seen {
            Ok(tally) if tally.counted.len() >= quorum => break tally,
            seen if asked.is_expired(work.site.clock.now()) => {
                return Err(expired(work, &asked, seen));
            }
            _ => tokio::time::sleep(INTERVAL).await,
        }
    };
    still_holds(work).await?;
    let began = work.history.step(&work.step.id).map(|step| step.began_at);
    let now = work.site.clock.now();
    let waited = now.duration_since(began.unwrap_or(asked.requested_at));
    let approved_by: Vec<_> = tally.counted.into_iter().map(|c| c.approver).collect();
    let names: Vec<_> = approved_by.iter().map(|name| name.as_str()).collect();
    let waited_seconds = waited.as_secs_f64().max(0.0);
    let summary = format!(
        "approved by {} after {waited_seconds:.1} s",
        names.join(", ")
    );
    let report = ApprovalReport {
        quorum: asked.policy.quorum,
        requested_by: asked.requested_by,
        approved_by,
        waited_seconds,
    };
    Ok(work.applied(summary, json!({ "approval": report })))
}

async fn look_for_approvals(work: &Work, asked: &Asked) -> Result<Tally> {
    let store = work.site.stores.get(&work.plan().to);
    let store = store.ok_or_else(|| work.not_configured(&Target::Workload))?;
    let found = approval::read_all(store.as_ref(), &asked.execution).await?;
    Ok(tally(asked, &found, work.site.clock.now()))
}

/// Looks again at what the plan rests on, which people took their time to approve.
async fn still_holds(work: &Work) -> Result<()> {
    assess_region::register(work).await?;
    for name in work.plan().loss.resources.keys() {
        let target = Target::Resource(name.clone());
        let (_, loss) = assess_region::resource(work, &target).await?;
        let estimate = check_data_loss::as_known(work, loss, None);
        check_data_loss::judged(work, &target, estimate.as_ref())?;
    }
    Ok(())
}

fn expired(work: &Work, asked: &Asked, seen: Result<Tally>) -> Error {
    let mut why = match &seen {
        Ok(tally) => format!(
            "{} of {} approvals when the request expired at {:.0}",
            tally.counted.len(),
            asked.policy.quorum,
            asked.expires_at()
        ),
        Err(error) => format!(
            "the approvals could not be read when the request expired at {:.0}: {}",
            asked.expires_at(),
            dr_provider::error::chain(error)
        ),
    };
    for (name, refused) in seen.iter().flat_map(|tally| &tally.refused) {
        why.push_str(&format!("; that of `{name}` does not count: {refused}"));
    }
    error(work, ErrorKind::Failed)
        .because(why)
        .with_hint("run the command again, and let them approve the new execution")
}

fn error(work: &Work, kind: ErrorKind) -> Error {
    Error::new(
        kind,
        "collect the approvals of",
        work.history.execution.as_str(),
    )
}
