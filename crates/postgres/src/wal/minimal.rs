//! Log that nothing can be recovered past: written at `wal_level = minimal`.
//!
//! The level changes only when the server is started, and then the log says so in its first record. From there until a record says
//! another level pages change of which the log says nothing, and a server in recovery stops at the first of the two for good.

use dr_model::Lsn;

use super::Record;
use super::record::WAL_LEVEL_MINIMAL;

/// A time at `wal_level = minimal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinimalTime {
    /// The record that says so.
    pub from: Lsn,
    /// The record that says another level; `None` if none was seen.
    pub to: Option<Lsn>,
}

/// Looks among records for times at `wal_level = minimal`.
#[derive(Clone, Debug)]
pub struct MinimalSearch {
    behind: Lsn,
    times: Vec<MinimalTime>,
}

impl MinimalSearch {
    /// Makes a search that does not care for records which end at `behind` or before.
    #[must_use]
    pub fn new(behind: Lsn) -> Self {
        Self {
            behind,
            times: Vec::new(),
        }
    }

    /// Looks at the next record.
    pub fn see(&mut self, record: &Record) {
        let Some(level) = record.wal_level else {
            return;
        };
        let open = self.times.last_mut().filter(|time| time.to.is_none());
        match open {
            Some(time) if level != WAL_LEVEL_MINIMAL => time.to = Some(record.start),
            None if level == WAL_LEVEL_MINIMAL && record.end > self.behind => {
                self.times.push(MinimalTime {
                    from: record.start,
                    to: None,
                });
            }
            _ => {}
        }
    }

    /// Returns the first that was found so far.
    #[must_use]
    pub fn found(&self) -> Option<MinimalTime> {
        self.times.first().copied()
    }

    /// Returns all that were found so far, in order.
    #[must_use]
    pub fn times(&self) -> &[MinimalTime] {
        &self.times
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const REPLICA: u32 = 1;

    #[rstest]
    #[case::none(0, &[(10, REPLICA), (20, REPLICA)], &[])]
    #[case::closed(0, &[(10, REPLICA), (20, WAL_LEVEL_MINIMAL), (30, WAL_LEVEL_MINIMAL), (40, REPLICA)], &[(20, Some(40))])]
    #[case::open(0, &[(20, WAL_LEVEL_MINIMAL)], &[(20, None)])]
    #[case::two(
        0,
        &[(20, WAL_LEVEL_MINIMAL), (40, REPLICA), (45, REPLICA), (50, WAL_LEVEL_MINIMAL), (60, REPLICA)],
        &[(20, Some(40)), (50, Some(60))]
    )]
    #[case::before(28, &[(20, WAL_LEVEL_MINIMAL), (40, REPLICA)], &[])]
    #[case::only_begun_before(24, &[(20, WAL_LEVEL_MINIMAL), (40, REPLICA)], &[(20, Some(40))])]
    fn a_time_lasts_from_the_record_that_begins_it_to_the_one_that_ends_it(
        #[case] behind: u64,
        #[case] levels: &[(u64, u32)],
        #[case] expected: &[(u64, Option<u64>)],
    ) {
        let mut search = MinimalSearch::new(Lsn(behind));
        for (start, level) in levels {
            search.see(&Record {
                start: Lsn(*start),
                end: Lsn(start + 8),
                resource_manager: 0,
                info: 0x60,
                transaction: 0,
                committed_at: None,
                ending: None,
                next_transaction: None,
                restore_point: None,
                wal_level: Some(*level),
                relation: None,
                created_tablespace: None,
            });
        }
        let times = search.times().iter();
        let found: Vec<_> = times
            .map(|time| (time.from.0, time.to.map(|to| to.0)))
            .collect();
        assert_eq!(search.found(), search.times().first().copied());
        assert_eq!(found, expected);
    }
}
