//! Pieces: log that was merged, under a name that says where it ends.
//!
//! Chunks are many and small; a piece is a segment of the log, or the part of one that there is so far. Because its key
//! holds its end, a listing shows what is missing. A piece is made of log that hangs together, so what it holds is what the
//! chain held, whether or not the chunks are still there.

use bytes::Bytes;
use dr_encryption::Keys;
use dr_model::{Epoch, Lsn, SystemIdentifier, TimelineId};
use dr_provider::{ErrorKind, Key, ObjectStore};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::envelope::{
    HASH_BYTES, Payload, Sealing, Stated, hash, longest, open_payload, unwrap, wrap,
};
use super::section::Section;
use super::{ChainId, Cipher, Encoding, Encryption, FORMAT_VERSION, Flaw};
use crate::operation::{Patience, back_off, key, limited};

/// The first bytes of every piece.
const MAGIC: &[u8; 8] = b"DRPIECE\n";

/// The longest log that one piece holds: a segment of the usual size. Longer segments are several pieces.
pub const MAX_PIECE_BYTES: u64 = 16 << 20;

/// How many pieces are listed at once.
const PAGE: usize = 1000;

/// From where to where a piece reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Its first position.
    pub from: Lsn,
    /// The position after its last.
    pub to: Lsn,
}

impl Span {
    /// Returns the key of the piece that holds exactly this.
    #[must_use]
    pub fn key(&self, system_identifier: SystemIdentifier, timeline: TimelineId) -> Key {
        key(format!(
            "{}{}-{}",
            prefix(system_identifier, timeline),
            self.from.to_key(),
            self.to.to_key()
        ))
    }

    /// Reads the last part of a key; `None` if it is no piece's.
    pub(crate) fn from_file_name(name: &str) -> Option<Self> {
        let (from, to) = name.split_once('-')?;
        let span = Self {
            from: Lsn::from_key(from)?,
            to: Lsn::from_key(to)?,
        };
        (span.from < span.to).then_some(span)
    }

    /// Tells whether all of `other` is in this one too.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.from <= other.from && other.to <= self.to
    }

    /// Returns how much log it is.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.to.bytes_since(self.from)
    }
}

/// What is known of a piece's log, from the chunks that it was made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PieceFacts {
    /// The epochs whose chains it was made of, in order.
    pub epochs: Vec<Epoch>,
    /// Commits in it, at most: a chunk that is in two pieces is counted in both.
    pub commits: u64,
    /// Time of the last of them, by the primary's clock.
    pub last_commit_at: Option<Timestamp>,
    /// When its last byte was received, by the receiver's clock.
    pub received_at: Timestamp,
}

/// The header of a stored piece.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PieceHeader {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The timeline.
    pub timeline: TimelineId,
    /// Where the log starts; the same as in the key.
    pub start: Lsn,
    /// Where it ends; the same as in the key.
    pub end: Lsn,
    /// See [`PieceFacts::epochs`].
    pub epochs: Vec<Epoch>,
    /// See [`PieceFacts::commits`].
    pub commits: u64,
    /// See [`PieceFacts::last_commit_at`].
    pub last_commit_at: Option<Timestamp>,
    /// See [`PieceFacts::received_at`].
    pub received_at: Timestamp,
    /// Who wrote it, for people.
    pub writer: String,
    /// How the log is stored.
    pub encoding: Encoding,
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// BLAKE3 of the bytes as stored, in hexadecimal digits.
    pub stored_blake3: String,
    /// BLAKE3 of the log, in hexadecimal digits; keyed if it is encrypted.
    pub log_blake3: String,
    /// How the payload is encrypted; absent if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

impl PieceHeader {
    /// Returns what is known of its log.
    #[must_use]
    pub fn facts(&self) -> PieceFacts {
        PieceFacts {
            epochs: self.epochs.clone(),
            commits: self.commits,
            last_commit_at: self.last_commit_at,
            received_at: self.received_at,
        }
    }
}

