//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands::{
    approval, check, completions, daemon, evidence, execution, failback, failover, host, init, job,
    kit, recovery_point, reference, restore, runbook, slot, standby, status, sync, wal,
};
use crate::exit::Exit;
use crate::output::Color;

/// Keep a company able to lose a region.
///
/// dr backs up databases and ships their logs into another region, measures what would be lost, and
/// moves a workload there when its region is gone.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "dr",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 done; 1 failed; 10 objective breached; 11 unknown; 12 refused by a safety rule; \
                  13 another execution is under way; 14 stuck, a person is needed; 20 unavailable; 64 usage; \
                  65 configuration; 130 interrupted."
)]
pub(crate) struct Arguments {
    /// Configuration directory, or the dr.yaml in it
    #[arg(
        long,
        short,
        global = true,
        value_name = "PATH",
        env = "DR_CONFIG",
        default_value = "."
    )]
    pub(crate) config: PathBuf,

    /// Write data as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t)]
    pub(crate) color: Color,

    /// Write what happens inside to stderr; RUST_LOG chooses more finely
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    Init(init::Args),
    Check(check::Args),
    Daemon(daemon::Args),
    Status(status::Args),
    Failover(failover::Args),
    Failback(failback::Args),
    #[command(subcommand)]
    Execution(execution::Command),
    #[command(subcommand)]
    Evidence(evidence::Command),
    #[command(subcommand)]
    Approval(approval::Command),
    #[command(subcommand)]
    Runbook(runbook::Command),
    #[command(subcommand)]
    Job(job::Command),
    #[command(subcommand)]
    Host(host::Command),
    #[command(subcommand)]
    Kit(kit::Command),
    #[command(subcommand)]
    RecoveryPoint(recovery_point::Command),
    Restore(restore::Args),
    #[command(subcommand)]
    Slot(slot::Command),
    #[command(subcommand)]
    Standby(standby::Command),
    #[command(subcommand)]
    Sync(sync::Command),
    #[command(subcommand)]
    Wal(wal::Command),
    Completions(completions::Args),
    #[command(hide = true)]
    Reference(reference::Args),
}

impl Command {
    /// Returns the code that a failure ends the program with.
    ///
    /// PostgreSQL takes any code from 1 to 125 of a restore command for "the file does not exist"
    /// (PROTOCOL 6, R26).
    pub(crate) fn failure(&self, exit: Exit) -> Exit {
        match self {
            Self::Wal(wal::Command::Fetch(_)) => Exit::FetchAborted,
            _ => exit,
        }
    }
}
