//! `dr host`.

mod guard;
mod guard_exec;
mod guard_watch;
mod serve;

use std::path::Path;

use clap::Subcommand;

use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;

/// What runs on the machine of a server
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    Serve(serve::Args),
    Guard(guard::Args),
    #[command(hide = true)]
    GuardWatch(guard_watch::Args),
    #[command(hide = true)]
    GuardExec(guard_exec::Args),
}

impl Command {
    /// Tells whether it runs on and on, so that what it says is a log.
    pub(crate) fn is_service(&self) -> bool {
        matches!(self, Self::Guard(_))
    }
}

pub(crate) async fn run(command: &Command, config: &Path, output: &Output) -> Result<Exit> {
    match command {
        Command::Guard(args) => guard::run(args, config).await,
        Command::GuardWatch(args) => guard_watch::run(args),
        Command::GuardExec(args) => guard_exec::run(args),
        Command::Serve(args) => serve::run(args, output).await,
    }
}
