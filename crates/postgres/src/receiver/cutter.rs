//! Cutting the stream of WAL into chunks.
//!
//! Bytes arrive in any portions; a chunk is closed at any byte, when [`Pace`](super::pace::Pace) says so: records are followed only
//! to count commits and to notice WAL that no server would replay; what was written at `wal_level = minimal` is not cut at all. Contiguity is checked here for every portion, across
//! segments (R20).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dr_model::{Lsn, SegmentSize};
use jiff::Timestamp;

use super::pace::Waiting;
use crate::wal::{Decoder, Expected, MinimalSearch, Stop};

/// A chunk holds at most this many bytes of WAL.
pub(crate) const FULL_BYTES: usize = 4 << 20;

/// WAL that is ready to be put into a store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cut {
    pub(crate) start: Lsn,
    pub(crate) payload: Bytes,
    pub(crate) commits: u64,
    pub(crate) last_commit_at: Option<Timestamp>,
    /// The primary's WAL end as it last reported it, and when it did, by its own clock.
    pub(crate) primary_end: Lsn,
    pub(crate) reported_at: Timestamp,
}

/// The stream is not what it has to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CutError {
    /// A portion does not continue the one before.
    #[error("the server sent WAL from {found} where {expected} comes next")]
    NotContiguous { expected: Lsn, found: Lsn },
    /// The bytes are not WAL that a server would replay.
    #[error("the server sent WAL that cannot be replayed")]
    NotWal(#[source] Stop),
}

/// Cuts one connection's stream.
#[derive(Debug)]
pub(crate) struct Cutter {
    decoder: Decoder,
    minimal: MinimalSearch,
    /// Position of the next byte expected from the server.
    next: Lsn,
    /// Bytes before this are in the store already and only followed.
    tail: Lsn,
    buffer: BytesMut,
    /// Monotonic time at which the oldest byte in `buffer` arrived.
    since: Option<Duration>,
    commits: u64,
    last_commit_at: Option<Timestamp>,
    primary_end: Lsn,
    reported_at: Option<Timestamp>,
}

impl Cutter {
    /// Makes a cutter for a stream that begins at the start of the segment holding `tail`, of which the bytes before
    /// `tail` are in the store already.
    pub(crate) fn new(tail: Lsn, segment_size: SegmentSize, expected: Expected) -> Self {
        let start = segment_size.start_of(tail);
        Self {
            decoder: Decoder::new(start, segment_size, Some(expected)),
            minimal: MinimalSearch::new(tail),
            next: start,
            tail,
            buffer: BytesMut::new(),
            since: None,
            commits: 0,
            last_commit_at: None,
            primary_end: Lsn::INVALID,
            reported_at: None,
        }
    }

    /// Returns the position after the last byte received.
    pub(crate) fn received(&self) -> Lsn {
        self.next.max(self.tail)
    }

    /// Returns where what was cut ends.
    pub(crate) fn tail(&self) -> Lsn {
        self.tail
    }

    /// Returns how many bytes wait to be cut.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Notes where the primary's WAL ends, as it says.
    pub(crate) fn report(&mut self, primary_end: Lsn, at: Timestamp) {
        self.primary_end = primary_end;
        self.reported_at = Some(at);
    }

    /// Takes a portion that begins at `start`.
    pub(crate) fn push(&mut self, start: Lsn, data: &[u8], now: Duration) -> Result<(), CutError> {
        if start != self.next {
            return Err(CutError::NotContiguous {
                expected: self.next,
                found: start,
            });
        }
        let (tail, commits, last) = (self.tail, &mut self.commits, &mut self.last_commit_at);
        let minimal = &mut self.minimal;
        self.decoder
            .feed(data, |record| {
                minimal.see(&record);
                if minimal.found().is_none()
                    && let Some(at) = record.committed_at
                    && record.end > tail
                {
                    *commits += 1;
                    *last = Some(last.map_or(at, |before| before.max(at)));
                }
            })
            .map_err(CutError::NotWal)?;
        self.next = self.next.advance(data.len() as u64);
        let known = usize::try_from(self.tail.bytes_since(start)).unwrap_or(usize::MAX);
        let new = data.get(known..).unwrap_or_default();
        if !new.is_empty() {
            self.since.get_or_insert(now);
            self.buffer.extend_from_slice(new);
        }
        if let Some(time) = self.minimal.found() {
            let wanted = usize::try_from(time.from.bytes_since(self.tail)).unwrap_or(usize::MAX);
            self.buffer.truncate(wanted);
            if self.buffer.is_empty() {
                self.since = None;
            }
        }
        Ok(())
    }

    /// Returns the log that was written at `wal_level = minimal`, once its end is known: it is left out. Everything before MUST have been
    /// cut.
    pub(crate) fn left_out(&self) -> Option<(Lsn, Lsn)> {
        let time = self.minimal.found()?;
        // A chunk may have ended in the middle of the record that said so.
        Some((self.tail.max(time.from), time.to?))
    }

    /// Returns what waits to be cut; `None` if nothing does.
    pub(crate) fn waiting(&self) -> Option<Waiting> {
        let bytes = self.buffer.len();
        self.since.map(|since| Waiting { since, bytes })
    }

    /// Closes a chunk of at most [`FULL_BYTES`], or returns `None` if nothing waits.
    pub(crate) fn cut(&mut self, now: Duration) -> Option<Cut> {
        if self.buffer.is_empty() {
            return None;
        }
        let payload = self
            .buffer
            .split_to(self.buffer.len().min(FULL_BYTES))
            .freeze();
        let start = self.tail;
        self.tail = start.advance(payload.len() as u64);
        // What is left arrived later than what was cut; taking now for its age makes it at most one interval older.
        self.since = (!self.buffer.is_empty()).then_some(now);
        Some(Cut {
            start,
            payload,
            commits: std::mem::take(&mut self.commits),
            last_commit_at: self.last_commit_at.take(),
            primary_end: self.primary_end,
            reported_at: self.reported_at.unwrap_or(Timestamp::UNIX_EPOCH),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dr_model::{SystemIdentifier, TimelineId};

    const EXPECTED: Expected = Expected {
        system_identifier: SystemIdentifier(7),
        timeline: TimelineId(1),
    };

    fn cutter(tail: u64) -> Cutter {
        Cutter::new(Lsn(tail), SegmentSize::DEFAULT, EXPECTED)
    }

    #[test]
    fn refuses_a_portion_that_does_not_continue() {
        let mut cutter = cutter(0x100_0000);
        let error = cutter
            .push(Lsn(0x100_2000), &[0; 16], Duration::ZERO)
            .unwrap_err();
        assert!(matches!(error, CutError::NotContiguous { .. }));
    }

    #[test]
    fn refuses_what_is_not_wal() {
        let mut cutter = cutter(0x100_0000);
        let error = cutter
            .push(Lsn(0x100_0000), &[0xAB; 64], Duration::ZERO)
            .unwrap_err();
        assert!(matches!(error, CutError::NotWal(_)));
        assert_eq!(cutter.cut(Duration::ZERO), None);
    }
}
