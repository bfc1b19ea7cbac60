//! The files that a server hands to `archive_command` and asks of `restore_command`, and those that are kept whole.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dr_model::{Epoch, SystemIdentifier, TimelineId};
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};

/// How often a file is offered to a store that does not answer.
const ATTEMPTS: u32 = 3;

/// How long one answer is waited for.
const LIMIT: Duration = Duration::from_secs(30);

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
pub(super) async fn keep(store: &Arc<dyn ObjectStore>, key: &Key, content: &Bytes) -> Result<()> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let error = match limited(store.create(key, content.clone()), key).await {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let there = limited(store.get(key), key).await?;
                if there == *content {
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

/// Reads a file that is kept whole; `None` if it is proven not to be there.
pub(super) async fn kept(store: &Arc<dyn ObjectStore>, key: &Key) -> Result<Option<Bytes>> {
    match limited(store.get(key), key).await {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn limited<T>(call: impl Future<Output = Result<T>>, key: &Key) -> Result<T> {
    tokio::time::timeout(LIMIT, call).await.unwrap_or_else(|_| {
        Err(
            Error::new(ErrorKind::Unknown, "use object", key.to_string())
                .because(format!("no answer within {} s", LIMIT.as_secs())),
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
    use rstest::rstest;

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
