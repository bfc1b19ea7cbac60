//! `dr job`.

mod list;
mod run;

use std::path::Path;

use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;

/// List scheduled jobs, and run one now
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(list::Args),
    Run(run::Args),
}

pub(crate) async fn run(command: &Command, config: &Path, output: &Output) -> Result<Exit> {
    match command {
        Command::List(args) => list::run(args, config, output),
        Command::Run(args) => run::run(args, config, output).await,
    }
}
