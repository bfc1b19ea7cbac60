//! Deciding which log is needed, timeline by timeline along the ancestry.
//!
//! A recovery point needs the log from its start on: on its own timeline, and on every timeline that forked off after it was
//! consistent. One from before the time of which any moment can be restored needs no more than what makes it consistent.
//! A timeline whose history is not known keeps all of its log.

use std::collections::BTreeSet;
use std::sync::Arc;

use dr_coordination::chain::{
    LogExpired, LogExpiry, Needed, Span, chains, expire_log, newest_chain, plan_log_expiry,
    read_history,
};
use dr_model::{Lsn, RegionName, SystemIdentifier, TimelineId};
use dr_provider::driver::{ExpiredLog, ExpiryPlan};
use dr_provider::{ObjectStore, Result};
use jiff::Timestamp;

use super::OPERATION;
use crate::backup::Base;
use crate::driver::PostgresDriver;
use crate::register::patience;
use crate::wal::TimelineHistory;

pub(super) type LogPlan = LogExpiry;

/// A recovery point whose manifest stays for now.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) base: Base,
    /// Whether it is kept, and not only waiting for its end.
    pub(super) listed: bool,
    /// Whether nothing is known to be wrong with it.
    pub(super) sound: bool,
    /// Whether somebody is restoring it.
    pub(super) read: bool,
}

/// How much log a recovery point needs.
#[derive(Clone, Debug)]
struct Need<'a> {
    base: &'a Base,
    /// Whether it needs everything that follows, too.
    onwards: bool,
}

impl PostgresDriver {
    /// Plans what of the log goes.
    pub(super) async fn plan_log(
        &self,
        store: &Arc<dyn ObjectStore>,
        cluster: SystemIdentifier,
        standing: &[Standing],
        since: Option<Timestamp>,
        plan: &mut ExpiryPlan,
    ) -> Result<Vec<LogPlan>> {
        let Some(size) = standing.first().map(|one| one.base.source.segment_bytes) else {
            plan.log_kept
                .push("every timeline: no recovery point says what is needed, or one is being brought here".to_owned());
            return Ok(Vec::new());
        };
        let needs = needs(standing, since);
        let timelines: BTreeSet<TimelineId> = chains(&**store, cluster)
            .await?
            .iter()
            .map(|chain| chain.timeline)
            .collect();
        let newest = newest_chain(&**store, cluster).await?;
        let mut plans = Vec::new();
        for timeline in timelines {
            let history = match read_history(&**store, cluster, timeline).await? {
                Some(content) => match TimelineHistory::parse(timeline, &content) {
                    Ok(history) => history,
                    Err(error) => {
                        let what =
                            format!("timeline {timeline}: its history cannot be read: {error}");
                        plan.log_kept.push(what);
                        continue;
                    }
                },
                None if timeline.0 == 1 => TimelineHistory::root(timeline),
                None => {
                    let what = format!("timeline {timeline}: its history file is not in the store");
                    plan.log_kept.push(what);
                    continue;
                }
            };
            let needed = needed(&needs, &history);
            if needed.from.is_none() && newest.as_ref().is_some_and(|n| n.timeline == timeline) {
                let what = format!(
                    "timeline {timeline}: it is the newest, and no recovery point leads to it"
                );
                plan.log_kept.push(what);
                continue;
            }
            let expiry =
                plan_log_expiry(&**store, cluster, timeline, size, &needed, patience()).await?;
            if expiry.pieces.is_empty() {
                continue;
            }
            plan.log.push(ExpiredLog {
                timeline,
                start: expiry.start,
                pieces: expiry.pieces.len() as u64,
                log_bytes: expiry.log_bytes(),
            });
            plans.push(expiry);
        }
        Ok(plans)
    }

    /// Does what was planned of one timeline.
    pub(super) async fn expire_log(
        &self,
        store: &Arc<dyn ObjectStore>,
        region: &RegionName,
        log: &LogPlan,
    ) -> Result<LogExpired> {
        let writer = format!("{OPERATION} {region}");
        let clock = &self.parts().clock;
        Ok(expire_log(&**store, log, clock, &writer, patience()).await?)
    }
}

