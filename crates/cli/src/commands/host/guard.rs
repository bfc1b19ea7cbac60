//! `dr host guard`.

use std::path::Path;
use std::sync::Arc;

use dr_model::{RegionName, ResourceId};
use dr_postgres::{GuardRequest, Guarded};
use tokio::sync::{mpsc, watch};

use crate::commands::daemon::{Signals, notify};
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::wiring::Setup;

/// Run a PostgreSQL server under a guard that stops it when it may no longer be the primary
///
/// Starts the server of a region once the register says that it may run, and keeps it running for as long as that can be seen
/// again and again. When it could not be seen for the time of `guard.lease`, the server is shut down immediately, and whatever
/// does not heed that is killed. Ends with 0 when the server was stopped, with 12 when another region has the primary, and with
/// 20 when the lease was over: started again, it waits until the register can be read. Nothing else may start this server.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The server's resource, as WORKLOAD/RESOURCE
    resource: ResourceId,
    /// The region that it runs in
    #[arg(long)]
    region: RegionName,
}

pub(super) async fn run(args: &Args, config: &Path) -> Result<Exit> {
    let setup = Arc::new(Setup::load(config)?);
    setup.region(&args.region)?;
    let options = setup.postgres_options(&args.resource)?;
    let instance = options.instances.get(&args.region);
    if instance.is_none_or(|instance| instance.guard.is_none()) {
        let what = format!(
            "no guard is configured for `{}` in `{}`",
            args.resource, args.region
        );
        return Err(CommandError::new(Exit::Configuration, what)
            .hint("add `guard: { lease: 10s }` to the instance, and the command that starts it as `start`"));
    }
    let driver = setup.postgres(&args.resource)?;
    let own = std::env::current_exe()?.display().to_string();
    let watcher = [own.as_str(), "host", "guard-watch", "--data-directory"];
    let request = GuardRequest {
        region: args.region.clone(),
        home: setup.workload(&args.resource.workload)?.home.clone(),
        watcher: watcher.map(str::to_owned).to_vec(),
    };
    let mut signals = Signals::new()?;
    let (said, mut heard) = mpsc::channel(8);
    let (started, mut running) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    let mut guarding = std::pin::pin!(driver.guard(&request, said, started, stopped));
    let mut ready = false;
    let guarded = loop {
        tokio::select! {
            guarded = &mut guarding => break guarded?,
            name = signals.next() => {
                tracing::info!(signal = name, "stopping the server");
                stop.send_replace(true);
            }
            Some(why) = heard.recv() => tracing::warn!(why, "the lease is not renewed"),
            Ok(()) = running.changed() => {
                // Every answer of the watcher says that both are at work.
                if !std::mem::replace(&mut ready, true) {
                    tracing::info!(resource = %args.resource, region = %args.region, "the server runs under its guard");
                    notify::tell("READY=1\n");
                }
                notify::tell("WATCHDOG=1\n");
            }
        }
    };
    let resource = &args.resource;
    match guarded {
        Guarded::Ended { well: true } => {
            tracing::info!("the server has stopped");
            Ok(Exit::Ok)
        }
        Guarded::Ended { well: false } => Err(CommandError::new(
            Exit::Failed,
            format!("the server of `{resource}` has ended by itself"),
        )
        .hint("its own log says why")),
        Guarded::Expired(why) => Err(CommandError::new(
            Exit::Unavailable,
            format!("the server of `{resource}` was stopped: its lease was over"),
        )
        .because(why)
        .hint("started again, the guard waits until the register can be read and still has its primary here")),
        Guarded::Superseded(record) => Err(CommandError::new(
            Exit::Refused,
            format!(
                "the server of `{resource}` may not run as a primary here: epoch {} has it in {}",
                record.epoch, record.primary
            ),
        )
        .because(&record.reason)
        .hint("`dr standby create` makes it a standby of the new primary, and keeps what only it has")),
        Guarded::Foreign => Err(CommandError::new(
            Exit::Refused,
            format!(
                "a server of `{resource}` runs here already, which this guard has not started; it was left alone"
            ),
        )
        .hint("stop it in good order, and the guard starts it: one that runs cannot be bound to it")),
        Guarded::Unwatched(why) => Err(CommandError::new(
            Exit::Failed,
            format!("the server of `{resource}` was stopped: nobody watched over it any more"),
        )
        .because(why)),
    }
}
