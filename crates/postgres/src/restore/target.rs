//! How a position in the log relates to time.
//!
//! Recovery to a time ends before the first commit that is later, and fails if there is none. So a time after the last
//! commit is a different target: the end of the log, if that is known to cover the time, and otherwise none at all.

use std::sync::Arc;

use dr_coordination::chain::{chains, summarise};
use dr_model::SystemIdentifier;
use dr_provider::{ObjectStore, Result};
use jiff::Timestamp;

use super::settings::Stop;
use crate::archive::Reach;
use crate::register::patience;

/// Chunks looked at for one that held all that the primary had.
const HEADERS: usize = 256;

/// What is known of the time at the end of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogTimes {
    /// The last commit in it.
    pub(super) last_commit_at: Option<Timestamp>,
    /// The newest instant of which everything is in it.
    pub(super) covered_at: Option<Timestamp>,
}

impl LogTimes {
    /// Returns what a recovery to `at` stops at; `None` if the log is not known to reach that far.
    ///
    /// An exclusive one leaves out the commits of that very instant too.
    pub(super) fn stop(&self, at: Timestamp, inclusive: bool) -> Option<Stop> {
        match self.last_commit_at {
            Some(commit) if commit > at || (!inclusive && commit == at) => Some(Stop::Time(at)),
            _ if self.covered_at.is_none_or(|covered| covered < at) => None,
            // There is no commit in all of it, before the instant or after it.
            _ => Some(Stop::EndOfLog),
        }
    }

    /// Returns the newest moment that is known to be in the log.
    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.last_commit_at.max(self.covered_at)
    }

    /// Says how far it is known to reach.
    pub(super) fn describe(&self) -> String {
        match self.newest() {
            Some(at) => format!("which is known to reach {at}"),
            None => "of which no time is known".to_owned(),
        }
    }
}

/// Reads the time up to which the chunks' headers say that everything is in the log, which ends at `reach`.
pub(super) async fn covered_at(
    store: &Arc<dyn ObjectStore>,
    cluster: SystemIdentifier,
    reach: &Reach,
) -> Result<Option<Timestamp>> {
    let mut covered = None;
    let chains = chains(&**store, cluster).await?;
    for chain in chains
        .iter()
        .filter(|chain| chain.timeline == reach.timeline)
    {
        let summary = summarise(&**store, chain, HEADERS, patience()).await?;
        if let Some(summary) = summary.filter(|summary| summary.end == reach.end) {
            covered = covered.max(summary.covered_at);
        }
    }
    Ok(covered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn time(second: i64) -> Option<Stop> {
        Some(Stop::Time(at(second)))
    }

    #[rstest]
    #[case::before_the_last_commit(Some(20), Some(15), 10, true, time(10))]
    #[case::at_the_last_commit(Some(20), Some(25), 20, true, Some(Stop::EndOfLog))]
    #[case::without_the_last_commit(Some(20), Some(25), 20, false, time(20))]
    #[case::after_it_and_covered(Some(20), Some(25), 25, false, Some(Stop::EndOfLog))]
    #[case::after_everything(Some(20), Some(25), 26, true, None)]
    #[case::last_commit_not_covered(Some(20), Some(15), 20, true, None)]
    #[case::nothing_known(None, None, 1, true, None)]
    #[case::no_commit(None, Some(25), 10, true, Some(Stop::EndOfLog))]
    fn a_time_is_reached_or_refused(
        #[case] commit: Option<i64>,
        #[case] covered: Option<i64>,
        #[case] target: i64,
        #[case] inclusive: bool,
        #[case] stop: Option<Stop>,
    ) {
        let times = LogTimes {
            last_commit_at: commit.map(at),
            covered_at: covered.map(at),
        };
        assert_eq!(times.stop(at(target), inclusive), stop);
    }
}
