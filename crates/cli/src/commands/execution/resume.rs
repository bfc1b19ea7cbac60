//! `dr execution resume`.

use std::sync::Arc;

use dr_model::{ExecutionId, StepId};
use dr_runbook::{Decided, resume_with};

use crate::commands::failover::{Progress, Stated, reason, report_text, watched};
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
    /// Why it is taken over, and why steps are left out or done after all; recorded
    #[arg(long, value_parser = reason)]
    reason: Option<String>,
    /// Leave out a step; it ends with exceptions then, which is no pass. Needs --reason
    #[arg(long, value_name = "STEP", requires = "reason")]
    skip: Vec<String>,
    /// Do a step after all that was left out. Needs --reason
    #[arg(long, value_name = "STEP", requires = "reason")]
    unskip: Vec<String>,
    #[command(flatten)]
    stated: Stated,
}

pub(super) async fn run(args: &Args, setup: &Setup, output: &Output) -> Result<Exit> {
    let found = super::find(setup, &args.execution).await?;
    setup.refuse_root(&found.history.plan.workload)?;
    let (site, objectives) = super::site(setup, &found)?;
    let statements = args.stated.statements();
    let progress = Progress::new(output, Arc::clone(&setup.clock));
    let reason = args.reason.as_deref().unwrap_or("resumed by hand");
    let steps = |ids: &[String]| ids.iter().cloned().map(StepId).collect();
    let decided = Decided {
        skip: steps(&args.skip),
        unskip: steps(&args.unskip),
    };
    let work = resume_with(
        site,
        &args.execution,
        reason,
        statements,
        &decided,
        &progress,
    );
    let report = Box::pin(watched(work, &progress, output)).await?;
    output.say(&report_text::render(&report, objectives, output.stderr));
    if output.json {
        output.json(&report)?;
    }
    Ok(report_text::exit(&report, objectives))
}
