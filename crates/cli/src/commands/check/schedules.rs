//! What the schedules leave out: a configuration may be valid and protect nothing.

use dr_config::{Config, Place};
use dr_jobs::{CopyRecoveryPoints, ShipWal, TakeSnapshot};
use dr_model::ResourceId;

use super::{Finding, Level};

/// Names what no schedule does for a resource.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let resources = config.workloads.iter().flat_map(|(workload, contents)| {
        let names = contents.resources.keys();
        names.map(move |resource| ResourceId {
            workload: workload.clone(),
            resource: resource.clone(),
        })
    });
    resources
        .flat_map(|resource| missing(config, &resource))
        .collect()
}

fn missing(config: &Config, resource: &ResourceId) -> Vec<Finding> {
    let has = |job: &str, places: &[Place]| {
        let mut all = config.schedules.iter();
        all.any(|one| one.job == job && one.resource == *resource && places.contains(&one.place))
    };
    let away = [Place::Recovery, Place::All];
    let anywhere = [Place::Primary, Place::Recovery, Place::All];
    let mut findings = Vec::new();
    let mut warn = |found: &str, remedy: &str| {
        let subject = format!("schedules for {resource}");
        findings.push(
            Finding::new(Level::Warning, subject, found)
                .remedy(remedy.replace("{resource}", &resource.to_string())),
        );
    };
    if !has(ShipWal::NAME, &away) {
        warn(
            "nothing ships its log to another region: what was committed since the last recovery point would be lost",
            "wal: { job: ship-wal, resource: {resource}, in: all, continuous: true }",
        );
    }
    if !has(TakeSnapshot::NAME, &anywhere) {
        warn(
            "nothing takes recovery points: without one no log can be restored",
            "daily-snapshot: { job: take-snapshot, resource: {resource}, in: primary, cron: \"0 2 * * *\" }",
        );
    } else if !has(TakeSnapshot::NAME, &away) && !has(CopyRecoveryPoints::NAME, &away) {
        warn(
            "no recovery point reaches another region: they are lost with the primary's",
            "copy: { job: copy-recovery-points, resource: {resource}, in: recovery, after: daily-snapshot }",
        );
    }
    findings
}
