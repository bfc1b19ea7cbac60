//! Which chain, and the keys of its objects.

use std::fmt;

use dr_model::{Epoch, Lsn, SystemIdentifier, TimelineId};
use dr_provider::Key;

use crate::operation::key;

/// Names the chain of one epoch on one timeline of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId {
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The timeline.
    pub timeline: TimelineId,
    /// The epoch whose primary wrote the log.
    pub epoch: Epoch,
}

impl ChainId {
    /// Returns the prefix of all timelines of a cluster.
    pub(crate) fn cluster_prefix(system_identifier: SystemIdentifier) -> String {
        format!("postgres/{system_identifier}/wal/")
    }

    /// Returns the prefix of all chains of a timeline.
    pub(crate) fn timeline_prefix(
        system_identifier: SystemIdentifier,
        timeline: TimelineId,
    ) -> String {
        format!(
            "{}{}/",
            Self::cluster_prefix(system_identifier),
            timeline.to_key()
        )
    }

    /// Returns the key of a timeline's history file.
    #[must_use]
    pub fn history_key(system_identifier: SystemIdentifier, timeline: TimelineId) -> Key {
        key(format!(
            "{}history",
            Self::timeline_prefix(system_identifier, timeline)
        ))
    }

    /// Returns the prefix of the chain's objects, with `/` at its end.
    #[must_use]
    pub fn prefix(&self) -> String {
        let timeline = Self::timeline_prefix(self.system_identifier, self.timeline);
        format!("{timeline}part/{}/", self.epoch.to_key())
    }

    /// Returns the key of the chain's origin.
    #[must_use]
    pub fn origin_key(&self) -> Key {
        key(format!("{}origin", self.prefix()))
    }

    /// Returns the key at which a chunk or seal at `lsn` stands.
    #[must_use]
    pub fn link_key(&self, lsn: Lsn) -> Key {
        key(format!("{}{}", self.prefix(), lsn.to_key()))
    }

    /// Reads any key of a chain: the chain that it belongs to.
    pub(crate) fn from_key(key: &Key) -> Option<Self> {
        let mut parts = key.as_str().split('/');
        let mut part = || parts.next();
        if part()? != "postgres" {
            return None;
        }
        let system_identifier = part()?.parse().ok()?;
        if part()? != "wal" {
            return None;
        }
        let timeline = u32::from_str_radix(part()?, 16).ok().map(TimelineId)?;
        if part()? != "part" {
            return None;
        }
        let epoch = part()?.parse().ok().map(Epoch)?;
        Some(Self {
            system_identifier,
            timeline,
            epoch,
        })
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cluster {}, timeline {}, epoch {}",
            self.system_identifier, self.timeline, self.epoch
        )
    }
}
