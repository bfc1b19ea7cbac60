//! Filling a hole in the log with what is archived.
//!
//! What the store has of the segment has to be the same bytes before anything is written: another server's log fills no hole. What was
//! written at `wal_level = minimal` stays out, whether the segment says so or a record of the hole does: the receiver sees
//! records that lie across two segments.

use std::sync::Arc;

use dr_coordination::chain::{Available, MAX_PIECE_BYTES, PieceFacts, fill};
use dr_model::Lsn;
use dr_provider::{ObjectStore, Result};

use super::follow::{Counted, follow, minimal_times};
use super::push::{compare, left_out};
use super::segment::Segment;
use crate::actions::Log;
use crate::driver::PostgresDriver;
use crate::register::patience;

impl PostgresDriver {
    /// Puts what is missing of a segment before `until` into the store as pieces. Log that lies behind must be there, or be of
    /// another timeline: the end of the log belongs to a chain. If some of it stays out, what is returned says so.
    pub(super) async fn fill_hole(
        &self,
        store: &Arc<dyn ObjectStore>,
        log: Log,
        segment: &Segment,
        (held, until): (&[Available], Lsn),
    ) -> Result<Option<String>> {
        for part in held {
            let part = (part.from.max(segment.start()), part.to.min(segment.end()));
            compare((store, self.keys()), log, segment, part).await?;
        }
        let place = (log.system_identifier, segment.info.timeline);
        let mut stays_out = self.lost_as_minimal(store, place).await?;
        for time in minimal_times(log, segment).await? {
            stays_out.push(Available {
                from: time.from,
                to: time.to.unwrap_or(segment.end()),
            });
        }
        let (mut missing, is_left_out) = missing(held, &stays_out, (segment.start(), until));
        if !missing.is_empty() {
            let parts = segment.parts(segment.start());
            follow(log, segment, segment.start(), parts, |_, _, commits| {
                for commit in commits {
                    let place = missing.partition_point(|part| part.to < commit.0);
                    if let Some(part) = missing.get_mut(place) {
                        part.count(commit);
                    }
                }
            })
            .await?;
        }
        for part in missing {
            let facts = PieceFacts {
                epochs: vec![log.epoch],
                commits: part.commits,
                last_commit_at: part.last_commit_at,
                received_at: self.clock().now(),
            };
            let bytes = segment.slice(part.from, part.to).await?;
            let writer = ("archive_command", self.keys());
            fill(
                &**store,
                place,
                part.from,
                &bytes,
                &facts,
                writer,
                patience(),
            )
            .await?;
        }
        Ok(is_left_out.then(|| left_out(store, segment)))
    }
}

/// Returns what is to be filled between two positions, cut where pieces are, so that each fits the memory; and whether anything is
/// missing there that stays out.
fn missing(
    held: &[Available],
    stays_out: &[Available],
    (from, until): (Lsn, Lsn),
) -> (Vec<Counted>, bool) {
    let bytes = |parts: &[Counted]| -> u64 {
        parts
            .iter()
            .map(|part| part.to.bytes_since(part.from))
            .sum()
    };
    let mut all = [held, stays_out].concat();
    all.sort_unstable_by_key(|part| part.from);
    let (lacking, filled) = (between(held, from, until), between(&all, from, until));
    let is_left_out = bytes(&filled) < bytes(&lacking);
    (filled, is_left_out)
}

/// Returns what lies between two positions and in none of the parts, which are in order.
fn between(parts: &[Available], from: Lsn, until: Lsn) -> Vec<Counted> {
    let mut found = Vec::new();
    let mut at = from;
    let end = Available {
        from: until,
        to: until,
    };
    for part in parts.iter().chain([&end]) {
        let to = part.from.min(until);
        while at < to {
            let slot = Lsn((at.0 / MAX_PIECE_BYTES + 1) * MAX_PIECE_BYTES).min(to);
            found.push(Counted::new(at, slot));
            at = slot;
        }
        at = at.max(part.to);
    }
    found
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const PIECE: u64 = MAX_PIECE_BYTES;

    #[rstest]
    #[case::all(&[], &[], 100, &[(0, 100)], false)]
    #[case::cut_where_pieces_are(
        &[(0, 10), (PIECE + 20, PIECE + 30)], &[], PIECE + 40,
        &[(10, PIECE), (PIECE, PIECE + 20), (PIECE + 30, PIECE + 40)], false
    )]
    #[case::nothing(&[(0, PIECE)], &[], PIECE, &[], false)]
    // A part that begins behind what has to be there leaves all before it.
    #[case::before(&[(50, 60)], &[], 40, &[(0, 40)], false)]
    // What comes before and behind a time at minimal is log like any other.
    #[case::around(&[(0, 10)], &[(20, 30)], 40, &[(10, 20), (30, 40)], true)]
    #[case::twice(&[], &[(30, 40), (10, 20)], 50, &[(0, 10), (20, 30), (40, 50)], true)]
    #[case::to_the_end(&[(0, 10)], &[(10, 40)], 40, &[], true)]
    #[case::in_what_is_there(&[(0, 30)], &[(10, 20)], 40, &[(30, 40)], false)]
    #[case::into_what_is_there(&[(0, 10), (25, 40)], &[(20, 30)], 40, &[(10, 20)], true)]
    #[case::behind(&[(0, 10)], &[(40, 50)], 40, &[(10, 40)], false)]
    fn what_is_to_be_filled(
        #[case] held: &[(u64, u64)],
        #[case] stays_out: &[(u64, u64)],
        #[case] until: u64,
        #[case] expected: &[(u64, u64)],
        #[case] left_out: bool,
    ) {
        let parts = |parts: &[(u64, u64)]| -> Vec<Available> {
            let part = |(from, to): &(u64, u64)| Available {
                from: Lsn(*from),
                to: Lsn(*to),
            };
            parts.iter().map(part).collect()
        };
        let (found, is_left_out) = missing(&parts(held), &parts(stays_out), (Lsn(0), Lsn(until)));
        let found: Vec<(u64, u64)> = found.iter().map(|one| (one.from.0, one.to.0)).collect();
        assert_eq!((found.as_slice(), is_left_out), (expected, left_out));
    }
}
