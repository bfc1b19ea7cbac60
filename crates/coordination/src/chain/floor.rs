//! The floor of a chain: below it links are removed, and what still stands there counts for nothing.
//!
//! A key whose chunk was removed is free again, and a process that slept through that may create at it what it meant for
//! the chain's tail. Nobody acknowledges on the strength of so old an answer, but the object stays. So before anything is
//! removed a floor is recorded, at a position on the chain, and whoever follows the chain begins there.

use bytes::Bytes;
use dr_model::{Epoch, Lsn, SystemIdentifier, TimelineId};
use dr_provider::store::record;
use dr_provider::{Key, ObjectStore};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::records::check;
use super::{ChainId, Error};
use crate::operation::{Patience, key, limited};

/// Says that all links of a chain below a position may be gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// [`FORMAT_VERSION`](super::FORMAT_VERSION).
    pub version: u32,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The timeline.
    pub timeline: TimelineId,
    /// The epoch.
    pub epoch: Epoch,
    /// A position on the chain, the same as in the key: the key of a link, or the tail's.
    pub lsn: Lsn,
    /// When it was written, by its writer's clock.
    pub created_at: Timestamp,
    /// Who wrote it, for people.
    pub writer: String,
}

impl Floor {
    /// Returns the bytes that are stored.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        record::encode(self)
    }

    /// Reads a stored floor and checks that it is that of `chain` at `lsn`; the error says what is wrong.
    pub fn from_bytes(bytes: &[u8], chain: &ChainId, lsn: Lsn) -> Result<Self, String> {
        let floor: Self = record::decode(bytes)?;
        let named = ChainId {
            system_identifier: floor.system_identifier,
            timeline: floor.timeline,
            epoch: floor.epoch,
        };
        check(floor.version, &named, chain)?;
        if floor.lsn != lsn {
            return Err(format!("it is the floor at {}, not at {lsn}", floor.lsn));
        }
        Ok(floor)
    }

    /// Returns the key of a chain's floor at a position.
    #[must_use]
    pub fn key(chain: &ChainId, lsn: Lsn) -> Key {
        key(format!("{}{}", prefix(chain), lsn.to_key()))
    }
}

fn prefix(chain: &ChainId) -> String {
    let timeline = ChainId::timeline_prefix(chain.system_identifier, chain.timeline);
    format!("{timeline}floor/{}/", chain.epoch.to_key())
}

/// Lists the floors of a chain in order; the last is the one that counts.
///
/// They are few: all but the last two are removed when another is written. The name says all that is needed.
pub(crate) async fn floors(
    store: &dyn ObjectStore,
    chain: &ChainId,
    patience: Patience,
) -> Result<Vec<Lsn>, Error> {
    const MOST: usize = 1000;
    let prefix = prefix(chain);
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let listed = limited(
            patience.timeout,
            "list objects",
            || format!("{}/{prefix}", store.location()),
            store.list(&prefix, after.as_ref(), MOST),
        )
        .await
        .map_err(|error| Error::store(chain, error))?;
        let keys = listed.iter().map(|info| info.key.file_name());
        found.extend(keys.filter_map(Lsn::from_key));
        match listed.last() {
            Some(last) if listed.len() == MOST => after = Some(last.key.clone()),
            _ => return Ok(found),
        }
    }
}

/// Returns where the chain is to be followed from, if links have been removed.
pub(crate) async fn floor(
    store: &dyn ObjectStore,
    chain: &ChainId,
    patience: Patience,
) -> Result<Option<Lsn>, Error> {
    Ok(floors(store, chain, patience).await?.pop())
}
