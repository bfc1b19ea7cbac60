//! Moving registers away from primaries in this region once another region protects them again (PROTOCOL 2), and recording in
//! them what guards those primaries run under (PROTOCOL 7).

use std::sync::Arc;
use std::time::Duration;

use dr_coordination::identity::read_identity;
use dr_jobs::engine::{Board, Condition};
use dr_model::RegionName;
use dr_provider::error::chain;
use dr_runbook::{Armed, Placed, Site, arm_self_fence, move_register};
use futures::future::join_all;
use tokio::sync::watch;

use crate::error::Result;
use crate::wiring::Setup;

/// How often it is looked whether a register can move.
const INTERVAL: Duration = Duration::from_secs(5);

/// The registers of the workloads that have a place in a region.
pub(super) struct Registers {
    region: RegionName,
    sites: Vec<Site>,
    board: Arc<Board>,
}

impl Registers {
    pub(super) fn new(setup: &Setup, region: &RegionName, board: Arc<Board>) -> Result<Self> {
        Ok(Self {
            region: region.clone(),
            sites: setup.register_sites(region)?,
            board,
        })
    }

    /// Looks after all of them until `stop` turns true.
    pub(super) async fn keep(&self, stop: watch::Receiver<bool>) {
        join_all(
            self.sites
                .iter()
                .map(|site| self.keep_one(site, stop.clone())),
        )
        .await;
    }

    /// Sees to it that the register says what guards the primary here runs under.
    async fn arm(&self, site: &Site) {
        let task = format!("self-fence {}", site.workload);
        let condition = match arm_self_fence(site, &self.region).await {
            Ok(Armed::NotHere) => {
                self.board.remove(&task);
                return;
            }
            Ok(Armed::Well) => Condition::Good("armed".to_owned()),
            Ok(Armed::Recorded(record)) => {
                Condition::Good(format!("epoch {}: {}", record.epoch, record.reason))
            }
            Ok(Armed::NotArmed(why)) => Condition::Bad(why),
            Err(error) if !error.is_permanent() => Condition::Unknown(chain(&error)),
            Err(error) => Condition::Bad(chain(&error)),
        };
        self.board.set(&task, condition);
    }

    /// Looks once whether a register can move, and at what guards the primary.
    async fn look(&self, site: &Site, task: &str) {
        let mut placed = move_register(site, &self.region).await;
        if placed.is_err() && self.rebuild(site).await {
            placed = move_register(site, &self.region).await;
        }
        let condition = match placed {
            Ok(Placed::Well) => Condition::Good("not here with the primary".to_owned()),
            Ok(Placed::Moved(record)) => Condition::Good(format!(
                "moved to {} with epoch {}",
                record.register, record.epoch
            )),
            Ok(Placed::Stays(why)) => {
                Condition::Good(format!("stays with the primary for now: {why}"))
            }
            // What the register itself does not answer is said in the line of the register.
            Err(error) if !error.is_permanent() => Condition::Unknown(chain(&error)),
            Err(error) => Condition::Bad(chain(&error)),
        };
        self.board.set(task, condition);
        self.arm(site).await;
    }

    /// Puts the register's records back into the store of the region, if that was begun anew after they were made; tells whether it did.
    async fn rebuild(&self, site: &Site) -> bool {
        let Some(store) = site.stores.get(&self.region) else {
            return false;
        };
        let Ok(identity) = read_identity(&**store, &self.region).await else {
            return false;
        };
        let rebuilt = site.register.rebuild(&self.region, identity.created_at);
        // Why not is what reading the register says.
        let epochs = rebuilt.await.unwrap_or_default();
        if epochs.is_empty() {
            return false;
        }
        let epochs: Vec<_> = epochs.iter().map(ToString::to_string).collect();
        tracing::warn!(
            workload = %site.workload,
            epochs = epochs.join(", "),
            "records of the register are put back from their copies: this store was begun after they were made"
        );
        true
    }

    async fn keep_one(&self, site: &Site, mut stop: watch::Receiver<bool>) {
        let task = format!("place of register {}", site.workload);
        while !*stop.borrow() {
            tokio::select! {
                () = self.look(site, &task) => {}
                // What is cut off is a reading, or a record that whoever comes next finds or makes.
                _stopped = stop.wait_for(|stop| *stop) => return,
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                _stopped = stop.wait_for(|stop| *stop) => {}
            }
        }
    }
}
