//! The story itself, chapter by chapter.

use std::process::ExitCode;
use std::time::Duration;

use dr_model::Clock;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::cli::{Options, Standby};
use super::failover::Failover;
use super::page;
use super::screen::{Colour, Screen};
use super::summary::{Summary, faults};
use crate::judge::judge;
use crate::ledger::{Load, Options as LoadOptions, outage};
use crate::region::signal as signal_processes;
use crate::{Error, HOME, RECOVERY, Result, Sandbox, wait};

/// How long the standby or the receivers stand still before the region is lost.
const FREEZE: Duration = Duration::from_secs(3);

/// The same in synchronous mode when it is the receivers that are frozen: every commit waits for them, so the client's
/// outage begins with the freeze and not with the loss.
const FREEZE_SYNC: Duration = Duration::from_secs(1);
/// How long the load goes on in the new region.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// How long a first backup, or its copy, may take.
const BACKUP_LIMIT: Duration = Duration::from_secs(120);
/// How long the application may take to acknowledge commits where it should.
const SERVICE_LIMIT: Duration = Duration::from_secs(30);

/// Tells the story; a signal ends it early. When it returns, every process has ended, unless they were to be kept.
pub(super) async fn run(options: &Options, screen: &Screen) -> Result<ExitCode> {
    let interrupted = interruption()?;
    tokio::select! {
        // Dropping the story drops its sandbox, and that ends the processes.
        () = interrupted.cancelled() => Err(Error::Interrupted),
        done = tell(options, *screen) => done,
    }
}

/// Returns a token that the first SIGINT, SIGTERM or SIGHUP cancels. The second ends this program at once; the keeper
/// then does what is left to do.
fn interruption() -> Result<CancellationToken> {
    let failed = |source| Error::Start {
        program: "a signal handler".into(),
        source,
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let token = CancellationToken::new();
    let handle = token.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            if handle.is_cancelled() {
                leave();
            }
            handle.cancel();
        }
    });
    Ok(token)
}

#[expect(
    clippy::disallowed_methods,
    clippy::exit,
    reason = "asked for twice: the orderly way is taking too long, and the keeper cleans up"
)]
fn leave() {
    std::process::exit(130);
}

async fn tell(options: &Options, screen: Screen) -> Result<ExitCode> {
    screen.chapter(
        "protect",
        "two regions, one workload, its log shipped as it is written",
    );
    let mut builder = Sandbox::builder()
        .standby(options.standby().is_some())
        .store(options.store)
        .sync(options.sync);
    if let Some(directory) = &options.directory {
        builder = builder.directory(directory);
    }
    let sandbox = builder.start().await?;
    let directory = sandbox.layout().directory.clone();
    let told = tell_of(sandbox, options, screen).await;
    told.map_err(|error| error.on_disk(&directory))
}

