//! Which log a store holds along the history of a timeline (R27, R28).
//!
//! A server that recovers along a history reads the segment in which a timeline begins from that timeline, whose chain
//! therefore has to begin with it; everything before comes from the ancestor.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use dr_coordination::chain::{
    self, Available, ChainId, Section, available, bounds, chains, examine, read_history, timelines,
};
use dr_model::{Lsn, SegmentSize, SystemIdentifier, TimelineId};
use dr_provider::driver::LogStretch;
use dr_provider::{Error, ErrorKind, ObjectStore, Result};
use dr_repository::Keys;

use crate::register::patience;
use crate::wal::TimelineHistory;

const OPERATION: &str = "follow the log of";

/// The log of a cluster in a store.
#[derive(Debug)]
pub(crate) struct Held {
    location: String,
    /// Pieces that hang together, by timeline, each in order.
    pieces: BTreeMap<TimelineId, Vec<Available>>,
    /// Where the log of each timeline ends, whatever is missing of it.
    ends: BTreeMap<TimelineId, Lsn>,
    histories: BTreeMap<TimelineId, TimelineHistory>,
    /// The timelines of all chains, newest epoch first.
    newest: Vec<TimelineId>,
    /// What was looked at closely and is there, by timeline.
    proven: BTreeMap<TimelineId, Vec<Available>>,
    /// Log that was found not to be there although its name is, one line each.
    damage: Vec<String>,
}

/// How far the log of a history hangs together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The timeline on which it ends.
    pub(crate) timeline: TimelineId,
    /// Where it ends.
    pub(crate) end: Lsn,
    /// What ended it before the end of the newest log; `None` if nothing.
    pub(crate) hole: Option<Hole>,
}

/// Log that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) timeline: TimelineId,
    pub(crate) from: Lsn,
    /// Where the log goes on; `None` if it does not.
    pub(crate) to: Option<Lsn>,
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the log of timeline {} is missing from {}",
            self.timeline, self.from
        )?;
        match self.to {
            Some(to) => write!(f, " to {to}"),
            None => f.write_str(" on"),
        }
    }
}

impl Held {
    /// Looks at what the store holds of the cluster's log from `since` on: every position by the object that holds it. What a
    /// piece holds is taken from its name; [`prove`](Self::prove) looks closer.
    pub(crate) async fn read(
        store: &Arc<dyn ObjectStore>,
        cluster: SystemIdentifier,
        since: Lsn,
    ) -> Result<Self> {
        let mut found: Vec<ChainId> = chains(&**store, cluster).await?;
        found.sort_unstable_by_key(|chain| std::cmp::Reverse((chain.epoch, chain.timeline)));
        let mut held = Self {
            location: store.location().to_owned(),
            pieces: BTreeMap::new(),
            ends: BTreeMap::new(),
            histories: BTreeMap::new(),
            newest: Vec::new(),
            proven: BTreeMap::new(),
            damage: Vec::new(),
        };
        for ChainId { timeline, .. } in found {
            if !held.newest.contains(&timeline) {
                held.newest.push(timeline);
            }
        }
        // One that came and went unseen has no chain: what was pushed of it later stands in pieces.
        let mut all = timelines(&**store, cluster).await?;
        all.retain(|timeline| !held.newest.contains(timeline));
        all.splice(..0, held.newest.iter().copied());
        for timeline in all {
            if let Some(outer) = bounds(&**store, cluster, timeline, patience()).await? {
                held.ends.insert(timeline, outer.to);
                let (from, to) = (since.max(outer.from), outer.to);
                if from < to {
                    let pieces = available(
                        &**store,
                        Section::new(cluster, timeline, from, to),
                        patience(),
                    );
                    held.pieces.insert(timeline, pieces.await?);
                }
            }
            let history = match read_history(&**store, cluster, timeline).await? {
                Some(content) => TimelineHistory::parse(timeline, &content).map_err(|error| {
                    Error::new(ErrorKind::Corrupt, OPERATION, cluster.to_string()).because(error)
                })?,
                None if timeline.0 == 1 => TimelineHistory::root(timeline),
                None => continue,
            };
            held.histories.insert(timeline, history);
        }
        Ok(held)
    }

