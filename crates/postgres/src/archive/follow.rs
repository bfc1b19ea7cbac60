//! Following the records of a segment that is archived: where transactions committed, and what was written at
//! `wal_level = minimal`.
//!
//! What is not WAL is refused, as the receiver does: nothing behind it could be replayed. The decoder starts with the segment, so that
//! of a record that began in the one before it nothing is seen.

use bytes::Bytes;
use dr_model::Lsn;
use dr_provider::{Error, ErrorKind, Result};
use jiff::Timestamp;

use super::push::OPERATION;
use super::segment::Segment;
use crate::actions::Log;
use crate::wal::{Decoder, Expected, MinimalSearch, MinimalTime};

/// Ends and times of commits.
pub(super) type Commits = Vec<(Lsn, Timestamp)>;

/// A part of a segment, and the commits that end in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) from: Lsn,
    pub(super) to: Lsn,
    pub(super) commits: u64,
    pub(super) last_commit_at: Option<Timestamp>,
}

impl Counted {
    pub(super) fn new(from: Lsn, to: Lsn) -> Self {
        Self {
            from,
            to,
            commits: 0,
            last_commit_at: None,
        }
    }

    /// Counts a commit if it ends here.
    pub(super) fn count(&mut self, (end, at): (Lsn, Timestamp)) {
        if self.from < end && end <= self.to {
            self.commits += 1;
            self.last_commit_at = self.last_commit_at.max(Some(at));
        }
    }
}

/// What a segment holds behind a position at which a chain ends.
#[derive(Debug)]
pub(super) struct Ahead {
    /// What follows in the chain, as it is cut, up to the first time at `wal_level = minimal`.
    pub(super) chunks: Vec<Counted>,
    /// That time.
    pub(super) minimal: Option<MinimalTime>,
}

/// Looks at a segment of which a chain has everything before `at`.
pub(super) async fn look_ahead(log: Log, segment: &Segment, at: Lsn) -> Result<Ahead> {
    let known = segment.parts(segment.start());
    let known = known.map(|(from, to)| (from, to.min(at)));
    let known = known.take_while(|(from, to)| from < to);
    let mut chunks = Vec::new();
    let parts = known.chain(segment.parts(at));
    let search = follow(log, segment, at, parts, |(from, to), search, commits| {
        let until = search.times().first().map_or(to, |time| time.from.min(to));
        if at <= from && from < until {
            let mut chunk = Counted::new(from, until);
            for commit in commits {
                chunk.count(commit);
            }
            chunks.push(chunk);
        }
    });
    let minimal = search.await?.times().first().copied();
    if let Some(time) = minimal {
        // The record that says so may begin at the end of the part before the one in which it is seen.
        cut_before(&mut chunks, time.from);
    }
    Ok(Ahead { chunks, minimal })
}

/// Leaves out what lies behind a position. No commit ends there that is not left out with its chunk, or has not been counted.
fn cut_before(chunks: &mut Vec<Counted>, at: Lsn) {
    chunks.retain(|chunk| chunk.from < at);
    if let Some(last) = chunks.last_mut() {
        last.to = last.to.min(at);
    }
}

/// Returns all that was written at `wal_level = minimal` of a segment.
pub(super) async fn minimal_times(log: Log, segment: &Segment) -> Result<Vec<MinimalTime>> {
    let start = segment.start();
    let search = follow(log, segment, start, segment.parts(start), |_, _, _| ()).await?;
    Ok(search.times().to_vec())
}

/// Follows the parts of a segment, which begin with it and have no holes, and hands over of each the commits that end in it, and what was found
/// of times at `wal_level = minimal` that `behind` does not end.
pub(super) async fn follow(
    log: Log,
    segment: &Segment,
    behind: Lsn,
    parts: impl Iterator<Item = (Lsn, Lsn)>,
    mut each: impl FnMut((Lsn, Lsn), &MinimalSearch, Commits),
) -> Result<MinimalSearch> {
    let expected = Expected {
        system_identifier: log.system_identifier,
        timeline: segment.info.timeline,
    };
    let mut followed = Followed {
        decoder: Decoder::new(segment.start(), segment.info.size, Some(expected)),
        search: MinimalSearch::new(behind),
    };
    for (from, to) in parts {
        let part = segment.slice(from, to).await?;
        let commits;
        (followed, commits) = followed.feed(part, &segment.name).await?;
        each((from, to), &followed.search, commits);
    }
    Ok(followed.search)
}

/// A segment's records as far as they were followed.
struct Followed {
    decoder: Decoder,
    search: MinimalSearch,
}

impl Followed {
    /// Follows the next bytes, off the threads that others wait for, and returns the commits that end in them.
    async fn feed(mut self, bytes: Bytes, name: &str) -> Result<(Self, Commits)> {
        let fed = tokio::task::spawn_blocking(move || {
            let mut commits = Commits::new();
            let search = &mut self.search;
            let fed = self.decoder.feed(&bytes, |record| {
                search.see(&record);
                commits.extend(record.committed_at.map(|at| (record.end, at)));
            });
            fed.map(|()| (self, commits))
        });
        match fed.await {
            Ok(Ok(fed)) => Ok(fed),
            Ok(Err(stop)) => Err(Error::new(ErrorKind::Invalid, OPERATION, name).because(stop)),
            Err(error) => Err(Error::new(ErrorKind::Failed, OPERATION, name).because(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_crosses_a_part_ends_the_one_before() {
        let chunk = |(from, to): &(u64, u64)| Counted::new(Lsn(*from), Lsn(*to));
        let parts = [(0, 100), (100, 200), (200, 230)];
        for (at, expected) in [
            (190, vec![(0, 100), (100, 190)]),
            (200, vec![(0, 100), (100, 200)]),
            (230, parts.to_vec()),
            (0, Vec::new()),
        ] {
            let mut chunks: Vec<Counted> = parts.iter().map(chunk).collect();
            cut_before(&mut chunks, Lsn(at));
            let expected: Vec<Counted> = expected.iter().map(chunk).collect();
            assert_eq!(chunks, expected, "{at}");
        }
    }
}
