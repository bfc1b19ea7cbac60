//! The two ends of a chain: its origin and its seal.

use bytes::Bytes;
use dr_model::{Epoch, ExecutionId, Lsn, SystemIdentifier, TimelineId};
use dr_provider::store::record;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ChainId, FORMAT_VERSION};
use crate::Actor;

/// Where a store's chain of an epoch begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The timeline.
    pub timeline: TimelineId,
    /// The epoch.
    pub epoch: Epoch,
    /// The key of the first link.
    pub start_lsn: Lsn,
    /// When it was written, by its writer's clock.
    pub created_at: Timestamp,
    /// Who wrote it, for people.
    pub writer: String,
}

/// The end of a chain. Never deleted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealRecord {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The timeline.
    pub timeline: TimelineId,
    /// The epoch that is ended.
    pub epoch: Epoch,
    /// Where the log ends; the same as in the key.
    pub lsn: Lsn,
    /// The epoch that follows.
    pub successor: Epoch,
    /// The execution that sealed; `None` outside an execution.
    pub execution: Option<ExecutionId>,
    /// Who sealed.
    pub sealed_by: Actor,
    /// When, by that actor's clock.
    pub sealed_at: Timestamp,
}

impl Origin {
    /// Returns the bytes that are stored.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        record::encode(self)
    }

    /// Reads a stored origin and checks that it is that of `chain`; the error says what is wrong.
    pub fn from_bytes(bytes: &[u8], chain: &ChainId) -> Result<Self, String> {
        let origin: Self = record::decode(bytes)?;
        let named = ChainId {
            system_identifier: origin.system_identifier,
            timeline: origin.timeline,
            epoch: origin.epoch,
        };
        check(origin.version, &named, chain)?;
        Ok(origin)
    }
}

impl SealRecord {
    /// Returns the bytes that are stored.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        record::encode(self)
    }

    /// Reads a stored seal and checks that it is that of `chain` at `lsn`; the error says what is wrong.
    pub fn from_bytes(bytes: &[u8], chain: &ChainId, lsn: Lsn) -> Result<Self, String> {
        let seal: Self = record::decode(bytes)?;
        let named = ChainId {
            system_identifier: seal.system_identifier,
            timeline: seal.timeline,
            epoch: seal.epoch,
        };
        check(seal.version, &named, chain)?;
        if seal.lsn != lsn {
            return Err(format!("it is the seal at {}, not at {lsn}", seal.lsn));
        }
        Ok(seal)
    }
}

/// Checks what every object of a chain says about itself.
pub(crate) fn check(version: u32, named: &ChainId, wanted: &ChainId) -> Result<(), String> {
    if version != FORMAT_VERSION {
        return Err(format!("format version {version} is not known"));
    }
    if named != wanted {
        return Err(format!("it belongs to {named}, not to {wanted}"));
    }
    Ok(())
}
