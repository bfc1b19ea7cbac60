//! `dr wal fetch`.

use std::path::{Path, PathBuf};

use dr_model::{Lsn, RegionName, ResourceId};

use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// Fetch a file of the log from the store
///
/// For restore_command: `dr --config DIR wal fetch orders/database %f %p --in us-west-2`. Ends with
/// 0 if the file is there, with 1 only if it is proven not to exist, and with 255 otherwise,
/// whatever the reason: PostgreSQL would take any code up to 125 for the end of the log. A server that
/// is kept as a standby asks again and ends nothing: `--standby` is for its command. The next few
/// segments are fetched with it, into the state directory of the region's daemon if that can be
/// written.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The resource, as WORKLOAD/RESOURCE
    resource: ResourceId,
    /// The file's name, `%f` of restore_command: a segment or a timeline's history
    name: String,
    /// Where to write it, `%p` of restore_command
    destination: PathBuf,
    /// The region whose store is read
    #[arg(long = "in", value_name = "REGION")]
    region: RegionName,
    /// The end of the sealed log: only up to here, the last segment is served even though it is not
    /// full
    #[arg(long, value_name = "LSN")]
    through: Option<Lsn>,
    /// For a server that is kept as a standby: end with 1 for whatever cannot be served now, so that it
    /// streams from its primary meanwhile, and asks again
    #[arg(long, conflicts_with = "through")]
    standby: bool,
}

pub(super) async fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    match fetch(args, config).await {
        Err(error) if args.standby => {
            output.error(&error, Exit::Failed);
            Ok(Exit::Failed)
        }
        ended => ended,
    }
}

async fn fetch(args: &Args, config: &Path) -> Result<Exit> {
    let setup = Setup::load(config)?;
    let driver = setup.postgres(&args.resource)?;
    setup.identified(&args.region).await?;
    let written = match spool(&setup, args)? {
        Some(spool) => {
            let Args {
                region,
                name,
                destination,
                ..
            } = args;
            driver
                .fetch_wal_ahead(region, name, destination, &spool)
                .await?
        }
        None => {
            driver
                .fetch_wal(&args.region, &args.name, &args.destination, args.through)
                .await?
        }
    };
    Ok(if written { Exit::Ok } else { Exit::Failed })
}

/// Returns where segments are kept that will be asked for next: a directory for each that a server recovers into, beside what
/// else is kept of the region on this machine. Up to a given end nothing is fetched ahead.
fn spool(setup: &Setup, args: &Args) -> Result<Option<PathBuf>> {
    let Some(daemon) = &setup.region(&args.region)?.daemon else {
        return Ok(None);
    };
    if args.through.is_some() || !daemon.state_directory.is_dir() {
        return Ok(None);
    }
    let destination = std::path::absolute(&args.destination)?;
    let server = destination.parent().unwrap_or(&destination);
    let name: String = server
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    Ok(Some(daemon.state_directory.join("fetched").join(name)))
}
