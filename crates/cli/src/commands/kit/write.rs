//! `dr kit write`.

use std::path::{Path, PathBuf};

use dr_coordination::kit;
use dr_model::RegionName;
use serde_json::json;

use crate::error::Result;
use crate::exit::Exit;
use crate::kit::{Unpacked, content, kit as make, unpack};
use crate::output::Output;
use crate::wiring::Setup;

/// Write the recovery kit of this configuration
///
/// It holds the configuration, where the stores are, which program to use, which secrets are needed,
/// and a page to print; never a secret itself. The daemon of each region keeps one in its store,
/// which `dr failover --from-store` takes.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true)]
pub(crate) struct Args {
    /// Write it into this directory, which must be empty or missing, or hold the same kit
    #[arg(long, value_name = "DIRECTORY")]
    to: Option<PathBuf>,

    /// Write it into the store of this region
    #[arg(long, value_name = "REGION", conflicts_with = "to")]
    region: Option<RegionName>,
}

pub(super) async fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    let kit = make(&setup, content(&setup)?);
    let mut written = true;
    let place = match (&args.to, &args.region) {
        (Some(directory), _) => {
            written = unpack(&kit, directory, "--to")? == Unpacked::Written;
            directory.display().to_string()
        }
        (None, Some(region)) => {
            let store = setup.identified(region).await?;
            kit::write(&*store, &kit).await?;
            format!("{}/{}", store.location(), kit.key())
        }
        (None, None) => return Ok(Exit::Usage),
    };
    if output.json {
        output.json(
            &json!({ "place": place, "written": written, "hash": kit.content.hash(), "kit": kit }),
        )?;
    } else {
        output.data(&place)?;
        if !written {
            output.say("The same kit is there already, and stays as it is.");
        }
        let secrets = kit.content.secrets.len();
        output.say(&format!(
            "The kit has no secrets in it; {secrets} are needed, and its page names them."
        ));
    }
    Ok(Exit::Ok)
}