    /// Looks closer at some of it: at the header of each object, and whether all that it speaks of is there. Tells whether it is;
    /// what is not is left out from then on. Fails if it is encrypted with a key that is not at hand.
    pub(crate) async fn prove(
        &mut self,
        (store, keys): (&Arc<dyn ObjectStore>, &Keys),
        cluster: SystemIdentifier,
        log: &[LogStretch],
    ) -> Result<bool> {
        let mut is_whole = true;
        for LogStretch { timeline, from, to } in log.iter().copied() {
            let proven = self.proven.entry(timeline).or_default();
            if proven.iter().any(|part| part.from <= from && to <= part.to) {
                continue;
            }
            let section = Section::new(cluster, timeline, from, to);
            let seen = examine(&**store, section, keys, patience()).await?;
            proven.extend(seen.readable);
            match seen.whole {
                Ok(()) => {}
                // Nothing is wrong with what another key opens, so that there is no way around it.
                Err(locked @ chain::Error::Locked { .. }) => return Err(locked.into()),
                Err(error) => {
                    is_whole = false;
                    self.damage.push(error.to_string());
                    let known = self.pieces.entry(timeline).or_default();
                    *known = replaced(known, Available { from, to }, seen.there);
                }
            }
        }
        Ok(is_whole)
    }

    /// Returns what was found not to be there although its name is.
    pub(crate) fn damage(&self) -> &[String] {
        &self.damage
    }

    /// Returns the timeline of the newest epoch that has written anything of its own.
    ///
    /// The chain of a timeline begins with a copy of its parent's last segment: one that ends before the fork adds
    /// nothing.
    pub(crate) fn newest_timeline(&self) -> Option<TimelineId> {
        let adds = |timeline: &TimelineId| {
            let begin = self
                .histories
                .get(timeline)
                .and_then(TimelineHistory::begin);
            let end = self.ends.get(timeline);
            end.is_some_and(|end| begin.is_none_or(|begin| begin < *end))
        };
        self.newest.iter().copied().find(adds)
    }

    /// Returns the history of a timeline.
    pub(crate) fn history(&self, timeline: TimelineId) -> Result<&TimelineHistory> {
        self.histories.get(&timeline).ok_or_else(|| {
            Error::new(ErrorKind::Failed, OPERATION, format!("timeline {timeline}"))
                .because(format!("its history file is not in {}", self.location))
                .with_hint(
                    "the receiver of a region stores it when it reaches a primary on this timeline",
                )
        })
    }

    /// Follows the log from `from`, the start of a segment on timeline `on`, along `history` as far as it hangs together.
    ///
    /// `on` must be of this history.
    pub(crate) fn reach(
        &self,
        history: &TimelineHistory,
        on: TimelineId,
        from: Lsn,
        segment_size: SegmentSize,
    ) -> Reach {
        let mut at = from;
        for ancestor in history
            .ancestors()
            .iter()
            .filter(|ancestor| ancestor.timeline >= on)
        {
            let until = segment_size.start_of(ancestor.end);
            if at >= until {
                continue;
            }
            match self.piece_at(ancestor.timeline, at) {
                Ok(piece) if piece.to >= until => at = until,
                // A fork ends the ancestor's log before the end that its own chain has.
                Ok(piece) => return self.ended(ancestor.timeline, piece.to.min(ancestor.end)),
                Err(hole) => {
                    return Reach {
                        timeline: hole.timeline,
                        end: at,
                        hole: Some(hole),
                    };
                }
            }
        }
        let timeline = history.timeline();
        match self.piece_at(timeline, at) {
            Ok(piece) if self.ends.get(&timeline).is_some_and(|end| *end <= piece.to) => Reach {
                timeline,
                end: piece.to,
                hole: None,
            },
            Ok(piece) => self.ended(timeline, piece.to),
            Err(hole) => Reach {
                timeline,
                end: at,
                hole: Some(hole),
            },
        }
    }

    fn ended(&self, timeline: TimelineId, end: Lsn) -> Reach {
        let hole = Hole {
            timeline,
            from: end,
            to: self.begin_after(timeline, end),
        };
        Reach {
            timeline,
            end,
            hole: Some(hole),
        }
    }

    fn piece_at(&self, timeline: TimelineId, at: Lsn) -> std::result::Result<Available, Hole> {
        let pieces = self
            .pieces
            .get(&timeline)
            .map(Vec::as_slice)
            .unwrap_or_default();
        pieces
            .iter()
            .find(|piece| piece.from <= at && at < piece.to)
            .copied()
            .ok_or_else(|| Hole {
                timeline,
                from: at,
                to: self.begin_after(timeline, at),
            })
    }

    fn begin_after(&self, timeline: TimelineId, at: Lsn) -> Option<Lsn> {
        let pieces = self.pieces.get(&timeline)?;
        pieces
            .iter()
            .map(|piece| piece.from)
            .find(|from| *from > at)
    }
}

