//! Stores and registers.

use std::sync::Arc;

use dr_config::Workload;
use dr_coordination::identity::read_identity;
use dr_coordination::probe::{newest_probe, probe_store, probe_write, require_atomic_create};
use dr_model::{RegionName, WorkloadName};
use dr_provider::{ObjectStore, Result};
use futures::future::join_all;
use jiff::SignedDuration;

use super::findings::{Finding, Level};
use crate::output::seconds;
use crate::wiring::Setup;

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
                match finding.remedy {
                    Some(_) => finding,
                    None => finding.remedy(format!(
                        "a new store is initialised by `dr daemon --region {region}`"
                    )),
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
            probe_write(&**store, now, rand::random()).await?;
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