/// Decides how much log each recovery point needs: everything from the newest good one on that was complete at `since`.
fn needs(standing: &[Standing], since: Option<Timestamp>) -> Vec<Need<'_>> {
    let complete = |one: &&Standing| {
        one.listed && one.sound && since.is_some_and(|since| one.base.source.stopped_at <= since)
    };
    let begin = standing
        .iter()
        .filter(complete)
        .map(|one| one.base.source.stopped_at)
        .max();
    let onwards = |one: &Standing| {
        let young = begin.is_none_or(|begin| one.base.source.stopped_at >= begin);
        one.read || (one.listed && young)
    };
    let need = standing.iter().map(|one| Need {
        base: &one.base,
        onwards: onwards(one),
    });
    need.collect()
}

/// Puts together what is needed of a timeline.
fn needed(needs: &[Need<'_>], history: &TimelineHistory) -> Needed {
    let mut needed = Needed::default();
    for Need { base, onwards } in needs {
        let source = &base.source;
        let own = source.timeline == history.timeline();
        if *onwards && history.covers(source.timeline, source.stop) {
            let from = if own { base.log_start() } else { Lsn::INVALID };
            needed.from = Some(needed.from.map_or(from, |known| known.min(from)));
        }
        if own {
            needed.spans.push(Span {
                from: base.log_start(),
                to: source.stop,
            });
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use dr_model::SegmentSize;
    use rstest::rstest;

    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(hour * 3600).unwrap()
    }

    /// A recovery point of a timeline, begun and complete at an hour, in the middle of the segment of that number.
    fn point(timeline: u32, hour: i64, listed: bool, read: bool) -> Standing {
        let segment = u64::try_from(hour).unwrap() * SIZE.bytes();
        Standing {
            base: Base::for_tests(
                TimelineId(timeline),
                [Lsn(segment + 40), Lsn(segment + 1000)],
                at(hour),
            ),
            listed,
            sound: true,
            read,
        }
    }

    fn of(standing: &[Standing], since: Option<i64>, history: &TimelineHistory) -> Needed {
        needed(&needs(standing, since.map(at)), history)
    }

    fn segment(number: u64) -> Lsn {
        Lsn(number * SIZE.bytes())
    }

    #[rstest]
    #[case::all_from_the_oldest(None, Some(2))]
    #[case::from_the_newest_before_the_window(Some(7), Some(5))]
    #[case::exactly_at_it(Some(5), Some(5))]
    #[case::none_is_that_old(Some(1), Some(2))]
    #[case::the_window_is_younger_than_all(Some(99), Some(9))]
    fn the_window_decides(#[case] since: Option<i64>, #[case] expected: Option<u64>) {
        let root = TimelineHistory::root(TimelineId(1));
        let points = [2, 5, 9].map(|hour| point(1, hour, true, false));
        let needed = of(&points, since, &root);
        assert_eq!(needed.from, expected.map(segment));
        // What makes each consistent stays in any case.
        assert_eq!(needed.spans.len(), 3);
        assert_eq!(needed.spans[0].from, segment(2));
    }

    #[test]
    fn the_window_does_not_begin_with_what_is_broken() {
        let root = TimelineHistory::root(TimelineId(1));
        let mut points = [2, 5, 9].map(|hour| point(1, hour, true, false));
        points[1].sound = false;
        assert_eq!(of(&points, Some(7), &root).from, Some(segment(2)));
    }

    #[test]
    fn what_was_given_up_needs_no_more_than_to_be_consistent_unless_somebody_restores_it() {
        let root = TimelineHistory::root(TimelineId(1));
        let mut points = [point(1, 2, false, false), point(1, 5, true, false)];
        assert_eq!(of(&points, None, &root).from, Some(segment(5)));
        assert_eq!(of(&points, None, &root).spans[0].from, segment(2));
        points[0].read = true;
        assert_eq!(of(&points, None, &root).from, Some(segment(2)));
    }

    #[test]
    fn log_is_needed_along_the_ancestry() {
        let root = TimelineHistory::root(TimelineId(1));
        let fork = segment(6).advance(77);
        let child = root.child(TimelineId(2), fork, "test");
        let sibling = root.child(TimelineId(3), segment(4), "test");
        let before = [point(1, 5, true, false)];
        assert_eq!(of(&before, None, &root).from, Some(segment(5)));
        // All of the child, none of a timeline that left before the recovery point.
        assert_eq!(of(&before, None, &child).from, Some(Lsn::INVALID));
        assert_eq!(of(&before, None, &sibling), Needed::default());
        // A recovery point of the child needs nothing of the parent.
        let after = [point(2, 8, true, false)];
        assert_eq!(of(&after, None, &root), Needed::default());
        assert_eq!(of(&after, None, &child).from, Some(segment(8)));
    }
}
