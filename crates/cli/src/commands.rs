//! The commands, one file a verb.

pub(crate) mod approval;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod daemon;
pub(crate) mod evidence;
pub(crate) mod execution;
pub(crate) mod failback;
pub(crate) mod failover;
pub(crate) mod host;
pub(crate) mod init;
pub(crate) mod job;
pub(crate) mod kit;
pub(crate) mod recovery_point;
pub(crate) mod reference;
pub(crate) mod restore;
pub(crate) mod runbook;
pub(crate) mod slot;
pub(crate) mod standby;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod wal;

use tracing_subscriber::EnvFilter;

use crate::args::{Arguments, Command};
use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;

/// Runs the command and returns how the program ends.
pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<Exit> {
    let config = arguments.config.as_path();
    trace(&arguments);
    match arguments.command {
        Command::Init(args) => init::run(&args, config, output),
        Command::Check(args) => check::run(&args, config, output).await,
        Command::Daemon(args) => Box::pin(daemon::run(&args, config, output)).await,
        Command::Status(args) => status::run(&args, config, output).await,
        Command::Failover(args) => Box::pin(failover::run(&args, config, output)).await,
        Command::Failback(args) => Box::pin(failback::run(&args, config, output)).await,
        Command::Execution(command) => Box::pin(execution::run(&command, config, output)).await,
        Command::Evidence(command) => evidence::run(&command, config, output).await,
        Command::Approval(command) => approval::run(&command, output),
        Command::Runbook(command) => runbook::run(&command, config, output).await,
        Command::Job(command) => job::run(&command, config, output).await,
        Command::Host(command) => host::run(&command, config, output).await,
        Command::Kit(command) => kit::run(&command, config, output).await,
        Command::RecoveryPoint(command) => recovery_point::run(&command, config, output).await,
        Command::Restore(args) => restore::run(&args, config, output).await,
        Command::Slot(command) => slot::run(&command, config, output).await,
        Command::Standby(command) => standby::run(&command, config, output).await,
        Command::Sync(command) => sync::run(&command, config, output).await,
        Command::Wal(command) => wal::run(&command, config, output).await,
        Command::Completions(args) => completions::run(&args, output),
        Command::Reference(_) => reference::run(output),
    }
}

/// Sets up what is written about the inside: always for the daemon, whose log it is, otherwise on
/// request.
fn trace(arguments: &Arguments) {
    let is_daemon = match &arguments.command {
        Command::Daemon(_) => true,
        Command::Host(command) => command.is_service(),
        _ => false,
    };
    let default = match (is_daemon, arguments.verbose) {
        (_, true) => "debug",
        (true, false) => "info",
        (false, false) => "error",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false);
    if is_daemon && arguments.json {
        builder.json().init()
    } else {
        builder.init()
    }
}
