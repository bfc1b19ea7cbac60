//! What the client wrote down about one commit, and the outage that it sees in them.

use std::time::Duration;

use dr_model::RegionName;
use serde::{Deserialize, Serialize};

/// What the client knows of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was told that the commit is durable. Losing it breaks the promise.
    Acknowledged,
    /// It was told, or knows, that nothing was written.
    Refused,
    /// The commit may or may not have been written.
    Indeterminate,
}

/// One commit as the client saw it. Times are since the start of the sandbox's clock, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its key in the ledger.
    pub id: i64,
    /// The region that it was sent to; `None` if no connection was made.
    pub region: Option<RegionName>,
    /// When the client began.
    pub started_us: u64,
    /// When the client had its outcome.
    pub ended_us: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was not acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Commit {
    /// Makes the key of a client's commit: unique, and readable as both.
    #[must_use]
    pub fn key(client: u16, sequence: u32) -> i64 {
        (i64::from(client) << 32) | i64::from(sequence)
    }
}

/// A time without an acknowledged commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Outage {
    /// The last acknowledgement before, in microseconds of the sandbox's clock.
    pub last_before_us: u64,
    /// The first acknowledgement after.
    pub first_after_us: u64,
}

impl Outage {
    /// Returns its length.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_micros(self.first_after_us - self.last_before_us)
    }
}

/// Finds the longest time without an acknowledgement that ends after the loss of the region.
///
/// Answers `None` if no commit was acknowledged before, or none after: then the outage has no end that was seen.
#[must_use]
pub fn outage(commits: &[Commit], lost_at_us: u64) -> Option<Outage> {
    let mut acknowledged: Vec<u64> = commits
        .iter()
        .filter(|commit| commit.outcome == Outcome::Acknowledged)
        .map(|commit| commit.ended_us)
        .collect();
    acknowledged.sort_unstable();
    acknowledged
        .windows(2)
        .map(|pair| Outage {
            last_before_us: pair[0],
            first_after_us: pair[1],
        })
        .filter(|gap| gap.first_after_us > lost_at_us)
        .max_by_key(Outage::duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(ended_us: u64, outcome: Outcome) -> Commit {
        Commit {
            id: 0,
            region: None,
            started_us: 0,
            ended_us,
            outcome,
            reason: None,
        }
    }

    fn acknowledged(ended: &[u64]) -> Vec<Commit> {
        ended
            .iter()
            .map(|at| commit(*at, Outcome::Acknowledged))
            .collect()
    }

    #[test]
    fn the_outage_is_the_longest_gap_that_ends_after_the_loss() {
        // A pause before the loss does not count, nor does what was refused meanwhile.
        let mut commits = acknowledged(&[0, 5_000, 5_100, 5_300, 7_000, 7_100, 7_500]);
        commits.push(commit(6_000, Outcome::Refused));
        let found = outage(&commits, 5_200).unwrap();
        assert_eq!((found.last_before_us, found.first_after_us), (5_300, 7_000));
    }

    #[test]
    fn an_outage_that_has_not_ended_has_no_length() {
        assert_eq!(outage(&acknowledged(&[0, 100]), 200), None);
        assert_eq!(outage(&[], 0), None);
    }

    #[test]
    fn keys_of_clients_do_not_meet() {
        assert_ne!(Commit::key(1, 0), Commit::key(0, u32::MAX));
        assert_eq!(Commit::key(2, 7), (2 << 32) + 7);
    }
}