async fn tell_of(sandbox: Sandbox, options: &Options, screen: Screen) -> Result<ExitCode> {
    let load = protect(&sandbox, options, screen).await?;

    let lost_at_us = if options.planned {
        u64::try_from(sandbox.clock().elapsed().as_micros()).unwrap_or(u64::MAX)
    } else {
        screen.chapter(
            "lose",
            &format!("{HOME} is gone, in one instant, under load"),
        );
        lose(&sandbox, options, screen).await?
    };
    let clock = sandbox.clock();
    let since = clock
        .elapsed()
        .saturating_sub(Duration::from_micros(lost_at_us));
    let lost_at = clock.now() - jiff::SignedDuration::try_from(since).unwrap_or_default();

    screen.chapter("recover", &format!("the workload moves to {RECOVERY}"));
    let failover = recover(&sandbox, options.planned, screen).await?;
    // A planned move goes on for a while at home.
    let served_at_us = match options.planned {
        true => u64::try_from(sandbox.clock().elapsed().as_micros()).unwrap_or(u64::MAX),
        false => lost_at_us,
    };
    let what = format!("a commit acknowledged in `{RECOVERY}`");
    wait::until(&what, SERVICE_LIMIT, async || {
        let newest = load.last_acknowledged_us();
        if newest > served_at_us {
            Ok(())
        } else {
            Err("none so far".to_owned())
        }
    })
    .await?;
    tokio::time::sleep(AFTERWARDS).await;
    let record = load.stop().await?;

    screen.chapter(
        "prove",
        "every acknowledged commit is looked up in the recovered database",
    );
    let found = sandbox
        .region(RECOVERY)?
        .postgres()?
        .ledger()
        .await?
        .into_iter()
        .collect();
    let verdict = judge(&record.commits, &found);
    let outage = outage(&record.commits, lost_at_us);
    let directory = &sandbox.layout().directory;
    let report = directory.join("report.html");
    let summary = Summary::new(&verdict, outage, &failover, lost_at, &report, directory);
    let faults = faults(&verdict, outage, &failover, &record, options.sync);
    let page = page::Page {
        summary: &summary,
        failover: &failover,
        record: &record,
        verdict: &verdict,
        outage,
        lost_at_us,
        faults: &faults,
    };
    std::fs::write(&report, page.render()).map_err(Error::file("write", &report))?;

    if options.json {
        let object = serde_json::to_string_pretty(&summary).map_err(|source| Error::Output {
            program: "the summary".to_owned(),
            source,
        })?;
        screen.result(&object);
    } else {
        screen.result(&summary.table(&failover, screen));
        screen.tell(&format!(
            "the report, with the timeline as a picture: {}",
            report.display()
        ));
    }
    for fault in &faults {
        screen.error(fault, None);
    }
    if options.keep {
        explore(&sandbox, screen);
        sandbox.leave_running();
    }
    Ok(if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn protect(sandbox: &Sandbox, options: &Options, screen: Screen) -> Result<Load> {
    let layout = sandbox.layout();
    let clock = sandbox.clock();
    screen.tell(&format!(
        "everything is under {}",
        layout.directory.display()
    ));
    for (region, place) in &layout.regions {
        screen.tell(&format!(
            "{region}: PostgreSQL on {}, application on {}, daemon on {}",
            place.postgres(),
            place.service(),
            place.daemon_listen()
        ));
        if let Some(listen) = place.store_listen() {
            screen.tell(&format!("{region}: its store is an S3 server on {listen}"));
        }
    }
    let load = sandbox.load(LoadOptions::default())?;
    let began = clock.elapsed();
    wait::until("commits acknowledged at home", SERVICE_LIMIT, async || {
        let count = load.acknowledged();
        if count >= 50 {
            Ok(())
        } else {
            Err(format!("{count} so far"))
        }
    })
    .await?;
    screen.tell("a client commits 240 times a second, through the DNS name alone");
    for region in [HOME, RECOVERY] {
        let what = format!("a whole backup in the store of `{region}`");
        let labels = wait::until(&what, BACKUP_LIMIT, async || {
            let labels = sandbox
                .region(region)
                .map(|r| r.backups())
                .map_err(|e| e.to_string())?;
            if labels.is_empty() {
                Err("none so far".to_owned())
            } else {
                Ok(labels)
            }
        })
        .await?;
        screen.tell(&format!("{region} holds the backup {}", labels.join(", ")));
    }
    let wanted = Duration::from_secs(options.seconds);
    tokio::time::sleep(wanted.saturating_sub(clock.elapsed().saturating_sub(began))).await;
    screen.command("dr status");
    let status = sandbox.dr(["status"]).await?;
    screen.quote(&status.stdout);
    screen.quote(&status.stderr);
    Ok(load)
}

async fn lose(sandbox: &Sandbox, options: &Options, screen: Screen) -> Result<u64> {
    let (home, recovery) = (sandbox.region(HOME)?, sandbox.region(RECOVERY)?);
    match options.standby() {
        Some(Standby::Behind) => {
            let replica = recovery.postgres()?.standby_name();
            let connected = home.postgres()?.standbys().await?;
            let frozen: Vec<_> = home
                .processes()
                .into_iter()
                .filter(|p| {
                    connected
                        .iter()
                        .any(|s| s.name == replica && s.walsender == p.pid)
                })
                .collect();
            if frozen.is_empty() {
                return Err(Error::Program {
                    program: "the standby".to_owned(),
                    status: "not connected".to_owned(),
                    detail: format!("connected are {connected:?}"),
                });
            }
            screen.tell(
                "the standby's walsender is frozen for 3 s: only the store has the newest log",
            );
            signal_processes(&frozen, Signal::STOP);
            tokio::time::sleep(FREEZE).await;
        }
        Some(Standby::Ahead) => {
            let freeze = if options.sync { FREEZE_SYNC } else { FREEZE };
            screen.tell(&format!(
                "the receivers are frozen for {} s: only the standby has the newest log, and no heartbeat is written",
                freeze.as_secs()
            ));
            home.signal_daemon(Signal::STOP);
            recovery.signal_daemon(Signal::STOP);
            tokio::time::sleep(freeze).await;
        }
        Some(Standby::Equal) | None => {}
    }
    let processes = home.processes().len();
    let at = home.lose(options.lost_store)?;
    recovery.signal_daemon(Signal::CONT);
    screen.tell(&format!(
        "{} {processes} processes killed",
        screen.paint(Colour::Red, "✗")
    ));
    screen.tell(&match options.lost_store {
        crate::LostStore::Renamed => "its store has gone".to_owned(),
        crate::LostStore::Empty => "an empty directory is in the place of its store".to_owned(),
    });
    Ok(at)
}

async fn recover(sandbox: &Sandbox, planned: bool, screen: Screen) -> Result<Failover> {
    let mut words = vec!["failover", "--to", RECOVERY, "--yes"];
    if planned {
        words.insert(1, "--planned");
    }
    screen.command(&format!("dr {}", words.join(" ")));
    let command = sandbox.dr_command(words.iter().copied().chain(["--json"]));
    let output = sandbox.launcher().output(command, true).await?;
    let failed = |detail: String| Error::Program {
        program: format!("dr {}", words.join(" ")),
        status: output.status.to_string(),
        detail,
    };
    if output.stdout.trim().is_empty() {
        return Err(failed("it says why above".to_owned()));
    }
    let path = sandbox.layout().directory.join("failover.json");
    std::fs::write(&path, &output.stdout).map_err(Error::file("write", path))?;
    let failover: Failover =
        serde_json::from_str(&output.stdout).map_err(|source| Error::Output {
            program: format!("dr {} --json", words.join(" ")),
            source,
        })?;
    // One with exceptions has moved the workload all the same: what it kept is worth looking at.
    if !failover.state.starts_with("completed") {
        let reason = failover.reason.as_deref().unwrap_or("it says why above");
        return Err(failed(format!("it is `{}`: {reason}", failover.state)));
    }
    Ok(failover)
}

fn explore(sandbox: &Sandbox, screen: Screen) {
    let layout = sandbox.layout();
    let (dr, at) = (layout.dr.display(), layout.directory.display());
    screen.chapter("explore", "everything is still running");
    screen.command(&format!("{dr} --config {at} status"));
    screen.command(&format!("{dr} --config {at} execution list"));
    if let Ok(region) = sandbox.region(RECOVERY) {
        let place = region.place();
        screen.command(&format!(
            "PGPASSWORD=$(cat {at}/secrets/ledger.password) {}/psql -h {} -p {} -U ledger ledger",
            layout.postgres_programs.display(),
            place.address,
            place.postgres_port
        ));
        screen.command(&format!("curl http://{}/health", place.daemon_listen()));
    }
    let (ip, port) = (layout.dns.ip(), layout.dns.port());
    screen.command(&format!("dig @{ip} -p {port} ledger.sandbox.example"));
    screen.tell("and to end it:");
    screen.command(&format!("{} stop --directory {at}", layout.demo.display()));
}
