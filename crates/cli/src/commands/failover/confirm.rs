//! Asking before a live failover: by typing the workload's name, which no habit does.

use std::io::{self, BufRead, IsTerminal};

use dr_model::{RegionName, WorkloadName};

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::{Output, Tone};

/// Tells whether somebody is there to be asked.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks, and fails unless the answer is the workload's name.
pub(super) fn ask(workload: &WorkloadName, to: &RegionName, output: &Output) -> Result<()> {
    let name = output.stderr.paint(Tone::Strong, workload.as_str());
    output.ask(&format!("Type {name} to move it to {to}: "));
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
