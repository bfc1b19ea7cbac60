//! `dr execution resume`.

use std::sync::Arc;

use dr_model::ExecutionId;

use crate::commands::failover::{Progress, Stated, report_text, watched};
use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// Take an execution over and go on with it
///
/// Works from any machine that has the configuration. Whoever ran it before learns of it before its
/// next effect, and stops.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Its id, as `dr execution list` prints it
    execution: ExecutionId,
    /// Why it is taken over; recorded
    #[arg(long, default_value = "resumed by hand")]
    reason: String,
    #[command(flatten)]
    stated: Stated,
}

pub(super) async fn run(args: &Args, setup: &Setup, output: &Output) -> Result<Exit> {
    let found = super::find(setup, &args.execution).await?;
    let (site, objectives) = super::site(setup, &found)?;
    let statements = args.stated.statements();
    let progress = Progress::new(output, Arc::clone(&setup.clock));
    let work = dr_runbook::resume(site, &args.execution, &args.reason, statements, &progress);
    let report = watched(work, &progress, output).await?;
    output.say(&report_text::render(&report, objectives, output.stderr));
    if output.json {
        output.json(&report)?;
    }
    Ok(report_text::exit(&report, objectives))
}
