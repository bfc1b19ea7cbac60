//! The files that a server hands to `archive_command` and asks of `restore_command`, and those that are kept whole.
//!
//! Such a file stands in one object, behind its last byte a line with the hash of all of it: `docs/formats/wal.md`. Whoever reads it
//! knows at the end whether it was the file. One that was stored before there was such a line is followed record by record instead,
//! which finds what a server would stop at.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dr_model::{Epoch, Lsn, SegmentSize, SystemIdentifier, TimelineId};
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};

use super::segment::Content;
use crate::wal::{Decoder, Expected};

/// How often a file is offered to a store that does not answer.
const ATTEMPTS: u32 = 3;

/// How long one answer is waited for, for each [`PART_BYTES`] of what it is about.
const LIMIT: Duration = Duration::from_secs(30);

/// How much of a file is read at a time: as long as a segment usually is.
const PART_BYTES: u64 = 16 << 20;

/// How the line with the hash begins, and how long it is with the line feed behind it.
const LINE: &str = "blake3 ";
const LINE_BYTES: u64 = 7 + 64 + 1;

/// What a file is, by its name (`access/xlog_internal.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// A timeline's history.
    History(TimelineId),
    /// A whole segment.
    Segment(TimelineId),
    /// The last segment of a timeline that was left in it.
    Partial(TimelineId),
    /// What a backup left about itself.
    Backup(TimelineId),
}

impl Name {
    /// Returns the timeline that it belongs to.
    pub(super) fn timeline(self) -> TimelineId {
        let (Self::History(timeline)
        | Self::Segment(timeline)
        | Self::Partial(timeline)
        | Self::Backup(timeline)) = self;
        timeline
    }

    /// Reads a name; `None` if it is not one of the log's.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (stem, rest) = name.split_once('.').unwrap_or((name, ""));
        let hexadecimal = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
        };
        if !hexadecimal(stem) || !name.is_ascii() {
            return None;
        }
        let timeline = stem
            .get(..8)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let timeline = TimelineId(timeline.filter(|number| *number > 0)?);
        match (stem.len(), rest) {
            (8, "history") => Some(Self::History(timeline)),
            (24, "") if !name.contains('.') => Some(Self::Segment(timeline)),
            (24, "partial") => Some(Self::Partial(timeline)),
            (24, rest) => {
                let offset = rest.strip_suffix(".backup")?;
                (offset.len() == 8 && hexadecimal(offset)).then_some(Self::Backup(timeline))
            }
            _ => None,
        }
    }
}

/// Returns the key of a file that is kept whole, beside the chains of its timeline.
pub(super) fn file_key(cluster: SystemIdentifier, timeline: TimelineId, name: &str) -> Key {
    let key = format!("postgres/{cluster}/wal/{}/file/{name}", timeline.to_key());
    Key::new(key).expect("numbers and the names of log files are of the alphabet of keys")
}

/// Returns the key of a file that a superseded primary wrote (PROTOCOL 7).
pub(super) fn quarantine_key(cluster: SystemIdentifier, epoch: Epoch, name: &str) -> Key {
    let key = format!("postgres/{cluster}/quarantine/{}/{name}", epoch.to_key());
    Key::new(key).expect("numbers and the names of log files are of the alphabet of keys")
}

/// Keeps a file whole: never overwrites, and takes the same content for success (R13).
///
/// A store makes an object of a body in memory. This is the only place where all of a longer segment is: one from before the log
/// that the store holds, one of a timeline that was left, and the last one of such a timeline.
pub(super) async fn keep(
    store: &Arc<dyn ObjectStore>,
    key: &Key,
    content: &Content,
    subject: &str,
) -> Result<()> {
    let unreadable =
        |error: std::io::Error| Error::new(ErrorKind::Failed, "read", subject).because(error);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let body = content.all_hashed(LINE).await.map_err(unreadable)?;
        let error = match limited(store.create(key, body), key, content.len()).await {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if is_kept(store, key, content, &unreadable).await? {
                    return Ok(());
                }
                return Err(
                    Error::new(ErrorKind::Corrupt, "keep", key.to_string()).because(format!(
                        "{} holds it already, with other content",
                        store.location()
                    )),
                );
            }
            Err(error) => error,
        };
        if error.is_permanent() || attempt == ATTEMPTS {
            return Err(error);
        }
    }
}

