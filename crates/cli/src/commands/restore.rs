//! `dr restore`.

mod plan_text;
mod progress;
pub(crate) mod store_room;
pub(crate) mod target;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use dr_model::{RegionName, ResourceId};
use dr_provider::driver::{
    Existing, OutsidePlaces, RestoreProgress, RestoreRequest, RestoreTarget, TargetAction,
    TargetTimeline,
};
use dr_provider::{Error, ErrorKind};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::{Output, Tone, amount};
use crate::wiring::Setup;

/// Restore a database into a directory
///
/// Proves that everything needed is present in the region's store, then writes the directory, ready to be
/// started on another port. Needs neither a daemon nor anything but the store.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The resource, as WORKLOAD/RESOURCE
    resource: ResourceId,
    /// The region whose store is read
    #[arg(long = "in", value_name = "REGION")]
    region: RegionName,
    /// Where to end: `latest`; `immediate`, as soon as the files are consistent; a time with its
    /// zone, such as `2026-11-21T09:30:05Z`; an LSN such as `0/3000148`; `xid:771`, the end of a
    /// transaction; `name:before-upgrade`, a restore point
    #[arg(long, default_value = "latest", value_parser = target::target, value_name = "TARGET")]
    at: RestoreTarget,
    /// Leave out what the target names: commits of that very instant, the record at the LSN, the
    /// transaction; means nothing for any other target
    #[arg(long)]
    exclusive: bool,
    /// The timeline to follow: a number, `latest`, or `current`, the recovery point's own
    #[arg(long, default_value = "latest", value_parser = target::timeline, value_name = "N|latest|current")]
    timeline: TargetTimeline,
    /// Begin with this recovery point instead of the newest that will do
    #[arg(long, value_name = "LABEL")]
    recovery_point: Option<String>,
    /// What the server does at the target: accept writes on a timeline of its own, answer queries
    /// and wait, or stop
    #[arg(long, default_value = "promote", value_enum)]
    action: Action,
    /// The port of the restored server
    #[arg(long, default_value_t = RestoreRequest::PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Where a tablespace goes, by its number; may be given several times
    #[arg(long = "tablespace", value_name = "NUMBER=DIR", value_parser = target::tablespace)]
    tablespaces: Vec<(u32, PathBuf)>,
    /// Holds the other tablespaces, each under its number
    #[arg(long, value_name = "DIR", conflicts_with = "tablespace_same_place")]
    tablespace_root: Option<PathBuf>,
    /// Put the other tablespaces where they were: only on a machine where nothing else uses that place
    #[arg(long)]
    tablespace_same_place: bool,
    /// Say what would be done, and write nothing
    #[arg(long)]
    plan: bool,
    /// Read all the log up to the target before anything is written; otherwise it is only looked for, and verified as it is
    /// replayed
    #[arg(long)]
    verify_log: bool,
    /// A directory on this machine, missing or empty without `--delta`
    #[arg(long, value_name = "DIR", required_unless_present = "plan")]
    into: Option<PathBuf>,
    /// Restore over a data directory that is there and in which no server runs: what differs is
    /// written, and what the recovery point does not hold is removed, in tablespaces too
    #[arg(long)]
    delta: bool,
    /// Restore over another cluster as well
    #[arg(long, requires = "delta")]
    force: bool,
}

/// What the server does at the target.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Action {
    Promote,
    Pause,
    Shutdown,
}

