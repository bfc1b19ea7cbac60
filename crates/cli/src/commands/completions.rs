//! `dr completions`.

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

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
    let script = String::from_utf8_lossy(&script);
    match output.json {
        true => output.json(&json!({ "shell": args.shell.to_string(), "script": script }))?,
        false => output.data(script.trim_end())?,
    }
    Ok(Exit::Ok)
}
