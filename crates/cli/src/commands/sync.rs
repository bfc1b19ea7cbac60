//! `dr sync`: making commits wait for another region's store, and making them wait no more.

use std::path::Path;
use std::time::Duration;

use dr_model::document::one_of;
use dr_model::{RegionName, ResourceId};
use dr_postgres::{SyncChange, SyncWish};
use serde_json::json;

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// Make commits wait for another region's store, or wait no more
///
/// Each change is a new epoch with the same primary. To wait, the store has to hold everything that
/// the primary has; then the epoch says so, then the primary waits. To wait no more, the epoch says so
/// first. A failover at any moment promises no more than is true.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    Enable(EnableArgs),
    Disable(DisableArgs),
}

/// Make commits wait until other regions' stores hold them
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EnableArgs {
    /// The workload, or one resource of it
    #[arg(value_name = "WORKLOAD[/RESOURCE]")]
    subject: String,
    /// A region to wait for; as `sync` is configured if none is given, with the home region instead
    /// of the primary's
    #[arg(long = "region", value_name = "REGION")]
    regions: Vec<RegionName>,
    /// How long the stores may take to hold what the primary has, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Why, for the record
    #[arg(long, default_value = "commits wait, by dr sync enable")]
    reason: String,
}

/// Let commits wait for no other region
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DisableArgs {
    /// The workload, or one resource of it
    #[arg(value_name = "WORKLOAD[/RESOURCE]")]
    subject: String,
    /// Why, for the record
    #[arg(long, default_value = "commits wait no more, by dr sync disable")]
    reason: String,
}

pub(crate) async fn run(command: &Command, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    let (subject, reason, limit) = match command {
        Command::Enable(args) => (
            &args.subject,
            &args.reason,
            Duration::from_secs(args.timeout),
        ),
        Command::Disable(args) => (&args.subject, &args.reason, Duration::ZERO),
    };
    let mut changes = Vec::new();
    for id in setup.resources(subject)? {
        let driver = setup.postgres(&id)?;
        let regions = match command {
            Command::Enable(args) => wanted(&setup, &id, &args.regions).await?,
            Command::Disable(_) => Vec::new(),
        };
        let change = driver
            .change_synchronous(&SyncWish::Exactly(regions), reason, limit)
            .await?;
        output.say(&sentence(&id, &change));
        changes.push((id, change));
    }
    if output.json {
        let shown = changes.iter().map(|(id, change)| {
            json!({
                "resource": id,
                "primary": change.primary,
                "epoch": change.epoch,
                "opened": change.opened,
                "before": change.before,
                "after": change.after,
            })
        });
        output.json(&json!({ "changes": shown.collect::<Vec<_>>() }))?;
    }
    Ok(Exit::Ok)
}

/// Returns the regions to wait for: those given, or those configured, where the home region takes the primary's place.
async fn wanted(setup: &Setup, id: &ResourceId, given: &[RegionName]) -> Result<Vec<RegionName>> {
    let workload = setup.workload(&id.workload)?;
    let places: Vec<_> = std::iter::once(&workload.home)
        .chain(&workload.recovery)
        .collect();
    let mut regions = given.to_vec();
    for region in given {
        setup.region(region)?;
    }
    let register = setup.register(&id.workload, workload);
    let record = register.read().await.map_err(dr_provider::Error::from)?;
    let primary = record.map(|record| record.primary);
    if let Some(own) = regions
        .iter()
        .find(|region| primary.as_ref() == Some(*region))
    {
        let others = places.iter().filter(|place| **place != own);
        let others: Vec<_> = others.map(ToString::to_string).collect();
        return Err(CommandError::new(
            Exit::Usage,
            format!("the primary of {id} is in {own} itself: a copy there is lost with it"),
        )
        .hint(format!("name another region: {}", one_of(&others))));
    }
    if regions.is_empty() {
        let configured = setup.postgres_options(id)?.sync;
        let replaced = configured.into_iter().map(|region| match &primary {
            Some(primary) if *primary == region => workload.home.clone(),
            _ => region,
        });
        regions.extend(replaced);
    }
    regions.sort();
    regions.dedup();
    if let Some(other) = regions.iter().find(|region| !places.contains(region)) {
        return Err(CommandError::new(
            Exit::Usage,
            format!("`{other}` is no region of workload `{}`", id.workload),
        ));
    }
    if regions.is_empty() {
        return Err(CommandError::new(
            Exit::Usage,
            format!("no region is given, and `sync` of {id} is not configured"),
        )
        .hint("name one with --region"));
    }
    Ok(regions)
}

fn sentence(id: &ResourceId, change: &SyncChange) -> String {
    let list = |regions: &[RegionName]| {
        let names: Vec<_> = regions.iter().map(ToString::to_string).collect();
        names.join(", ")
    };
    let how = match change.opened {
        true => format!("since epoch {}", change.epoch),
        false => format!("as epoch {} says already", change.epoch),
    };
    match change.after.as_slice() {
        [] => format!("Commits on {id} wait for no other region, {how}."),
        regions => format!(
            "Commits on {id} in {} wait for the store of {}, {how}.",
            change.primary,
            list(regions)
        ),
    }
}
