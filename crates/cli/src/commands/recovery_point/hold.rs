//! `dr recovery-point hold` and `dr recovery-point release`.

use std::path::Path;
use std::sync::Arc;

use dr_model::{RegionName, ResourceId};
use dr_provider::driver::{Backup, Expire, HoldNote};
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind, ObjectStore, ResourceDriver};
use serde_json::json;

use crate::commands::failover::reason;
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// Keep a recovery point, whatever expires
///
/// It and what it needs stay in the store until it is released, and it can be brought back to the moment at which it is
/// consistent. Without `--in` it is held in every region's store that has it; ends with 1 if none has, or one cannot say.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    which: Which,
    /// Why, for whoever finds it later
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
}

/// Let a recovery point that was held expire
///
/// Needs the right to delete in the store: `prune_credentials` where it is on S3.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    which: Which,
}

#[derive(Clone, Debug, clap::Args)]
struct Which {
    /// The resource, as WORKLOAD/RESOURCE
    resource: ResourceId,
    /// The recovery point
    label: String,
    /// The region whose store is meant; all if none is named
    #[arg(long = "in", value_name = "REGION")]
    region: Option<RegionName>,
}

pub(super) async fn hold(args: &HoldArgs, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    let note = HoldNote {
        by: setup.actor.to_string(),
        reason: args.reason.clone(),
        since: setup.clock.now(),
    };
    each(&setup, &args.which, "held", output, Some(&note)).await
}

pub(super) async fn release(args: &ReleaseArgs, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    each(&setup, &args.which, "released", output, None).await
}

/// Holds it in each store with this note, or releases it.
async fn each(
    setup: &Setup,
    which: &Which,
    verb: &str,
    output: &Output,
    note: Option<&HoldNote>,
) -> Result<Exit> {
    let driver = setup.driver(&which.resource)?;
    let role = role(&*driver, &which.resource)?;
    let regions: Vec<&RegionName> = match &which.region {
        Some(region) => {
            setup.region(region)?;
            vec![region]
        }
        None => setup.stores.keys().collect(),
    };
    let mut told = Told::default();
    for region in regions {
        let store = match setup.identified(region).await {
            Ok(store) => store,
            Err(error) => {
                told.failed.push(format!("{region}: {}", error.message));
                continue;
            }
        };
        let result = match note {
            Some(note) => role.hold(&store, &which.label, note).await,
            None => role.release(&store, &which.label).await,
        };
        match result {
            Ok(()) => told.done.push(region.to_string()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                told.missing.push(format!("{region}: {}", chain(&error)));
                continue;
            }
            Err(error) => {
                told.failed.push(format!("{region}: {}", chain(&error)));
                told.hints.extend(error.hint().map(str::to_owned));
                continue;
            }
        }
        if note.is_some()
            && let Some(backup) = driver.backup()
            && is_given_up(backup, &store, &which.label).await
        {
            told.given_up.push(format!(
                "It was given up in {region}, and nothing begins with it until it is taken back: the next run of `expire-recovery-points` does \
                 that, and `dr recovery-point expire {} --in {region}` now.",
                which.resource
            ));
        }
    }
    told.end(&which.label, verb, output)
}

/// Tells whether a recovery point is one of those that are going to be deleted. It is held whether or not this can be seen.
async fn is_given_up(backup: &dyn Backup, store: &Arc<dyn ObjectStore>, label: &str) -> bool {
    let given_up = backup.given_up(store).await.unwrap_or_default();
    given_up.iter().any(|point| point.label == label)
}

/// What came of it, by region.
#[derive(Debug, Default)]
struct Told {
    done: Vec<String>,
    missing: Vec<String>,
    failed: Vec<String>,
    /// What to do about those that failed.
    hints: Vec<String>,
    /// Where it is still among those that are going to be deleted.
    given_up: Vec<String>,
}

impl Told {
    fn end(self, label: &str, verb: &str, output: &Output) -> Result<Exit> {
        if output.json && !self.done.is_empty() {
            output.json(
                &json!({ "recovery_point": label, verb: self.done, "failed": self.failed }),
            )?;
        } else if !self.done.is_empty() {
            output.data(&format!("{label} is {verb} in {}", self.done.join(", ")))?;
        }
        for said in &self.given_up {
            output.say(said);
        }
        if self.failed.is_empty() && !self.done.is_empty() {
            return Ok(Exit::Ok);
        }
        let what = if self.failed.is_empty() {
            format!("{label} is {verb} nowhere")
        } else {
            format!("not every store could be told that {label} is {verb}")
        };
        let mut error = CommandError::new(Exit::Failed, what);
        error.causes = self.failed;
        error.causes.extend(self.missing);
        for hint in self.hints {
            if !error.hints.contains(&hint) {
                error.hints.push(hint);
            }
        }
        Err(error)
    }
}

/// Returns the role, or says that the resource's kind has none.
pub(super) fn role<'a>(
    driver: &'a dyn ResourceDriver,
    resource: &ResourceId,
) -> Result<&'a dyn Expire> {
    driver.expire_role().ok_or_else(|| {
        let error = Error::new(ErrorKind::Unsupported, "expire", resource.to_string());
        CommandError::from(error.because(format!("kind `{}` deletes nothing", driver.kind())))
    })
}
