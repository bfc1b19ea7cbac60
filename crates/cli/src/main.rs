//! `dr`: keeps a company able to lose a region.

mod args;
mod commands;
mod error;
mod exit;
mod kit;
mod memory;
mod output;
mod readiness;
mod wiring;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;

use crate::args::Arguments;
use crate::error::CommandError;
use crate::exit::Exit;
use crate::output::{Color, Output};

/// How a process that panicked ends, by Rust's convention.
const PANICKED: u8 = 101;

fn main() -> ExitCode {
    memory::keep_little();
    // The panic has said what it is about when it is caught here; nothing is used afterwards.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        if is_fetching() {
            Exit::FetchAborted.into()
        } else {
            ExitCode::from(PANICKED)
        }
    })
}

fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let output = Output::new(arguments.color, arguments.json);
    let command = arguments.command.clone();
    let failed = |error: &CommandError| {
        let exit = command.failure(error.exit);
        output.error(error, exit);
        exit.into()
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let ended = runtime.block_on(commands::run(arguments, &output));
    // A thread that waits for a disk or a name that does not answer must not hold up the end.
    runtime.shutdown_background();
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => failed(&error),
    }
}

/// Help and version are answers; anything else is a usage error, which `dr wal fetch` must not
/// mistake for "no such file".
fn usage(error: &clap::Error) -> ExitCode {
    let exit = match (error.use_stderr(), is_fetching()) {
        (false, _) => Exit::Ok,
        (true, true) => Exit::FetchAborted,
        (true, false) => Exit::Usage,
    };
    if error.use_stderr() && std::env::args_os().any(|word| word == "--json") {
        let text = error.render().to_string();
        let message = text.trim().trim_start_matches("error: ");
        Output::new(Color::Never, true).error(&CommandError::new(exit, message), exit);
    } else {
        let _gone = error.print();
    }
    exit.into()
}

/// Tells whether this may be `dr wal fetch`, by the bare words: the command line may be beyond
/// understanding.
fn is_fetching() -> bool {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    ["wal", "fetch"]
        .iter()
        .all(|wanted| words.iter().any(|word| word == wanted))
}
