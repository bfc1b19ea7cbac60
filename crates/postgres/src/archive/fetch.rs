//! Serving the log to a recovering server: `restore_command` (R26, PROTOCOL 6).
//!
//! A server takes "not there" for the end of the log and starts up. So that is the answer only where it is proven: the
//! store answers, and the chains of the timeline end before the segment does or begin after it. Everything else is an
//! error. A segment is served whole, except for the one in which the log is known to end.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dr_coordination::chain::{self, Available, ChainReader, bounds, log_start, read_history};
use dr_model::{Lsn, RegionName, SegmentSize, SystemIdentifier, TimelineId};
use dr_provider::error::chain as explain;
use dr_provider::store::IDENTITY_KEY;
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};
use dr_repository::Keys;
use futures::future::join_all;

use super::file::{Name, cluster_at, file_key, kept};
use super::size::size_at;
use super::spool::{self, Spool};
use crate::driver::PostgresDriver;
use crate::register::patience;
use crate::wal::{Expected, check_segment, last_valid_end};

const OPERATION: &str = "fetch";

/// What is asked for.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    store: &'a Arc<dyn ObjectStore>,
    keys: &'a Keys,
    cluster: SystemIdentifier,
    timeline: TimelineId,
    name: &'a str,
    through: Option<Lsn>,
}

impl PostgresDriver {
    /// Puts the log file `name` from the store of `region` at `destination`; false if it is proven not to exist.
    ///
    /// Segments are assembled from the chains of their timeline. Only complete ones are served, unless `through` lies
    /// inside: then zeros follow it. Nothing at or after `through` is served. The file gets its name when it is complete,
    /// and never replaces a longer one.
    ///
    /// # Errors
    ///
    /// Whenever it is not certain that recovery may take the file for missing.
    pub async fn fetch_wal(
        &self,
        region: &RegionName,
        name: &str,
        destination: &Path,
        through: Option<Lsn>,
    ) -> Result<bool> {
        self.fetch(region, name, destination, (through, None)).await
    }

    /// The same, with a directory for the segments that will be asked for next: they are fetched with this one, and taken
    /// from there when they are. It must be of one recovering server alone, and is emptied of everything else.
    ///
    /// # Errors
    ///
    /// As [`fetch_wal`](Self::fetch_wal); what goes wrong with what is fetched ahead is none.
    pub async fn fetch_wal_ahead(
        &self,
        region: &RegionName,
        name: &str,
        destination: &Path,
        spool: &Path,
    ) -> Result<bool> {
        self.fetch(region, name, destination, (None, Some(spool)))
            .await
    }

    async fn fetch(
        &self,
        region: &RegionName,
        name: &str,
        destination: &Path,
        (through, spool): (Option<Lsn>, Option<&Path>),
    ) -> Result<bool> {
        let store = self.store(region)?;
        let Some(kind) = Name::parse(name) else {
            return Err(Error::new(ErrorKind::Invalid, OPERATION, name)
                .because("it is not the name of a file of the log"));
        };
        // The server's own control file says which cluster it is, also when no register can be read (R10).
        let cluster = match cluster_at(destination) {
            Some(cluster) => cluster,
            None => self.cluster_in(store, OPERATION).await?,
        };
        let content = match kind {
            Name::History(timeline) => read_history(&**store, cluster, timeline)
                .await?
                .map(Vec::from),
            Name::Partial(timeline) | Name::Backup(timeline) => {
                kept(store, &file_key(cluster, timeline, name))
                    .await?
                    .map(Vec::from)
            }
            Name::Segment(timeline) => {
                let wanted = Wanted {
                    store,
                    keys: self.keys(),
                    cluster,
                    timeline,
                    name,
                    through,
                };
                match spool {
                    Some(spool) => {
                        let spool = Spool::new(spool, cluster);
                        wanted.segment_and_next(destination, &spool).await?
                    }
                    None => wanted.segment(destination).await?,
                }
            }
        };
        let Some(content) = content else {
            // An absence counts only in a store that is there.
            let identity =
                Key::new(IDENTITY_KEY).expect("the name of the identity object is a key");
            store.head(&identity).await?;
            return Ok(false);
        };
        let (path, subject) = (destination.to_owned(), name.to_owned());
        tokio::task::spawn_blocking(move || put(&path, &content))
            .await
            .map_err(|error| Error::new(ErrorKind::Failed, OPERATION, &subject).because(error))?
            .map_err(|error| Error::new(ErrorKind::Failed, OPERATION, &subject).because(error))?;
        Ok(true)
    }
}