/// Puts what is there of a part in the place of what was thought to be.
fn replaced(known: &[Available], part: Available, there: Vec<Available>) -> Vec<Available> {
    let around = known.iter().flat_map(|one| {
        let before = Available {
            to: one.to.min(part.from),
            ..*one
        };
        let behind = Available {
            from: one.from.max(part.to),
            ..*one
        };
        [before, behind]
    });
    let within = there.into_iter().map(|one| Available {
        from: one.from.max(part.from),
        to: one.to.min(part.to),
    });
    let mut all: Vec<Available> = around
        .chain(within)
        .filter(|one| one.from < one.to)
        .collect();
    all.sort_unstable_by_key(|one| one.from);
    let mut joined: Vec<Available> = Vec::new();
    for one in all {
        match joined.last_mut() {
            Some(last) if one.from <= last.to => last.to = last.to.max(one.to),
            _ => joined.push(one),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn what_was_found_missing_is_left_out() {
        let one = |from, to| Available {
            from: Lsn(from),
            to: Lsn(to),
        };
        let known = [one(0, 100), one(200, 300)];
        let found = replaced(&known, one(20, 80), vec![one(10, 40), one(60, 90)]);
        assert_eq!(found, [one(0, 40), one(60, 100), one(200, 300)]);
        let found = replaced(&known, one(20, 80), vec![one(0, 100)]);
        assert_eq!(found, known);
        assert_eq!(replaced(&known, one(0, 300), Vec::new()), []);
    }

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn segment(number: u64) -> Lsn {
        Lsn(number << 24)
    }

    /// Timeline 2 forked off in the middle of segment 5.
    fn held(one: &[(u64, u64)], two: &[(u64, u64)]) -> Held {
        let pieces = |pieces: &[(u64, u64)]| {
            let piece = |(from, to): &(u64, u64)| Available {
                from: Lsn(*from),
                to: Lsn(*to),
            };
            pieces.iter().map(piece).collect::<Vec<_>>()
        };
        let (first, second) = (TimelineId(1), TimelineId(2));
        let root = TimelineHistory::root(first);
        let child = root.child(second, fork(), "test");
        let end = |pieces: &[(u64, u64)]| Lsn(pieces.last().unwrap().1);
        Held {
            location: "memory://test".to_owned(),
            pieces: BTreeMap::from([(first, pieces(one)), (second, pieces(two))]),
            ends: BTreeMap::from([(first, end(one)), (second, end(two))]),
            histories: BTreeMap::from([(first, root), (second, child)]),
            newest: vec![second, first],
            proven: BTreeMap::new(),
            damage: Vec::new(),
        }
    }

    fn fork() -> Lsn {
        Lsn((5 << 24) + 100)
    }

    fn reach(held: &Held, on: u32, from: u64) -> Reach {
        let timeline = held.newest_timeline().unwrap();
        held.reach(
            held.history(timeline).unwrap(),
            TimelineId(on),
            segment(from),
            SIZE,
        )
    }

    #[rstest]
    #[case(1, 3)]
    #[case(1, 5)]
    #[case(2, 5)]
    #[case(2, 6)]
    fn follows_a_fork(#[case] on: u32, #[case] from: u64) {
        let end = 7 << 24;
        let held = held(&[(3 << 24, fork().0)], &[(5 << 24, end)]);
        let expected = Reach {
            timeline: TimelineId(2),
            end: Lsn(end),
            hole: None,
        };
        assert_eq!(reach(&held, on, from), expected);
    }

    #[rstest]
    #[case::before_the_fork(&[(3 << 24, 4 << 24)], &[(5 << 24, 7 << 24)], 1, 4 << 24, None)]
    #[case::at_the_fork(&[(3 << 24, 6 << 24)], &[(6 << 24, 7 << 24)], 2, 5 << 24, Some(6 << 24))]
    #[case::at_the_start(&[(4 << 24, 6 << 24)], &[(5 << 24, 7 << 24)], 1, 3 << 24, Some(4 << 24))]
    #[case::inside(&[(3 << 24, 6 << 24)], &[(5 << 24, (5 << 24) + 200), (6 << 24, 7 << 24)], 2, (5 << 24) + 200, Some(6 << 24))]
    fn names_holes(
        #[case] one: &[(u64, u64)],
        #[case] two: &[(u64, u64)],
        #[case] timeline: u32,
        #[case] from: u64,
        #[case] to: Option<u64>,
    ) {
        let hole = Hole {
            timeline: TimelineId(timeline),
            from: Lsn(from),
            to: to.map(Lsn),
        };
        assert_eq!(reach(&held(one, two), 1, 3).hole, Some(hole));
    }

    #[test]
    fn a_timeline_that_has_only_its_parents_log_is_not_the_newest() {
        let held = held(&[(3 << 24, fork().0)], &[(5 << 24, fork().0)]);
        assert_eq!(held.newest_timeline(), Some(TimelineId(1)));
        assert_eq!(reach(&held, 1, 3).end, fork());
    }
}
