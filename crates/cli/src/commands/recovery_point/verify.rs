//! `dr recovery-point verify`.

use std::path::{Path, PathBuf};

use dr_model::{RegionName, ResourceId};
use dr_provider::driver::{Verify, VerifyHow, VerifyMeans, VerifyRecord, VerifyRequest};
use dr_provider::{Error, ErrorKind, ResourceDriver};

use crate::commands::restore::store_room::outside_of_stores;
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::{Output, amount, seconds};
use crate::wiring::Setup;

/// Prove that a recovery point can be brought back
///
/// Reads what no earlier look has read back lately and compares it with its hashes. With `--boot` the recovery point is
/// restored into a scratch directory, started on a socket of its own, replayed to the end of the log, looked at, stopped and
/// removed. What came of it is written into the region's store, where `dr recovery-point list` and `show` find it. Ends with
/// 1 if something is wrong with it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The resource, as WORKLOAD/RESOURCE
    resource: ResourceId,
    /// The recovery point; the newest if none is named
    label: Option<String>,
    /// The region whose store is read
    #[arg(long = "in", value_name = "REGION")]
    region: RegionName,
    /// Read all of it, whenever it was read last
    #[arg(long)]
    again: bool,
    /// Read only so much of it, chosen by chance
    #[arg(long, value_name = "PERCENT", conflicts_with = "again", value_parser = percent)]
    sample: Option<f64>,
    /// Start a server from it
    #[arg(long, conflicts_with_all = ["again", "sample"])]
    boot: bool,
    /// The directory to boot it in, which needs room for the database and is emptied; that of the configuration if none is
    /// named
    #[arg(long, value_name = "DIR", requires = "boot")]
    scratch: Option<PathBuf>,
}

/// Reads a percentage, above 0 and at most 100, as a part of one.
fn percent(text: &str) -> std::result::Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>();
    match number {
        Ok(number) if number > 0.0 && number <= 100.0 => Ok(number / 100.0),
        _ => Err("not a percentage above 0 and up to 100".to_owned()),
    }
}

pub(super) async fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    let driver = setup.driver(&args.resource)?;
    if args.boot {
        let configured = setup.postgres_options(&args.resource)?.verify.scratch;
        if let Some(scratch) = args.scratch.as_ref().or(configured.as_ref()) {
            let instead = "name a directory of its own: `--scratch DIR`, or `verify: { scratch: DIR }` of the resource";
            outside_of_stores(&setup.config, &std::path::absolute(scratch)?, instead)?;
        }
    }
    setup.identified(&args.region).await?;
    let request = VerifyRequest {
        region: args.region.clone(),
        recovery_point: args.label.clone(),
        how: match (args.boot, args.sample) {
            (true, _) => VerifyHow::Boot {
                scratch: args.scratch.clone(),
            },
            (false, Some(share)) => VerifyHow::Sample { share },
            (false, None) => VerifyHow::Hash { again: args.again },
        },
    };
    let record = role(&*driver, &args.resource)?.verify(&request).await;
    let record = record.map_err(|error| match error.kind() {
        // The scratch directory is somebody's.
        ErrorKind::Conflict => CommandError::from_error(Exit::Refused, &error),
        _ => error.into(),
    })?;
    if output.json {
        output.json(&record)?;
    } else if record.failure.is_none() {
        output.data(&sentence(&record))?;
        if let Some(at) = record.heartbeat_at {
            output.say(&format!("The newest heartbeat in it is of {at}."));
        }
        for check in &record.checks {
            output.say(check);
        }
    }
    let Some(failure) = record.failure else {
        return Ok(Exit::Ok);
    };
    let what = format!(
        "recovery point {} in {} cannot be relied on",
        record.label, record.region
    );
    let mut error = CommandError::new(Exit::Failed, what);
    let options = setup.postgres_options(&args.resource)?;
    let mut checks = options.verify.checks.iter();
    let is_check = checks.any(|query| failure.contains(&format!("check `{query}`:")));
    error.causes = vec![failure];
    if is_check {
        error = error.hint(format!(
            "look at the check under `verify: {{ checks: … }}` of the resource first, and at what the primary says to it (`dr check --online`): \
             asked in database `{}`, it may be wrong itself; once it is right, boot the recovery point again",
            options.database
        ));
    }
    Err(error.hint("take a new one; the store of another region may hold a good copy"))
}

/// Returns the role, or says that the resource's kind has none.
pub(super) fn role<'a>(
    driver: &'a dyn ResourceDriver,
    resource: &ResourceId,
) -> Result<&'a dyn Verify> {
    driver.verify_role().ok_or_else(|| {
        let error = Error::new(ErrorKind::Unsupported, "verify", resource.to_string());
        CommandError::from(error.because(format!("kind `{}` cannot be verified", driver.kind())))
    })
}

/// Says what came of a look.
pub(super) fn sentence(record: &VerifyRecord) -> String {
    let (label, region) = (&record.label, &record.region);
    let took = seconds(record.took_seconds);
    let read = amount(record.read_bytes);
    match (record.means, record.reached) {
        (VerifyMeans::Boot, Some(reached)) => {
            format!("{label} in {region} came up and replayed the log to {reached}, in {took}")
        }
        (VerifyMeans::Boot, None) => format!("{label} in {region} came up, in {took}"),
        (VerifyMeans::Hash, _) => format!("{label} in {region} is whole: {read} read in {took}"),
        (VerifyMeans::Sample, _) => {
            format!("nothing is wrong with a sample of {label} in {region}: {read} read in {took}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        assert_eq!(percent("5"), Ok(0.05));
        assert_eq!(percent("100%"), Ok(1.0));
        for wrong in ["0", "-1", "101", "many", ""] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}
