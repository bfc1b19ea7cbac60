//! Where the last complete record of a piece of WAL ends.
//!
//! Promotion waits until a standby has replayed to exactly there (PROTOCOL 6, step 5): a tail may stop inside a record,
//! and waiting for the tail's own end would then wait forever.

use dr_model::{Lsn, SegmentSize};

use super::decoder::{Decoder, Expected, Stop};

/// What a piece of WAL holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// End of the last complete record with a right checksum, as PostgreSQL reports its replay position; `None` if no
    /// record that begins in the piece ends in it: read from an earlier segment on.
    pub last_valid_end: Option<Lsn>,
    /// Start of the record in which the piece stops, if it stops inside one.
    pub open_record: Option<Lsn>,
    /// Why reading ended before the piece did, if it did: the rest is unwritten, left over from a recycled segment, or
    /// damaged.
    pub stop: Option<Stop>,
}

/// Reads the bytes from `start`, the start of a segment, to any byte, and finds the last complete record.
///
/// The result is what PostgreSQL replays of these bytes when zeros follow them, with one exception that cannot be told
/// apart: if the bytes missing from the last record are themselves zeros, it replays that record too, and so reaches a
/// position after `last_valid_end`, never one before.
#[must_use]
pub fn last_valid_end(
    start: Lsn,
    bytes: &[u8],
    segment_size: SegmentSize,
    expected: Option<Expected>,
) -> Tail {
    let mut decoder = Decoder::new(start, segment_size, expected);
    let stop = decoder.feed(bytes, |_| ()).err();
    Tail {
        last_valid_end: decoder.last_end(),
        open_record: decoder.open_record(),
        stop,
    }
}
