//! `dr restore`.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use dr_model::{Lsn, RegionName, ResourceId};
use dr_provider::driver::{RestoreRequest, RestoreTarget};
use dr_provider::{Error, ErrorKind};
use jiff::Timestamp;
use serde_json::json;

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::{Output, Tone, amount};
use crate::wiring::Setup;

/// Restore a database into an empty directory
///
/// Proves that everything needed is in the region's store, then writes the directory, ready to be
/// started on another port. Needs neither a daemon nor anything but the store.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The resource, as WORKLOAD/RESOURCE
    resource: ResourceId,
    /// The region whose store is read
    #[arg(long = "in", value_name = "REGION")]
    region: RegionName,
    /// Where to end: `latest`, a time such as `2026-11-21T09:30:05Z`, or an LSN such as `0/3000148`
    #[arg(long, default_value = "latest", value_parser = target, value_name = "TARGET")]
    at: RestoreTarget,
    /// A missing or empty directory on this machine
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
}

fn target(text: &str) -> std::result::Result<RestoreTarget, String> {
    if text == "latest" {
        return Ok(RestoreTarget::Latest);
    }
    if let Ok(lsn) = Lsn::from_str(text) {
        return Ok(RestoreTarget::Lsn(lsn));
    }
    let time = Timestamp::from_str(text).map(RestoreTarget::Time);
    time.map_err(|_| "expected `latest`, a time with its zone such as `2026-11-21T09:30:05Z`, or an LSN such as `0/3000148`".to_owned())
}

pub(crate) async fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    let driver = setup.driver(&args.resource)?;
    let store = setup.identified(&args.region).await?;
    let restore = driver.restore().ok_or_else(|| {
        let error = Error::new(ErrorKind::Unsupported, "restore", args.resource.to_string());
        CommandError::from(error.because(format!("kind `{}` cannot be restored", driver.kind())))
    })?;
    let directory = std::path::absolute(&args.into)?;
    output.say(&format!(
        "Restoring {} from {} into {}.",
        args.resource,
        store.location(),
        directory.display()
    ));
    let request = RestoreRequest {
        region: args.region.clone(),
        target: args.at.clone(),
        directory: directory.clone(),
    };
    let report = with_progress(restore.restore(&request), &setup, output).await?;
    if output.json {
        output.json(&json!({ "directory": directory, "report": report }))?;
        return Ok(Exit::Ok);
    }
    let point = &report.recovery_point;
    output.say(&format!(
        "Restored {} from recovery point {} in {:.1} s; the log will be replayed to {}.",
        amount(report.written_bytes),
        point.label,
        report.took.as_secs_f64(),
        report.log_end,
    ));
    for passed in &report.passed_over {
        output.say(&format!(
            "{} passed over {passed}",
            output.stderr.paint(Tone::Warning, "warning:")
        ));
    }
    output.say("Start it, as the user that owns the directory, with:");
    // The directory may be moved, the port must be free, and nothing may be archived from a copy.
    output.data(&format!(
        "{} start -w -D {} -o \"-p 54321 -c archive_mode=off -c listen_addresses=127.0.0.1\"",
        quoted(&Setup::program_of_postgres("pg_ctl")),
        quoted(&directory)
    ))?;
    Ok(Exit::Ok)
}

/// Tells every few seconds that it still goes on.
async fn with_progress<T>(
    work: impl Future<Output = dr_provider::Result<T>>,
    setup: &Setup,
    output: &Output,
) -> dr_provider::Result<T> {
    let began = setup.clock.elapsed();
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(Duration::from_secs(10)) => {
                let took = setup.clock.elapsed().saturating_sub(began);
                output.say(&format!("… {} s", took.as_secs()));
            }
        }
    }
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
    fn a_target_is_a_word_a_position_or_a_time() {
        assert_eq!(target("latest"), Ok(RestoreTarget::Latest));
        assert_eq!(
            target("0/3000148"),
            Ok(RestoreTarget::Lsn(Lsn(0x0300_0148)))
        );
        let time = "2026-11-21T09:30:05Z".parse().unwrap();
        assert_eq!(
            target("2026-11-21T09:30:05Z"),
            Ok(RestoreTarget::Time(time))
        );
        assert!(target("yesterday").is_err());
        assert!(
            target("2026-11-21T09:30:05").is_err(),
            "a time without its zone"
        );
    }

    #[test]
    fn a_path_survives_a_shell() {
        assert_eq!(quoted(Path::new("/srv/db")), "/srv/db");
        assert_eq!(quoted(Path::new("/srv/it's")), "'/srv/it'\\''s'");
    }
}
