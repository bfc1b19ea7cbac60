//! `dr wal push`.

use std::path::{Path, PathBuf};

use dr_model::{RegionName, ResourceId};
use dr_postgres::Options;
use dr_server::control::{ClientError, PushRequest, push_wal};
use serde_json::json;

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// Put a finished segment of the log into the store
///
/// For archive_command: `dr --config DIR wal push orders/database %p`, the same on the servers of
/// all regions: a standby has its primary's settings, and archives with them once it is promoted.
/// Ends with 0 only when the store holds the whole file; a segment of an epoch that is over is set
/// aside, and PostgreSQL told that it is done. The daemon of the region does it, if one runs on
/// this machine, and otherwise this process.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The resource, as WORKLOAD/RESOURCE
    resource: ResourceId,
    /// The file, `%p` of archive_command; relative to the data directory, where PostgreSQL starts
    /// the command
    path: PathBuf,
    /// The region that the server is in [default: that whose data directory on this machine holds
    /// the file]
    #[arg(long = "in", value_name = "REGION")]
    region: Option<RegionName>,
}

pub(super) async fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    let options = setup.postgres_options(&args.resource)?;
    let region = match &args.region {
        Some(region) => region.clone(),
        None => region_of(&options, &args.path)?,
    };
    let summary = match by_daemon(&setup, args, &region).await? {
        Some(summary) => summary,
        None => {
            let driver = setup.postgres(&args.resource)?;
            setup.identified(&region).await?;
            driver.push_wal(&region, &args.path).await?
        }
    };
    if output.json {
        output.json(&json!({ "summary": summary }))?;
    } else {
        // PostgreSQL copies it into its log.
        output.say(&summary);
    }
    Ok(Exit::Ok)
}

/// Returns the region in whose data directory on this machine a file is. PostgreSQL starts the command there, with a path below it, be
/// `pg_wal` a link to elsewhere.
fn region_of(options: &Options, path: &Path) -> Result<RegionName> {
    let path = std::path::absolute(path)?;
    let instances = options.instances.iter();
    let here = instances.filter(|(_, instance)| instance.is_here());
    let holding = here.filter(|(_, instance)| {
        let configured = &instance.data_directory;
        let real = std::fs::canonicalize(configured);
        path.starts_with(configured) || real.is_ok_and(|real| path.starts_with(real))
    });
    let regions: Vec<&RegionName> = holding.map(|(region, _)| region).collect();
    let why = match regions.as_slice() {
        [region] => return Ok((*region).clone()),
        [] => "no data directory that the configuration names on this machine holds it",
        _ => "several regions have that data directory",
    };
    let what = format!(
        "cannot tell in which region the server of `{}` is: {why}",
        path.display()
    );
    Err(CommandError::new(Exit::Usage, what).hint("say it: `--in REGION`"))
}

/// Has the daemon of the region do it; `None` if there is none that does.
///
/// Whatever keeps it from an answer, this process then does by itself or says what is wrong: pushing twice is safe. Only what the
/// daemon says of the file and the store stands.
async fn by_daemon(setup: &Setup, args: &Args, region: &RegionName) -> Result<Option<String>> {
    let Some(daemon) = &setup.region(region)?.daemon else {
        return Ok(None);
    };
    let request = PushRequest {
        resource: args.resource.to_string(),
        path: std::path::absolute(&args.path)?,
    };
    match push_wal(&daemon.state_directory, &request).await {
        Ok(answer) => Ok(Some(answer.summary)),
        Err(ClientError::Refused(refusal)) if refusal.kind == "not-found" => Ok(None),
        Err(ClientError::Refused(refusal)) => Err(CommandError::from_refusal(refusal)),
        Err(ClientError::Absent { .. } | ClientError::Io { .. }) => Ok(None),
    }
}
