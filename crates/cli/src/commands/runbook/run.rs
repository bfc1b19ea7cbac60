//! `dr runbook plan` and `dr runbook run`: runbooks that recover something in its own region.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dr_config::{Runbook, Workload};
use dr_model::{ApproverName, RegionName, ResourceId, RunbookName, WorkloadName};
use dr_provider::ErrorKind;
use dr_provider::driver::RestoreTarget;
use dr_runbook::steps::restart_database;
use dr_runbook::{Mode, Plan, Refusal, Request, Site};

use crate::commands::failover::{
    Prepared, Stated, carry_out, duration, plan_text, requester, require_somebody,
};
use crate::commands::restore::target;
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The runbook, such as recover-component or restore-database
    name: RunbookName,
    /// The workload
    workload: WorkloadName,
    /// The resource or the service to recover; all of the workload's, where the runbook allows that, unless given
    #[arg(long, value_name = "NAME")]
    component: Option<String>,
    /// The moment that databases are put back to: a time with its zone, such as
    /// `2026-11-21T09:30:05Z`; an LSN such as `0/3000148`; `xid:771`; `name:before-upgrade`
    #[arg(long, value_parser = target::target, value_name = "TARGET")]
    at: Option<RestoreTarget>,
    /// The largest estimated loss that is accepted where a database is rebuilt, such as 60s; the
    /// workload's max_loss unless given
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_loss: Option<Duration>,
    #[command(flatten)]
    stated: Stated,
    /// Your key, which says who asks where the workload wants approvals: `dr approval keygen` made it
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Prints the plan, or carries it out.
pub(super) async fn run(
    args: &Args,
    is_plan: bool,
    config: &Path,
    output: &Output,
) -> Result<Exit> {
    let setup = Setup::load(config)?;
    let name = &args.name;
    let runbook = setup.runbook(name)?;
    if Mode::of(runbook) != Mode::InPlace {
        let what = format!("the runbook `{name}` does not stay in the primary's region");
        return Err(CommandError::new(Exit::Usage, what).hint(format!(
            "`dr failover --to REGION --runbook {name}` moves a workload; `dr execution abort` takes a move back"
        )));
    }
    let workload = setup.workload(&args.workload)?;
    refuse_vague(args, runbook, workload)?;
    if let Some(at) = &args.at {
        target::refuse_future(at, setup.clock.now())?;
    }
    require_somebody(is_plan || args.yes, "dr runbook plan")?;
    let site = Arc::new(setup.site(&args.workload, workload)?);
    let region = primary(&site, args).await?;
    setup.identified(&region).await?;
    let key = args.key.as_deref();
    let requester = requester::of(key, is_plan, &args.workload, workload, &site)?;
    let found = plan(args, &region, requester, runbook, workload, &site).await?;
    if let Some(moment) = &found.moment {
        could_be_put_back(&setup, args, workload, (&region, moment)).await?;
    }
    if is_plan {
        match output.json {
            true => output.json(&found)?,
            false => output.data(&plan_text::render(&found, output.stdout))?,
        }
        return Ok(Exit::Ok);
    }
    let prepared = Prepared {
        name: args.workload.clone(),
        workload,
        site,
        plan: found,
    };
    let what = format!("carry it out in {region}");
    let again = async |seen: &Prepared<'_>| {
        let requester = seen.plan.requester.clone();
        plan(args, &region, requester, runbook, workload, &seen.site).await
    };
    let what = (!args.yes).then_some(what.as_str());
    let (report, exit) = Box::pin(carry_out(&setup, prepared, what, again, output)).await?;
    if output.json {
        output.json(&report)?;
    }
    Ok(exit)
}

/// Refuses a moment that no database could be put back to: what the step that restores it beside the data directory would end with.
async fn could_be_put_back(
    setup: &Setup,
    args: &Args,
    workload: &Workload,
    (region, moment): (&RegionName, &RestoreTarget),
) -> Result<()> {
    let wanted = args.component.as_deref();
    let resources = workload.resources.keys();
    for resource in resources.filter(|name| wanted.is_none_or(|wanted| name.as_str() == wanted)) {
        let id = ResourceId {
            workload: args.workload.clone(),
            resource: resource.clone(),
        };
        let driver = setup.postgres(&id)?;
        let looked = driver.could_be_put_back(region, moment).await;
        looked.map_err(|error| match error.kind() {
            ErrorKind::Conflict => CommandError::from_error(Exit::Refused, &error),
            _ => error.into(),
        })?;
    }
    Ok(())
}

/// One that starts things again is for one of them: nobody wants all to be stopped for it.
fn refuse_vague(args: &Args, runbook: &Runbook, workload: &Workload) -> Result<()> {
    let restarts = |step: &dr_config::Step| step.uses == restart_database::NAME;
    if args.component.is_some() || !runbook.steps.iter().any(restarts) {
        return Ok(());
    }
    let resources = workload.resources.keys().map(ToString::to_string);
    let services = workload.services.keys().map(ToString::to_string);
    let all: Vec<_> = resources
        .chain(services)
        .map(|name| format!("`{name}`"))
        .collect();
    let what = format!("`{}` is for one component, and none is named", args.name);
    Err(CommandError::new(Exit::Usage, what)
        .hint(format!("name it with `--component`: {}", all.join(", "))))
}

/// Returns the region that has the primary, by the register.
async fn primary(site: &Site, args: &Args) -> Result<RegionName> {
    let newest = site
        .register
        .read()
        .await
        .map_err(dr_provider::Error::from)?;
    match newest {
        Some(record) => Ok(record.primary),
        None => Err(Refusal::NoEpoch {
            workload: args.workload.clone(),
        }
        .into()),
    }
}

async fn plan(
    args: &Args,
    region: &RegionName,
    requester: Option<ApproverName>,
    runbook: &Runbook,
    workload: &Workload,
    site: &Site,
) -> std::result::Result<Plan, Refusal> {
    let world = dr_runbook::observe_to_execute(site, region).await;
    let request = Request {
        max_loss: Some(args.max_loss.unwrap_or(workload.max_loss)),
        statements: args.stated.statements(),
        requester,
        component: args.component.clone(),
        target: args.at.clone(),
        ..Request::new(region.clone())
    };
    dr_runbook::plan(runbook, &world, &request)
}
