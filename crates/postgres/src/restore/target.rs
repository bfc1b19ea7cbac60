//! How a position in the log relates to time.
//!
//! Recovery to a time ends before the first commit that is later, and fails if there is none. So a time after the last
//! commit is a different target: the end of the log, if that is known to cover the time, and otherwise none at all.

use std::sync::Arc;

use dr_coordination::chain::{chains, summarise};
use dr_model::{Lsn, SystemIdentifier};
use dr_provider::{ObjectStore, Result};
use jiff::Timestamp;

use super::settings::Ending;
use crate::archive::Reach;
use crate::register::patience;
use crate::wal::TimelineHistory;

/// Chunks looked at for the last commit. Heartbeats are commits, so that it is found in far fewer.
const HEADERS: usize = 256;

/// What is known of the time at the end of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogTimes {
    /// The last commit in it.
    last_commit_at: Option<Timestamp>,
    /// The newest instant of which everything is in it.
    covered_at: Option<Timestamp>,
}

impl LogTimes {
    /// Returns how a recovery to `at` ends; `None` if the log is not known to reach that far.
    pub(super) fn ending(&self, at: Timestamp, end: Lsn) -> Option<Ending> {
        let through = end;
        match self.last_commit_at {
            Some(commit) if commit > at => Some(Ending::Promote {
                through,
                until: Some(at),
            }),
            _ if self.covered_at.is_none_or(|covered| covered < at) => None,
            Some(_) => Some(Ending::Promote {
                through,
                until: None,
            }),
            // Where the last commit is too far back to be seen, the server finds out, and fails rather than go too far.
            None => Some(Ending::Promote {
                through,
                until: Some(at),
            }),
        }
    }

    /// Says how far it is known to reach.
    pub(super) fn describe(&self) -> String {
        match self.last_commit_at.max(self.covered_at) {
            Some(at) => format!("which is known to reach {at}"),
            None => "of which no time is known".to_owned(),
        }
    }
}

/// Reads the times at the end of a reach from the chunks' headers.
pub(super) async fn log_times(
    store: &Arc<dyn ObjectStore>,
    cluster: SystemIdentifier,
    history: &TimelineHistory,
    reach: &Reach,
) -> Result<LogTimes> {
    let mut times = LogTimes::default();
    for chain in chains(&**store, cluster).await? {
        let of_history = history.covers(chain.timeline, Lsn::INVALID);
        if !of_history || chain.timeline > reach.timeline {
            continue;
        }
        let Some(summary) = summarise(&**store, &chain, HEADERS, patience()).await? else {
            continue;
        };
        if chain.timeline == reach.timeline && summary.end > reach.end {
            continue;
        }
        times.last_commit_at = times.last_commit_at.max(summary.last_commit_at);
        if chain.timeline == reach.timeline && summary.end == reach.end {
            times.covered_at = times.covered_at.max(summary.covered_at);
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const END: Lsn = Lsn(7);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[rstest]
    #[case::before_the_last_commit(Some(20), Some(15), 10, Some(Some(10)))]
    #[case::at_the_last_commit(Some(20), Some(25), 20, Some(None))]
    #[case::after_it_and_covered(Some(20), Some(25), 25, Some(None))]
    #[case::after_everything(Some(20), Some(25), 26, None)]
    #[case::last_commit_not_covered(Some(20), Some(15), 20, None)]
    #[case::nothing_known(None, None, 1, None)]
    #[case::commit_unknown(None, Some(25), 10, Some(Some(10)))]
    fn a_time_is_reached_or_refused(
        #[case] commit: Option<i64>,
        #[case] covered: Option<i64>,
        #[case] target: i64,
        #[case] until: Option<Option<i64>>,
    ) {
        let times = LogTimes {
            last_commit_at: commit.map(at),
            covered_at: covered.map(at),
        };
        let expected = until.map(|until| Ending::Promote {
            through: END,
            until: until.map(at),
        });
        assert_eq!(times.ending(at(target), END), expected);
    }
}
