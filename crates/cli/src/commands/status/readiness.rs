//! Whether a failover that began now would be refused: its plan is made, and thrown away.
//!
//! What protects a workload is of use only if it can be moved. A plan is pure and changes nothing, so it can be made at any time,
//! and says all that is wrong before the day on which somebody needs it.

use std::time::Duration;

use dr_config::Workload;
use dr_model::{RegionName, RunbookName, WorkloadName};
use dr_runbook::{Class, Plan, Refusal, Request};
use futures::future::join_all;

use super::judge::Judgement;
use super::view::{MoveView, Verdict};
use crate::error::Result;
use crate::wiring::Setup;

/// How long the looks for one plan may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The runbook that `dr failover` takes unless it is told otherwise.
const RUNBOOK: &str = "failover-region";

/// Makes the plan of a move to each region that does not have the primary.
pub(super) async fn moves(
    setup: &Setup,
    name: &WorkloadName,
    workload: &Workload,
) -> Result<Vec<MoveView>> {
    let site = setup.site(name, workload)?;
    let runbook: RunbookName = RUNBOOK.parse().expect("the constant is a name");
    let runbook = setup.config.runbooks.get(&runbook);
    let looks = std::iter::once(&workload.home)
        .chain(&workload.recovery)
        .map(async |to| {
            let Some(runbook) = runbook else {
                let why = format!("there is no runbook `{RUNBOOK}`");
                return Some(refused(to, Verdict::Breach, why, None));
            };
            let look = dr_runbook::observe(&site, to);
            let Ok(world) = tokio::time::timeout(LIMIT, look).await else {
                let why = format!("no answer within {LIMIT:?}");
                return Some(refused(to, Verdict::Unknown, why, None));
            };
            let request = Request {
                max_loss: Some(workload.max_loss),
                ..Request::new(to.clone())
            };
            match dr_runbook::plan(runbook, &world, &request) {
                Ok(plan) => Some(ready(to, &plan)),
                Err(Refusal::TargetIsPrimary { .. }) => None,
                Err(refusal) => {
                    let hint = refusal.hint();
                    Some(refused(to, verdict(&refusal), refusal.to_string(), hint))
                }
            }
        });
    Ok(join_all(looks).await.into_iter().flatten().collect())
}

/// One region that the workload can be moved to is enough.
pub(super) fn judge(moves: &[MoveView]) -> Judgement {
    let best = moves.iter().min_by_key(|view| view.verdict);
    let mut judgement = Judgement {
        verdict: best.map_or(Verdict::Ok, |view| view.verdict),
        exposure_seconds: None,
        reasons: Vec::new(),
    };
    if judgement.verdict != Verdict::Ok {
        let refused = moves.iter().filter(|view| view.verdict != Verdict::Ok);
        let reasons = refused.map(|view| format!("a failover to {} would be refused", view.to));
        judgement.reasons.extend(reasons);
    }
    judgement
}

fn ready(to: &RegionName, plan: &Plan) -> MoveView {
    let mut proofs: Vec<_> = plan.proofs.values().copied().collect();
    proofs.sort_unstable();
    MoveView {
        to: to.clone(),
        verdict: Verdict::Ok,
        rung: Some(plan.rung),
        proof: proofs.pop(),
        refusal: None,
        hint: None,
    }
}

fn refused(to: &RegionName, verdict: Verdict, why: String, hint: Option<String>) -> MoveView {
    MoveView {
        to: to.clone(),
        verdict,
        rung: None,
        proof: None,
        refusal: Some(why),
        hint,
    }
}

fn verdict(refusal: &Refusal) -> Verdict {
    match refusal {
        // It takes a person who has seen it stopped, as it always does where nobody else can see that.
        Refusal::NoProof { .. } => Verdict::Ok,
        Refusal::LossUnknown { .. } => Verdict::Unknown,
        _ => match refusal.class() {
            // One is under way: it is shown.
            Class::Busy => Verdict::Ok,
            Class::Unavailable => Verdict::Unknown,
            Class::Safety | Class::Invalid => Verdict::Breach,
        },
    }
}
