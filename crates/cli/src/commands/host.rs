//! `dr host`.

mod serve;

use clap::Subcommand;

use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;

/// What `dr` on another machine asks of this one
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    Serve(serve::Args),
}

pub(crate) async fn run(command: &Command, output: &Output) -> Result<Exit> {
    match command {
        Command::Serve(args) => serve::run(args, output).await,
    }
}
