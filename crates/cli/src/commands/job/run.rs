//! `dr job run`.
//!
//! The daemon runs it, so that it never runs twice at once. Where none does, this process does, under the daemon's lock.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use dr_config::{Schedule, Trigger};
use dr_jobs::{JobContext, registry, retention};
use dr_model::{RegionName, ResourceId};
use dr_server::control::{ClientError, RunAnswer, RunRequest, run_job};

use crate::commands::daemon::{Lock, PATIENCE, answer, check_readiness};
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::readiness::{self, Standpoint};
use crate::wiring::{Setup, unknown};

/// Run a scheduled job now, and wait until it is done
///
/// The daemon of the region runs it; interrupting this command does not stop the run. Without a
/// daemon it runs in this process, under the daemon's lock. Ends with 1 as well if the job did its
/// work and found something that has to be looked at, such as a recovery point that failed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The schedule's name, as `dr job list` shows it, or `check-readiness`, which has no schedule
    #[arg(value_name = "NAME")]
    name: String,
    /// The region whose daemon runs it; may be left out if one region has a daemon on this machine
    #[arg(long)]
    region: Option<RegionName>,
    /// The resource, where several schedules have this name
    #[arg(long, value_name = "WORKLOAD/RESOURCE")]
    resource: Option<ResourceId>,
}

pub(crate) async fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    let schedule = match args.name.as_str() {
        check_readiness::NAME => None,
        _ => Some(schedule(&setup, args)?),
    };
    if schedule.is_some_and(|schedule| matches!(schedule.trigger, Trigger::Continuous)) {
        let what = format!("`{}` is a stream: it runs all the time", args.name);
        return Err(CommandError::new(Exit::Usage, what).hint("`dr status` shows how far it is"));
    }
    let region = region(&setup, args)?;
    let state = setup.region(&region)?.daemon.as_ref();
    let state = state.map(|daemon| daemon.state_directory.clone());
    let Some(state) = state else {
        let what = format!("`{region}` has no daemon configured");
        return Err(CommandError::new(Exit::Configuration, what));
    };
    let request = RunRequest {
        name: args.name.clone(),
        resource: args.resource.as_ref().map(ToString::to_string),
    };
    let answer = match run_job(&state, &request).await {
        Ok(answer) => answer,
        Err(ClientError::Absent { .. }) => {
            let _lock = Lock::take(&state, &region, PATIENCE).await?;
            output.say(&format!(
                "No daemon of {region} runs on this machine: the job runs in this process. A snapshot waits for its log, which a daemon ships, for 2 min."
            ));
            match schedule {
                Some(schedule) => run_here(&setup, schedule, region).await?,
                None => assess_here(&setup, args, &region).await?,
            }
        }
        Err(ClientError::Refused(refusal)) => {
            let exit = match refusal.kind.as_str() {
                "unavailable" => Exit::Unavailable,
                "not-found" | "invalid" => Exit::Usage,
                _ => Exit::Failed,
            };
            let error = CommandError::new(exit, refusal.message);
            return Err(match refusal.hint {
                Some(hint) => error.hint(hint),
                None => error,
            });
        }
        Err(error) => {
            return Err(CommandError::from_error(Exit::Unavailable, &error).hint(
                "whether the job was done is not known: `dr status` and the daemon's log tell; one that was broken off leaves nothing \
                 half done, and may be run again",
            ));
        }
    };
    if output.json {
        output.json(&answer)?;
    } else {
        output.data(&answer.summary)?;
    }
    let Some(alarm) = answer.alarm else {
        return Ok(Exit::Ok);
    };
    let what = format!("`{}` ran, and found what has to be looked at", args.name);
    let mut error = CommandError::new(Exit::Failed, what);
    error.causes = vec![alarm];
    Err(error)
}

/// Assesses the workloads that the region can recover in this process.
async fn assess_here(setup: &Setup, args: &Args, region: &RegionName) -> Result<RunAnswer> {
    let mut found = Vec::new();
    for (name, workload) in setup.workloads_in(region) {
        let asked = args.resource.as_ref().is_none_or(|id| id.workload == *name);
        if asked {
            let look = readiness::assess(setup, name, workload, region, Standpoint::Inside);
            found.push((name.clone(), look.await?));
        }
    }
    Ok(answer(&found))
}

/// Runs the job in this process.
async fn run_here(setup: &Setup, schedule: &Schedule, region: RegionName) -> Result<RunAnswer> {
    let id = &schedule.resource;
    let register = setup.register(&id.workload, setup.workload(&id.workload)?);
    let record = register.read().await;
    let record = record.map_err(dr_provider::Error::from)?.ok_or_else(|| {
        CommandError::new(
            Exit::Unavailable,
            format!("`{}` has no epoch yet", id.workload),
        )
        .hint("the first start of the daemons opens it")
    })?;
    let job = registry::job(&schedule.job)
        .ok_or_else(|| unknown("job", &schedule.job, registry::NAMES.iter()))?;
    let context = JobContext {
        store: setup.identified(&region).await?,
        region,
        resource: id.clone(),
        driver: setup.driver(id)?,
        record,
        retention: retention(&setup.config.schedules, id),
        clock: Arc::clone(&setup.clock),
    };
    if !context.is_at(schedule.place) {
        let error = context.elsewhere(schedule.name.as_str(), schedule.place);
        return Err(CommandError::from_error(Exit::Usage, &error));
    }
    let outcome = job.run(&context).await?;
    Ok(RunAnswer {
        summary: outcome.summary,
        detail: outcome.detail,
        alarm: outcome.alarm,
    })
}

fn schedule<'a>(setup: &'a Setup, args: &Args) -> Result<&'a Schedule> {
    let named = |schedule: &&Schedule| {
        schedule.name.as_str() == args.name
            && args
                .resource
                .as_ref()
                .is_none_or(|id| *id == schedule.resource)
    };
    let mut found = setup.config.schedules.iter().filter(named);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(one), Some(other)) => {
            let what = format!(
                "`{}` is ambiguous: there is one for {} and one for {}",
                args.name, one.resource, other.resource
            );
            Err(CommandError::new(Exit::Usage, what).hint("say which with --resource"))
        }
        (None, _) => {
            let schedules = setup.config.schedules.iter();
            let mut names: BTreeSet<_> = schedules
                .map(|schedule| schedule.name.to_string())
                .collect();
            names.insert(check_readiness::NAME.to_owned());
            Err(unknown("job", &args.name, names.iter()).hint("`dr job list` shows them"))
        }
    }
}

/// Returns the region asked for, or the only one whose daemon has its state on this machine.
fn region(setup: &Setup, args: &Args) -> Result<RegionName> {
    if let Some(region) = &args.region {
        setup.region(region)?;
        return Ok(region.clone());
    }
    let here = setup.config.regions.iter().filter(|(_, region)| {
        let daemon = region.daemon.as_ref();
        daemon.is_some_and(|daemon| daemon.state_directory.exists())
    });
    let here: Vec<&RegionName> = here.map(|(name, _)| name).collect();
    match here.as_slice() {
        [region] => Ok((*region).clone()),
        [] => Err(CommandError::new(
            Exit::Usage,
            "no region has the state of its daemon on this machine",
        )
        .hint("say which region with --region")),
        several => {
            let names: Vec<String> = several.iter().map(|name| format!("`{name}`")).collect();
            let what = format!(
                "several regions have their daemons on this machine: {}",
                names.join(", ")
            );
            Err(CommandError::new(Exit::Usage, what).hint("say which with --region"))
        }
    }
}
