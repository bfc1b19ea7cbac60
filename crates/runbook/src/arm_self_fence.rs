//! Recording in the register what guards the primary runs under (PROTOCOL 7, the fence `self`).
//!
//! An executor elsewhere may count on a guard only if it was seen to be in force while all was well. So the daemon beside the
//! primary asks each database itself, and a record with the same primary and the guards found is created when they differ from
//! those of the newest record. A database that runs without a guard, or under one with a shorter or a longer lease, changes the
//! record too; one that does not answer changes nothing.
//!
//! Safe to be tried by anybody at any time, because the record is create-only like every other. Nothing is recorded while an
//! execution has not ended: the record would supersede it in the middle of its work.

use std::collections::BTreeMap;

use dr_coordination::register::{self, EpochRecord, Guard};
use dr_model::{RegionName, ResourceName};
use dr_provider::Result;
use dr_provider::error::chain;

use crate::move_register::under_way;
use crate::site::Site;

/// How the register and the guards of the primary stand to each other.
#[derive(Clone, Debug, PartialEq)]
pub enum Armed {
    /// The primary is elsewhere, or no guard is wanted and none recorded.
    NotHere,
    /// The newest record holds the guards that are in force, and every one that is wanted is.
    Well,
    /// They have been recorded just now.
    Recorded(Box<EpochRecord>),
    /// Something keeps a guard that is wanted from being counted on; what.
    NotArmed(String),
}

/// Records the guards in force of a primary in `region`.
///
/// # Errors
///
/// Those of reading the register and of creating a record in it.
pub async fn arm_self_fence(site: &Site, region: &RegionName) -> Result<Armed> {
    let fences = site
        .resources
        .iter()
        .filter_map(|(name, driver)| Some((name, driver.self_fence()?)));
    let wanted: Vec<_> = fences
        .map(|(name, fence)| (name, fence, fence.lease(region)))
        .collect();
    let Some(head) = site
        .register
        .follow()
        .await?
        .filter(|head| head.primary == *region)
    else {
        return Ok(Armed::NotHere);
    };
    if head.guards.is_empty() && wanted.iter().all(|(_, _, lease)| lease.is_none()) {
        return Ok(Armed::NotHere);
    }
    let mut guards = BTreeMap::new();
    let mut missing = Vec::new();
    for (name, fence, lease) in wanted {
        match fence.lease_in_force(region).await {
            Ok(Some(found)) => {
                let guard = Guard {
                    lease_seconds: u32::try_from(found.as_secs()).unwrap_or(u32::MAX),
                };
                guards.insert(name.clone(), guard);
            }
            Ok(None) if lease.is_some() => {
                missing.push(format!("`{name}` was started without its guard"));
            }
            Ok(None) => {}
            // It stays as it was last seen: a server that does not answer has not been started anew for all that is known.
            Err(error) => {
                if let Some(guard) = head.guards.get(name) {
                    guards.insert(name.clone(), *guard);
                }
                missing.push(format!("`{name}` cannot be asked: {}", chain(&error)));
            }
        }
    }
    if guards == head.guards {
        return Ok(match missing.is_empty() {
            true => Armed::Well,
            false => Armed::NotArmed(missing.join("; ")),
        });
    }
    if let Some(why) = under_way(site, &head).await {
        return Ok(Armed::NotArmed(why));
    }
    record(site, &head, guards).await
}

async fn record(
    site: &Site,
    head: &EpochRecord,
    guards: BTreeMap<ResourceName, Guard>,
) -> Result<Armed> {
    let reason = match guards.is_empty() {
        true => "the primary runs without a guard now".to_owned(),
        false => {
            let one = |(name, guard): (&ResourceName, &Guard)| {
                format!("`{name}` {} s", guard.lease_seconds)
            };
            let all: Vec<_> = guards.iter().map(one).collect();
            format!(
                "the primary was seen to run under its guard: {}",
                all.join(", ")
            )
        }
    };
    let record = EpochRecord {
        created_at: site.clock.now(),
        created_by: site.actor.clone(),
        reason,
        ..head.with_guards(guards)
    };
    match site.register.create(&record).await {
        Ok(opened) => Ok(Armed::Recorded(Box::new(opened.record))),
        Err(register::Error::Lost { winner }) => Ok(Armed::NotArmed(format!(
            "epoch {} was opened meanwhile: {}",
            winner.epoch, winner.reason
        ))),
        Err(error) => Err(error.into()),
    }
}
