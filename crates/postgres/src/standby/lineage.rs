//! Where the history of an old primary parts from that of the present one. Pure.

use dr_model::{Lsn, TimelineId};

use crate::wal::TimelineHistory;

/// The last position that two histories have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parting {
    /// The timeline on which it lies.
    pub(crate) timeline: TimelineId,
    /// The position; `None` if the present history goes on along all of the old one, however long that is.
    pub(crate) at: Option<Lsn>,
}

/// Finds where `old` leaves `present`; `None` if they have no timeline in common.
pub(crate) fn parting(old: &TimelineHistory, present: &TimelineHistory) -> Option<Parting> {
    let ends = |history: &TimelineHistory| {
        let ancestors = history.ancestors().iter();
        let mut ends: Vec<(TimelineId, Option<Lsn>)> = ancestors
            .map(|ancestor| (ancestor.timeline, Some(ancestor.end)))
            .collect();
        ends.push((history.timeline(), None));
        ends
    };
    let mut last = None;
    for (one, other) in ends(old).into_iter().zip(ends(present)) {
        if one.0 != other.0 {
            break;
        }
        let at = match (one.1, other.1) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        last = Some(Parting {
            timeline: one.0,
            at,
        });
        if one.1 != other.1 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// A history whose timelines each end where the next begins.
    fn history(ancestors: &[(u32, u64)], timeline: u32) -> TimelineHistory {
        let lines: Vec<String> = ancestors
            .iter()
            .map(|(timeline, end)| format!("{timeline}\t{}\tpromoted\n", Lsn(*end)))
            .collect();
        TimelineHistory::parse(TimelineId(timeline), lines.concat().as_bytes()).unwrap()
    }

    #[rstest]
    #[case::promoted_elsewhere(history(&[], 1), history(&[(1, 500)], 2), 1, Some(500))]
    #[case::the_same(history(&[(1, 500)], 2), history(&[(1, 500)], 2), 2, None)]
    #[case::twice(history(&[(1, 500)], 2), history(&[(1, 500), (2, 900)], 3), 2, Some(900))]
    #[case::both_promoted(history(&[(1, 500)], 2), history(&[(1, 400)], 3), 1, Some(400))]
    #[case::passed_over(history(&[(1, 500)], 2), history(&[(1, 500)], 3), 1, Some(500))]
    #[case::behind(history(&[(1, 500), (2, 900)], 3), history(&[(1, 500)], 2), 2, Some(900))]
    fn the_last_common_position(
        #[case] old: TimelineHistory,
        #[case] present: TimelineHistory,
        #[case] timeline: u32,
        #[case] at: Option<u64>,
    ) {
        let expected = Parting {
            timeline: TimelineId(timeline),
            at: at.map(Lsn),
        };
        assert_eq!(parting(&old, &present), Some(expected));
    }

    #[test]
    fn strangers_have_none() {
        assert_eq!(parting(&history(&[], 1), &history(&[], 2)), None);
    }
}
