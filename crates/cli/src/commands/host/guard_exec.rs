//! `dr host guard-exec`: the program between a watcher and its server.

use dr_postgres::become_server;

use crate::error::{CommandError, Result};
use crate::exit::Exit;

/// Become a server whose end is bound to that of the process that started this
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The server's command line
    #[arg(last = true, required = true)]
    server: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<Exit> {
    let error = become_server(&args.server);
    Err(CommandError::new(Exit::Failed, "cannot start the server").because(error))
}