pub(crate) async fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    if args.exclusive {
        target::refuse_exclusive(&args.at)?;
    }
    let setup = Setup::load(config)?;
    let driver = setup.driver(&args.resource)?;
    let store = setup.identified(&args.region).await?;
    let restore = driver.restore().ok_or_else(|| {
        let error = Error::new(ErrorKind::Unsupported, "restore", args.resource.to_string());
        CommandError::from(error.because(format!("kind `{}` cannot be restored", driver.kind())))
    })?;
    target::refuse_future(&args.at, setup.clock.now())?;
    let directory = std::path::absolute(args.into.as_deref().unwrap_or(Path::new(".")))?;
    let outside = outside(args)?;
    let written = outside.places.values().chain(&outside.root);
    let into = args.into.is_some().then_some(&directory);
    for place in into.into_iter().chain(written) {
        let instead = "restore into a directory of its own";
        store_room::outside_of_stores(&setup.config, place, instead)?;
    }
    let (sender, written) = watch::channel(RestoreProgress::default());
    let request = RestoreRequest {
        exclusive: args.exclusive,
        timeline: args.timeline,
        action: match args.action {
            Action::Promote => TargetAction::Promote,
            Action::Pause => TargetAction::Pause,
            Action::Shutdown => TargetAction::Shutdown,
        },
        recovery_point: args.recovery_point.clone(),
        port: args.port,
        outside,
        is_named: args.into.is_some(),
        verify_log: args.verify_log,
        existing: match (args.delta, args.force) {
            (false, _) => Existing::Nothing,
            (true, false) => Existing::SameCluster,
            (true, true) => Existing::AnyCluster,
        },
        progress: Some(sender),
        ..RestoreRequest::new(args.region.clone(), args.at.clone(), directory.clone())
    };
    if args.plan {
        let plan = restore.plan(&request).await;
        let plan = plan.map_err(|error| refused(into.map(|into| &**into), error))?;
        if output.json {
            output.json(&plan)?;
        } else {
            output.data(&plan_text::text(&plan, store.location()))?;
        }
        return Ok(Exit::Ok);
    }
    output.say(&format!(
        "Restoring {} from {} into {}.",
        args.resource,
        store.location(),
        directory.display()
    ));
    let work = progress::show(restore.restore(&request), &written, &*setup.clock, output);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let report = tokio::select! {
        report = work => report.map_err(|error| refused(Some(&directory), error))?,
        _ = interrupt.recv() => return Err(interrupted(&directory)),
        _ = terminate.recv() => return Err(interrupted(&directory)),
    };
    if output.json {
        output.json(&json!({ "directory": directory, "report": report }))?;
        return Ok(Exit::Ok);
    }
    let plan = &report.plan;
    output.say(&format!(
        "Restored {} from recovery point {} in {:.1} s; replay ends {}.",
        amount(report.total_bytes),
        plan.recovery_point.label,
        report.took.as_secs_f64(),
        plan.end,
    ));
    if args.delta {
        output.say(&format!(
            "{} were written, the rest was there already; {} files and directories were removed.",
            amount(report.written_bytes),
            report.removed
        ));
    }
    let passed_over = plan.passed_over.iter();
    let warnings = passed_over.map(|passed| format!("passed over {passed}"));
    for warning in warnings.chain(plan.notes.clone()) {
        output.say(&format!(
            "{} {warning}",
            output.stderr.paint(Tone::Warning, "warning:")
        ));
    }
    for (number, place) in &plan.tablespaces {
        output.say(&format!("Tablespace {number} is in {}.", place.display()));
    }
    let owner = std::fs::metadata(&directory)?.uid();
    let first = if owner == 0 {
        "Give it to the user of the server, who may not be root (`chown -R postgres`), and start it as that user, with:"
    } else {
        "Start it, as the user that owns the directory, with:"
    };
    output.say(&format!(
        "It archives nothing and has port {}. It may answer before it has replayed all of the log: it is there once `SELECT pg_is_in_recovery()` says f. {first}",
        args.port
    ));
    output.data(&format!(
        "{} start -w -D {} -o \"-c listen_addresses=127.0.0.1\"",
        quoted(&Setup::program_of_postgres("pg_ctl")),
        quoted(&directory)
    ))?;
    Ok(Exit::Ok)
}

/// Says what an interruption leaves behind: as much as a kill.
fn interrupted(directory: &Path) -> CommandError {
    CommandError::new(Exit::Interrupted, "interrupted").hint(format!(
        "`{}` may hold a part of the files now, which no server starts from: restore over it with `--delta`, or remove what is in it",
        directory.display()
    ))
}

/// What a rule forbids ends with its own code.
fn refused(directory: Option<&Path>, error: Error) -> CommandError {
    match error.kind() {
        ErrorKind::Conflict => CommandError {
            message: match directory {
                Some(directory) => format!(
                    "nothing is restored over `{}`: a safety rule forbids it",
                    directory.display()
                ),
                None => "nothing is restored: a safety rule forbids it".to_owned(),
            },
            ..CommandError::from_error(Exit::Refused, &error)
        },
        _ => error.into(),
    }
}

/// Returns where tablespaces go, with absolute paths.
fn outside(args: &Args) -> Result<OutsidePlaces> {
    let mut places = BTreeMap::new();
    for (number, place) in &args.tablespaces {
        if places
            .insert(*number, std::path::absolute(place)?)
            .is_some()
        {
            let what = format!("`--tablespace` names {number} twice");
            return Err(CommandError::new(Exit::Usage, what));
        }
    }
    let root = args.tablespace_root.as_deref();
    Ok(OutsidePlaces {
        places,
        root: root.map(std::path::absolute).transpose()?,
        same_place: args.tablespace_same_place,
    })
}

/// Quotes a path for a POSIX shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_a_shell() {
        assert_eq!(quoted(Path::new("/srv/db")), "/srv/db");
        assert_eq!(quoted(Path::new("/srv/it's")), "'/srv/it'\\''s'");
    }
}
