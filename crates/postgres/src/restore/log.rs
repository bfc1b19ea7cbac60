//! Reading the log itself: for what can be found in no header.
//!
//! A transaction's end, a restore point, the last commit before a hole: all stand in the log and nowhere else. It is read
//! as a server would read it, segment by segment along the timelines on the way, with the decoder that judges records as
//! a server does.

use std::ops::ControlFlow;
use std::sync::Arc;

use dr_coordination::chain::{self, ChainReader, Section};
use dr_model::{Lsn, SegmentSize, SystemIdentifier, TimelineId};
use dr_provider::driver::LogStretch;
use dr_provider::{Error, ObjectStore, Result};
use dr_repository::Keys;
use jiff::Timestamp;

use crate::backup::Base;
use crate::register::patience;
use crate::wal::{Decoder, Expected, Record, TimelineHistory};

/// Returns the log from a recovery point to `to` along `history`.
pub(super) fn since(base: &Base, to: Lsn, history: &TimelineHistory) -> Vec<LogStretch> {
    let source = &base.source;
    let from = base.log_start();
    stretches(history, source.timeline, from, to, source.segment_bytes)
}

/// Returns the log from `from` on timeline `on` to `to` along `history`, in the order of replay: the segment in which a
/// timeline begins is read from that timeline.
fn stretches(
    history: &TimelineHistory,
    on: TimelineId,
    from: Lsn,
    to: Lsn,
    size: SegmentSize,
) -> Vec<LogStretch> {
    let mut found = Vec::new();
    let mut at = from;
    let ancestors = history.ancestors().iter();
    let ends = ancestors
        .filter(|ancestor| ancestor.timeline >= on)
        .map(|ancestor| (ancestor.timeline, size.start_of(ancestor.end)));
    for (timeline, end) in ends.chain([(history.timeline(), to)]) {
        let end = end.min(to);
        if at < end {
            found.push(LogStretch {
                timeline,
                from: at,
                to: end,
            });
            at = end;
        }
    }
    found
}

/// Returns the part of `log` from the start of the segment of `from` on.
pub(super) fn part_from(log: &[LogStretch], from: Lsn, size: SegmentSize) -> Vec<LogStretch> {
    let from = size.start_of(from);
    let parts = log.iter().filter(|stretch| stretch.to > from);
    parts
        .map(|stretch| LogStretch {
            from: stretch.from.max(from),
            ..*stretch
        })
        .collect()
}

/// Returns the part of `log` before `to`.
pub(super) fn part_to(log: &[LogStretch], to: Lsn) -> Vec<LogStretch> {
    let parts = log.iter().filter(|stretch| stretch.from < to);
    parts
        .map(|stretch| LogStretch {
            to: stretch.to.min(to),
            ..*stretch
        })
        .collect()
}

/// A cluster's log in a store.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) keys: Keys,
    pub(super) cluster: SystemIdentifier,
    pub(super) size: SegmentSize,
}

/// What of a log was read before what is encrypted with a key that is not at hand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Readable {
    /// Start of the last complete record.
    record: Option<Lsn>,
    /// Time of the last commit.
    commit_at: Option<Timestamp>,
}

impl Readable {
    /// Takes a record into account.
    pub(super) fn see(&mut self, record: &Record) {
        self.record = Some(record.start);
        self.commit_at = self.commit_at.max(record.committed_at);
    }

    /// Says how far the log goes without the key that `locked` misses.
    pub(super) fn hint(&self, locked: &Error) -> String {
        let key = locked
            .hint()
            .unwrap_or("name its key file under `encryption` in `dr.yaml`");
        let Some(record) = self.record else {
            return key.to_owned();
        };
        let commit = self.commit_at.map_or_else(String::new, |at| {
            format!(", the last commit before which is of {at}")
        });
        format!("{key}; without it, `--at {record}` is the last that can be restored{commit}")
    }
}

/// Tells whether log is encrypted with a key that is not at hand; nothing is known to be wrong with it.
pub(super) fn is_locked(error: &Error) -> bool {
    let cause = std::error::Error::source(error);
    let cause = cause.and_then(|cause| cause.downcast_ref::<chain::Error>());
    matches!(cause, Some(chain::Error::Locked { .. }))
}

