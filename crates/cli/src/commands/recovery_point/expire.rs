//! `dr recovery-point expire`.

use std::path::Path;

use dr_model::{RegionName, ResourceId};
use dr_provider::driver::{ExpireRequest, ExpiryPlan, ExpiryReport};
use serde_json::json;

use super::hold::role;
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::{Output, amount};
use crate::wiring::Setup;

/// Give up what retention does not keep, and delete what was given up a day ago
///
/// Does what the job `expire-recovery-points` does, with the `keep` of its schedule. With `--plan` nothing is written, and
/// it is shown what stays and why, what would go and when.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The resource, as WORKLOAD/RESOURCE
    resource: ResourceId,
    /// The region whose store is pruned
    #[arg(long = "in", value_name = "REGION")]
    region: RegionName,
    /// Only show it
    #[arg(long)]
    plan: bool,
    /// Give this one up as well, whatever the rule keeps; may be repeated. One that cannot be read goes only this way
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
}

pub(super) async fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    let driver = setup.driver(&args.resource)?;
    let role = role(&*driver, &args.resource)?;
    setup.identified(&args.region).await?;
    let schedules = &setup.config.schedules;
    let retention = dr_jobs::retention(schedules, &args.resource).unwrap_or_default();
    let request = ExpireRequest {
        region: args.region.clone(),
        retention,
        labels: args.labels.clone(),
    };
    let plan = if args.plan {
        let plan = role.plan_expiry(&request).await?;
        if output.json {
            output.json(&json!({ "plan": plan }))?;
        } else {
            output.data(&lines(&plan, true).join("\n"))?;
        }
        plan
    } else {
        let report = role.expire(&request).await?;
        if output.json {
            output.json(&report)?;
        } else {
            output.data(&lines(&report.plan, false).join("\n"))?;
            if let Some(line) = deleted(&report) {
                output.data(&line)?;
            }
        }
        report.plan
    };
    let kept = plan.kept.iter();
    let kept = kept.filter(|kept| args.labels.contains(&kept.label));
    let kept: Vec<String> = kept
        .map(|kept| format!("{}: {}", kept.label, kept.why.join(", ")))
        .collect();
    let (what, causes, hint) = if !plan.blocked.is_empty() {
        let hint = "a recovery point that is damaged for good is given up with `--label`";
        ("nothing is deleted", plan.blocked, hint)
    } else if !kept.is_empty() {
        let hint = "one that is held is let go by `dr recovery-point release`; the newest stays until there is another";
        ("what `--label` names is kept", kept, hint)
    } else {
        return Ok(Exit::Ok);
    };
    let mut error = CommandError::new(Exit::Refused, what);
    error.causes = causes;
    Err(error.hint(hint))
}

/// Says what becomes of each recovery point, and of the log.
fn lines(plan: &ExpiryPlan, planned: bool) -> Vec<String> {
    let (give_up, delete) = match planned {
        true => ("give up", "delete"),
        false => ("given up", "deleted"),
    };
    let mut lines = Vec::new();
    for kept in &plan.kept {
        lines.push(format!("keep      {}: {}", kept.label, kept.why.join(", ")));
    }
    for label in &plan.given_up {
        lines.push(format!(
            "{give_up:9} {label}: it is deleted a day later, unless it is held"
        ));
    }
    for label in &plan.taken_back {
        lines.push(format!(
            "keep      {label}: it was given up, and is held now"
        ));
    }
    for waiting in &plan.waiting {
        lines.push(format!(
            "wait      {}: {}",
            waiting.label,
            waiting.why.join(", ")
        ));
    }
    for swept in &plan.swept {
        let shared = match swept.shared_packs {
            0 => String::new(),
            packs => format!(", {packs} packs stay for younger ones"),
        };
        let (label, objects) = (&swept.label, swept.objects);
        lines.push(format!("{delete:9} {label}: {objects} objects{shared}"));
    }
    for log in &plan.log {
        lines.push(format!(
            "{delete:9} log of timeline {} before {}: {} in {} pieces",
            log.timeline,
            log.start,
            amount(log.log_bytes),
            log.pieces
        ));
    }
    lines.extend(
        plan.log_kept
            .iter()
            .map(|what| format!("keep      log of {what}")),
    );
    lines
}

fn deleted(report: &ExpiryReport) -> Option<String> {
    report
        .denied
        .then(|| "the store refuses to delete log: its credentials do not allow it".to_owned())
}
