//! The files that a server hands to `archive_command` and asks of `restore_command`, and those that are kept whole.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dr_model::{Epoch, SystemIdentifier, TimelineId};
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};

use super::segment::Content;

/// How often a file is offered to a store that does not answer.
const ATTEMPTS: u32 = 3;

/// How long one answer is waited for, for each [`PART_BYTES`] of what it is about.
const LIMIT: Duration = Duration::from_secs(30);

/// How much of a file is read at a time: as long as a segment usually is.
const PART_BYTES: u64 = 16 << 20;

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
        let body = content.all().await.map_err(unreadable)?;
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
    bytes: u64,
    at: u64,
}

impl Kept {
    /// Looks for a file; `None` if it is proven not to be there.
    pub(super) async fn find(store: &Arc<dyn ObjectStore>, key: Key) -> Result<Option<Self>> {
        // One byte more, so that a segment of the usual size is seen to end.
        let most = PART_BYTES + 1;
        let first = match limited(store.get_range(&key, 0, most), &key, most).await {
            Ok(first) => first,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = match first.len() as u64 {
            bytes if bytes < most => bytes,
            _ => limited(store.head(&key), &key, 0).await?.size_bytes,
        };
        Ok(Some(Self {
            store: Arc::clone(store),
            key,
            first,
            bytes,
            at: 0,
        }))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the first bytes, and leaves the place where it reads as it is.
    pub(super) async fn head(&self, length: u64) -> Result<Bytes> {
        self.read(0, length.min(self.bytes)).await
    }

    /// Returns the next part; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        let length = (self.bytes - self.at).min(PART_BYTES);
        if length == 0 {
            return Ok(None);
        }
        let part = self.read(self.at, length).await?;
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
                self.bytes
            );
            return Err(
                Error::new(ErrorKind::Corrupt, "read object", self.key.to_string()).because(why),
            );
        }
        Ok(part)
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
