//! A part of a timeline's log, whatever holds it.

use std::fmt;

use dr_model::{Lsn, SystemIdentifier, TimelineId};

/// What is between two positions of a cluster's timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The timeline.
    pub timeline: TimelineId,
    /// Its first position.
    pub from: Lsn,
    /// The position after its last.
    pub to: Lsn,
}

impl Section {
    /// Returns what is from one position up to another.
    #[must_use]
    pub fn new(
        system_identifier: SystemIdentifier,
        timeline: TimelineId,
        from: Lsn,
        to: Lsn,
    ) -> Self {
        Self {
            system_identifier,
            timeline,
            from,
            to,
        }
    }

    /// Returns all that a timeline can hold.
    #[must_use]
    pub fn whole(system_identifier: SystemIdentifier, timeline: TimelineId) -> Self {
        Self::new(system_identifier, timeline, Lsn::INVALID, Lsn(u64::MAX))
    }
}

/// Whose log it is, for messages.
impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cluster, timeline) = (self.system_identifier, self.timeline);
        write!(f, "cluster {cluster}, timeline {timeline}")
    }
}
