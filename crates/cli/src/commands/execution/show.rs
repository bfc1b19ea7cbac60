//! `dr execution show`.

use std::time::Duration;

use dr_model::ExecutionId;
use dr_runbook::executions::Found;
use dr_runbook::outcome::{StepReport, StepState};
use dr_runbook::{Report, State};

use super::approve;
use crate::commands::failover::report_text;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Output, Table, Tone, seconds};
use crate::wiring::Setup;

/// How often the journal is read while following.
const INTERVAL: Duration = Duration::from_secs(1);

/// Show an execution as its journal tells it
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Its id, as `dr execution list` prints it
    execution: ExecutionId,
    /// Go on until it is over or stuck
    #[arg(long, short)]
    follow: bool,
}

pub(super) async fn run(args: &Args, setup: &Setup, output: &Output) -> Result<Exit> {
    let mut found = super::find(setup, &args.execution).await?;
    let mut told: Vec<StepReport> = Vec::new();
    while args.follow
        && matches!(
            found.history.state(),
            State::Running | State::AwaitingApproval
        )
    {
        tell_news(&found.history.report(), &mut told, output);
        tokio::time::sleep(INTERVAL).await;
        found = super::find(setup, &args.execution).await?;
    }
    let report = found.history.report();
    if output.json {
        output.json(&report)?;
    } else {
        let mut lines = vec![text(&found, &report, setup, output)?];
        lines.extend(approve::lines(&found, setup).await?);
        output.data(&lines.join("\n"))?;
    }
    Ok(Exit::Ok)
}

/// Says which steps have changed since the last look.
fn tell_news(report: &Report, told: &mut Vec<StepReport>, output: &Output) {
    for step in &report.steps {
        let known = told.iter().find(|known| known.id == step.id);
        if known.is_none_or(|known| known.state != step.state) && step.state != StepState::Pending {
            let summary = step.summary.as_deref().unwrap_or_default();
            output.say(&format!(
                "{:<9} {} {summary}",
                step.id.to_string(),
                word(step.state)
            ));
        }
    }
    told.clone_from(&report.steps);
}

fn text(found: &Found, report: &Report, setup: &Setup, output: &Output) -> Result<String> {
    let style = output.stdout;
    let mut table = Table::new(&["STEP", "USES", "STATE", "TOOK", "SUMMARY"]);
    for step in &report.steps {
        let tone = match step.state {
            StepState::Done => Some(Tone::Good),
            StepState::Failed => Some(Tone::Bad),
            StepState::Excepted | StepState::Skipped | StepState::Running => Some(Tone::Warning),
            StepState::Pending => Some(Tone::Faint),
        };
        table.toned(vec![
            (None, step.id.to_string()),
            (None, step.uses.clone()),
            (tone, word(step.state).to_owned()),
            (None, step.took_seconds.map(seconds).unwrap_or_default()),
            (None, step.summary.clone().unwrap_or_default()),
        ]);
    }
    let (_, objectives) = super::site(setup, found)?;
    Ok(format!(
        "{}\n\n{}",
        table.render(style),
        report_text::render(report, objectives, style)
    ))
}

fn word(state: StepState) -> &'static str {
    match state {
        StepState::Pending => "pending",
        StepState::Running => "running",
        StepState::Done => "done",
        StepState::Excepted => "excepted",
        StepState::Skipped => "skipped",
        StepState::Failed => "failed",
    }
}
