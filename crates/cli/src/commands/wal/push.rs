//! `dr wal push`.

use std::path::{Path, PathBuf};

use dr_model::{RegionName, ResourceId};
use serde_json::json;

use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// Put a finished segment of the log into the store
///
/// For archive_command: `dr --config DIR wal push orders/database %p --in us-east-1`. Ends with 0
/// only when the store holds the whole file; a segment of an epoch that is over is set aside, and
/// PostgreSQL told that it is done.
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
    let driver = setup.postgres(&args.resource)?;
    setup.identified(&args.region).await?;
    let summary = driver.push_wal(&args.region, &args.path).await?;
    if output.json {
        output.json(&json!({ "summary": summary }))?;
    } else {
        // PostgreSQL copies it into its log.
        output.say(&summary);
    }
    Ok(Exit::Ok)
}
