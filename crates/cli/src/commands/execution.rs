//! `dr execution`: looking at executions, and going on with them.

mod abort;
mod approve;
mod divergence;
mod list;
mod pause;
mod resume;
mod show;

use std::path::Path;
use std::sync::Arc;

use dr_model::ExecutionId;
use dr_runbook::executions::{self, Found, Summary};
use dr_runbook::{Site, State};
use jiff::{SignedDuration, Timestamp};

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::{Output, seconds};
use crate::wiring::Setup;
use crate::wiring::actor::has_ended;

/// Look at executions, and go on with those that were interrupted
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(list::Args),
    Show(show::Args),
    Approve(approve::Args),
    Pause(pause::Args),
    Resume(resume::Args),
    Abort(abort::Args),
    Divergence(divergence::Args),
}

pub(crate) async fn run(command: &Command, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    match command {
        Command::List(args) => list::run(args, &setup, output).await,
        Command::Show(args) => show::run(args, &setup, output).await,
        Command::Approve(args) => approve::run(args, &setup, output).await,
        Command::Pause(args) => pause::run(args, &setup, output).await,
        Command::Resume(args) => Box::pin(resume::run(args, &setup, output)).await,
        Command::Abort(args) => abort::run(args, &setup, output).await,
        Command::Divergence(args) => divergence::run(args, &setup, output).await,
    }
}

/// Finds an execution in any store.
async fn find(setup: &Setup, execution: &ExecutionId) -> Result<Found> {
    Ok(executions::find(&setup.stores, &setup.clock, execution).await?)
}

/// An entry older than this is not what one expects of an execution that goes on.
const FRESH: SignedDuration = SignedDuration::from_secs(60);

/// Says in which state an execution is, and what is known of the process that runs it.
///
/// The journal only tells what was written. Whether the process that writes it is still there can be seen on its own machine
/// alone; elsewhere the age of the newest entry has to do.
pub(crate) fn standing(summary: &Summary, now: Timestamp) -> String {
    let state = summary.state.as_str();
    if !matches!(summary.state, State::Running | State::AwaitingApproval) {
        return state.to_owned();
    }
    if is_interrupted(summary) {
        return format!("{state}, interrupted: its process has ended");
    }
    let age = now.duration_since(summary.last_entry_at);
    match age > FRESH {
        true => format!("{state}, last entry {} ago", seconds(age.as_secs_f64())),
        false => state.to_owned(),
    }
}

/// Tells whether an execution ought to be under way and its process is known to have ended: that can be told on its machine alone.
pub(crate) fn is_interrupted(summary: &Summary) -> bool {
    matches!(summary.state, State::Running | State::AwaitingApproval)
        && has_ended(&summary.holder) == Some(true)
}

/// Tells whether nothing more happens in an execution unless somebody goes on with it.
pub(crate) fn needs_somebody(summary: &Summary) -> bool {
    matches!(summary.state, State::Stuck | State::Paused) || is_interrupted(summary)
}

/// Returns the world of an execution's workload, and what was promised of it.
fn site(setup: &Setup, found: &Found) -> Result<(Arc<Site>, dr_config::Objectives)> {
    let name = &found.history.plan.workload;
    let workload = setup.workload(name).map_err(|error| {
        CommandError {
            exit: Exit::Configuration,
            ..error
        }
        .hint("use the configuration that the plan was made with")
    })?;
    Ok((Arc::new(setup.site(name, workload)?), workload.objectives))
}
