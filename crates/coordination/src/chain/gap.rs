//! Gap records: log that is known to be lost.
//!
//! Written by whoever proves that log is gone: a receiver whose slot was invalidated or whose primary has removed the next
//! position, a compaction that finds neither piece nor chunk. A record is an alarm, and a reason for a new base backup; it
//! never hides log that arrives later: what counts is the bytes that are there.

use bytes::Bytes;
use dr_model::{Lsn, SystemIdentifier, TimelineId};
use dr_provider::store::record;
use dr_provider::{Key, ObjectStore};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::available::{available, bounds};
use super::catalogue::{positions, timelines};
use super::section::Section;
use super::{ChainId, Error, FORMAT_VERSION};
use crate::operation::{Patience, key, read};
use crate::publish::publish;

/// Log that was proven to be lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GapRecord {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The timeline.
    pub timeline: TimelineId,
    /// The first position that is lost; the same as in the key.
    pub from: Lsn,
    /// The position at which the log goes on; `None` if that was not known.
    pub to: Option<Lsn>,
    /// When it was found, by the finder's clock.
    pub found_at: Timestamp,
    /// Who found it, for people.
    pub by: String,
    /// How it is known that it is lost.
    pub why: String,
}

impl GapRecord {
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
        from: Lsn,
    ) -> Result<Self, String> {
        let gap: Self = record::decode(bytes)?;
        if gap.version != FORMAT_VERSION {
            return Err(format!("format version {} is not known", gap.version));
        }
        let place = (gap.system_identifier, gap.timeline, gap.from);
        if place != (system_identifier, timeline, from) {
            return Err(format!(
                "it is about cluster {}, timeline {}, {}",
                gap.system_identifier, gap.timeline, gap.from
            ));
        }
        Ok(gap)
    }

    fn key(&self) -> Key {
        let prefix = prefix(self.system_identifier, self.timeline);
        key(format!("{prefix}{}", self.from.to_key()))
    }
}

fn prefix(system_identifier: SystemIdentifier, timeline: TimelineId) -> String {
    let timeline = ChainId::timeline_prefix(system_identifier, timeline);
    format!("{timeline}gap/")
}

/// Records that log is lost. The first record about a position stays; recording again succeeds.
///
/// # Errors
///
/// [`Error::Store`] if it is not certain that a record is there.
pub async fn record_gap(
    store: &dyn ObjectStore,
    gap: &GapRecord,
    patience: Patience,
) -> Result<(), Error> {
    publish(store, gap.key(), gap.to_bytes(), patience)
        .await
        .map(drop)
        .map_err(|error| Error::store(format!("timeline {}", gap.timeline), error))
}

/// Returns the recorded gaps of all timelines of a cluster of which some is still missing, in order: `from` and `to` are
/// what is missing now.
///
/// # Errors
///
/// [`Error::Corrupt`] is not among them: a record that cannot be read says that something is lost from its position on.
pub async fn open_gaps(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
    patience: Patience,
) -> Result<Vec<GapRecord>, Error> {
    let subject = || format!("cluster {system_identifier}");
    let failed = |error| Error::store(subject(), error);
    let timelines = timelines(store, system_identifier).await.map_err(failed)?;
    let mut open = Vec::new();
    for timeline in timelines {
        open.extend(open_gaps_of(store, system_identifier, timeline, patience).await?);
    }
    Ok(open)
}

/// As [`open_gaps`], of one timeline.
pub async fn open_gaps_of(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    patience: Patience,
) -> Result<Vec<GapRecord>, Error> {
    let failed = |error| Error::store(format!("cluster {system_identifier}"), error);
    let mut open = Vec::new();
    for from in recorded(store, system_identifier, timeline, patience).await? {
        let key = key(format!(
            "{}{}",
            prefix(system_identifier, timeline),
            from.to_key()
        ));
        let Some(bytes) = read(store, &key, patience).await.map_err(failed)? else {
            continue;
        };
        let gap = GapRecord::from_bytes(&bytes, system_identifier, timeline, from);
        let gap = gap.unwrap_or_else(|why| GapRecord {
            version: FORMAT_VERSION,
            system_identifier,
            timeline,
            from,
            to: None,
            found_at: Timestamp::UNIX_EPOCH,
            by: "unknown".to_owned(),
            why: format!("its record cannot be read: {why}"),
        });
        open.extend(still_missing(store, gap, patience).await?);
    }
    Ok(open)
}

/// Returns the positions of the records of one timeline.
async fn recorded(
    store: &dyn ObjectStore,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    patience: Patience,
) -> Result<Vec<Lsn>, Error> {
    let found = positions(store, &prefix(system_identifier, timeline), patience).await;
    found.map_err(|error| Error::store(format!("cluster {system_identifier}"), error))
}

/// Compares a record with what is there.
async fn still_missing(
    store: &dyn ObjectStore,
    mut gap: GapRecord,
    patience: Patience,
) -> Result<Option<GapRecord>, Error> {
    let (cluster, timeline) = (gap.system_identifier, gap.timeline);
    let outer = bounds(store, cluster, timeline, patience).await?;
    // Without a known end it is as long as nothing is there behind its beginning.
    let to = gap
        .to
        .or(outer.map(|outer| outer.to).filter(|end| gap.from < *end));
    let Some(to) = to else { return Ok(Some(gap)) };
    let held = available(
        store,
        Section::new(cluster, timeline, gap.from, to),
        patience,
    )
    .await?;
    let mut reached = gap.from;
    for part in &held {
        if part.from > reached {
            break;
        }
        reached = reached.max(part.to);
    }
    if reached >= to {
        return Ok(None);
    }
    gap.from = reached;
    let next = held
        .iter()
        .map(|part| part.from)
        .find(|from| *from > reached);
    gap.to = next.or(gap.to);
    Ok(Some(gap))
}
