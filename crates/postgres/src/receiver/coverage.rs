//! Since when everything the primary had is safe.
//!
//! Each message of the server says where its WAL ends. Once the durable position reaches that end, everything the
//! primary had at the time of the message is safe; exposure is measured from there (PROTOCOL 10). Keepalives count, so
//! that an idle database is not a breach.

use std::collections::VecDeque;

use dr_model::Lsn;
use jiff::Timestamp;

/// Reports kept at most; beyond that the newer half is thinned out, which can only make coverage look older than it is.
const REPORTS: usize = 1024;

/// Follows reports and durability.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    reports: VecDeque<(Lsn, Timestamp)>,
    covered_at: Option<Timestamp>,
}

impl Coverage {
    /// Notes that the primary's WAL ended at `end` at its time `at`.
    pub(crate) fn reported(&mut self, end: Lsn, at: Timestamp) {
        if let Some(last) = self.reports.back_mut()
            && last.0 == end
        {
            last.1 = at;
            return;
        }
        if self.reports.len() == REPORTS {
            let mut keep = false;
            self.reports.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.reports.push_back((end, at));
    }

    /// Notes that everything before `end` is durable, and returns since when all is covered.
    pub(crate) fn durable(&mut self, end: Lsn) -> Option<Timestamp> {
        while let Some(&(reported, at)) = self.reports.front() {
            if reported > end {
                break;
            }
            self.covered_at = Some(at);
            // The last report stays: an idle primary repeats it with a newer time.
            if self.reports.len() == 1 {
                break;
            }
            self.reports.pop_front();
        }
        self.covered_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn covers_what_is_durable_and_no_more() {
        let mut coverage = Coverage::default();
        assert_eq!(coverage.durable(Lsn(10)), None);
        coverage.reported(Lsn(10), at(1));
        coverage.reported(Lsn(20), at(2));
        assert_eq!(coverage.durable(Lsn(9)), None);
        assert_eq!(coverage.durable(Lsn(10)), Some(at(1)));
        assert_eq!(coverage.durable(Lsn(19)), Some(at(1)));
        assert_eq!(coverage.durable(Lsn(20)), Some(at(2)));
    }

    #[test]
    fn an_idle_primary_stays_covered() {
        let mut coverage = Coverage::default();
        coverage.reported(Lsn(10), at(1));
        assert_eq!(coverage.durable(Lsn(10)), Some(at(1)));
        coverage.reported(Lsn(10), at(5));
        assert_eq!(coverage.durable(Lsn(10)), Some(at(5)));
    }

    #[test]
    fn thinning_never_makes_coverage_newer() {
        let mut coverage = Coverage::default();
        for n in 1..=5000 {
            coverage.reported(Lsn(n), at(i64::try_from(n).unwrap()));
        }
        for n in 1..=5000 {
            let covered = coverage.durable(Lsn(n)).map_or(0, Timestamp::as_second);
            assert!(covered <= i64::try_from(n).unwrap());
        }
    }
}