fn prefix(system_identifier: SystemIdentifier, timeline: TimelineId) -> String {
    format!(
        "{}log/",
        ChainId::timeline_prefix(system_identifier, timeline)
    )
}

/// Returns the bytes that are stored for a piece that begins at `start`.
#[must_use]
pub fn encode_piece(
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    start: Lsn,
    log: &Bytes,
    facts: &PieceFacts,
    writer: &str,
    cipher: Option<&Cipher>,
) -> Bytes {
    let span = Span {
        from: start,
        to: start.advance(log.len() as u64),
    };
    let sealing = Sealing::new(cipher, &span.key(system_identifier, timeline));
    let payload = Payload::of(log, &sealing);
    let header = PieceHeader {
        version: FORMAT_VERSION,
        system_identifier,
        timeline,
        start,
        end: span.to,
        epochs: facts.epochs.clone(),
        commits: facts.commits,
        last_commit_at: facts.last_commit_at,
        received_at: facts.received_at,
        writer: writer.to_owned(),
        encoding: payload.encoding,
        stored_bytes: payload.stored.len() as u64,
        stored_blake3: hash(&payload.stored),
        log_blake3: payload.log_blake3,
        encryption: sealing.stated(),
    };
    wrap(MAGIC, &header, &payload.stored, &sealing)
}

/// Reads a whole piece and verifies every byte; the error says what is wrong.
pub fn decode_piece(
    bytes: &Bytes,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    span: Span,
    keys: &Keys,
) -> Result<(PieceHeader, Bytes), Flaw> {
    let Some((header, offset)) = unwrap::<PieceHeader>(MAGIC, bytes, "a piece of log")? else {
        return Err(format!("it is cut off after {} bytes", bytes.len()).into());
    };
    check_stated(&header, (system_identifier, timeline), span)?;
    let stated = Stated {
        encoding: header.encoding,
        stored_bytes: header.stored_bytes,
        stored_blake3: &header.stored_blake3,
        log_bytes: span.log_bytes(),
        log_blake3: &header.log_blake3,
    };
    let key = span.key(system_identifier, timeline);
    let sealing = Sealing::stated_by(header.encryption.as_ref(), keys, &key)?;
    let log = open_payload(bytes, offset, &stated, &sealing)?;
    Ok((header, log))
}

/// The name of the key that an object is encrypted with, if it is.
pub(crate) type KeyName = Option<String>;

/// Checks the header of a piece in the first bytes of an object of `size_bytes`: that it is this piece, and that what it says is
/// behind it is there. Returns with which key it is encrypted; `None` if more bytes are needed; the error says what is wrong.
fn check_header(
    head: &[u8],
    size_bytes: u64,
    (system_identifier, timeline): (SystemIdentifier, TimelineId),
    span: Span,
) -> Result<Option<KeyName>, String> {
    let cut = || format!("it is cut off after {size_bytes} bytes");
    let Some((header, offset)) = unwrap::<PieceHeader>(MAGIC, head, "a piece of log")? else {
        return match head.len() as u64 >= size_bytes {
            true => Err(cut()),
            false => Ok(None),
        };
    };
    check_stated(&header, (system_identifier, timeline), span)?;
    let code = header.encryption.as_ref().map_or(0, |_| HASH_BYTES);
    match (offset + code) as u64 + header.stored_bytes {
        whole if whole == size_bytes => Ok(Some(header.encryption.map(|with| with.key))),
        whole if whole > size_bytes => Err(format!("{}, of {whole}", cut())),
        whole => Err(format!(
            "it has {size_bytes} bytes, of which {whole} were written"
        )),
    }
}

