//! Watching that nobody but the primary of the newest epoch accepts writes.
//!
//! An old primary that was never fenced, or that somebody has started again, takes commits that no store acknowledges and no epoch
//! knows. Every daemon asks the servers of all regions for their role and raises an alarm; it stops nobody. Between the epoch that
//! a move opens and its fence the old primary is such a server for a moment, so that it takes two looks in a row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dr_coordination::register::EpochRecord;
use dr_jobs::engine::{Board, Condition};
use dr_model::{Epoch, RegionName, ResourceId, ResourceName};
use dr_provider::ResourceDriver;
use dr_provider::driver::{Instance, Role};
use dr_runbook::Site;
use futures::future::join_all;
use tokio::sync::watch;

use crate::error::Result;
use crate::wiring::Setup;

/// The time between two looks.
const INTERVAL: Duration = Duration::from_secs(5);

/// The same until there is an epoch.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);

/// How long a server, its host or the register may take to answer.
const LIMIT: Duration = Duration::from_secs(3);

/// The watch over all workloads that have a place in a region.
pub(super) struct WatchWriters {
    sites: Vec<Site>,
    board: Arc<Board>,
    /// In how many regions each resource was last seen to accept writes.
    seen: Mutex<BTreeMap<ResourceId, usize>>,
}

/// What is known of the epochs of a workload.
struct Epochs {
    newest: EpochRecord,
    /// The regions that had the primary before.
    former: BTreeSet<RegionName>,
}

/// What one look at one server has found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Accepts,
    DoesNot,
    Unseen(String),
}

impl WatchWriters {
    pub(super) fn new(setup: &Setup, region: &RegionName, board: Arc<Board>) -> Result<Self> {
        Ok(Self {
            sites: setup.register_sites(region)?,
            board,
            seen: Mutex::default(),
        })
    }

    /// Returns in how many regions each resource accepts writes, as last seen.
    pub(super) fn seen(&self) -> BTreeMap<ResourceId, usize> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    /// Watches all of them until `stop` turns true.
    pub(super) async fn keep(&self, stop: watch::Receiver<bool>) {
        let sites = self.sites.iter();
        join_all(sites.map(|site| self.keep_one(site, stop.clone()))).await;
    }

