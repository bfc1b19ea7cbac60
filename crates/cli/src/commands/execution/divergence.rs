//! `dr execution divergence`.

use dr_model::{ExecutionId, RegionName, ResourceId};
use dr_postgres::Found;
use dr_runbook::record_divergence;
use serde_json::{Value, json};

use crate::commands::standby::text::{divergence_lines, kept};
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// Show what the old primary committed that the new one does not have
///
/// Reads the log of the old primary behind the position where the new primary's history leaves it:
/// how many transactions committed, when, and which tables they changed, before that position too if they
/// began there. What of the log could not be read for that is said. What `dr standby` kept of it
/// is read from its notes; what a restore to a moment put aside is measured where it is kept. Ends with 10 if any committed, with 0 if none did, and with 11 if that cannot be
/// told: its server runs and may commit more, or log is missing.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The id of the execution that left the region, as `dr execution list` prints it
    execution: ExecutionId,
}

pub(super) async fn run(args: &Args, setup: &Setup, output: &Output) -> Result<Exit> {
    let execution = super::find(setup, &args.execution).await?;
    let plan = &execution.history.plan;
    setup.workload(&plan.workload)?;
    let mut shown = Vec::new();
    let mut lines = Vec::new();
    let mut diverged = Some(false);
    for resource in plan.loss.resources.keys() {
        let id = ResourceId {
            workload: plan.workload.clone(),
            resource: resource.clone(),
        };
        let found = setup.postgres(&id)?.divergence(&plan.from).await?;
        // What was kept before it began is of an earlier move.
        let began = execution.history.started_at;
        let found: Vec<Found> = found
            .into_iter()
            .filter(|found| match found {
                Found::Here(..) | Found::Unclear(_) => true,
                Found::Kept(kept) => kept.kept_at >= began,
            })
            .collect();
        if found.is_empty() {
            lines.push(nothing(&id, &plan.from));
        }
        for one in &found {
            // What is known to be there outweighs what is not known.
            diverged = match (diverged, one.is_diverged()) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (None, _) | (_, None) => None,
                (Some(false), Some(false)) => Some(false),
            };
            lines.extend(text(&id, &plan.from, one, setup));
        }
        shown.push(json!({ "resource": id, "region": plan.from, "found": found }));
    }
    let measured = json!({ "resources": shown });
    if output.json {
        output.json(&measured)?;
    } else {
        output.data(&lines.join("\n"))?;
    }
    if let Some(diverged) = diverged {
        record(setup, &execution, diverged, measured, output).await?;
    }
    match diverged {
        Some(false) => Ok(Exit::Ok),
        Some(true) => Err(CommandError::new(
            Exit::Breach,
            "the old primary has what the new one has not",
        )
        .hint("look at it in the directory that is kept; `dr standby create` keeps it before it changes anything")),
        None => Err(CommandError::new(
            Exit::Unknown,
            "it cannot be told whether the old primary has what the new one has not",
        )
        .hint("what stands above says why; a server that runs there has to be stopped first: what it commits is lost to everybody else")),
    }
}

/// Adds what was measured to the evidence of the execution, if that is over; a store that does not take it takes nothing from what was seen.
async fn record(
    setup: &Setup,
    execution: &dr_runbook::executions::Found,
    diverged: bool,
    measured: Value,
    output: &Output,
) -> Result<()> {
    let history = &execution.history;
    if !execution.summary().state.is_final() {
        return Ok(());
    }
    let (site, _) = super::site(setup, execution)?;
    match record_divergence(&site, history, diverged, measured).await {
        Ok(record) => output.say(&format!(
            "Recorded as evidence {} in the store of {}.",
            record.sequence, history.plan.to
        )),
        Err(error) => output.say(&format!(
            "warning: it is not in the evidence: {}",
            dr_provider::error::chain(&error)
        )),
    }
    Ok(())
}

fn nothing(id: &ResourceId, region: &RegionName) -> String {
    format!("{id} in {region}: nothing beyond the present history")
}

fn text(id: &ResourceId, region: &RegionName, found: &Found, setup: &Setup) -> Vec<String> {
    let (place, divergence) = match found {
        Found::Unclear(why) => return vec![format!("{id} in {region}: {why}")],
        Found::Here(directory, divergence) => (directory.display(), divergence.as_ref()),
        Found::Kept(kept) => (kept.directory.display(), kept.divergence.as_ref()),
    };
    let mut lines = vec![format!("{id} in {region}, in {place}:")];
    match divergence {
        Some(divergence) => lines.extend(
            divergence_lines(divergence)
                .into_iter()
                .map(|line| format!("  {line}")),
        ),
        None => lines.push("  it was not measured what it has".to_owned()),
    }
    if let Found::Kept(note) = found {
        lines.push(kept(note, setup));
    }
    lines
}
