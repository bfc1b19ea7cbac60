//! The words of `dr-demo`: the demo itself, and the programs of a sandbox that it starts itself as.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use dr_model::RegionName;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::screen::Screen;
use super::story;
use crate::layout::{APP_ROLE, KEY_NAME, Layout, NAME, StoreKind, TTL_SECONDS, WORKLOAD, ZONE};
use crate::postgres::describe;
use crate::process::{Launcher, end_all, keep};
use crate::sandbox::HOME;
use crate::{Error, LostStore, Result, dns, ledger, service, user};

/// Lose a region on this machine, and get the workload back in another.
///
/// Starts two regions, each with PostgreSQL, an object store, a `dr` daemon and an application under load; kills one of
/// them without warning; runs `dr failover`; and looks every acknowledged commit up in what was recovered.
#[derive(Debug, Parser)]
#[command(name = "dr-demo", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What the demo is to show.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where the standby is, compared with the store, when the region is lost: behind, unless given. There is none with `--rung restore`.
    #[arg(long, value_enum)]
    standby: Option<Standby>,
    /// What is left in the place of the lost region's store.
    #[arg(long, value_enum, default_value_t)]
    pub lost_store: LostStore,
    /// Let commits wait for the other region's store: nothing acknowledged may be lost.
    #[arg(long)]
    pub sync: bool,
    /// How the database comes back; `restore` keeps no standby and rebuilds it from the store.
    #[arg(long, value_enum, default_value_t)]
    pub rung: Rung,
    /// What the regions' stores are; `s3` is a bucket of an S3 server in each region.
    #[arg(long, value_enum, env = "DR_DEMO_STORE", default_value_t)]
    pub store: StoreKind,
    /// Move by appointment instead, from a region that is well: no commit may be lost.
    #[arg(long, conflicts_with_all = ["standby", "lost_store", "rung"])]
    pub planned: bool,
    /// Leave everything running in the end, and print how to explore it.
    #[arg(long)]
    pub keep: bool,
    /// Seconds of load before the region is lost.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Print one JSON object instead of the summary.
    #[arg(long)]
    pub json: bool,
    /// Where the sandbox lives; it must be empty, missing or an earlier sandbox.
    #[arg(long)]
    pub directory: Option<PathBuf>,
}

impl Options {
    /// Returns where the standby is to be; `None` if there is none.
    #[must_use]
    pub fn standby(&self) -> Option<Standby> {
        let standby = self.standby.unwrap_or_default();
        (self.rung == Rung::Promote).then_some(standby)
    }
}

impl Arguments {
    /// Reads the command line; the error is also what was asked to be printed.
    fn read() -> Result<Self, clap::Error> {
        let arguments = Self::try_parse()?;
        let options = &arguments.options;
        if options.rung == Rung::Restore && options.standby.is_some() {
            let why = "there is no standby with `--rung restore`: leave `--standby` out";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, why));
        }
        Ok(arguments)
    }
}

/// Where the standby is, compared with the store, when the region is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Standby {
    /// Three seconds behind: its walsender is frozen, so the store has what it lacks.
    #[default]
    Behind,
    /// Three seconds ahead, one with `--sync`: the receivers are frozen, so it has what the store lacks.
    Ahead,
    /// Where the store is.
    Equal,
}

