//! `dr execution abort`.

use std::sync::Arc;

use dr_config::{Runbook, Workload};
use dr_coordination::register::EpochRecord;
use dr_model::{ExecutionId, RunbookName, WorkloadName};
use dr_runbook::{Site, State, executions};
use futures::future::join_all;
use serde_json::json;

use crate::commands::failover::{Progress, reason, report_text, watched};
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

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
    /// Why; recorded, as `aborted by hand` unless given. The reason of `--override` is one already
    #[arg(long, value_parser = reason, conflicts_with = "override_reason")]
    reason: Option<String>,
    /// Take a move back whose journal is damaged, so that nobody can tell what it did; why, recorded. What the register says and
    /// what is seen of the servers has to do: a database that was promoted stays
    #[arg(long = "override", value_name = "REASON", value_parser = reason)]
    override_reason: Option<String>,
}

pub(super) async fn run(args: &Args, setup: &Setup, output: &Output) -> Result<Exit> {
    let found = match (
        executions::find(&setup.stores, &setup.clock, &args.execution).await,
        &args.override_reason,
    ) {
        (Err(error @ dr_runbook::Error::Journal { .. }), Some(reason)) => {
            output.say(&format!(
                "{}; going on by override",
                dr_provider::error::chain(&error)
            ));
            return Box::pin(take_back(args, reason, setup, output)).await;
        }
        (Ok(_), Some(_)) => {
            let what = format!(
                "the journal of execution {} can be read, and nothing is overridden",
                args.execution
            );
            return Err(CommandError::new(Exit::Usage, what).hint("leave `--override` out"));
        }
        (found, _) => found?,
    };
    setup.refuse_root(&found.history.plan.workload)?;
    let (site, objectives) = super::site(setup, &found)?;
    let progress = Progress::new(output, Arc::clone(&setup.clock));
    let undo = undo(setup)?;
    let work = Box::pin(dr_runbook::abort(
        site,
        &args.execution,
        args.reason.as_deref().unwrap_or("aborted by hand"),
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
    if report.state == State::Superseded {
        output.say(&report_text::render(&report, objectives, output.stderr));
        return Ok(report_text::exit(&report, objectives));
    }
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

/// Returns the runbook that undoes a move.
fn undo(setup: &Setup) -> Result<&Runbook> {
    let name: RunbookName = "undo-move"
        .parse()
        .expect("the name is written in the source and valid");
    setup.runbook(&name)
}

/// Takes back a move of which only the register tells which workload it moved.
async fn take_back(args: &Args, reason: &str, setup: &Setup, output: &Output) -> Result<Exit> {
    let mut unread = None;
    let workloads = setup.config.workloads.iter();
    // At once: a store that is silent is waited for by each of them.
    let looks = workloads.map(|(name, workload)| async move {
        (name, workload, newest(setup, name, workload).await)
    });
    for (name, workload, found) in join_all(looks).await {
        let (site, newest) = match found {
            Ok(found) => found,
            // It may be about another workload: only if it is nobody else's does this one count.
            Err(error) => {
                unread.get_or_insert(error);
                continue;
            }
        };
        if newest.and_then(|record| record.execution).as_ref() != Some(&args.execution) {
            continue;
        }
        setup.refuse_root(name)?;
        let progress = Progress::new(output, Arc::clone(&setup.clock));
        let undo = undo(setup)?;
        let work = dr_runbook::take_back(site, &args.execution, reason, undo, &progress);
        let report = watched(Box::pin(work), &progress, output).await?;
        if output.json {
            output.json(&json!({ "aborted": null, "undone_by": report, "stays": [] }))?;
        }
        output.say(&report_text::render(
            &report,
            workload.objectives,
            output.stderr,
        ));
        return Ok(report_text::exit(&report, workload.objectives));
    }
    let nobodys = || dr_runbook::Error::NotTakenBack {
        execution: args.execution.clone(),
        why: "it has not opened the newest epoch of any workload".to_owned(),
    };
    Err(unread.unwrap_or_else(|| nobodys().into()))
}

/// Returns the newest record of a workload's register, and its site.
async fn newest(
    setup: &Setup,
    name: &WorkloadName,
    workload: &Workload,
) -> Result<(Arc<Site>, Option<EpochRecord>)> {
    let site = Arc::new(setup.site(name, workload)?);
    let newest = site.register.read().await;
    Ok((site, newest.map_err(dr_provider::Error::from)?))
}
