//! `dr execution list`.

use dr_model::WorkloadName;
use dr_runbook::State;
use dr_runbook::executions::{self, Summary};
use serde_json::json;

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::{Output, Table, Tone};
use crate::wiring::Setup;

/// List executions, oldest first
///
/// Ends with 11 if a store or a journal could not be read, and with 20 if none could.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Only those of this workload
    #[arg(long)]
    workload: Option<WorkloadName>,
}

pub(super) async fn run(args: &Args, setup: &Setup, output: &Output) -> Result<Exit> {
    if let Some(name) = &args.workload {
        setup.workload(name)?;
    }
    let (found, unseen) = executions::list(&setup.stores, &setup.clock).await;
    let ours = |summary: &Summary| {
        args.workload
            .as_ref()
            .is_none_or(|name| *name == summary.workload)
    };
    let found: Vec<_> = found.into_iter().filter(ours).collect();
    for why in &unseen {
        output.say(&format!(
            "{} {why}",
            output.stderr.paint(Tone::Warning, "warning:")
        ));
    }
    if found.is_empty() && unseen.len() == setup.stores.len() {
        return Err(CommandError::new(Exit::Unavailable, "no store can be read")
            .hint("see why with `dr check --online`"));
    }
    // Executions that could not be seen are not none.
    let exit = match unseen.is_empty() {
        true => Exit::Ok,
        false => Exit::Unknown,
    };
    if output.json {
        output.json(&json!({ "executions": found, "unseen": unseen }))?;
        return Ok(exit);
    }
    if found.is_empty() {
        output.say(match unseen.is_empty() {
            true => "There are no executions.",
            false => "There are no executions in the stores that could be seen.",
        });
        return Ok(exit);
    }
    let mut table = Table::new(&[
        "EXECUTION",
        "STATE",
        "WORKLOAD",
        "FROM",
        "TO",
        "EPOCH",
        "BY",
    ]);
    for summary in &found {
        let tone = match summary.state {
            State::Completed => Some(Tone::Good),
            State::CompletedWithExceptions
            | State::AwaitingApproval
            | State::Running
            | State::Paused => Some(Tone::Warning),
            State::Stuck => Some(Tone::Bad),
            State::Failed | State::Aborted | State::Superseded => None,
        };
        table.toned(vec![
            (None, summary.execution.to_string()),
            (tone, super::standing(summary, setup.clock.now())),
            (None, summary.workload.to_string()),
            (None, summary.from.to_string()),
            (None, summary.to.to_string()),
            (None, summary.epoch.to_string()),
            (None, summary.holder.to_string()),
        ]);
    }
    output.data(&table.render(output.stdout))?;
    Ok(exit)
}
