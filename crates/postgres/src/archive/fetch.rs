//! Serving the log to a recovering server: `restore_command` (R26, PROTOCOL 6).
//!
//! A server takes "not there" for the end of the log and starts up. So that is the answer only where it is proven: the
//! store answers, and the chains of the timeline end before the segment does or begin after it. Everything else is an
//! error. A segment is served whole, except for the one in which the log is known to end.

use std::path::Path;
use std::sync::Arc;

use dr_coordination::chain::{
    self, Available, ChainReader, Section, bounds, log_start, read_history,
};
use dr_model::{Lsn, RegionName, SegmentSize, SystemIdentifier, TimelineId};
use dr_provider::error::chain as explain;
use dr_provider::store::IDENTITY_KEY;
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};
use dr_repository::Keys;
use futures::future::join_all;

use super::file::{Kept, Name, cluster_at, file_key};
use super::put::{Put, last_record_end, put};
use super::size::size_at;
use super::spool::{self, Spool};
use crate::driver::PostgresDriver;
use crate::register::patience;
use crate::wal::{Decoder, Expected, SEGMENT_HEADER_BYTES, TimelineHistory, check_segment};

const OPERATION: &str = "fetch";

/// A file that is there.
enum Found {
    /// Its bytes.
    Bytes(Vec<u8>),
    /// A file that is kept whole.
    Kept(Kept),
    /// A segment that is to be read from a chain, with zeros behind what is.
    Chained(Box<Chained>),
}

/// A segment that is written as it is read.
struct Chained {
    reader: ChainReader,
    start: Lsn,
    size: SegmentSize,
    /// Whether the log ends in it.
    is_tail: bool,
}

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
            Name::History(timeline) => self
                .history(store, cluster, timeline, name)
                .await?
                .map(Found::Bytes),
            Name::Partial(timeline) | Name::Backup(timeline) => {
                let key = file_key(cluster, timeline, name);
                Kept::find(store, key).await?.map(Found::Kept)
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
                        wanted.segment_and_next(&spool).await?
                    }
                    None => wanted.segment().await?,
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
        match content {
            Found::Bytes(content) => {
                let path = destination.to_owned();
                blocking(&into(name, destination), move || put(&path, &content)).await?;
            }
            Found::Kept(file) => put_kept(file, name, destination).await?,
            Found::Chained(segment) => {
                let place = (store.location(), name, destination);
                segment.put(cluster, kind.timeline(), place).await?;
            }
        }
        Ok(true)
    }
}

impl PostgresDriver {
    /// Reads the history of a timeline; `None` if it is proven that there is no such timeline. A server that is told so where there is one
    /// ends its recovery on the timeline before.
    async fn history(
        &self,
        store: &Arc<dyn ObjectStore>,
        cluster: SystemIdentifier,
        timeline: TimelineId,
        name: &str,
    ) -> Result<Option<Vec<u8>>> {
        let damaged = |why: String| Error::new(ErrorKind::Corrupt, OPERATION, name).because(why);
        let location = store.location();
        if let Some(content) = read_history(&**store, cluster, timeline).await? {
            let parsed = TimelineHistory::parse(timeline, &content);
            let parsed = parsed
                .map_err(|error| damaged(format!("what {location} holds is none: {error}")))?;
            if parsed.ancestors().is_empty() && timeline.0 > 1 {
                let why =
                    format!("what {location} holds does not say where the timeline comes from");
                return Err(damaged(why));
            }
            return Ok(Some(content.into()));
        }
        // The first one comes from nowhere, and has none.
        if timeline.0 > 1
            && bounds(&**store, cluster, timeline, patience())
                .await?
                .is_some()
        {
            let why = format!("{location} holds log of timeline {timeline}, and not its history");
            return Err(damaged(why));
        }
        Ok(None)
    }
}

/// Says what is written where: what is not there, or not allowed, may be the place.
fn into(name: &str, destination: &Path) -> String {
    format!("{name} into {}", destination.display())
}

/// Does what waits for a disk.
async fn blocking<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    let failed = || Error::new(ErrorKind::Failed, OPERATION, name);
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| failed().because(error))?
        .map_err(|error| failed().because(error))
}

/// Writes a file that is kept whole as it is read.
async fn put_kept(mut file: Kept, name: &str, destination: &Path) -> Result<()> {
    let (path, bytes) = (destination.to_owned(), file.bytes());
    let subject = into(name, destination);
    let mut put = blocking(&subject, move || Put::begin(&path, bytes)).await?;
    while let Some(part) = file.next().await? {
        put = blocking(name, move || put.write(&part).map(|()| put)).await?;
    }
    blocking(name, move || put.finish(bytes)).await
}

