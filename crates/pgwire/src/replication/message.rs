//! The messages inside a WAL stream, and time on the wire.

use bytes::{Buf, BufMut, Bytes};
use dr_model::{Lsn, TimelineId};
use jiff::Timestamp;

/// PostgreSQL counts microseconds from 2000-01-01 00:00 UTC, which is this many after the Unix
/// epoch.
const POSTGRESQL_EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

/// What a WAL stream brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicationEvent {
    /// A piece of WAL. Pieces follow each other without a gap from the requested position on; they
    /// end anywhere, also inside a record or page, and never cross into another timeline.
    Wal {
        /// The position of the first byte.
        start: Lsn,
        /// How far the server's WAL reached when it sent this.
        server_wal_end: Lsn,
        /// When the server sent this, by its clock.
        sent_at: Timestamp,
        /// The bytes: a slice of the block that the socket was read into, which lives as long as
        /// any slice of it.
        data: Bytes,
    },
    /// A sign of life.
    KeepAlive {
        /// How far the server has sent WAL.
        server_wal_end: Lsn,
        /// When the server sent this, by its clock.
        sent_at: Timestamp,
        /// The server wants a status at once, and will close the connection without one.
        reply_requested: bool,
    },
    /// All of the timeline was sent (R22), or [`crate::StatusWriter::finish`] was called. The
    /// stream is over, and the connection can be taken back.
    End {
        /// The next timeline in the server's history and where it forks off; none if the client
        /// ended the stream.
        next_timeline: Option<(TimelineId, Lsn)>,
    },
    /// The server shuts down in good order: it has sent all its WAL and waited until it was
    /// confirmed as flushed. The stream is over, and so is the connection.
    ServerStopped,
}

/// How far a receiver is, for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandbyStatus {
    /// The position after the last byte received.
    pub write: Lsn,
    /// The position after the last byte that is durable. The server may drop WAL before it, and in
    /// synchronous mode acknowledges commits up to it.
    pub flush: Lsn,
    /// `flush` or `0/0`, never `write`: `remote_apply` must not be satisfied by receipt (R21).
    pub apply: Lsn,
    /// The time of the receiver's clock.
    pub sent_at: Timestamp,
    /// Asks the server for a [`ReplicationEvent::KeepAlive`] at once.
    pub reply_requested: bool,
}

impl StandbyStatus {
    /// Returns the body of the `CopyData` message.
    pub(super) fn encode(&self) -> [u8; 34] {
        let mut message = [0; 34];
        let mut body = message.as_mut_slice();
        body.put_u8(b'r');
        body.put_u64(self.write.0);
        body.put_u64(self.flush.0);
        body.put_u64(self.apply.0);
        body.put_i64(self.sent_at.as_microsecond() - POSTGRESQL_EPOCH_MICROSECONDS);
        body.put_u8(u8::from(self.reply_requested));
        message
    }
}

/// Reads the body of a `CopyData` message; `None` if it is malformed.
pub(super) fn parse(mut body: Bytes) -> Option<ReplicationEvent> {
    match body.try_get_u8().ok()? {
        b'w' => {
            let start = Lsn(body.try_get_u64().ok()?);
            let server_wal_end = Lsn(body.try_get_u64().ok()?);
            let sent_at = timestamp(body.try_get_i64().ok()?)?;
            Some(ReplicationEvent::Wal {
                start,
                server_wal_end,
                sent_at,
                data: body,
            })
        }
        b'k' => {
            let server_wal_end = Lsn(body.try_get_u64().ok()?);
            let sent_at = timestamp(body.try_get_i64().ok()?)?;
            let reply_requested = body.try_get_u8().ok()? != 0;
            Some(ReplicationEvent::KeepAlive {
                server_wal_end,
                sent_at,
                reply_requested,
            })
        }
        _ => None,
    }
}

/// Converts a time from the wire; `None` if it is out of range.
fn timestamp(microseconds: i64) -> Option<Timestamp> {
    let unix = microseconds.checked_add(POSTGRESQL_EPOCH_MICROSECONDS)?;
    Timestamp::from_microsecond(unix).ok()
}
