//! `dr execution abort`.

use std::sync::Arc;

use dr_model::ExecutionId;

use crate::commands::failover::{Progress, watched};
use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// End an execution that has changed nothing yet
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
    let (site, _) = super::site(setup, &found)?;
    let progress = Progress::new(output, Arc::clone(&setup.clock));
    let work = dr_runbook::abort(site, &args.execution, &args.reason, &progress);
    let report = watched(work, &progress, output).await?;
    if output.json {
        output.json(&report)?;
    } else {
        output.say(&format!(
            "{} is {}; nothing was changed.",
            report.execution,
            report.state.as_str()
        ));
    }
    Ok(Exit::Ok)
}
