//! The record of an epoch.

use std::collections::BTreeMap;

use bytes::Bytes;
use dr_model::{
    Epoch, ExecutionId, Lsn, RegionName, ResourceName, SystemIdentifier, TimelineId, WorkloadName,
};
use dr_provider::Key;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Actor;
use crate::operation::key;

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
        let mut text = serde_json::to_vec_pretty(self)
            .expect("plain values with text keys always have a JSON form");
        text.push(b'\n');
        text.into()
    }

    /// Reads a stored record and checks that it is record `epoch` of `workload`; the error says what is wrong.
    pub fn from_bytes(bytes: &[u8], workload: &WorkloadName, epoch: Epoch) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if record.version != FORMAT_VERSION {
            return Err(format!("format version {} is not known", record.version));
        }
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