/// Tells whether what is kept is the same, part by part.
async fn is_kept(
    store: &Arc<dyn ObjectStore>,
    key: &Key,
    content: &Content,
    unreadable: &impl Fn(std::io::Error) -> Error,
) -> Result<bool> {
    let Some(mut there) = Kept::find(store, key.clone()).await? else {
        // It was there a moment ago. The server offers the file again.
        return Err(
            Error::new(ErrorKind::Unavailable, "keep", key.to_string()).because(format!(
                "{} held it already, and does not hold it any more",
                store.location()
            )),
        );
    };
    if there.bytes() != content.len() {
        return Ok(false);
    }
    let mut at = 0;
    while let Some(theirs) = there.next().await? {
        let ours = content.read(at, theirs.len()).await.map_err(unreadable)?;
        if ours != theirs {
            return Ok(false);
        }
        at += theirs.len() as u64;
    }
    Ok(true)
}

/// A file that is kept whole, read in parts.
pub(super) struct Kept {
    store: Arc<dyn ObjectStore>,
    key: Key,
    /// What was read in order to find it: all of most.
    first: Bytes,
    /// The length of the object, and of the file in it.
    stored_bytes: u64,
    bytes: u64,
    at: u64,
    check: Check,
}

/// What shows that a file is what was stored.
enum Check {
    /// The hash that stands behind it, and that of what was read so far.
    Hash(Box<(blake3::Hash, blake3::Hasher)>),
    /// The records of a segment that was stored without a hash.
    Records(Box<Decoder>),
    /// Nothing: it was stored without a hash, and is no log, or log that ends somewhere in it.
    Nothing,
}

