//! Stores and registers.

use std::path::PathBuf;
use std::sync::Arc;

use dr_config::{StoreLocation, Workload};
use dr_coordination::identity::read_identity;
use dr_coordination::probe::{newest_probe, probe_store, probe_write, require_atomic_create};
use dr_model::{RegionName, ResourceId, WorkloadName};
use dr_postgres::{InstanceOptions, StandbyPolicy};
use dr_provider::{ErrorKind, ObjectStore, Result};
use futures::future::join_all;
use jiff::SignedDuration;

use super::findings::{Finding, Level};
use crate::commands::restore::store_room::in_store;
use crate::output::seconds;
use crate::wiring::{Setup, environment};

/// A probe that is older says little about the store of today: a mount, a bucket's rules or its software may have changed.
const PROBE_AGE: SignedDuration = SignedDuration::from_hours(24);

/// Looks at every store: whose it is, what it can do, and whether it takes anything now. One that was not probed within a day
/// is probed; to any other one small object is written.
pub(super) async fn check(setup: &Setup) -> Vec<Finding> {
    let looks = setup.stores.iter().map(|(region, store)| async move {
        let subject = format!("store of {region}");
        match look(setup, region, store).await {
            Ok(found) => Finding::ok(subject, found),
            Err(error) => {
                let finding = Finding::error(subject, &error);
                match (&finding.remedy, error.kind()) {
                    (None, ErrorKind::NotFound) => finding.remedy(format!(
                        "a new store is initialised by `dr daemon --region {region}`"
                    )),
                    _ => finding,
                }
            }
        }
    });
    join_all(looks).await
}

async fn look(setup: &Setup, region: &RegionName, store: &Arc<dyn ObjectStore>) -> Result<String> {
    let identity = read_identity(&**store, region).await?;
    let now = setup.clock.now();
    let report = match newest_probe(&**store).await? {
        Some(report) if now.duration_since(report.at) < PROBE_AGE => {
            let tried = probe_write(&**store, now, rand::random()).await?;
            // Whoever may not delete leaves it there: a few bytes.
            store.delete(&tried).await.ok();
            report
        }
        _ => probe_store(store, now, rand::random()).await?,
    };
    require_atomic_create(&**store, &report)?;
    Ok(format!(
        "{} at {}, probed {} ago",
        &identity.store[..identity.store.len().min(8)],
        store.location(),
        seconds(now.duration_since(report.at).as_secs_f64().max(0.0))
    ))
}

/// Looks at the register of a workload.
pub(super) async fn register(
    setup: &Setup,
    name: &WorkloadName,
    workload: &Workload,
) -> Vec<Finding> {
    let subject = format!("register of {name}");
    let finding = match setup.register(name, workload).read().await {
        Ok(Some(record)) => Finding::ok(
            subject,
            format!(
                "epoch {}, {} is primary, the register is in {}",
                record.epoch, record.primary, record.register
            ),
        ),
        Ok(None) => Finding::new(Level::Warning, subject, "there is no epoch yet").remedy(format!(
            "the daemon of {} opens the first one",
            Setup::first_register(workload)
        )),
        Err(error) => Finding::error(subject, &error.into()),
    };
    vec![finding]
}

/// Names the servers that `dr` may not have started and that would open a store with keys from the environment: it cannot give them any,
/// and a failover finds out only when the old primary has been fenced.
pub(super) fn keys_from_environment(setup: &Setup) -> crate::error::Result<Vec<Finding>> {
    let names: Vec<String> = environment::names(&setup.config)
        .into_iter()
        .map(|name| format!("`{name}`"))
        .collect();
    let mut findings = Vec::new();
    if names.is_empty() {
        return Ok(findings);
    }
    let names = names.join(", ");
    for (workload, contents) in &setup.config.workloads {
        for resource in contents.resources.keys() {
            let id = ResourceId {
                workload: workload.clone(),
                resource: resource.clone(),
            };
            let instances = setup.postgres_options(&id)?.instances;
            let warm = |one: &InstanceOptions| one.standby == StandbyPolicy::Warm;
            let others = instances
                .iter()
                .filter(|(_, one)| one.start.is_some() || warm(one));
            for (region, _) in others {
                let subject = format!("restore_command of {id} in {region}");
                let found = format!(
                    "the stores are opened with {names} of the environment, which a server has only if whoever starts it gives it that: \
                     without, a failover stops behind the fence, at log that the server has to fetch"
                );
                findings.push(
                    Finding::new(Level::Warning, subject, found).remedy(
                        "name the keys by `${file:…}`, which every program can read, or set the variables in the server's unit too",
                    ),
                );
            }
        }
    }
    Ok(findings)
}

/// Returns the data directories on this machine, each with whose it is.
pub(super) fn data_directories(setup: &Setup) -> crate::error::Result<Vec<(String, PathBuf)>> {
    let mut all = Vec::new();
    for (workload, contents) in &setup.config.workloads {
        for resource in contents.resources.keys() {
            let id = ResourceId {
                workload: workload.clone(),
                resource: resource.clone(),
            };
            let instances = setup.postgres_options(&id)?.instances.into_iter();
            let local = instances.filter(|(_, one)| one.is_here());
            all.extend(
                local.map(|(region, one)| (format!("{id} in {region}"), one.data_directory)),
            );
        }
    }
    Ok(all)
}

/// Names the stores that lie in a data directory on this machine: they are lost with what they are to bring back, and every backup
/// would hold those before it.
pub(super) fn inside_what_they_protect(setup: &Setup) -> crate::error::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (whose, directory) in data_directories(setup)? {
        for (region, configured) in &setup.config.regions {
            let StoreLocation::Directory(store) = &configured.store else {
                continue;
            };
            if store.starts_with(&directory) {
                let found = format!("it lies in the data directory of {whose}");
                let subject = format!("store of {region}");
                findings.push(
                    Finding::new(Level::Failed, subject, found)
                        .remedy("put it where it is not lost with the database"),
                );
            }
        }
    }
    Ok(findings)
}

/// Names the resources whose recovery points would be booted where a store or a database is: everything there is removed before.
pub(super) fn scratch_where_something_is(setup: &Setup) -> crate::error::Result<Vec<Finding>> {
    let directories = data_directories(setup)?;
    let mut findings = Vec::new();
    for (workload, contents) in &setup.config.workloads {
        for resource in contents.resources.keys() {
            let id = ResourceId {
                workload: workload.clone(),
                resource: resource.clone(),
            };
            let Some(scratch) = setup.postgres_options(&id)?.verify.scratch else {
                continue;
            };
            let around = directories.iter();
            let mut around = around.filter(|(_, directory)| scratch.starts_with(directory));
            let in_directory = || {
                let (whose, _) = around.next()?;
                let scratch = scratch.display();
                Some(format!("`{scratch}` lies in the data directory of {whose}"))
            };
            if let Some(found) = in_store(&setup.config, &scratch).or_else(in_directory) {
                let subject = format!("`verify: {{ scratch: … }}` of {id}");
                findings.push(
                    Finding::new(Level::Failed, subject, found)
                        .remedy("name a directory of its own: everything in it is removed"),
                );
            }
        }
    }
    Ok(findings)
}