impl Chained {
    /// Writes the segment as it is read.
    async fn put(
        mut self,
        cluster: SystemIdentifier,
        timeline: TimelineId,
        (location, name, destination): (&str, &str, &Path),
    ) -> Result<()> {
        let (start, size) = (self.start, self.size);
        let expected = Expected {
            system_identifier: cluster,
            timeline,
        };
        let path = destination.to_owned();
        let subject = into(name, destination);
        let mut file = blocking(&subject, move || Put::begin(&path, size.bytes())).await?;
        let mut decoder = self
            .is_tail
            .then(|| Decoder::new(start, size, Some(expected)));
        // The first chunk of a chain may be shorter than the head of a segment.
        let mut head = Vec::new();
        let mut unchecked = true;
        while let Some((_, part)) = self.reader.next().await? {
            if unchecked {
                head.extend_from_slice(&part[..part.len().min(SEGMENT_HEADER_BYTES)]);
                if head.len() >= SEGMENT_HEADER_BYTES {
                    check(name, &head, size.bytes(), cluster)?;
                    unchecked = false;
                }
            }
            (file, decoder) = blocking(name, move || {
                file.write(&part)?;
                if let Some(decoder) = &mut decoder {
                    // Where the log ends inside of it, what is behind is left over.
                    let _ends_here = decoder.feed(&part, |_| ());
                }
                Ok((file, decoder))
            })
            .await?;
        }
        if unchecked {
            check(name, &head, size.bytes(), cluster)?;
        }
        if let Some(decoder) = decoder {
            let place = (location, name, destination);
            refuse_to_replace(place, start, size, expected, decoder.last_end()).await?;
        }
        blocking(name, move || file.finish(size.bytes())).await
    }
}

fn check(name: &str, head: &[u8], bytes: u64, cluster: SystemIdentifier) -> Result<()> {
    check_segment(name, head, bytes, cluster)
        .map(drop)
        .map_err(|error| Error::new(ErrorKind::Corrupt, OPERATION, name).because(error))
}

/// Refuses to serve a tail to a server that has more of it: it would lose what it has (PROTOCOL 6). `gets` is where the last
/// record ends that it would be served.
async fn refuse_to_replace(
    (location, name, destination): (&str, &str, &Path),
    start: Lsn,
    size: SegmentSize,
    expected: Expected,
    gets: Option<Lsn>,
) -> Result<()> {
    let own = destination.with_file_name(name);
    let (path, subject) = (own.clone(), own.display().to_string());
    let read = move || last_record_end(&path, start, size, expected);
    match blocking(&subject, read).await? {
        Some(has) if gets.is_none_or(|gets| gets < has) => {
            let error = Error::new(
                ErrorKind::Conflict,
                OPERATION,
                format!("{name} from {location}"),
            );
            Err(error.because(format!(
                "`{}` has the log up to {has}, further than the store",
                own.display()
            )))
        }
        _ => Ok(()),
    }
}

impl Wanted<'_> {
    /// Returns the segment, from the spool if they are there, and fills that for the next ones if not.
    async fn segment_and_next(&self, spool: &Spool) -> Result<Option<Found>> {
        let next = spool::following(self.name);
        let taken = spool.take(self.name);
        spool.keep_only(&next);
        if let Some(taken) = taken.filter(|bytes| self.check(bytes).is_ok()) {
            return Ok(Some(Found::Bytes(taken)));
        }
        let found = self.segment().await?;
        // Nothing comes after the end of the log, nor, whole, after the segment in which it is. What could not be kept would be
        // fetched each time again.
        let usual = |found: &Found| match found {
            Found::Bytes(bytes) => bytes.len() as u64 == SegmentSize::DEFAULT.bytes(),
            Found::Kept(file) => file.bytes() == SegmentSize::DEFAULT.bytes(),
            Found::Chained(segment) => segment.size == SegmentSize::DEFAULT && !segment.is_tail,
        };
        let missing: Vec<&String> = next.iter().filter(|name| !spool.has(name)).collect();
        if found.as_ref().is_some_and(usual) && spool.can_keep(missing.len()) {
            let ahead = missing.into_iter();
            join_all(ahead.map(|name| self.fetch_ahead(name, spool))).await;
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

    /// Returns the segment; `None` if it is proven not to be there.
    async fn segment(&self) -> Result<Option<Found>> {
        if let Some(bytes) = self.usual().await? {
            return Ok(Some(Found::Bytes(bytes)));
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
            Ok(reader) => {
                return Ok(Some(Found::Chained(Box::new(Chained {
                    reader,
                    start,
                    size,
                    is_tail: wanted < end,
                }))));
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
        let reader =
            ChainReader::open(store, Section::new(cluster, timeline, from, to), patience()).await?;
        Ok(reader.with_keys(self.keys))
    }

    async fn kept_whole(&self) -> Result<Option<Found>> {
        if self.through.is_some() {
            // Where a recovery begins and ends was proven on the chains; nothing else belongs to it.
            return Ok(None);
        }
        let key = file_key(self.cluster, self.timeline, self.name);
        let place = key.to_string();
        let Some(mut file) = Kept::find(self.store, key).await? else {
            return Ok(None);
        };
        let head = file.head(SEGMENT_HEADER_BYTES as u64).await?;
        let info = check_segment(self.name, &head, file.bytes(), self.cluster);
        let info = info
            .map_err(|error| Error::new(ErrorKind::Corrupt, "read object", place).because(error))?;
        let expected = Expected {
            system_identifier: self.cluster,
            timeline: self.timeline,
        };
        file.is_segment(info.start, info.size, expected);
        Ok(Some(Found::Kept(file)))
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
        check(self.name, bytes, bytes.len() as u64, self.cluster)
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
