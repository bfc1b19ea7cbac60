//! `dr standby`: making a region's server a standby of the present primary.

pub(crate) mod text;

use std::path::Path;

use dr_model::{RegionName, ResourceId, ResourceName, WorkloadName};
use dr_postgres::{Method, StandbyPlan, StandbyReport, StandbyRequest};
use dr_provider::ErrorKind;
use dr_runbook::Refusal;
use serde_json::json;

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// Make a region's server a standby of the present primary
///
/// After a failover the old primary's directory may hold commits that the new primary does not have.
/// They are kept beside it before anything is changed, in a copy that can be started and takes no
/// writes. Refused where a server runs.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    Create(CreateArgs),
    Reseed(ReseedArgs),
}

/// Make a standby out of what is there, or of nothing
///
/// Takes the cheapest way that there is: a directory that did not diverge only follows; one that did
/// is rewound by pg_rewind; else it is rebuilt from the newest recovery point in the region's store,
/// or copied from the primary. What was interrupted goes on when it is run again.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Take this way or none
    #[arg(long, value_enum)]
    from: Option<From>,
}

/// Build a standby anew, whatever is there
///
/// For a standby that fell behind for good, or whose files are in doubt: from the newest recovery
/// point in the region's store, or copied from the primary. The old directory is moved aside.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReseedArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Take this way or none
    #[arg(long, value_enum)]
    from: Option<Seed>,
}

#[derive(Clone, Debug, clap::Args)]
struct CommonArgs {
    /// The workload, or one resource of it
    #[arg(value_name = "WORKLOAD[/RESOURCE]")]
    subject: String,
    /// The region whose server is to be a standby
    #[arg(long = "in", value_name = "REGION")]
    region: RegionName,
    /// Do not keep what the directory has and the primary has not. It is gone then
    #[arg(long)]
    discard: bool,
    /// Only print what would be done; changes nothing
    #[arg(long)]
    plan: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Where a standby comes from.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum From {
    /// The directory as it is
    Follow,
    /// The directory, rewound by pg_rewind
    Rewind,
    /// The newest recovery point in the region's store
    RecoveryPoint,
    /// The primary's files
    BaseBackup,
}

/// What a standby is built from.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Seed {
    /// The newest recovery point in the region's store
    RecoveryPoint,
    /// The primary's files
    BaseBackup,
}

pub(crate) async fn run(command: &Command, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    let (common, method) = match command {
        Command::Create(args) => {
            let method = args.from.map(|from| match from {
                From::Follow => Method::Follow,
                From::Rewind => Method::Rewind,
                From::RecoveryPoint => Method::RecoveryPoint,
                From::BaseBackup => Method::BaseBackup,
            });
            (&args.common, method)
        }
        Command::Reseed(args) => {
            let method = args.from.map(|from| match from {
                Seed::RecoveryPoint => Method::RecoveryPoint,
                Seed::BaseBackup => Method::BaseBackup,
            });
            (&args.common, method)
        }
    };
    let request = StandbyRequest {
        region: common.region.clone(),
        reseed: matches!(command, Command::Reseed(_)),
        method,
        discard: common.discard,
    };
    setup.region(&request.region)?;
    let ids = setup.resources(&common.subject)?;
    if !common.plan && !common.yes && !super::failover::can_ask() {
        return Err(CommandError::new(
            Exit::Usage,
            "nobody is there to be asked: this is not a terminal",
        )
        .hint("look at it with `--plan`, then add `--yes`"));
    }
    if !common.plan {
        for id in &ids {
            setup.refuse_root(&id.workload)?;
        }
    }
    if let Some(id) = ids.first() {
        nothing_under_way(&setup, id).await?;
    }
    let mut shown = Vec::new();
    for id in &ids {
        let driver = setup.postgres(id)?;
        let plan = driver.plan_standby(&request).await.map_err(refused)?;
        if common.plan {
            if !output.json {
                output.data(&text::plan(&plan, output.stdout))?;
            }
            shown.push(json!({ "plan": plan }));
            continue;
        }
        output.say(&text::plan(&plan, output.stderr));
        if plan.method.is_some() && !common.yes {
            super::failover::ask(
                &id.workload,
                &format!("change its directory in {}", request.region),
                output,
            )?;
        }
        let say = |what: &str| output.say(&format!("  - {what}"));
        let made = driver.make_standby(&plan, common.discard, &say).await;
        let report = made.map_err(refused)?;
        output.say(&text::report(&plan, &report, &setup, output.stderr));
        shown.push(answer(&plan, &report));
    }
    if output.json {
        output.json(&json!({ "standbys": shown }))?;
    }
    Ok(Exit::Ok)
}

fn answer(plan: &StandbyPlan, report: &StandbyReport) -> serde_json::Value {
    json!({ "plan": plan, "report": report })
}

/// Refuses while an execution for the workload has not ended: it may be about to move the primary.
async fn nothing_under_way(setup: &Setup, id: &ResourceId) -> Result<()> {
    let workload = setup.workload(&id.workload)?;
    let site = setup.site(&id.workload, workload)?;
    match dr_runbook::unfinished(&site).await.into_iter().next() {
        Some(other) => Err(Refusal::Unfinished(Box::new(other)).into()),
        None => Ok(()),
    }
}

/// What a rule forbids ends with its own code.
fn refused(error: dr_provider::Error) -> CommandError {
    match error.kind() {
        ErrorKind::Conflict => CommandError {
            message: "no standby is made: a safety rule forbids it".to_owned(),
            ..CommandError::from_error(Exit::Refused, &error)
        },
        _ => error.into(),
    }
}

impl Setup {
    /// Returns the resources that a workload, or a resource's full name, means.
    pub(crate) fn resources(&self, subject: &str) -> Result<Vec<ResourceId>> {
        let usage = |error: &dyn std::fmt::Display| {
            CommandError::new(
                Exit::Usage,
                format!("`{subject}` names no workload and no resource"),
            )
            .hint(error.to_string())
        };
        if subject.contains('/') {
            let id: ResourceId = subject.parse().map_err(|error| usage(&error))?;
            self.postgres_options(&id)?;
            return Ok(vec![id]);
        }
        let name: WorkloadName = subject.parse().map_err(|error| usage(&error))?;
        let workload = self.workload(&name)?;
        let full = |resource: &ResourceName| ResourceId {
            workload: name.clone(),
            resource: resource.clone(),
        };
        Ok(workload.resources.keys().map(full).collect())
    }
}