/// How the database comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Rung {
    /// The standby is promoted.
    #[default]
    Promote,
    /// It is rebuilt from the store.
    Restore,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// End every process of a sandbox that was left running.
    Stop {
        /// The sandbox's directory.
        #[arg(long)]
        directory: PathBuf,
    },
    /// Serve the sandbox's DNS zone.
    #[command(hide = true)]
    Dns {
        #[arg(long)]
        directory: PathBuf,
    },
    /// Serve the application of a region.
    #[command(hide = true)]
    App {
        #[arg(long)]
        directory: PathBuf,
        #[arg(long)]
        region: RegionName,
    },
    /// Start, stop or check the application of a region.
    #[command(hide = true)]
    Service {
        #[arg(value_enum)]
        verb: Verb,
        #[arg(long)]
        directory: PathBuf,
        #[arg(long)]
        region: RegionName,
    },
    /// End a sandbox when the program that runs it has gone.
    #[command(hide = true)]
    Keeper {
        #[arg(long)]
        directory: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Verb {
    Start,
    Stop,
    Check,
}

/// The exit code of a wrong command line, as that of `dr`.
const USAGE: u8 = 64;

/// How long a server may take to finish what it is at once it is told to stop.
const PARTING: Duration = Duration::from_millis(500);

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Who cannot read it is told by the code.
            let _gone = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let screen = Screen::new();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            screen.error(&format!("cannot start: {error}"), None);
            return ExitCode::FAILURE;
        }
    };
    let done = match arguments.part {
        None => runtime.block_on(story::run(&arguments.options, &screen)),
        Some(part) => runtime.block_on(part.run()).map(|()| ExitCode::SUCCESS),
    };
    // Threads that wait for a child must not hold up the end.
    runtime.shutdown_background();
    match done {
        Ok(code) => code,
        Err(Error::Interrupted) => {
            screen.note("interrupted; every process has been ended");
            ExitCode::from(130)
        }
        Err(error) => {
            screen.error(&describe(&error), error.hint());
            ExitCode::FAILURE
        }
    }
}

impl Part {
    async fn run(self) -> Result<()> {
        match self {
            Self::Stop { directory } => {
                let layout = Layout::read(&directory)?;
                if end_all(&layout.directory, None) {
                    return Ok(());
                }
                let reason = "processes in it survive SIGKILL".to_owned();
                Err(Error::Directory { directory, reason })
            }
            Self::Dns { directory } => serve_dns(&Layout::read(&directory)?).await,
            Self::App { directory, region } => serve_app(&Layout::read(&directory)?, &region).await,
            Self::Service {
                verb,
                directory,
                region,
            } => {
                let layout = Layout::read(&directory)?;
                match verb {
                    Verb::Start => {
                        let launcher = Launcher::new(&layout.directory, user::unprivileged()?);
                        service::start(&layout, &region, &launcher).await
                    }
                    Verb::Stop => service::stop(&layout, &region),
                    Verb::Check => service::check(&layout, &region).await,
                }
            }
            Self::Keeper { directory } => {
                keep(&directory);
                Ok(())
            }
        }
    }
}

async fn serve_dns(layout: &Layout) -> Result<()> {
    let named = |text: &str| {
        hickory_proto::rr::Name::from_ascii(format!("{text}.")).map_err(|error| Error::Dns {
            operation: "name in",
            detail: error.to_string(),
        })
    };
    let home = layout
        .regions
        .iter()
        .find(|(name, _)| name.as_str() == HOME);
    let (_, home) = home.ok_or_else(|| Error::NoRegion(HOME.to_owned()))?;
    let zone = dns::Zone::new(
        named(ZONE)?,
        layout.dns,
        named(NAME)?,
        home.address,
        TTL_SECONDS,
    );
    let path = layout.key_file();
    let key = std::fs::read_to_string(&path).map_err(Error::file("read", path))?;
    let cancel = cancelled_by_signal()?;
    dns::serve(layout.dns, zone, KEY_NAME, &key, cancel).await
}

async fn serve_app(layout: &Layout, region: &RegionName) -> Result<()> {
    let place = layout.place(region)?;
    let mut config = tokio_postgres::Config::new();
    config
        .host(place.address.to_string())
        .port(place.postgres_port)
        .user(APP_ROLE)
        .password(layout.password(APP_ROLE)?)
        .dbname(WORKLOAD);
    let cancel = cancelled_by_signal()?;
    tokio::select! {
        ended = ledger::serve(place.service(), ledger::App::new(config), cancel.clone()) => ended,
        // A client that keeps its connection must not keep the application.
        () = async { cancel.cancelled().await; tokio::time::sleep(PARTING).await } => Ok(()),
    }
}

/// Returns a token that SIGTERM or SIGINT cancels.
fn cancelled_by_signal() -> Result<CancellationToken> {
    let failed = |source| Error::Start {
        program: "a signal handler".into(),
        source,
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let cancel = CancellationToken::new();
    let handle = cancel.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        handle.cancel();
    });
    Ok(cancel)
}
