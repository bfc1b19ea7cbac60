//! The verdict: what was acknowledged, compared with what the recovered database holds.
//!
//! Losing the newest commits is the price of asynchronous replication, and it is a *suffix*: if a commit is lost,
//! nothing that began after its acknowledgement may have survived from the same region. Where something did, the log
//! has a *hole*, and no setting makes that acceptable.

use std::collections::{BTreeMap, BTreeSet};

use dr_model::RegionName;

use crate::ledger::{Commit, Outcome};

/// What the comparison showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Commits that the client was told are durable.
    pub acknowledged: usize,
    /// Commits of which the client knows nothing.
    pub indeterminate: usize,
    /// Commits that the client was told were not written.
    pub refused: usize,
    /// Acknowledged commits that the recovered database holds.
    pub recovered: usize,
    /// Indeterminate commits that it holds.
    pub indeterminate_found: usize,
    /// Acknowledged commits that it does not hold, in the order of acknowledgement.
    pub lost: Vec<Commit>,
    /// Lost commits after whose acknowledgement another began that survived.
    pub holes: Vec<Hole>,
    /// Commits that the client was told were not written and that are there all the same.
    pub refused_found: Vec<i64>,
}

/// A lost commit with the proof that it is not part of the lost suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The lost commit.
    pub lost: i64,
    /// A commit of the same region that began after the lost one was acknowledged, and survived.
    pub survivor: i64,
}

/// Looks every commit up in `found`, the ids in the recovered database.
///
/// Order is taken as the client can know it: two commits that overlapped in time may have been written in either order,
/// so only a commit that *began after* the acknowledgement of another is later than it. Commits of different regions
/// are not compared, since what the new primary writes after the failover always survives.
#[must_use]
pub fn judge(commits: &[Commit], found: &BTreeSet<i64>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut last_survivor: BTreeMap<Option<&RegionName>, (u64, i64)> = BTreeMap::new();
    for commit in commits {
        let survived = found.contains(&commit.id);
        match commit.outcome {
            Outcome::Acknowledged => {
                verdict.acknowledged += 1;
                if survived {
                    verdict.recovered += 1;
                } else {
                    verdict.lost.push(commit.clone());
                }
            }
            Outcome::Indeterminate => {
                verdict.indeterminate += 1;
                verdict.indeterminate_found += usize::from(survived);
            }
            Outcome::Refused => {
                verdict.refused += 1;
                if survived {
                    verdict.refused_found.push(commit.id);
                }
            }
        }
        if survived {
            let candidate = (commit.started_us, commit.id);
            let last = last_survivor
                .entry(commit.region.as_ref())
                .or_insert(candidate);
            *last = (*last).max(candidate);
        }
    }
    verdict.lost.sort_by_key(|commit| commit.ended_us);
    verdict.holes = verdict
        .lost
        .iter()
        .filter_map(|lost| {
            let (started, survivor) = last_survivor.get(&lost.region.as_ref())?;
            (*started > lost.ended_us).then_some(Hole {
                lost: lost.id,
                survivor: *survivor,
            })
        })
        .collect();
    verdict
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn commit(id: i64, started_us: u64, ended_us: u64, outcome: Outcome) -> Commit {
        let region = Some("us-east-1".parse().unwrap());
        Commit {
            id,
            region,
            started_us,
            ended_us,
            outcome,
            reason: None,
        }
    }

    fn acknowledged(id: i64, started_us: u64, ended_us: u64) -> Commit {
        commit(id, started_us, ended_us, Outcome::Acknowledged)
    }

    #[test]
    fn a_lost_suffix_has_no_hole() {
        let commits = [
            acknowledged(1, 0, 10),
            acknowledged(2, 11, 20),
            acknowledged(3, 21, 30),
        ];
        let verdict = judge(&commits, &[1].into());
        assert_eq!((verdict.acknowledged, verdict.recovered), (3, 1));
        assert_eq!(
            verdict.lost.iter().map(|c| c.id).collect::<Vec<_>>(),
            [2, 3]
        );
        assert_eq!(verdict.holes, []);
    }

    #[test]
    fn a_survivor_that_began_later_makes_a_hole() {
        let commits = [
            acknowledged(1, 0, 10),
            acknowledged(2, 11, 20),
            acknowledged(3, 21, 30),
        ];
        let verdict = judge(&commits, &[1, 3].into());
        assert_eq!(
            verdict.holes,
            [Hole {
                lost: 2,
                survivor: 3
            }]
        );
    }

    #[test]
    fn overlapping_commits_may_have_been_written_in_either_order() {
        // The second began before the first was acknowledged: it may stand before it in the log.
        let commits = [acknowledged(1, 0, 10), acknowledged(2, 9, 20)];
        let verdict = judge(&commits, &[2].into());
        assert_eq!((verdict.lost.len(), verdict.holes.len()), (1, 0));
    }

    #[test]
    fn an_indeterminate_survivor_proves_a_hole_too() {
        let commits = [
            acknowledged(1, 0, 10),
            commit(2, 11, 900, Outcome::Indeterminate),
        ];
        let verdict = judge(&commits, &[2].into());
        assert_eq!((verdict.indeterminate, verdict.indeterminate_found), (1, 1));
        assert_eq!(
            verdict.holes,
            [Hole {
                lost: 1,
                survivor: 2
            }]
        );
    }

    #[test]
    fn what_the_new_primary_wrote_says_nothing_of_the_old() {
        let mut later = acknowledged(2, 500, 510);
        later.region = Some("us-west-2".parse().unwrap());
        let verdict = judge(&[acknowledged(1, 0, 10), later], &[2].into());
        assert_eq!((verdict.lost.len(), verdict.holes.len()), (1, 0));
    }

    #[test]
    fn a_refused_commit_that_is_there_is_named() {
        let verdict = judge(&[commit(1, 0, 10, Outcome::Refused)], &[1].into());
        assert_eq!(verdict.refused_found, [1]);
    }

    proptest! {
        /// Whatever the overlaps, keeping a prefix of the order in which commits were written leaves no hole.
        #[test]
        fn any_prefix_of_the_written_order_is_free_of_holes(
            spans in prop::collection::vec((0_u64..50, 0_u64..50), 1..60),
            keep in 0_usize..60,
        ) {
            // A commit is written at one moment within its span.
            let mut written: Vec<(u64, Commit)> = Vec::new();
            for (number, (before, after)) in spans.into_iter().enumerate() {
                let moment = 100 + number as u64 * 7;
                let id = i64::try_from(number).unwrap();
                written.push((moment, acknowledged(id, moment - before, moment + after)));
            }
            written.sort_by_key(|(moment, _)| *moment);
            let found = written.iter().take(keep).map(|(_, c)| c.id).collect();
            let commits: Vec<Commit> = written.iter().map(|(_, c)| c.clone()).collect();
            prop_assert_eq!(judge(&commits, &found).holes, vec![]);
        }
    }
}
