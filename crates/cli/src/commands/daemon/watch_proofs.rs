//! Watching what the proofs in the region's store say of its recovery points.
//!
//! A look that fails is an alarm until the recovery point passes, is deleted, or refers to nothing that is damaged: whoever
//! looked, and whichever daemon ran then. So it is read from the store, again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dr_jobs::engine::{Board, Condition};
use dr_model::{RegionName, ResourceId};
use dr_provider::driver::Proofs;
use dr_provider::error::chain;
use dr_provider::{ObjectStore, ResourceDriver, Result};
use futures::future::join_all;
use tokio::sync::watch;

use crate::wiring::Setup;

/// The time between two looks.
const INTERVAL: Duration = Duration::from_secs(60);

/// The same while something could not be seen.
const AGAIN: Duration = Duration::from_secs(5);

/// How long a look may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The watch over all resources that have a place in a region.
pub(super) struct WatchProofs {
    store: Option<Arc<dyn ObjectStore>>,
    drivers: BTreeMap<ResourceId, Arc<dyn ResourceDriver>>,
    board: Arc<Board>,
}

impl WatchProofs {
    pub(super) fn new(
        setup: &Setup,
        region: &RegionName,
        board: Arc<Board>,
    ) -> crate::error::Result<Self> {
        let mut drivers = BTreeMap::new();
        for (name, workload) in setup.workloads_in(region) {
            for (resource, driver) in setup.drivers(name, workload)? {
                let id = ResourceId {
                    workload: name.clone(),
                    resource,
                };
                drivers.insert(id, driver);
            }
        }
        Ok(Self {
            store: setup.stores.get(region).cloned(),
            drivers,
            board,
        })
    }

    /// Watches all of them until `stop` turns true.
    pub(super) async fn keep(&self, mut stop: watch::Receiver<bool>) {
        let Some(store) = &self.store else { return };
        loop {
            let looks = self.drivers.iter().map(|(id, driver)| async move {
                let condition = match tokio::time::timeout(LIMIT, failures(&**driver, store)).await
                {
                    Ok(found) => condition(found),
                    Err(_) => Condition::Unknown(format!("no answer within {LIMIT:?}")),
                };
                let is_known = !matches!(condition, Condition::Unknown(_));
                self.board.set(&format!("recovery-points {id}"), condition);
                is_known
            });
            let known = tokio::select! {
                biased;
                _stopped = stop.wait_for(|stop| *stop) => return,
                known = join_all(looks) => known,
            };
            let wait = match known.iter().all(|is_known| *is_known) {
                true => INTERVAL,
                false => AGAIN,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _stopped = stop.wait_for(|stop| *stop) => return,
            }
        }
    }
}

/// Returns what is wrong with recovery points. Which there are is asked only if some look failed: that costs more.
async fn failures(
    driver: &dyn ResourceDriver,
    store: &Arc<dyn ObjectStore>,
) -> Result<Vec<String>> {
    let (Some(verify), Some(backup)) = (driver.verify_role(), driver.backup()) else {
        return Ok(Vec::new());
    };
    if !verify.proofs(store).await?.values().any(Proofs::failed) {
        return Ok(Vec::new());
    }
    let points = backup.list(store).await?.complete;
    let failed = points.into_iter().filter_map(|point| {
        let why = point.failure?;
        Some(format!("recovery point {}: {why}", point.label))
    });
    Ok(failed.collect())
}

fn condition(found: Result<Vec<String>>) -> Condition {
    match found {
        Ok(failures) if failures.is_empty() => {
            Condition::Good("no proof speaks against a recovery point".to_owned())
        }
        Ok(failures) => Condition::Bad(failures.join("; ")),
        Err(error) => Condition::Unknown(chain(&error)),
    }
}
