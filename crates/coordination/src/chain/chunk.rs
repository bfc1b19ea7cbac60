//! A piece of log, and what is said about it.

use bytes::Bytes;
use dr_model::{Epoch, Lsn, SystemIdentifier, TimelineId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ChainId, Encryption};

/// The longest log that one chunk may hold; readers refuse more, so that a damaged length cannot exhaust memory.
pub const MAX_LOG_BYTES: u64 = 64 << 20;

/// Whether the conditions under which synchronous mode promises anything held (PROTOCOL 5).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promise {
    /// Whether all held.
    pub held: bool,
    /// When they were looked at, by the receiver's clock.
    pub checked_at: Timestamp,
    /// Why they did not, one line each.
    pub reasons: Vec<String>,
    /// The epoch whose sync set they were compared with, if not the one that the chain is named after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Where the primary's WAL ended when they were first found to hold, without a break since then: what was acknowledged
    /// unwaited lies before this, so a seal proves something only at or behind it. `None` if they do not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Lsn>,
}

impl Promise {
    /// Tells whether a chain that ends at `end` then holds everything that was acknowledged in `epoch`: the conditions
    /// held, they were compared with the sync set of that very epoch, and what was acknowledged before they held is there.
    ///
    /// Says nothing of how long ago that was. `chain` is the epoch that the chain is named after.
    #[must_use]
    pub fn covers(&self, chain: Epoch, epoch: Epoch, end: Lsn) -> bool {
        self.held
            && self.epoch.unwrap_or(chain) == epoch
            && self.from.is_some_and(|from| from <= end)
    }
}

/// What the receiver knew when it closed a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Commits in the log. After a chunk was cut because another writer was faster, an upper bound.
    pub commits: u64,
    /// Time of the last commit in the log, by the primary's clock.
    pub last_commit_at: Option<Timestamp>,
    /// When the last byte was received, by the receiver's clock.
    pub received_at: Timestamp,
    /// The primary's WAL end as last reported by then.
    pub primary_end: Lsn,
    /// The promise conditions as last checked; `None` outside synchronous mode.
    pub promise: Option<Promise>,
}

/// A piece of log to be stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chunk {
    /// Where it starts.
    pub start: Lsn,
    /// Its bytes: at least one, at most [`MAX_LOG_BYTES`].
    pub log: Bytes,
    /// What is known about it.
    pub facts: Facts,
}

impl Chunk {
    /// Returns where it ends: the position after its last byte.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.start.advance(self.log.len() as u64)
    }
}

/// How a chunk's log is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// As one zstd frame.
    Zstd,
    /// As it is, because compression would not have made it smaller.
    Raw,
    /// Not at all: it was lost before it could be stored, and the chain goes on behind it.
    Lost,
}

/// The header of a stored chunk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkHeader {
    /// [`FORMAT_VERSION`](super::FORMAT_VERSION).
    pub version: u32,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The timeline.
    pub timeline: TimelineId,
    /// The epoch.
    pub epoch: Epoch,
    /// Where the log starts; the same as in the key.
    pub start: Lsn,
    /// Where it ends, which is the key of the next link.
    pub end: Lsn,
    /// See [`Facts::commits`].
    pub commits: u64,
    /// See [`Facts::last_commit_at`].
    pub last_commit_at: Option<Timestamp>,
    /// See [`Facts::received_at`].
    pub received_at: Timestamp,
    /// See [`Facts::primary_end`].
    pub primary_end: Lsn,
    /// A position up to which the chain was known to hang together when this chunk was written: a place to start walking.
    pub durable_through: Lsn,
    /// See [`Facts::promise`].
    pub promise: Option<Promise>,
    /// Who wrote it, for people.
    pub writer: String,
    /// How the log is stored.
    pub encoding: Encoding,
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// BLAKE3 of the bytes as stored, in hexadecimal digits: damage is noticed without decompressing.
    pub stored_blake3: String,
    /// BLAKE3 of the log, in hexadecimal digits; keyed if it is encrypted.
    pub log_blake3: String,
    /// How the payload is encrypted; absent if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

impl ChunkHeader {
    /// Returns the chain that the chunk says it belongs to.
    #[must_use]
    pub fn chain(&self) -> ChainId {
        ChainId {
            system_identifier: self.system_identifier,
            timeline: self.timeline,
            epoch: self.epoch,
        }
    }

    /// Returns the length of the log.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.end.bytes_since(self.start)
    }

    /// Tells whether the chunk holds no log, but says that it is lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.encoding == Encoding::Lost
    }
}
