//! `dr wal push`.

use std::path::{Path, PathBuf};

use dr_model::{RegionName, ResourceId};
use dr_server::control::{ClientError, PushRequest, push_wal};
use serde_json::json;

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// Put a finished segment of the log into the store
///
/// For archive_command: `dr --config DIR wal push orders/database %p --in us-east-1`. Ends with 0
/// only when the store holds the whole file; a segment of an epoch that is over is set aside, and
/// PostgreSQL told that it is done. The daemon of the region does it, if one runs on this machine,
/// and otherwise this process.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The resource, as WORKLOAD/RESOURCE
    resource: ResourceId,
    /// The file, `%p` of archive_command; relative to the data directory, where PostgreSQL starts
    /// the command
    path: PathBuf,
    /// The region that the server is in
    #[arg(long = "in", value_name = "REGION")]
    region: RegionName,
}

pub(super) async fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    setup.postgres_options(&args.resource)?;
    let summary = match by_daemon(&setup, args).await? {
        Some(summary) => summary,
        None => {
            let driver = setup.postgres(&args.resource)?;
            setup.identified(&args.region).await?;
            driver.push_wal(&args.region, &args.path).await?
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

/// Has the daemon of the region do it; `None` if there is none that does.
///
/// Whatever keeps it from an answer, this process then does by itself or says what is wrong: pushing twice is safe. Only what the
/// daemon says of the file and the store stands.
async fn by_daemon(setup: &Setup, args: &Args) -> Result<Option<String>> {
    let Some(daemon) = &setup.region(&args.region)?.daemon else {
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
