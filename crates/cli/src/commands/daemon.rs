//! `dr daemon`.

pub(crate) mod check_readiness;
mod control;
mod keep_kit;
mod listen;
mod lock;
mod metrics;
pub(crate) mod notify;
mod registers;
mod source;
mod store;
mod take_over;
mod watch_primary;
mod watch_proofs;
mod watch_writers;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dr_config::Schedule;
use dr_jobs::engine::{Daemon, Ended, Ends};
use dr_model::RegionName;
use dr_server::control::serve_control;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;
use check_readiness::CheckReadiness;
use control::DaemonControl;
pub(crate) use control::answer;
use keep_kit::KeepKit;
pub(crate) use lock::{Lock, PATIENCE, died_here};
use registers::Registers;
use source::DaemonSource;
use watch_primary::WatchPrimaries;
use watch_proofs::WatchProofs;
use watch_writers::WatchWriters;

/// Run the daemon of a region
///
/// Ships the log of every database into the region's store, takes and copies snapshots on their
/// schedules, follows who is primary, and answers /health and /metrics. A store directory that is
/// missing or empty is initialised at the first start. SIGTERM or SIGINT stops it cleanly; a second
/// one at once.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The region that it runs in
    #[arg(long)]
    region: RegionName,
    /// Get ready beside the daemon that runs on this machine, have it leave, and take its place; without
    /// one, start as usual
    #[arg(long)]
    take_over: bool,
}

