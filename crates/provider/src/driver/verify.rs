//! Proving that recovery points can be brought back (PROTOCOL 10), and what was proven as it stands in a store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use dr_model::{Lsn, RegionName, TimelineId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ObjectStore, Result};

/// How sure it is that a recovery point can be brought back (PROTOCOL 10), weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// Its manifest stands in the store.
    Committed,
    /// Every byte of it was read back and compared with its hash.
    Hashed,
    /// A server was started from it.
    Booted,
}

/// How a recovery point is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyMeans {
    /// Reads a part of it, chosen by chance; proves nothing of the rest.
    Sample,
    /// Reads all of it, now or lately.
    Hash,
    /// Restores it, starts a server from it, and looks at that.
    Boot,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum VerifyHow {
    /// See [`VerifyMeans::Hash`].
    Hash {
        /// Reads what was read back lately as well.
        again: bool,
    },
    /// See [`VerifyMeans::Sample`].
    Sample {
        /// How much, from 0 to 1.
        share: f64,
    },
    /// See [`VerifyMeans::Boot`].
    Boot {
        /// Where; the place in the configuration if absent.
        scratch: Option<PathBuf>,
    },
}

/// What to prove.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifyRequest {
    /// The region whose store is read, and written.
    pub region: RegionName,
    /// The recovery point, by its label; the newest if absent.
    pub recovery_point: Option<String>,
    /// How.
    pub how: VerifyHow,
}

/// What came of looking at a recovery point, as it stands in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifyRecord {
    /// The version of the record.
    pub version: u32,
    /// The recovery point.
    pub label: String,
    /// How it was looked at.
    pub means: VerifyMeans,
    /// What is wrong with it; `None` if it passed.
    pub failure: Option<String>,
    /// In which region.
    pub region: RegionName,
    /// When it was begun.
    pub began_at: Timestamp,
    /// How long it took.
    pub took_seconds: f64,
    /// Bytes read from the store.
    pub read_bytes: u64,
    /// The packs that were read back as a whole: by the recovery point that they lie under, first and last number of each
    /// run.
    pub read: BTreeMap<String, Vec<(u32, u32)>>,
    /// The packs that were found damaged or missing, written down as those of `read` are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub damaged: BTreeMap<String, Vec<(u32, u32)>>,
    /// The timeline that was followed.
    pub timeline: TimelineId,
    /// What a booted server had replayed.
    pub reached: Option<Lsn>,
    /// The newest heartbeat that it held.
    pub heartbeat_at: Option<Timestamp>,
    /// What was looked at, and what could not be.
    pub checks: Vec<String>,
    /// Who did it.
    pub by: String,
}

/// What came of looking at all that was due.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VerifiedDue {
    /// What came of each.
    pub records: Vec<VerifyRecord>,
    /// Those that cannot be read here, because their keys are not at hand: label, and which key.
    pub unread: Vec<String>,
}

/// A record, by its name alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyMark {
    /// When it was begun.
    pub at: Timestamp,
    /// How.
    pub means: VerifyMeans,
    /// Whether it passed.
    pub passed: bool,
}

/// What is known of one recovery point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proofs {
    /// Oldest first.
    pub marks: Vec<VerifyMark>,
}

impl Proofs {
    /// Returns the best proof that nothing newer speaks against.
    #[must_use]
    pub fn proof(&self) -> Proof {
        let passed = |means| {
            let mut of = self.marks.iter().filter(|mark| mark.means == means);
            of.next_back().is_some_and(|mark| mark.passed)
        };
        if passed(VerifyMeans::Boot) {
            Proof::Booted
        } else if passed(VerifyMeans::Hash) {
            Proof::Hashed
        } else {
            Proof::Committed
        }
    }

    /// Tells whether the last look of any kind found something wrong.
    #[must_use]
    pub fn failed(&self) -> bool {
        !self.failures().is_empty()
    }

