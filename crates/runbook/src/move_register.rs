//! Moving a workload's register away from its primary (PROTOCOL 2).
//!
//! After an unplanned failover between two regions the register stays with the new primary: a loss of that region would
//! take it along. Once another region's store holds the log of the newest epoch up to where the primary stands, a record
//! with the same primary and another place for the next record is created; then the primary can be lost as well.
//!
//! Nothing moves while an execution has not ended: the new record would supersede it in the middle of its work. Safe to be
//! tried by anybody at any time, because the record is create-only like every other: a failover that begins meanwhile gets
//! the epoch, or loses it to this record and is told so.

use std::collections::BTreeMap;
use std::time::Duration;

use dr_coordination::register::{self, EpochRecord};
use dr_model::{Lsn, RegionName, ResourceName};
use dr_provider::Result;
use dr_provider::driver::{Instance, Role};
use dr_provider::error::chain;

use crate::executions::{self, Unreadable};
use crate::poll::{self, Look};
use crate::site::Site;
use crate::waits::Waits;

/// How long the log may take to reach the other region.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(5);

/// How often that is looked at.
const INTERVAL: Duration = Duration::from_millis(250);

/// Where the register is.
#[derive(Clone, Debug, PartialEq)]
pub enum Placed {
    /// Away from the primary, or the primary is in another region: there is nothing to do here.
    Well,
    /// It has been moved by this record.
    Moved(Box<EpochRecord>),
    /// It stays with the primary for now; why.
    Stays(String),
}

/// Moves the register out of `region` if the primary is there too and another region is able to take it.
///
/// # Errors
///
/// Those of reading the register and of creating a record in it.
pub async fn move_register(site: &Site, region: &RegionName) -> Result<Placed> {
    let Some(head) = site.register.read().await? else {
        return Ok(Placed::Well);
    };
    if head.primary != *region || head.register != *region {
        return Ok(Placed::Well);
    }
    if let Some(why) = under_way(site, &head).await {
        return Ok(Placed::Stays(why));
    }
    let goals = match primary_positions(site, region).await {
        Ok(goals) => goals,
        Err(why) => return Ok(Placed::Stays(why)),
    };
    let mut reasons = Vec::new();
    let regions = std::iter::once(&site.home).chain(&site.recovery);
    for other in regions.filter(|other| *other != region) {
        let look = || async {
            match able(site, other, &head, &goals).await {
                Ok(()) => Look::Over(()),
                Err(why) => Look::Again(why),
            }
        };
        match poll::until(&Waits::default(), ARRIVAL_LIMIT, INTERVAL, look).await {
            Ok(()) => return create(site, &head, other).await,
            Err(why) => reasons.push(why),
        }
    }
    Ok(Placed::Stays(reasons.join("; ")))
}

/// Says why a record that changes nothing about the primary would come in the way of somebody's work, if it may.
pub(crate) async fn under_way(site: &Site, head: &EpochRecord) -> Option<String> {
    let executions::Newest {
        unfinished,
        unseen,
        damaged,
        ..
    } = executions::newest(site).await;
    if let Some(other) = unfinished.iter().find(|found| found.may_go_on(head)) {
        return Some(format!("execution {} has not ended", other.execution));
    }
    let over = superseded(site, head, &damaged).await;
    let mut unseen = unseen.iter().map(ToString::to_string);
    unseen.find(|why| !over.contains(&why.as_str()))
}

/// Returns what is wrong with those journals that nobody can believe whose executions are over all the same: another epoch was opened
/// after theirs, so that nothing that they still do is taken.
async fn superseded<'a>(
    site: &Site,
    head: &EpochRecord,
    damaged: &'a [Unreadable],
) -> Vec<&'a str> {
    if damaged.is_empty() {
        return Vec::new();
    }
    let records = site.register.read_all().await.unwrap_or_default();
    let is_over = |journal: &&Unreadable| {
        let mut ended = records.iter().filter(|record| record.epoch < head.epoch);
        ended.any(|record| record.execution.as_ref() == Some(&journal.execution))
    };
    let over = damaged.iter().filter(is_over);
    over.map(|journal| journal.why.as_str()).collect()
}

/// Returns where each resource's primary stands now: what is written here has to arrive elsewhere.
async fn primary_positions(
    site: &Site,
    region: &RegionName,
) -> std::result::Result<BTreeMap<ResourceName, Lsn>, String> {
    let mut positions = BTreeMap::new();
    for (name, driver) in &site.resources {
        let facts = driver.observe(std::slice::from_ref(region)).await;
        match facts.regions.get(region).map(|seen| &seen.instance) {
            Some(Instance::Running {
                role: Role::Primary,
                position,
                ..
            }) => positions.insert(name.clone(), *position),
            _ => {
                return Err(format!(
                    "`{name}` in {region} is not seen to be a running primary"
                ));
            }
        };
    }
    Ok(positions)
}

/// Tells whether a region's store can take the register: it has the records, and the log reaches it.
async fn able(
    site: &Site,
    region: &RegionName,
    head: &EpochRecord,
    goals: &BTreeMap<ResourceName, Lsn>,
) -> std::result::Result<(), String> {
    let copies = site.register.read_copies().await;
    let copied = copies.into_iter().find(|view| view.region == *region);
    match copied.map(|view| view.newest) {
        Some(Ok(Some(newest))) if newest.epoch == head.epoch => {}
        Some(Err(error)) => return Err(chain(&error)),
        _ => {
            return Err(format!(
                "the store of {region} has no copy of epoch {}",
                head.epoch
            ));
        }
    }
    for (name, driver) in &site.resources {
        let facts = driver.observe(std::slice::from_ref(region)).await;
        let log = facts.regions.get(region).map(|seen| &seen.log);
        let claim = head.clusters.get(name);
        let epoch = claim
            .and_then(|claim| claim.log_epoch)
            .unwrap_or(head.epoch);
        match (log, goals.get(name)) {
            (Some(Ok(Some(log))), Some(goal))
                if log.epoch == epoch && !log.sealed && log.end >= *goal => {}
            (Some(Err(why)), _) => return Err(why.clone()),
            _ => {
                return Err(format!(
                    "the log of epoch {} of `{name}` does not reach the store of {region}",
                    head.epoch
                ));
            }
        }
    }
    Ok(())
}

async fn create(site: &Site, head: &EpochRecord, to: &RegionName) -> Result<Placed> {
    let record = EpochRecord {
        created_at: site.clock.now(),
        created_by: site.actor.clone(),
        reason: format!(
            "protected again: the register moves from {} to {to}",
            head.register
        ),
        ..head.with_register(to.clone())
    };
    match site.register.create(&record).await {
        Ok(opened) => Ok(Placed::Moved(Box::new(opened.record))),
        Err(register::Error::Lost { winner }) => Ok(Placed::Stays(format!(
            "epoch {} was opened meanwhile: {}",
            winner.epoch, winner.reason
        ))),
        Err(error) => Err(error.into()),
    }
}