impl Wanted<'_> {
    /// Returns the bytes of the segment, from the spool if they are there, and fills that for the next ones if not.
    async fn segment_and_next(&self, destination: &Path, spool: &Spool) -> Result<Option<Vec<u8>>> {
        let next = spool::following(self.name);
        let taken = spool.take(self.name);
        spool.keep_only(&next);
        if let Some(taken) = taken.filter(|bytes| self.check(bytes).is_ok()) {
            return Ok(Some(taken));
        }
        let found = self.segment(destination).await?;
        // Nothing comes after the end of the log, nor, whole, after the segment in which it is. What could not be kept would be
        // fetched each time again.
        let usual = |bytes: &Vec<u8>| bytes.len() as u64 == SegmentSize::DEFAULT.bytes();
        if found.as_ref().is_some_and(usual) && spool.can_keep() {
            let missing = next.iter().filter(|name| !spool.has(name));
            join_all(missing.map(|name| self.fetch_ahead(name, spool))).await;
        }
        Ok(found)
    }

    /// Puts a later segment into the spool, if it is there and complete.
    async fn fetch_ahead(&self, name: &str, spool: &Spool) {
        let later = Wanted { name, ..*self };
        match later.usual().await {
            Ok(Some(bytes)) => spool.put(name, &bytes),
            Ok(None) => {}
            // Asked for again, and then it is an error.
            Err(error) => tracing::debug!(name, "not fetched ahead: {}", explain(&error)),
        }
    }

    /// Returns the bytes of the segment; `None` if it is proven not to be there.
    async fn segment(&self, destination: &Path) -> Result<Option<Vec<u8>>> {
        if let Some(bytes) = self.usual().await? {
            return Ok(Some(bytes));
        }
        let bounds = bounds(&**self.store, self.cluster, self.timeline, patience()).await?;
        let Some(Available {
            from: first,
            to: last,
        }) = bounds
        else {
            // What was pushed before a chain began is kept whole.
            return self.kept_whole().await;
        };
        // Below it, log was given up: nothing there says how long segments are.
        let kept_from = log_start(&**self.store, self.cluster, self.timeline, patience()).await?;
        let size = self.segment_size(first.max(kept_from)).await?;
        let Some((_, start)) = size.parse_file_name(self.name) else {
            return Err(self.refuse(
                ErrorKind::Invalid,
                format!("no segment of {} bytes has this name", size.bytes()),
            ));
        };
        let end = start.advance(size.bytes());
        if self.through.is_some_and(|through| through <= start) {
            return Ok(None);
        }
        let wanted = self.through.map_or(end, |through| through.min(end));
        let missing = match self.open(start, wanted).await {
            Ok(mut reader) => {
                let mut bytes = reader.read_to_end().await?;
                let whole = usize::try_from(size.bytes()).expect("a segment fits the memory");
                bytes.resize(whole, 0);
                self.check(&bytes)?;
                if wanted < end {
                    self.refuse_to_replace(destination, start, size, &bytes)?;
                }
                return Ok(Some(bytes));
            }
            Err(chain::Error::Hole { from, .. }) => from,
            Err(error) => return Err(error.into()),
        };
        if start < first {
            return self.kept_whole().await;
        }
        if missing < kept_from {
            let why = format!("retention keeps the log from {kept_from} on");
            return Err(self.refuse(ErrorKind::Failed, why));
        }
        match self.through {
            Some(through) if last < wanted && last <= missing => Err(self.refuse(
                ErrorKind::Corrupt,
                format!("the log ends at {last}, and has to reach {through}"),
            )),
            // The end of the log: there is no more of it, or not yet.
            None if last < end && last <= missing => Ok(None),
            _ => Err(self.refuse(
                ErrorKind::Corrupt,
                format!("the log has a hole from {missing} on"),
            )),
        }
    }

    /// Reads the segment as what it nearly always is: complete, and of the usual size.
    async fn usual(&self) -> Result<Option<Vec<u8>>> {
        let Some((_, start)) = SegmentSize::DEFAULT.parse_file_name(self.name) else {
            return Ok(None);
        };
        let end = start.advance(SegmentSize::DEFAULT.bytes());
        if self.through.is_some_and(|through| through < end) {
            return Ok(None);
        }
        match self.open(start, end).await {
            Ok(mut reader) => {
                let bytes = reader.read_to_end().await?;
                Ok(self.check(&bytes).is_ok().then_some(bytes))
            }
            Err(chain::Error::Hole { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn open(&self, from: Lsn, to: Lsn) -> std::result::Result<ChainReader, chain::Error> {
        let store = Arc::clone(self.store);
        let (cluster, timeline) = (self.cluster, self.timeline);
        let reader = ChainReader::open(store, cluster, timeline, from, to, patience()).await?;
        Ok(reader.with_keys(self.keys))
    }

    async fn kept_whole(&self) -> Result<Option<Vec<u8>>> {
        if self.through.is_some() {
            // Where a recovery begins and ends was proven on the chains; nothing else belongs to it.
            return Ok(None);
        }
        let key = file_key(self.cluster, self.timeline, self.name);
        match kept(self.store, &key).await? {
            Some(content) => {
                self.check(&content)?;
                Ok(Some(content.into()))
            }
            None => Ok(None),
        }
    }

    /// Learns how long the cluster's segments are: from the head of the segment itself, else from where the log begins.
    async fn segment_size(&self, first: Lsn) -> Result<SegmentSize> {
        let named = SegmentSize::ALL.into_iter().filter_map(|size| {
            let (_, start) = size.parse_file_name(self.name)?;
            Some((size, start))
        });
        for (size, start) in named {
            if self.size_at(start).await? == Some(size) {
                return Ok(size);
            }
        }
        self.size_at(first).await?.ok_or_else(|| {
            self.refuse(
                ErrorKind::Corrupt,
                format!(
                    "the log at {first} does not begin as a segment of cluster {}",
                    self.cluster
                ),
            )
        })
    }

    async fn size_at(&self, start: Lsn) -> Result<Option<SegmentSize>> {
        let store = (self.store, self.keys);
        size_at(store, self.cluster, self.timeline, start).await
    }

    fn check(&self, bytes: &[u8]) -> Result<()> {
        let checked = check_segment(self.name, bytes, bytes.len() as u64, self.cluster);
        checked
            .map(drop)
            .map_err(|error| Error::new(ErrorKind::Corrupt, OPERATION, self.name).because(error))
    }

    /// Refuses to serve a tail to a server that has more of it: it would lose what it has (PROTOCOL 6).
    fn refuse_to_replace(
        &self,
        destination: &Path,
        start: Lsn,
        size: SegmentSize,
        bytes: &[u8],
    ) -> Result<()> {
        let own = destination.with_file_name(self.name);
        let there = match std::fs::read(&own) {
            Ok(there) => there,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(
                    Error::new(ErrorKind::Failed, "read", own.display().to_string()).because(error),
                );
            }
        };
        let expected = Some(Expected {
            system_identifier: self.cluster,
            timeline: self.timeline,
        });
        let has = last_valid_end(start, &there, size, expected).last_valid_end;
        let gets = last_valid_end(start, bytes, size, expected).last_valid_end;
        match (has, gets) {
            (Some(has), gets) if gets.is_none_or(|gets| gets < has) => Err(self.refuse(
                ErrorKind::Conflict,
                format!(
                    "`{}` has the log up to {has}, further than the store",
                    own.display()
                ),
            )),
            _ => Ok(()),
        }
    }

    fn refuse(&self, kind: ErrorKind, why: String) -> Error {
        Error::new(
            kind,
            OPERATION,
            format!("{} from {}", self.name, self.store.location()),
        )
        .because(why)
    }
}

/// Writes a file whole under another name first.
fn put(destination: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;

    match std::fs::symlink_metadata(destination) {
        // Renaming over it would put a file in the place of a device, or of a link to somewhere else.
        Ok(there) if !there.is_file() => {
            return Err(std::io::Error::other(format!(
                "`{}` is there already, and not a regular file",
                destination.display()
            )));
        }
        Ok(there) if there.len() > content.len() as u64 => {
            return Err(std::io::Error::other(format!(
                "`{}` is there already, and longer",
                destination.display()
            )));
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut name = destination.as_os_str().to_owned();
    name.push(format!(".dr-{}", std::process::id()));
    let temporary = PathBuf::from(name);
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| std::fs::rename(&temporary, destination));
    if written.is_err() {
        // What is left is of no use; failing to remove it adds nothing to the error.
        std::fs::remove_file(&temporary).ok();
    }
    written
}
