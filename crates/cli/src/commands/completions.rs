//! `dr completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Arguments;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;

/// Print a completion script for a shell
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "dr", &mut script);
    output.data(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Ok)
}
