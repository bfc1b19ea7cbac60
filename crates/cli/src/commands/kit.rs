//! `dr kit`.

mod rehearse;
mod write;

use std::path::Path;

use clap::Subcommand;

use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;

/// What a machine with nothing but this program needs to move a workload
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    Write(write::Args),
    Rehearse(rehearse::Args),
}

pub(crate) async fn run(command: &Command, config: &Path, output: &Output) -> Result<Exit> {
    match command {
        Command::Write(args) => write::run(args, config, output).await,
        Command::Rehearse(args) => rehearse::run(args, output).await,
    }
}
