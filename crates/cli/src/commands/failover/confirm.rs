//! Asking before a live failover: by typing the workload's name, which no habit does.

use std::io::{self, BufRead, IsTerminal};

use dr_model::WorkloadName;

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::{Output, Tone};

/// Tells whether somebody is there to be asked.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks whether to do `what`, and fails unless the answer is the workload's name.
pub(crate) fn ask(workload: &WorkloadName, what: &str, output: &Output) -> Result<()> {
    let name = output.stderr.paint(Tone::Strong, workload.as_str());
    output.ask(&format!("Type {name} to {what}: "));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == workload.as_str() {
        return Ok(());
    }
    Err(CommandError::new(
        Exit::Interrupted,
        "not confirmed; nothing was done",
    ))
}
