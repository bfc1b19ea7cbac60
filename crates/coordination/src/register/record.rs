//! The record of an epoch.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dr_model::{
    Epoch, ExecutionId, Lsn, RegionName, ResourceName, SystemIdentifier, TimelineId, WorkloadName,
};
use dr_provider::Key;
use dr_provider::store::record;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Actor;
use crate::chain::ChainId;
use crate::operation::key;
use crate::versioned;

/// The version of the record's format that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// What an epoch says of one PostgreSQL cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterClaim {
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The timeline that the primary of this epoch writes; no other region may ever write it.
    pub timeline: TimelineId,
    /// Where the epoch begins; `None` if that is not known before the seal.
    pub start_lsn: Option<Lsn>,
    /// The epoch under whose number the chain is written, if not this one: a record that changes nothing but the sync set
    /// leaves the log as it is, and the chain goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_epoch: Option<Epoch>,
}

/// Where synchronous mode was lost by itself: regions that commits no longer wait for, because their stores did not take
/// the log (PROTOCOL 5).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncLost {
    /// What is at or after this position may have been acknowledged without being in those stores.
    pub since: Lsn,
    /// The regions, which come back when their stores hold everything again.
    pub regions: Vec<RegionName>,
}

/// A guard that stops the primary of one cluster when it cannot renew its lease (PROTOCOL 7, the fence `self`).
///
/// It stands in a record only while the primary was seen to run under it: what nobody has seen is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// How long the primary runs after the guard last began a look at the register that found no newer primary.
    pub lease_seconds: u32,
}

impl Guard {
    /// How long stopping may take once the lease is over: until it is noticed, the immediate shutdown, and the end of every
    /// process that does not heed it. The guard itself takes less than half of this.
    pub const STOP_LIMIT: Duration = Duration::from_secs(5);

    /// Returns how long after a newer epoch is known to be in the register the old primary has stopped.
    ///
    /// A look that began before the record was there may have renewed the lease; none that began later can. The two
    /// machines' clocks are not compared, only how fast they go: a twentieth is more than any of them is off.
    #[must_use]
    pub fn stopped_after(&self) -> Duration {
        let lease = Duration::from_secs(self.lease_seconds.into());
        lease + lease / 20 + Self::STOP_LIMIT
    }
}

/// The record of one epoch: written once, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochRecord {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// Its number.
    pub epoch: Epoch,
    /// The workload that it is about.
    pub workload: WorkloadName,
    /// The primary's region.
    pub primary: RegionName,
    /// The region in whose store the *next* record will be created.
    pub register: RegionName,
    /// Claims by resource.
    pub clusters: BTreeMap<ResourceName, ClusterClaim>,
    /// Regions whose stores a commit waits for, by resource (PROTOCOL 5).
    pub sync: BTreeMap<ResourceName, Vec<RegionName>>,
    /// Where synchronous mode was lost and is to come back, by resource.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sync_lost: BTreeMap<ResourceName, SyncLost>,
    /// Guards under which the primary's clusters were seen to run, by resource.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub guards: BTreeMap<ResourceName, Guard>,
    /// When it was made, by its maker's clock.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: Actor,
    /// Why, in words.
    pub reason: String,
    /// The execution that it opens; `None` for the first record and for moves of the register.
    pub execution: Option<ExecutionId>,
    /// Why a safety rule was overridden, if one was. Such an epoch is reported as unproven for ever.
    pub override_reason: Option<String>,
}

impl EpochRecord {
    /// Returns the chain that a resource's log is written to; `None` if the record says nothing of it.
    #[must_use]
    pub fn chain(&self, resource: &ResourceName) -> Option<ChainId> {
        let claim = self.clusters.get(resource)?;
        Some(ChainId {
            system_identifier: claim.system_identifier,
            timeline: claim.timeline,
            epoch: claim.log_epoch.unwrap_or(self.epoch),
        })
    }

    /// Returns the regions whose stores a commit on a resource waits for.
    #[must_use]
    pub fn synchronous(&self, resource: &ResourceName) -> &[RegionName] {
        self.sync.get(resource).map_or(&[], Vec::as_slice)
    }

    /// Returns the record that follows this one and changes nothing but whom commits on `resource` wait for.
    ///
    /// The primary and the chains stay: nothing is sealed and no receiver has to begin anew.
    #[must_use]
    pub fn with_synchronous(
        &self,
        resource: &ResourceName,
        regions: Vec<RegionName>,
        lost: Option<SyncLost>,
    ) -> Self {
        let mut next = self.clone();
        for claim in next.clusters.values_mut() {
            claim.log_epoch.get_or_insert(self.epoch);
        }
        next.epoch = self.epoch.next();
        next.sync.insert(resource.clone(), regions);
        match lost {
            Some(lost) => next.sync_lost.insert(resource.clone(), lost),
            None => next.sync_lost.remove(resource),
        };
        next.execution = None;
        next.override_reason = None;
        next
    }

    /// Returns the record that follows this one and changes nothing but where the record after it will be.
    ///
    /// As with [`with_synchronous`](Self::with_synchronous), the primary and the chains stay.
    #[must_use]
    pub fn with_register(&self, region: RegionName) -> Self {
        let mut next = self.clone();
        for claim in next.clusters.values_mut() {
            claim.log_epoch.get_or_insert(self.epoch);
        }
        next.epoch = self.epoch.next();
        next.register = region;
        next.execution = None;
        next.override_reason = None;
        next
    }

    /// Returns the record that follows this one and changes nothing: it only takes the number of its epoch.
    ///
    /// As with [`with_synchronous`](Self::with_synchronous), the primary and the chains stay.
    #[must_use]
    pub fn renewed(&self) -> Self {
        self.with_register(self.register.clone())
    }

    /// Returns the record that follows this one and changes nothing but the guards that the primary is known to run under.
    ///
    /// As with [`with_synchronous`](Self::with_synchronous), the primary and the chains stay.
    #[must_use]
    pub fn with_guards(&self, guards: BTreeMap<ResourceName, Guard>) -> Self {
        Self {
            guards,
            ..self.renewed()
        }
    }

    /// Returns the key of record `epoch` in the register.
    #[must_use]
    pub fn key(workload: &WorkloadName, epoch: Epoch) -> Key {
        key(format!("register/{workload}/{}", epoch.to_key()))
    }

    /// Returns the key of the copy of record `epoch`.
    #[must_use]
    pub fn copy_key(workload: &WorkloadName, epoch: Epoch) -> Key {
        key(format!("copies/register/{workload}/{}", epoch.to_key()))
    }

    /// Returns the bytes that are stored.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        record::encode(self)
    }

    /// Reads a stored record and checks that it is record `epoch` of `workload`; the error says what is wrong.
    pub fn from_bytes(bytes: &[u8], workload: &WorkloadName, epoch: Epoch) -> Result<Self, String> {
        let record: Self = versioned::decode(bytes, FORMAT_VERSION)?;
        if record.epoch != epoch || &record.workload != workload {
            return Err(format!(
                "it is record {} of `{}`, not record {epoch} of `{workload}`",
                record.epoch, record.workload
            ));
        }
        Ok(record)
    }

    /// Tells whether `other` was made by the same execution, so that meeting it is not losing to it.
    #[must_use]
    pub fn is_of_same_execution(&self, other: &Self) -> bool {
        self.epoch == other.epoch
            && self.workload == other.workload
            && match (&self.execution, &other.execution) {
                (Some(a), Some(b)) => a == b,
                _ => self == other,
            }
    }
}