/// The last of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Last {
    /// Start of the last complete record.
    pub(super) record: Option<Lsn>,
    /// Time of the latest commit among the last ones.
    pub(super) commit_at: Option<Timestamp>,
}

impl Log {
    /// Reads every byte of `log`, each of which is verified against the hash that it was stored with.
    pub(super) async fn verify(&self, log: &[LogStretch]) -> Result<()> {
        for stretch in log {
            let mut reader = self.reader(stretch).await?;
            while reader.next().await?.is_some() {}
        }
        Ok(())
    }

    async fn reader(&self, stretch: &LogStretch) -> Result<ChainReader> {
        let reader = ChainReader::open(
            Arc::clone(&self.store),
            Section::new(self.cluster, stretch.timeline, stretch.from, stretch.to),
            patience(),
        );
        Ok(reader.await?.with_keys(&self.keys))
    }

    /// Hands every complete record of `log` to `visit`, in order, until it breaks or a record does not end in it.
    pub(super) async fn read(
        &self,
        log: &[LogStretch],
        mut visit: impl FnMut(&Record) -> ControlFlow<()> + Send,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (log.first(), log.last()) else {
            return Ok(());
        };
        let expected = Expected {
            system_identifier: self.cluster,
            timeline: last.timeline,
        };
        let mut decoder = Decoder::new(first.from, self.size, Some(expected));
        for stretch in log {
            let mut reader = self.reader(stretch).await?;
            while let Some((_, bytes)) = reader.next().await? {
                let mut flow = ControlFlow::Continue(());
                let end = decoder.feed(&bytes, |record| {
                    if flow.is_continue() {
                        flow = visit(&record);
                    }
                });
                // Where a server would stop reading, what follows is not part of any recovery.
                if flow.is_break() || end.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Finds the first record that begins at or after `at`.
    pub(super) async fn first_at(&self, log: &[LogStretch], at: Lsn) -> Result<Option<Record>> {
        let mut found = None;
        self.read(&part_from(log, at, self.size), |record| {
            if record.start < at {
                return ControlFlow::Continue(());
            }
            found = Some(record.clone());
            ControlFlow::Break(())
        })
        .await?;
        Ok(found)
    }

    /// Finds the last record and, with `commit`, the last commit, reading no more than it must.
    pub(super) async fn last(&self, log: &[LogStretch], commit: bool) -> Result<Last> {
        let (Some(first), Some(end)) = (log.first(), log.last()) else {
            return Ok(Last::default());
        };
        let mut back = self.size.bytes();
        loop {
            let from = Lsn(end.to.0.saturating_sub(back)).max(first.from);
            let mut last = Last::default();
            self.read(&part_from(log, from, self.size), |record| {
                last.record = Some(record.start);
                last.commit_at = last.commit_at.max(record.committed_at);
                ControlFlow::Continue(())
            })
            .await?;
            let found = last.record.is_some() && (!commit || last.commit_at.is_some());
            if found || from == first.from {
                return Ok(last);
            }
            back *= 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn segment(number: u64) -> Lsn {
        Lsn(number << 24)
    }

    #[test]
    fn the_segment_of_a_fork_is_read_from_the_child() {
        let root = TimelineHistory::root(TimelineId(1));
        let history = root.child(TimelineId(2), Lsn((5 << 24) + 100), "test");
        let stretch = |timeline, from, to| LogStretch {
            timeline: TimelineId(timeline),
            from,
            to,
        };
        let of = |on, from, to| stretches(&history, TimelineId(on), segment(from), to, SIZE);
        assert_eq!(
            of(1, 3, Lsn((7 << 24) + 1)),
            [
                stretch(1, segment(3), segment(5)),
                stretch(2, segment(5), Lsn((7 << 24) + 1))
            ]
        );
        assert_eq!(
            of(1, 3, segment(4)),
            [stretch(1, segment(3), segment(4))],
            "before the fork"
        );
        assert_eq!(of(2, 5, segment(6)), [stretch(2, segment(5), segment(6))]);
        let all = of(1, 3, segment(7));
        assert_eq!(
            part_from(&all, Lsn((5 << 24) + 7), SIZE),
            [stretch(2, segment(5), segment(7))]
        );
        assert_eq!(
            part_to(&all, segment(4)),
            [stretch(1, segment(3), segment(4))]
        );
    }
}