impl Kept {
    /// Looks for a file; `None` if it is proven not to be there.
    pub(super) async fn find(store: &Arc<dyn ObjectStore>, key: Key) -> Result<Option<Self>> {
        // One byte more, so that a segment of the usual size is seen to end.
        let most = PART_BYTES + LINE_BYTES + 1;
        let first = match limited(store.get_range(&key, 0, most), &key, most).await {
            Ok(first) => first,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let stored_bytes = match first.len() as u64 {
            bytes if bytes < most => bytes,
            _ => limited(store.head(&key), &key, 0).await?.size_bytes,
        };
        let mut file = Self {
            store: Arc::clone(store),
            key,
            first,
            stored_bytes,
            bytes: stored_bytes,
            at: 0,
            check: Check::Nothing,
        };
        if let Some(bytes) = stored_bytes.checked_sub(LINE_BYTES) {
            match Line::of(&file.read(bytes, LINE_BYTES).await?) {
                Line::Hash(hash) => {
                    file.bytes = bytes;
                    file.check = Check::Hash(Box::new((hash, blake3::Hasher::new())));
                }
                Line::Damaged => {
                    let why = "the line with the hash of its content is damaged";
                    let key = file.key.to_string();
                    return Err(Error::new(ErrorKind::Corrupt, "read object", key).because(why));
                }
                Line::None => {}
            }
        }
        Ok(Some(file))
    }

    /// Has the records of a segment judged where there is no hash of it: the log in it goes on to its end.
    pub(super) fn is_segment(&mut self, start: Lsn, size: SegmentSize, expected: Expected) {
        if let Check::Nothing = self.check {
            let decoder = Decoder::new(start, size, Some(expected));
            self.check = Check::Records(Box::new(decoder));
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the first bytes, and leaves the place where it reads as it is.
    pub(super) async fn head(&self, length: u64) -> Result<Bytes> {
        self.read(0, length.min(self.bytes)).await
    }

    /// Returns the next part; `None` at the end, once all of it has turned out to be what was stored.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        let damaged = |key: &Key, why: String| {
            Error::new(ErrorKind::Corrupt, "read object", key.to_string()).because(why)
        };
        let length = (self.bytes - self.at).min(PART_BYTES);
        if length == 0 {
            return match &self.check {
                Check::Hash(check) if check.1.finalize() != check.0 => {
                    let why = "the hash of its content does not match".to_owned();
                    Err(damaged(&self.key, why))
                }
                _ => Ok(None),
            };
        }
        let part = self.read(self.at, length).await?;
        match &mut self.check {
            Check::Hash(check) => {
                check.1.update(&part);
            }
            Check::Records(decoder) => {
                if let Err(stop) = decoder.feed(&part, |_| ()) {
                    let why = format!("the log in it ends at {}, in the middle: {stop}", stop.at);
                    return Err(damaged(&self.key, why));
                }
            }
            Check::Nothing => {}
        }
        self.at += length;
        Ok(Some(part))
    }

    async fn read(&self, offset: u64, length: u64) -> Result<Bytes> {
        let place = usize::try_from(offset)
            .ok()
            .zip(usize::try_from(offset + length).ok());
        if let Some((from, to)) = place.filter(|(_, to)| *to <= self.first.len()) {
            return Ok(self.first.slice(from..to));
        }
        let call = self.store.get_range(&self.key, offset, length);
        let part = limited(call, &self.key, length).await?;
        if part.len() as u64 != length {
            let why = format!(
                "it ends within the {} bytes that it was to have",
                self.stored_bytes
            );
            return Err(
                Error::new(ErrorKind::Corrupt, "read object", self.key.to_string()).because(why),
            );
        }
        Ok(part)
    }
}

/// The last bytes of an object.
enum Line {
    /// They are the line with the hash of what is before them.
    Hash(blake3::Hash),
    /// They were: what is left of it is no file that was stored without one.
    Damaged,
    /// They are of the file.
    None,
}

impl Line {
    /// Reads [`LINE_BYTES`].
    fn of(line: &[u8]) -> Self {
        let (mark, rest) = line.split_at(LINE.len());
        let (digits, end) = rest.split_at(2 * blake3::OUT_LEN);
        let is_mark = mark == LINE.as_bytes();
        let is_end = end == b"\n";
        let hash = blake3::Hash::from_hex(digits).ok();
        match hash {
            Some(hash) if is_mark && is_end => Self::Hash(hash),
            // No file ends like that by itself.
            hash if is_mark || (hash.is_some() && is_end) => Self::Damaged,
            _ => Self::None,
        }
    }
}

async fn limited<T>(call: impl Future<Output = Result<T>>, key: &Key, bytes: u64) -> Result<T> {
    let parts = u32::try_from(bytes.div_ceil(PART_BYTES)).unwrap_or(u32::MAX);
    let limit = LIMIT.saturating_mul(parts.max(1));
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
        Err(
            Error::new(ErrorKind::Unknown, "use object", key.to_string())
                .because(format!("no answer within {} s", limit.as_secs())),
        )
    })
}

