//! `dr job list`.

use std::path::Path;

use dr_config::{Place, Trigger};
use serde_json::json;

use crate::commands::daemon::check_readiness;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Output, Table, seconds};
use crate::wiring::Setup;

/// List the schedules: which job, for which resource, in which region, and when next
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    let now = setup.clock.now();
    let mut table = Table::new(&["NAME", "JOB", "RESOURCE", "IN", "WHEN", "NEXT"]);
    let mut jobs = Vec::new();
    for schedule in &setup.config.schedules {
        let place = match schedule.place {
            Place::Primary => "primary",
            Place::Recovery => "recovery",
            Place::All => "all",
        };
        let (when, next) = match &schedule.trigger {
            Trigger::Cron(cron) => (cron.to_string(), cron.after(now)),
            Trigger::After(name) => (format!("after {name}"), None),
            Trigger::Continuous => ("continuous".to_owned(), None),
        };
        jobs.push(json!({
            "name": schedule.name, "job": schedule.job, "resource": schedule.resource,
            "in": place, "when": when, "next": next,
        }));
        table.row([
            schedule.name.to_string(),
            schedule.job.clone(),
            schedule.resource.to_string(),
            place.to_owned(),
            when,
            next.map_or_else(|| "-".to_owned(), |next| next.to_string()),
        ]);
    }
    for (name, workload) in &setup.config.workloads {
        let when = format!("every {}", seconds(workload.readiness.every.as_secs_f64()));
        jobs.push(json!({
            "name": check_readiness::NAME, "job": check_readiness::NAME, "resource": name,
            "in": "recovery", "when": when, "next": null,
        }));
        table.row([
            check_readiness::NAME.to_owned(),
            check_readiness::NAME.to_owned(),
            name.to_string(),
            "recovery".to_owned(),
            when,
            "-".to_owned(),
        ]);
    }
    if output.json {
        output.json(&json!({ "jobs": jobs }))?;
    } else if jobs.is_empty() {
        output.say("There are no schedules.");
    } else {
        output.data(&table.render(output.stdout))?;
    }
    Ok(Exit::Ok)
}