    async fn keep_one(&self, site: &Site, mut stop: watch::Receiver<bool>) {
        let task = format!("writers of {}", site.workload);
        let mut epochs = None;
        let mut suspected = None;
        loop {
            let look = async {
                epochs = Epochs::follow(site, epochs.take()).await;
                match &epochs {
                    Some(epochs) => self.look(site, epochs, &mut suspected).await,
                    None => {
                        suspected = None;
                        self.forget(site);
                        Condition::Unknown("nobody can tell where the primary is".to_owned())
                    }
                }
            };
            let condition = tokio::select! {
                biased;
                _stopped = stop.wait_for(|stop| *stop) => return,
                condition = look => condition,
            };
            self.board.set(&task, condition);
            let wait = match epochs {
                Some(_) => INTERVAL,
                None => FIRST_INTERVAL,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _stopped = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Forgets what was counted: it is not known to be so any more.
    fn forget(&self, site: &Site) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|id, _| id.workload != site.workload);
    }

    /// Looks at the servers of all regions; `suspected` is the epoch in which the look before found a writer too many.
    async fn look(&self, site: &Site, epochs: &Epochs, suspected: &mut Option<Epoch>) -> Condition {
        let regions: Vec<_> = std::iter::once(&site.home).chain(&site.recovery).collect();
        let mut others = Vec::new();
        let mut unseen = Vec::new();
        let mut primary_accepts = true;
        for (name, driver) in &site.resources {
            let looks = regions
                .iter()
                .map(|region| look_at(name, driver.as_ref(), region, epochs));
            let found = join_all(looks).await;
            let writers = found
                .iter()
                .filter(|found| **found == Found::Accepts)
                .count();
            let id = ResourceId {
                workload: site.workload.clone(),
                resource: name.clone(),
            };
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            // A server that cannot be seen may accept writes: what was not counted is not said to be none.
            let all_seen = !found.iter().any(|found| matches!(found, Found::Unseen(_)));
            match all_seen || writers > 1 {
                true => seen.insert(id, writers),
                false => seen.remove(&id),
            };
            drop(seen);
            for (region, found) in regions.iter().zip(found) {
                let is_primary = **region == epochs.newest.primary;
                primary_accepts &= !is_primary || found == Found::Accepts;
                match found {
                    Found::Accepts if !is_primary => others.push(format!("{name} in {region}")),
                    // Whether the primary answers, another line says. Of one that never was primary nothing is feared: what
                    // promotes it by hand is seen beside it. It is not counted as seen all the same.
                    Found::Unseen(why) if epochs.former.contains(*region) => {
                        unseen.push(format!("{name} in {region}: {why}"));
                    }
                    _ => {}
                }
            }
        }
        let EpochRecord { epoch, primary, .. } = &epochs.newest;
        if others.is_empty() {
            *suspected = None;
            return match unseen.is_empty() {
                true => Condition::Good(format!("nobody but {primary} accepts writes")),
                false => Condition::Unknown(format!(
                    "whether an old primary accepts writes cannot be seen: {}",
                    unseen.join("; ")
                )),
            };
        }
        let others = others.join(", ");
        match suspected.replace(*epoch) {
            Some(before) if before == *epoch && primary_accepts => Condition::Bad(format!(
                "TWO PRIMARIES: {others} accepts writes although {primary} is primary since epoch {epoch}; what is written there is lost: stop it"
            )),
            // As a move leaves it that was killed between its epoch and its fence: to stop the only one that serves would be an outage.
            Some(before) if before == *epoch => Condition::Bad(format!(
                "{others} accepts writes although {primary}, which does not, is primary since epoch {epoch}; `dr execution list` shows the move to be gone on with or ended, and what is written until then may be lost"
            )),
            _ => Condition::Unknown(format!(
                "{others} accepts writes although {primary} is primary since epoch {epoch}; it is looked at again"
            )),
        }
    }
}

impl Epochs {
    /// Takes the newest record as the daemon itself has just read it; all of them are read only when it is a new one.
    ///
    /// Nothing is concluded from what was known before: while the register cannot be read, a newer epoch may be open, and the
    /// server that it was opened for would be taken for one primary too many (PROTOCOL 2).
    async fn follow(site: &Site, known: Option<Self>) -> Option<Self> {
        let register = &site.register;
        let newest = register.read_lately(LIMIT)?;
        if let Some(known) = known
            && known.newest.epoch == newest.epoch
        {
            return Some(known);
        }
        match tokio::time::timeout(LIMIT, register.read_all()).await {
            Ok(Ok(records)) => Some(Self {
                former: records
                    .into_iter()
                    .map(|record| record.primary)
                    .filter(|primary| *primary != newest.primary)
                    .collect(),
                newest,
            }),
            _ => None,
        }
    }
}

/// Asks one server for its role. Of an old primary that does not answer, its host is asked.
async fn look_at(
    name: &ResourceName,
    driver: &dyn ResourceDriver,
    region: &RegionName,
    epochs: &Epochs,
) -> Found {
    let Some(query) = driver.query() else {
        return Found::DoesNot;
    };
    let claimed = epochs.newest.clusters.get(name);
    let why = match tokio::time::timeout(LIMIT, query.role(region)).await {
        // What listens there may be somebody else's.
        Ok(Ok((cluster, _))) if claimed.is_some_and(|claim| claim.system_identifier != cluster) => {
            return Found::DoesNot;
        }
        Ok(Ok((_, Role::Primary))) => return Found::Accepts,
        Ok(Ok((_, Role::Standby))) => return Found::DoesNot,
        Ok(Err(error)) => dr_provider::error::chain(&error),
        Err(_) => format!("no answer within {LIMIT:?}"),
    };
    if !epochs.former.contains(region) {
        return Found::Unseen(why);
    }
    match tokio::time::timeout(LIMIT, driver.look(region)).await.ok() {
        Some(Instance::Stopped | Instance::Absent | Instance::NotConfigured) => Found::DoesNot,
        _ => Found::Unseen(why),
    }
}