/// How long tasks may take to come to their end. What is cut off then is repeated or invisible:
/// nothing half done counts.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Arc::new(Setup::load(config)?);
    for file in setup.config.runbooks.unusable() {
        let why: Vec<_> = file.problems.0.iter().map(ToString::to_string).collect();
        tracing::warn!(
            file = file.file,
            why = why.join("; "),
            "a runbook cannot be used"
        );
    }
    let region = &args.region;
    let place = setup.region(region)?.daemon.clone().ok_or_else(|| {
        CommandError::new(Exit::Configuration, format!("`{region}` has no daemon configured"))
            .hint(format!("add `daemon: {{ listen: \"127.0.0.1:8421\", state_directory: /var/lib/dr }}` to `regions.{region}`"))
    })?;
    let mut signals = Signals::new()?;
    // Whatever may be refused is made before anybody is asked to leave, and before anything is written.
    let daemon = daemon(&setup, region)?;
    let registers = Registers::new(&setup, region, daemon.board())?;
    let readiness = CheckReadiness::new(&setup, config, region, daemon.board());
    let readiness = Arc::new(readiness);
    let kit = KeepKit::new(&setup, config, region, daemon.board());
    let primaries = WatchPrimaries::new(&setup, region, daemon.board())?;
    let primaries = Arc::new(primaries);
    let writers = WatchWriters::new(&setup, region, daemon.board())?;
    let writers = Arc::new(writers);
    let proofs = WatchProofs::new(&setup, region, daemon.board())?;
    let leaving = Arc::new(Notify::new());
    let control = DaemonControl::new(
        &setup,
        region,
        place.listen,
        daemon.roster(),
        Arc::clone(&readiness),
        Arc::clone(&leaving),
    )?;
    let control = Arc::new(control);
    let source = DaemonSource::new(
        &setup,
        region.clone(),
        daemon.board(),
        Arc::clone(&readiness),
        Arc::clone(&primaries),
        Arc::clone(&writers),
    );
    let source = Arc::new(source);
    let (stop, stopped) = watch::channel(false);
    // Everything but following the log ends first.
    let (quiet, quieted) = watch::channel(false);

    let ready = match args.take_over {
        true => take_over::prepare(&setup, region, &place, output).await?,
        false => None,
    };
    let has_left = ready.is_some();
    // Once the one that ran has been asked to leave, whatever goes wrong leaves this region without a daemon.
    let failed = |error| match has_left {
        true => take_over::nobody_runs(region, error),
        false => error,
    };
    let patience = match has_left {
        true => 2 * DRAIN_LIMIT + PATIENCE,
        false => PATIENCE,
    };
    let lock = Lock::take(&place.state_directory, region, patience).await;
    let _lock = match (lock, &ready) {
        (Ok(lock), _) => lock,
        (Err(error), Some(ready)) => {
            return Err(take_over::outrun(region, &place, ready, error).await);
        }
        (Err(error), None) => return Err(error),
    };
    let bound = match ready {
        Some(ready) => ready.bound,
        None => {
            // Before anything is written: whoever finds the port taken leaves nothing behind.
            let bound = listen::take(place.listen, region).await?;
            store::prepare(&setup, region, &place.state_directory, output).await?;
            Some(bound)
        }
    };
    let controlling = serve_control(&place.state_directory, control, quieted.clone())
        .map_err(|error| failed(CommandError::from_error(Exit::Failed, &error)))?;
    let board = daemon.board();
    let serving = async {
        let bound = match bound {
            Some(bound) => Some(bound),
            None => listen::take_when_free(place.listen, &board, quieted.clone()).await,
        };
        let Some(bound) = bound else { return Ok(()) };
        let (address, serving) = dr_server::serve(bound, source, quieted.clone());
        tracing::info!(%region, %address, process = std::process::id(), "the daemon runs");
        serving.await
    };

    let (tasks_ended, mut ended) = watch::channel(Ended::default());
    let mut streams_ended = ended.clone();
    let (serving_ended, mut serving_idle) = watch::channel(false);
    let mut work = std::pin::pin!(async {
        let beside = async {
            let moving = Box::pin(registers.keep(quieted.clone()));
            let checking = Box::pin(readiness.keep(quieted.clone()));
            let watching = Box::pin(primaries.keep(quieted.clone()));
            let asking = Box::pin(writers.keep(quieted.clone()));
            let keeping = Box::pin(kit.keep(quieted.clone()));
            let proving = Box::pin(proofs.keep(quieted.clone()));
            let ((), (), (), (), (), (), served, controlled) = tokio::join!(
                moving,
                checking,
                watching,
                asking,
                keeping,
                proving,
                serving,
                controlling
            );
            serving_ended.send_replace(true);
            served
                .map_err(|error| CommandError::from_error(Exit::Failed, &error))
                .and(controlled.map_err(|error| CommandError::from_error(Exit::Failed, &error)))
        };
        let ends = Ends {
            all: stopped,
            jobs: quieted.clone(),
        };
        let ((), served) = tokio::join!(daemon.run(ends, &tasks_ended), beside);
        served
    });
    let is_replaced = tokio::select! {
        ended = &mut work => return failed_early(ended),
        name = signals.next() => {
            tracing::info!(signal = name, "stopping");
            false
        }
        () = leaving.notified() => {
            tracing::info!("another daemon takes over");
            true
        }
    };
    quiet.send_replace(true);
    let mut is_cut_off = false;
    if is_replaced {
        let idle = async {
            let _ended = ended.wait_for(|ended| ended.jobs).await;
            let _ended = serving_idle.wait_for(|ended| *ended).await;
        };
        tokio::select! {
            ended = &mut work => return failed_early(ended),
            () = idle => {}
            name = signals.next() => tracing::info!(signal = name, "stopping"),
            () = tokio::time::sleep(DRAIN_LIMIT) => {
                tracing::warn!(limit_seconds = DRAIN_LIMIT.as_secs(), "a job did not come to its end in time, and is cut off");
                is_cut_off = true;
            }
        }
    }
    // Every task holds a receiver, so somebody hears it.
    stop.send_replace(true);
    tokio::select! {
        ended = &mut work => ended?,
        // What has had its time is not waited for once more: commits may wait for the daemon that takes over.
        _ended = streams_ended.wait_for(|ended| ended.streams), if is_cut_off => {}
        name = signals.next() => {
            tracing::warn!(signal = name, "stopping at once");
            return Ok(Exit::Interrupted);
        }
        () = tokio::time::sleep(DRAIN_LIMIT) => {
            tracing::warn!(limit_seconds = DRAIN_LIMIT.as_secs(), "not everything came to its end in time, and was cut off");
        }
    }
    tracing::info!("stopped");
    Ok(Exit::Ok)
}

/// Tasks end only when they are told to, so this is a server's failure.
fn failed_early(ended: Result<()>) -> Result<Exit> {
    ended?;
    Err(CommandError::new(
        Exit::Failed,
        "the daemon stopped by itself",
    ))
}

/// Puts together what runs in this region: the workloads that have a place here, and their
/// schedules.
fn daemon(setup: &Setup, region: &RegionName) -> Result<Daemon> {
    let mut workloads = Vec::new();
    for (name, workload) in setup.workloads_in(region) {
        workloads.push(setup.workload_site(name, workload)?);
    }
    let names: Vec<_> = workloads.iter().map(|site| site.name.clone()).collect();
    let ours = |schedule: &&Schedule| names.contains(&schedule.resource.workload);
    let schedules = setup
        .config
        .schedules
        .iter()
        .filter(ours)
        .cloned()
        .collect();
    Ok(Daemon::new(
        region.clone(),
        setup.actor.clone(),
        setup.store(region)?,
        workloads,
        schedules,
        Arc::clone(&setup.clock),
    ))
}

/// The signals that end a service.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one and returns its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
