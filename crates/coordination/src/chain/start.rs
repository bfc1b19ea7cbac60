//! Where the log of a timeline begins to be kept: what is missing below was given up on purpose.
//!
//! Recorded before any of it is removed, so that a compaction which finds it gone neither calls it a hole nor makes it again
//! of chunks that are still there. Pieces below that stand there count: what an old recovery point needs to be consistent
//! stays.

use bytes::Bytes;
use dr_model::{Lsn, SystemIdentifier, TimelineId};
use dr_provider::store::record;
use dr_provider::{Key, ObjectStore};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::catalogue::positions;
use super::{ChainId, Error, FORMAT_VERSION};
use crate::operation::{Patience, key};

/// Says that log of a timeline below a position may be gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogStart {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The timeline.
    pub timeline: TimelineId,
    /// The start of a segment, the same as in the key.
    pub lsn: Lsn,
    /// When it was written, by its writer's clock.
    pub created_at: Timestamp,
    /// Who wrote it, for people.
    pub writer: String,
}

impl LogStart {
    /// Returns the bytes that are stored.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        record::encode(self)
    }

    /// Reads a stored record and checks that it stands in its place; the error says what is wrong.
    pub fn from_bytes(
        bytes: &[u8],
        system_identifier: SystemIdentifier,
        timeline: TimelineId,
        lsn: Lsn,
    ) -> Result<Self, String> {
        let start: Self = record::decode(bytes)?;
        if start.version != FORMAT_VERSION {
            return Err(format!("format version {} is not known", start.version));
        }
        if (start.system_identifier, start.timeline, start.lsn)
            != (system_identifier, timeline, lsn)
        {
            return Err(format!(
                "it is about cluster {}, timeline {}, {}",
                start.system_identifier, start.timeline, start.lsn
            ));
        }
        Ok(start)
    }

    /// Returns the key of a timeline's record about a position.
    #[must_use]
    pub fn key(system_identifier: SystemIdentifier, timeline: TimelineId, lsn: Lsn) -> Key {
        key(format!(
            "{}{}",
            prefix(system_identifier, timeline),
            lsn.to_key()
        ))
    }
}

fn prefix(system_identifier: SystemIdentifier, timeline: TimelineId) -> String {
    let timeline = ChainId::timeline_prefix(system_identifier, timeline);
    format!("{timeline}start/")
}

/// Lists the records of a timeline in order; the last is the one that counts. They are few: all but the last two are removed
/// when another is written. The name says all that is needed.
pub(crate) async fn starts(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    patience: Patience,
) -> Result<Vec<Lsn>, Error> {
    let found = positions(store, &prefix(system_identifier, timeline), patience).await;
    found.map_err(|error| Error::store(format!("timeline {timeline}"), error))
}

/// Returns the position below which log of a timeline was given up; zero if none was.
///
/// # Errors
///
/// [`Error::Store`] if the store does not answer.
pub async fn log_start(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    patience: Patience,
) -> Result<Lsn, Error> {
    let found = starts(store, system_identifier, timeline, patience).await?;
    Ok(found.last().copied().unwrap_or(Lsn::INVALID))
}