    /// Returns the looks that found something wrong and that no later one of their kind speaks against, oldest first. A sample has read
    /// nothing that a later look at all of it has not.
    #[must_use]
    pub fn failures(&self) -> Vec<&VerifyMark> {
        let all = [VerifyMeans::Sample, VerifyMeans::Hash, VerifyMeans::Boot];
        let last = all.into_iter().filter_map(|means| self.last(means));
        let read = self.read_at();
        let is_cleared =
            |mark: &VerifyMark| mark.means == VerifyMeans::Sample && read > Some(mark.at);
        let mut failed: Vec<&VerifyMark> = last
            .filter(|mark| !mark.passed && !is_cleared(mark))
            .collect();
        failed.sort_unstable_by_key(|mark| mark.at);
        failed
    }

    /// Returns when all of it was read back, if the last look that did found it good.
    #[must_use]
    pub fn read_at(&self) -> Option<Timestamp> {
        let last = self.last(VerifyMeans::Hash).filter(|mark| mark.passed);
        last.map(|mark| mark.at)
    }

    /// Returns the last look of a kind.
    #[must_use]
    pub fn last(&self, means: VerifyMeans) -> Option<&VerifyMark> {
        self.marks.iter().rfind(|mark| mark.means == means)
    }
}

/// What a server says to a check that booted recovery points have to pass.
#[derive(Debug)]
pub struct RehearsedCheck {
    /// The query.
    pub query: String,
    /// The database in which it is asked, there and of what is booted.
    pub database: String,
    /// The first column of its first row, which is to be true.
    pub answer: Result<Option<String>>,
}

/// Proves recovery points.
#[async_trait]
pub trait Verify: Send + Sync {
    /// Looks at a recovery point and writes what came of it into the store of the region: a recovery point that is damaged
    /// or does not come up is a record with a failure, not an error. Leaves no server and no files behind.
    async fn verify(&self, request: &VerifyRequest) -> Result<VerifyRecord>;

    /// Looks at those that were not read back lately, newest first.
    async fn verify_due(&self, region: &RegionName) -> Result<VerifiedDue>;

    /// Returns what is known of every recovery point in a store, by label, without reading a record.
    async fn proofs(&self, store: &Arc<dyn ObjectStore>) -> Result<BTreeMap<String, Proofs>>;

    /// Returns the records of one recovery point, oldest first.
    async fn proof_records(
        &self,
        store: &Arc<dyn ObjectStore>,
        recovery_point: &str,
    ) -> Result<Vec<VerifyRecord>>;

    /// Asks the server of a region the checks that a booted recovery point has to pass, each for a few seconds at most. One that
    /// cannot work there would be held against recovery points with which nothing is wrong.
    async fn rehearse_checks(&self, region: &RegionName) -> Vec<RehearsedCheck>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(marks: &[(VerifyMeans, bool)]) -> Proofs {
        let mark = |(number, (means, passed)): (usize, &(VerifyMeans, bool))| VerifyMark {
            at: Timestamp::from_second(i64::try_from(number).unwrap()).unwrap(),
            means: *means,
            passed: *passed,
        };
        Proofs {
            marks: marks.iter().enumerate().map(mark).collect(),
        }
    }

    #[test]
    fn the_last_look_of_a_kind_counts() {
        use VerifyMeans::{Boot, Hash, Sample};
        for (marks, proof, failed) in [
            (&[][..], Proof::Committed, false),
            (&[(Sample, true)], Proof::Committed, false),
            (&[(Hash, true), (Sample, false)], Proof::Hashed, true),
            (&[(Sample, false), (Hash, true)], Proof::Hashed, false),
            (&[(Sample, false), (Hash, false)], Proof::Committed, true),
            (&[(Sample, false), (Boot, true)], Proof::Booted, true),
            (&[(Boot, false), (Hash, true)], Proof::Hashed, true),
            (&[(Boot, true), (Hash, true)], Proof::Booted, false),
            (&[(Hash, true), (Boot, false)], Proof::Hashed, true),
            (&[(Hash, false), (Hash, true)], Proof::Hashed, false),
            (&[(Hash, true), (Hash, false)], Proof::Committed, true),
        ] {
            let known = known(marks);
            assert_eq!(
                (known.proof(), known.failed()),
                (proof, failed),
                "{marks:?}"
            );
        }
    }
}
