//! `dr wal`: what PostgreSQL calls as `archive_command` and `restore_command`.

mod fetch;
mod push;

use std::path::Path;

use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;

/// Push and fetch files of the log, as archive_command and restore_command
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    Push(push::Args),
    Fetch(fetch::Args),
}

pub(crate) async fn run(command: &Command, config: &Path, output: &Output) -> Result<Exit> {
    match command {
        Command::Push(args) => push::run(args, config, output).await,
        Command::Fetch(args) => fetch::run(args, config, output).await,
    }
}
