//! `dr execution pause`.

use dr_model::ExecutionId;
use serde_json::json;

use super::is_interrupted;
use crate::commands::failover::reason;
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// Stop an execution before its next action, wherever it runs
///
/// What it does at this moment is done to its end. Nothing is undone; `dr execution resume` goes on
/// with it, and clients may be waiting until then. On the machine that ran it, one whose process has
/// ended is refused (12): there is nothing to stop. From elsewhere that cannot be told, and it is
/// paused.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Its id, as `dr execution list` prints it
    execution: ExecutionId,
    /// Why; recorded
    #[arg(long, default_value = "paused by hand", value_parser = reason)]
    reason: String,
}

pub(super) async fn run(args: &Args, setup: &Setup, output: &Output) -> Result<Exit> {
    let found = super::find(setup, &args.execution).await?;
    let (site, _) = super::site(setup, &found)?;
    let summary = found.summary();
    if is_interrupted(&summary) {
        let (execution, holder) = (&summary.execution, &summary.holder);
        let what = format!("nobody runs execution {execution}: its process has ended ({holder})");
        return Err(CommandError::new(Exit::Refused, what).hint(summary.ways_on()));
    }
    dr_runbook::pause(site, &args.execution, &args.reason).await?;
    if output.json {
        output.json(&json!({ "execution": args.execution, "state": "paused" }))?;
    }
    output.say(&format!(
        "{} is paused: it begins nothing more. Go on with it: dr execution resume {}.",
        args.execution, args.execution
    ));
    Ok(Exit::Ok)
}