/// Returns the cluster whose `pg_wal` a path is in, from its control file; `None` if there is none to be read.
///
/// The server gives paths relative to its data directory, which is the working directory then.
pub(super) fn cluster_at(path: &Path) -> Option<SystemIdentifier> {
    let data_directory = path.parent()?.parent()?;
    let mut head = [0; 8];
    let mut file = std::fs::File::open(data_directory.join("global/pg_control")).ok()?;
    file.read_exact(&mut head).ok()?;
    Some(SystemIdentifier(u64::from_le_bytes(head)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dr_provider::store::MemoryStore;
    use rstest::rstest;

    /// A file longer than what is read at a time is taken for the same only if all of it is.
    #[tokio::test]
    async fn a_long_file_is_kept_once_and_read_in_parts() {
        let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("west"));
        let key = file_key(SystemIdentifier(7), TimelineId(1), "long");
        let length = usize::try_from(2 * PART_BYTES).unwrap() + 5;
        let mut bytes: Vec<u8> = (0..length).map(|at| (at % 251).to_le_bytes()[0]).collect();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("long");
        let offer = async |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let content = Content::open(&path).await.unwrap();
            keep(&store, &key, &content, "long").await
        };
        offer(&bytes).await.unwrap();
        offer(&bytes).await.unwrap();

        let mut kept = Kept::find(&store, key.clone()).await.unwrap().unwrap();
        assert_eq!(kept.head(3).await.unwrap(), bytes[..3]);
        let mut read = Vec::new();
        let mut lengths = Vec::new();
        while let Some(part) = kept.next().await.unwrap() {
            lengths.push(part.len() as u64);
            read.extend_from_slice(&part);
        }
        assert_eq!(lengths, [PART_BYTES, PART_BYTES, 5]);
        assert!(read == bytes);

        let error = offer(&bytes[..length - 1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        bytes[length - 1] ^= 1;
        let error = offer(&bytes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    /// As it is written now, and as an earlier `dr` wrote it.
    #[rstest]
    #[case::hashed(
        "hello\nblake3 75f10ff9ee3ac3ef10fa16c1c47c6ee7f4c79f6e4e1f8a5b2d0a5f4d4dbd6c0f\n",
        None
    )]
    #[case::empty("", Some(""))]
    #[case::without_a_hash("hello", Some("hello"))]
    #[case::shorter_than_the_line("h", Some("h"))]
    #[case::a_line_that_is_none("hello\nblake3 75f1\n", Some("hello\nblake3 75f1\n"))]
    #[case::a_digit_that_is_none(
        "blake3 =5f10ff9ee3ac3ef10fa16c1c47c6ee7f4c79f6e4e1f8a5b2d0a5f4d4dbd6c0f\n",
        None
    )]
    #[case::a_mark_that_is_none(
        "flake3 75f10ff9ee3ac3ef10fa16c1c47c6ee7f4c79f6e4e1f8a5b2d0a5f4d4dbd6c0f\n",
        None
    )]
    #[tokio::test]
    async fn what_stands_behind_a_file_is_not_part_of_it(
        #[case] stored: &str,
        #[case] expected: Option<&str>,
    ) {
        let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("west"));
        let key = file_key(SystemIdentifier(7), TimelineId(1), "one");
        let body = Bytes::copy_from_slice(stored.as_bytes());
        store.create(&key, body).await.unwrap();
        let read = async {
            let mut kept = Kept::find(&store, key.clone()).await?.unwrap();
            let mut read = Vec::new();
            while let Some(part) = kept.next().await? {
                read.extend_from_slice(&part);
            }
            Ok::<_, Error>(read)
        };
        match (read.await, expected) {
            (Ok(read), Some(expected)) => assert_eq!(read, expected.as_bytes()),
            (Err(error), None) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                assert!(error.to_string().contains(key.as_str()), "{error}");
            }
            (outcome, _) => panic!("{outcome:?}"),
        }
    }

    #[tokio::test]
    async fn a_file_is_stored_with_the_hash_of_it_in_a_last_line() {
        let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("west"));
        let key = file_key(SystemIdentifier(7), TimelineId(1), "one");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("one");
        std::fs::write(&path, "hello").unwrap();
        let content = Content::open(&path).await.unwrap();
        keep(&store, &key, &content, "one").await.unwrap();
        let stored = store.get(&key).await.unwrap();
        let line = format!("helloblake3 {}\n", blake3::hash(b"hello").to_hex());
        assert_eq!(stored, line);
        assert_eq!(stored.len() as u64, 5 + LINE_BYTES);
        // One that an earlier `dr` stored is the same file.
        let older = file_key(SystemIdentifier(7), TimelineId(1), "older");
        store
            .create(&older, Bytes::from_static(b"hello"))
            .await
            .unwrap();
        keep(&store, &older, &content, "older").await.unwrap();
    }

    #[rstest]
    #[case("0000000200000001000000FF", Some(Name::Segment(TimelineId(2))))]
    #[case("0000000200000001000000FF.partial", Some(Name::Partial(TimelineId(2))))]
    #[case(
        "0000000200000001000000FF.0012ABCD.backup",
        Some(Name::Backup(TimelineId(2)))
    )]
    #[case("0000000A.history", Some(Name::History(TimelineId(10))))]
    #[case("00000000.history", None)]
    #[case("0000000a.history", None)]
    #[case("0000000200000001000000FF.", None)]
    #[case("0000000200000001000000F", None)]
    #[case("0000000200000001000000FF.00/2ABCD.backup", None)]
    #[case("RECOVERYXLOG", None)]
    #[case("", None)]
    fn names(#[case] name: &str, #[case] expected: Option<Name>) {
        assert_eq!(Name::parse(name), expected);
    }
}
