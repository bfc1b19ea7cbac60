//! What a process has seen of a register: the records of its newest walk that nothing contradicted, which never change.

use std::time::Duration;

use tokio::time::Instant;

use super::EpochRecord;

/// The records that were walked, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Walked {
    records: Vec<EpochRecord>,
    /// When the walk began: what it saw is as old as that.
    began_at: Option<Instant>,
}

impl Walked {
    /// Returns the records.
    pub(super) fn records(&self) -> &[EpochRecord] {
        &self.records
    }

    /// Takes in what a walk saw that began at `began_at`. One that began earlier may end later, and has seen less.
    pub(super) fn take(&mut self, records: &[EpochRecord], began_at: Instant) {
        if records.len() >= self.records.len() {
            self.records = records.to_vec();
            self.began_at = self.began_at.max(Some(began_at));
        }
    }

    /// Returns the newest record if it was seen no longer ago than `limit`.
    pub(super) fn lately(&self, limit: Duration) -> Option<&EpochRecord> {
        let is_recent = self.began_at.is_some_and(|at| at.elapsed() <= limit);
        self.records.last().filter(|_| is_recent)
    }
}