/// Checks that a header is that of the piece under whose key it stands; the error says what is wrong.
fn check_stated(
    header: &PieceHeader,
    (system_identifier, timeline): (SystemIdentifier, TimelineId),
    span: Span,
) -> Result<(), String> {
    if header.version != FORMAT_VERSION {
        return Err(format!("format version {} is not known", header.version));
    }
    if (header.system_identifier, header.timeline) != (system_identifier, timeline) {
        return Err(format!(
            "it belongs to cluster {}, timeline {}",
            header.system_identifier, header.timeline
        ));
    }
    let sound = (header.start, header.end) == (span.from, span.to)
        && span.log_bytes() <= MAX_PIECE_BYTES
        && header.stored_bytes <= longest(span.log_bytes(), header.encryption.as_ref());
    if !sound {
        return Err(format!(
            "its header speaks of {} to {} in {} bytes, its key of {} to {}",
            header.start, header.end, header.stored_bytes, span.from, span.to
        ));
    }
    Ok(())
}

/// Reads the header of a piece whose object has `size_bytes`, and compares the two. Returns with which key it is encrypted; the inner
/// error says what is wrong with it; `None` if it has gone since it was listed.
pub(crate) async fn glance(
    store: &dyn ObjectStore,
    whose: (SystemIdentifier, TimelineId),
    (span, size_bytes): (Span, u64),
    patience: Patience,
) -> dr_provider::Result<Option<Result<KeyName, String>>> {
    /// Bytes that hold the header of any piece that this code writes.
    const GLANCE_BYTES: u64 = 4096;
    let key = span.key(whose.0, whose.1);
    let mut wanted = GLANCE_BYTES;
    let mut attempt = 0;
    loop {
        back_off(attempt).await;
        let subject = || format!("{}/{key}", store.location());
        let read = store.get_range(&key, 0, wanted.min(size_bytes));
        let read = match size_bytes {
            // Of nothing there is no range.
            0 => Ok(Bytes::new()),
            _ => limited(patience.timeout, "read object", subject, read).await,
        };
        match read {
            Ok(head) => match check_header(&head, size_bytes, whose, span) {
                Ok(Some(key)) => return Ok(Some(Ok(key))),
                Ok(None) if wanted < size_bytes => wanted = size_bytes,
                Ok(None) => return Ok(Some(Err("it is cut off".to_owned()))),
                Err(why) => return Ok(Some(Err(why))),
            },
            // Part of a longer one by now, and removed.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                attempt += 1;
                if error.is_permanent() || attempt >= patience.attempts {
                    return Err(error);
                }
            }
        }
    }
}

/// Lists the pieces that hold anything of a section, in order of where they begin.
///
/// Costs one listing for a thousand pieces.
pub async fn pieces(
    store: &dyn ObjectStore,
    section: Section,
    patience: Patience,
) -> dr_provider::Result<Vec<Span>> {
    let listed = list(store, section, patience).await?;
    Ok(listed.into_iter().map(|(span, _)| span).collect())
}

/// As [`pieces`], each with the bytes of its object.
pub(crate) async fn list(
    store: &dyn ObjectStore,
    section: Section,
    patience: Patience,
) -> dr_provider::Result<Vec<(Span, u64)>> {
    let prefix = prefix(section.system_identifier, section.timeline);
    // No piece that begins before this reaches the section.
    let first = Lsn(section.from.0.saturating_sub(MAX_PIECE_BYTES));
    let mut after = key(format!("{prefix}{}", first.to_key()));
    let mut found = Vec::new();
    loop {
        let listed = limited(
            patience.timeout,
            "list objects",
            || format!("{}/{prefix}", store.location()),
            store.list(&prefix, Some(&after), PAGE),
        )
        .await?;
        let Some(last) = listed.last() else {
            return Ok(found);
        };
        after = last.key.clone();
        let spans = listed.iter().filter_map(|info| {
            Some((Span::from_file_name(info.key.file_name())?, info.size_bytes))
        });
        for (span, size_bytes) in spans {
            if span.from >= section.to {
                return Ok(found);
            }
            if span.to > section.from {
                found.push((span, size_bytes));
            }
        }
        if listed.len() < PAGE {
            return Ok(found);
        }
    }
}
