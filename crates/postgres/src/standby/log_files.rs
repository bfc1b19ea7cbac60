//! The log that stands in the `pg_wal` of a stopped server's directory.

use std::path::Path;

use bytes::Bytes;
use dr_model::{Lsn, SegmentSize, TimelineId};
use dr_provider::{ErrorKind, Host, Result};

use super::beyond::precedes;
use super::remains::failed;
use crate::wal::{Decoder, Expected, PAGE_BYTES, Record, Stop, TimelineHistory};

/// Bytes of a timeline history file that are read.
const HISTORY_BYTES: u64 = 1 << 20;

/// How much log is read at first: all of it, most often.
const FIRST_PIECE_BYTES: u64 = 64 << 10;

/// How much log is read backwards for where a transaction began. An ordinary one began at most 15 s before, after which the
/// server says anew which run; beyond this only one that has written for long is looked for.
const LOOK_BACK_BYTES: u64 = 2 << 30;

/// The `pg_wal` of a directory.
pub(super) struct LogFiles<'a> {
    pub(super) host: &'a dyn Host,
    pub(super) directory: &'a Path,
    pub(super) size: SegmentSize,
}

impl LogFiles<'_> {
    /// Reads the history of a timeline; the first one has none.
    pub(super) async fn history(&self, timeline: TimelineId) -> Result<TimelineHistory> {
        if timeline.0 == 1 {
            return Ok(TimelineHistory::root(timeline));
        }
        let path = self
            .directory
            .join("pg_wal")
            .join(timeline.history_file_name());
        let content = self.host.read(&path, 0, HISTORY_BYTES).await?;
        TimelineHistory::parse(timeline, &content)
            .map_err(|error| failed(self.directory, error.to_string()))
    }

    fn file(&self, history: &TimelineHistory, start: Lsn) -> String {
        // The segment in which a timeline begins is the new one's.
        let last = start.advance(self.size.bytes() - 1);
        self.size.file_name(history.timeline_at(last), start)
    }

    async fn segment(&self, history: &TimelineHistory, start: Lsn) -> Result<Option<Bytes>> {
        let path = self
            .directory
            .join("pg_wal")
            .join(self.file(history, start));
        match self.host.read(&path, 0, self.size.bytes()).await {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells whether the segment of a position is there.
    pub(super) async fn holds(&self, history: &TimelineHistory, at: Lsn) -> Result<bool> {
        let path = self
            .directory
            .join("pg_wal")
            .join(self.file(history, self.size.start_of(at)));
        match self.host.read(&path, 0, 1).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Hands out every record from `from` on, where one begins, and returns the end of the last one. Reads little at first, and more each
    /// time: the host may be at the end of a slow line, and much of the log may be wanted.
    pub(super) async fn decode(
        &self,
        history: &TimelineHistory,
        from: Lsn,
        expected: Expected,
        mut sink: impl FnMut(Record),
    ) -> Result<Lsn> {
        let mut at = Lsn(from.0 - from.0 % PAGE_BYTES);
        let mut most = FIRST_PIECE_BYTES;
        let mut decoder = Decoder::new(at, self.size, Some(expected));
        loop {
            let segment = self.size.start_of(at);
            let path = self
                .directory
                .join("pg_wal")
                .join(self.file(history, segment));
            let offset = at.bytes_since(segment);
            let length = most.min(self.size.bytes() - offset);
            let piece = match self.host.read(&path, offset, length).await {
                Ok(piece) if piece.is_empty() => break,
                Ok(piece) => piece,
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            at = at.advance(piece.len() as u64);
            most = most.saturating_mul(2);
            let within = |record: Record| {
                if record.start >= from {
                    sink(record);
                }
            };
            if decoder.feed(&piece, within).is_err() {
                break;
            }
        }
        decoder.last_end().filter(|end| *end > from).ok_or_else(|| {
            failed(
                self.directory,
                format!("there is no complete record at {from}"),
            )
        })
    }

    /// Hands out the records before `until`, segment by segment backwards, until all that the transaction `oldest` and later
    /// ones wrote there has been; returns why that cannot be said, if so.
    ///
    /// The server writes into the log which transactions run, at each checkpoint and every 15 s while anything is written, and
    /// the number that the next one gets with it: what has that number or a later one has written nothing before.
    pub(super) async fn changes_before(
        &self,
        history: &TimelineHistory,
        expected: Expected,
        until: Lsn,
        oldest: u32,
        mut sink: impl FnMut(Record),
    ) -> Result<Option<String>> {
        let mut start = self.size.start_of(until);
        // What follows the segment that is read: its last record may end there.
        let mut following = Bytes::new();
        loop {
            if until.bytes_since(start) > LOOK_BACK_BYTES {
                return Ok(Some(format!(
                    "what transactions among them wrote before {start}, more than {} GiB of log before {until}, is not looked for",
                    LOOK_BACK_BYTES >> 30
                )));
            }
            let Some(bytes) = self.segment(history, start).await? else {
                let why = "what transactions among them wrote before";
                return Ok(Some(format!(
                    "{why} {}, if anything, is no longer in its `pg_wal`",
                    start.advance(self.size.bytes()).min(until)
                )));
            };
            let mut begun = false;
            let read = self.read_segment(expected, start, &bytes, &following, |record| {
                if record.start < until {
                    begun |= record
                        .next_transaction
                        .is_some_and(|next| !precedes(oldest, next));
                    sink(record);
                }
            });
            match read {
                // Behind the position it was read already.
                Err(stop) if stop.at < until => {
                    return Ok(Some(format!(
                        "the log at {} cannot be read: {}",
                        stop.at, stop.reason
                    )));
                }
                _ if begun => return Ok(None),
                _ => {}
            }
            following = bytes;
            if start.0 <= self.size.bytes() {
                // A cluster begins with the second segment that could be.
                return Ok(None);
            }
            start = Lsn(start.0 - self.size.bytes());
        }
    }

    /// Hands out the records that begin in a segment, of which the last may end in what follows.
    fn read_segment(
        &self,
        expected: Expected,
        start: Lsn,
        bytes: &[u8],
        following: &[u8],
        mut sink: impl FnMut(Record),
    ) -> std::result::Result<(), Stop> {
        let end = start.advance(self.size.bytes());
        let mut within = |record: Record| {
            if record.start < end {
                sink(record);
            }
        };
        let mut decoder = Decoder::new(start, self.size, Some(expected));
        decoder.feed(bytes, &mut within)?;
        for page in following.chunks(PAGE_BYTES as usize) {
            if decoder.open_record().is_none_or(|record| record >= end) {
                break;
            }
            decoder.feed(page, &mut within)?;
        }
        Ok(())
    }
}
