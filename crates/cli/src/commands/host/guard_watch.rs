//! `dr host guard-watch`: the watcher of `dr host guard`.

use std::io::{BufReader, stdin, stdout};
use std::path::PathBuf;

use dr_postgres::watch;

use crate::error::{CommandError, Result};
use crate::exit::Exit;

/// Start a server once its guard says so, and stop it when its lease is over or the guard is gone
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The server's data directory
    #[arg(long)]
    data_directory: PathBuf,
    /// The server's command line
    #[arg(last = true, required = true)]
    server: Vec<String>,
}

/// Blocks the thread that the process began with, as what it does has to be done by one that lives as long.
pub(super) fn run(args: &Args) -> Result<Exit> {
    let own = std::env::current_exe()?.display().to_string();
    let mut server = vec![own];
    server.extend(["host", "guard-exec", "--"].map(str::to_owned));
    server.extend(args.server.iter().cloned());
    let input = BufReader::new(stdin());
    match watch(&args.data_directory, &server, input, &mut stdout()) {
        Ok(_) => Ok(Exit::Ok),
        Err(error) => {
            Err(CommandError::new(Exit::Failed, "cannot watch over the server").because(error))
        }
    }
}
