//! `dr execution abort`.

use std::sync::Arc;

use dr_model::{ExecutionId, RunbookName};
use serde_json::json;

use crate::commands::failover::{Progress, report_text, watched};
use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::{Setup, unknown};

/// End an execution that has promoted nothing yet, and undo what it did
///
/// If it has changed something, a new epoch gives the old primary its place back: it is started
/// again, and the standby follows it. That is an execution of its own. Once a database was promoted
/// there is no way back but another move. A recovery in place ends as it stands, unless a database
/// is down because of it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Its id, as `dr execution list` prints it
    execution: ExecutionId,
    /// Why; recorded
    #[arg(long, default_value = "aborted by hand")]
    reason: String,
}

pub(super) async fn run(args: &Args, setup: &Setup, output: &Output) -> Result<Exit> {
    let found = super::find(setup, &args.execution).await?;
    let (site, objectives) = super::site(setup, &found)?;
    let progress = Progress::new(output, Arc::clone(&setup.clock));
    let runbooks = &setup.config.runbooks;
    let name: RunbookName = "undo-move"
        .parse()
        .expect("the name is written in the source and valid");
    let undo = runbooks
        .get(&name)
        .ok_or_else(|| unknown("runbook", name.as_str(), runbooks.keys()))?;
    let work = Box::pin(dr_runbook::abort(
        site,
        &args.execution,
        &args.reason,
        undo,
        &progress,
    ));
    let aborted = watched(work, &progress, output).await?;
    if output.json {
        output.json(&json!({ "aborted": aborted.report, "undone_by": aborted.undone_by, "stays": aborted.stays }))?;
    }
    if let Some(undone) = &aborted.undone_by {
        output.say(&report_text::render(undone, objectives, output.stderr));
    }
    let Some(report) = aborted.report else {
        let undone = aborted.undone_by.as_ref();
        return Ok(undone.map_or(Exit::Stuck, |undone| report_text::exit(undone, objectives)));
    };
    let what = match &aborted.undone_by {
        None if aborted.stays.is_empty() => "nothing was changed".to_owned(),
        None => format!("what it did stays: {}", aborted.stays.join("; ")),
        Some(undone) => format!(
            "{} is served from {} again, epoch {}",
            undone.workload, undone.to, undone.epoch
        ),
    };
    output.say(&format!(
        "{} is {}; {what}.",
        report.execution,
        report.state.as_str()
    ));
    Ok(Exit::Ok)
}
