//! Taking the log from `archive_command` (R10, R12 to R15, R17).
//!
//! A segment goes into the chain of the newest epoch, of which it usually finds most or all there already: what is there
//! has to be the same bytes, what is not is appended. A hole before log that is there is filled with pieces. Success means that every byte of it is durable in the store,
//! except for what was written at `wal_level = minimal`: nothing can be recovered past that, so it is left out, and a hole says so.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dr_coordination::chain::{
    Available, ChainId, ChainReader, ChainWriter, Chunk, Facts, Section, available, bounds,
    write_history,
};
use dr_model::{Lsn, RegionName, SegmentSize, TimelineId};
use dr_provider::{Error, ErrorKind, ObjectStore, Result};
use dr_repository::Keys;

use super::file::{Name, cluster_at, file_key, keep};
use super::follow::{Counted, look_ahead};
use super::segment::{Content, Segment};
use crate::actions::Log;
use crate::driver::PostgresDriver;
use crate::register::patience;
use crate::wal::{TimelineHistory, check_segment};

pub(super) const OPERATION: &str = "archive";

/// How long the store may take for a segment of the usual size. The server tries again for as long as it takes.
const LIMIT: Duration = Duration::from_secs(60);

/// How often a push starts over because the receiver was faster.
const ATTEMPTS: u32 = 5;

impl PostgresDriver {
    /// Puts a file that the server archives into the store of `region`, and says what was done.
    ///
    /// Succeeds only when the file's content is durable there; repeating a push succeeds. A segment of a superseded
    /// primary goes into quarantine, and that is a success too, or its disk would fill up (PROTOCOL 7).
    ///
    /// # Errors
    ///
    /// `Invalid` for a file of another cluster or one that is not what its name says, `Corrupt` if the store holds other
    /// bytes in its place, `Conflict` if log before it is missing, and what the store says.
    pub async fn push_wal(&self, region: &RegionName, path: &Path) -> Result<String> {
        let subject = path.display().to_string();
        let refuse = |kind, why: String| Error::new(kind, OPERATION, &subject).because(why);
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Some(kind) = Name::parse(name) else {
            let why = "it is not the name of a file of the log";
            return Err(refuse(ErrorKind::Invalid, why.to_owned()));
        };
        let record = self.follow_register(OPERATION).await?;
        let log = self.log_of(&record, OPERATION)?;
        let cluster = log.system_identifier;
        if let Some(found) = cluster_at(path).filter(|found| *found != cluster) {
            let why = format!(
                "it is of cluster {found}, epoch {} is about {cluster}",
                record.epoch
            );
            return Err(refuse(ErrorKind::Invalid, why));
        }
        let unreadable = |error: std::io::Error| {
            use std::io::ErrorKind::{NotFound, PermissionDenied};

            let kind = match error.kind() {
                NotFound | PermissionDenied => ErrorKind::NotFound,
                _ => ErrorKind::Failed,
            };
            Error::new(kind, OPERATION, &subject).because(error)
        };
        let content = Content::open(path).await.map_err(unreadable)?;
        let head = content.head().await.map_err(unreadable)?;
        let store = self.store(region)?;
        let unclaimed = |timeline: TimelineId| {
            refuse(
                ErrorKind::Invalid,
                format!(
                    "timeline {timeline} is claimed by no epoch: {} is of timeline {}",
                    record.epoch, log.timeline
                ),
            )
        };
        let check = |name: &str| {
            check_segment(name, &head, content.len(), cluster)
                .map_err(|error| Error::new(ErrorKind::Invalid, OPERATION, &subject).because(error))
        };
        match kind {
            Name::History(timeline) | Name::Segment(timeline) if timeline > log.timeline => {
                Err(unclaimed(timeline))
            }
            Name::History(timeline) => {
                let content = content.all().await.map_err(unreadable)?;
                TimelineHistory::parse(timeline, &content).map_err(|error| {
                    Error::new(ErrorKind::Invalid, OPERATION, &subject).because(error)
                })?;
                write_history(&**store, cluster, timeline, content).await?;
                Ok(format!("{name} is in {}", store.location()))
            }
            Name::Partial(timeline) | Name::Backup(timeline) => {
                if matches!(kind, Name::Partial(_)) {
                    check(name)?;
                }
                let key = file_key(cluster, timeline, name);
                keep(store, &key, &content, &subject).await?;
                Ok(format!("{name} is in {}", store.location()))
            }
            Name::Segment(timeline) => {
                let info = check(name)?;
                let segment = Segment {
                    name: name.to_owned(),
                    info,
                    content,
                };
                let push = async {
                    if timeline == log.timeline {
                        self.push_segment(region, log, &segment).await
                    } else {
                        self.push_superseded(store, log, &segment).await
                    }
                };
                let limit = limit(info.size);
                tokio::time::timeout(limit, push).await.unwrap_or_else(|_| {
                    Err(refuse(
                        ErrorKind::Unknown,
                        format!("not done within {} s", limit.as_secs()),
                    ))
                })
            }
        }
    }

    /// Brings a segment of the newest epoch's timeline into its chain.
    async fn push_segment(
        &self,
        region: &RegionName,
        log: Log,
        segment: &Segment,
    ) -> Result<String> {
        let store = self.store(region)?;
        let mut is_filled = false;
        for _ in 0..ATTEMPTS {
            let (start, end) = (segment.start(), segment.end());
            let (cluster, timeline) = (log.system_identifier, log.timeline);
            let outer = bounds(&**store, cluster, timeline, patience()).await?;
            let held = available(
                &**store,
                Section::new(cluster, timeline, start, end),
                patience(),
            )
            .await?;
            let holds = |part: &&Available| part.from <= start && start <= part.to;
            let from = match held.iter().find(holds) {
                Some(part) => {
                    let known = part.to.min(end);
                    compare((store, self.keys()), log, segment, (start, known)).await?;
                    if known == end {
                        let how = match is_filled {
                            true => ", and closes a hole there",
                            false => " already",
                        };
                        return Ok(format!("{} is in {}{how}", segment.name, store.location()));
                    }
                    if outer.is_some_and(|outer| known < outer.to) {
                        let until = outer.map_or(known, |outer| outer.to.min(end));
                        if let Some(said) =
                            self.fill_hole(store, log, segment, (&held, until)).await?
                        {
                            self.go_on_behind(region, log, segment, until).await?;
                            return Ok(said);
                        }
                        // Compared with all of it, and the rest appended.
                        is_filled = true;
                        continue;
                    }
                    known
                }
                None => match outer {
                    None => start,
                    Some(outer) if start < outer.from => {
                        return keep_aside(store, log, segment, outer.from).await;
                    }
                    Some(outer) if start < outer.to => {
                        let until = outer.to.min(end);
                        if let Some(said) =
                            self.fill_hole(store, log, segment, (&held, until)).await?
                        {
                            self.go_on_behind(region, log, segment, until).await?;
                            return Ok(said);
                        }
                        is_filled = true;
                        continue;
                    }
                    Some(outer) if outer.to == start => start,
                    Some(outer) => return Err(gap(store, segment, outer.to.min(start))),
                },
            };
            let options = self.chain_options("archive_command");
            let chain = ChainId::from(log);
            let writer = ChainWriter::open(Arc::clone(store), chain, from, options).await?;
            let tail = writer.end();
            if tail < from {
                return Err(gap(store, segment, tail));
            }
            if tail > from && outer.is_none() {
                // The chain has only just been begun, after this segment.
                return keep_aside(store, log, segment, tail).await;
            }
            if tail == from {
                if self.append_all(region, writer, log, segment).await? {
                    return Ok(left_out(store, segment));
                }
                return Ok(format!(
                    "{} is in {}, {} bytes of it new",
                    segment.name,
                    store.location(),
                    segment.end().bytes_since(from)
                ));
            }
        }
        Err(Error::new(ErrorKind::Unavailable, OPERATION, &segment.name)
            .because("the receiver is writing this very segment"))
    }

    /// Appends the rest of a segment to a chain that ends at `at`, as far as nobody else has.
    async fn go_on_behind(
        &self,
        region: &RegionName,
        log: Log,
        segment: &Segment,
        at: Lsn,
    ) -> Result<()> {
        if at < segment.end() {
            let store = Arc::clone(self.store(region)?);
            let options = self.chain_options("archive_command");
            let writer = ChainWriter::open(store, ChainId::from(log), at, options).await?;
            if writer.end() == at {
                self.append_all(region, writer, log, segment).await?;
            }
        }
        Ok(())
    }

    /// Appends the part of a segment that the chain lacks, but for times at `wal_level = minimal`; tells whether there was one.
    async fn append_all(
        &self,
        region: &RegionName,
        mut writer: ChainWriter,
        log: Log,
        segment: &Segment,
    ) -> Result<bool> {
        let (chain, end) = (ChainId::from(log), segment.end());
        let mut is_left_out = false;
        loop {
            let ahead = look_ahead(log, segment, writer.end()).await?;
            self.append(&mut writer, segment, &ahead.chunks).await?;
            let Some(time) = ahead.minimal else {
                return Ok(is_left_out);
            };
            let (from, to) = (writer.end(), time.to.unwrap_or(end));
            drop(writer);
            let by = (region, "archive_command".to_owned());
            self.leave_out_minimal(by, &chain, (from, to)).await?;
            is_left_out = true;
            if to == end {
                return Ok(is_left_out);
            }
            let store = Arc::clone(self.store(region)?);
            let options = self.chain_options("archive_command");
            writer = ChainWriter::open(store, chain, to, options).await?;
            if writer.end() != to {
                // The receiver is there already.
                return Ok(is_left_out);
            }
        }
    }

    /// Appends parts of a segment that the chain lacks: records that are whole are what the receiver would have stored as well.
    async fn append(
        &self,
        writer: &mut ChainWriter,
        segment: &Segment,
        chunks: &[Counted],
    ) -> Result<()> {
        for chunk in chunks {
            let facts = Facts {
                commits: chunk.commits,
                last_commit_at: chunk.last_commit_at,
                received_at: self.clock().now(),
                primary_end: segment.end(),
                promise: None,
            };
            writer
                .push(Chunk {
                    start: chunk.from,
                    log: segment.slice(chunk.from, chunk.to).await?,
                    facts,
                })
                .await?;
        }
        writer.flush().await?;
        Ok(())
    }
}

/// Returns how long the store may take for a segment.
fn limit(size: SegmentSize) -> Duration {
    let usual = size.bytes().div_ceil(SegmentSize::DEFAULT.bytes());
    LIMIT * u32::try_from(usual).unwrap_or(u32::MAX)
}

pub(super) fn left_out(store: &Arc<dyn ObjectStore>, segment: &Segment) -> String {
    format!(
        "{} is not in {} as a whole: the server ran with `wal_level = minimal`, and nothing can be recovered past that; take a snapshot",
        segment.name,
        store.location()
    )
}

/// Compares a part of a segment with what the store holds of it.
pub(super) async fn compare(
    (store, keys): (&Arc<dyn ObjectStore>, &Keys),
    log: Log,
    segment: &Segment,
    (from, to): (Lsn, Lsn),
) -> Result<()> {
    let mut reader = ChainReader::open(
        Arc::clone(store),
        Section::new(log.system_identifier, segment.info.timeline, from, to),
        patience(),
    )
    .await?
    .with_keys(keys);
    while let Some((at, there)) = reader.next().await? {
        let ours = segment.slice(at, at.advance(there.len() as u64)).await?;
        if ours != there {
            let equal = ours.iter().zip(&there).take_while(|(a, b)| a == b).count();
            return Err(Error::new(ErrorKind::Corrupt, OPERATION, &segment.name)
                .because(format!(
                    "{} holds other bytes from {} on",
                    store.location(),
                    at.advance(equal as u64)
                ))
                .with_hint(
                    "two servers write the same timeline, or a file was damaged: compare the clusters before \
                     anything is archived",
                ));
        }
    }
    Ok(())
}

/// Keeps a segment that comes before everything that the chains hold: nothing can be put before an origin.
pub(super) async fn keep_aside(
    store: &Arc<dyn ObjectStore>,
    log: Log,
    segment: &Segment,
    origin: Lsn,
) -> Result<String> {
    let key = file_key(log.system_identifier, segment.info.timeline, &segment.name);
    keep(store, &key, &segment.content, &segment.name).await?;
    Ok(format!(
        "{} is kept beside the log in {}, which does not hold it at {origin}",
        segment.name,
        store.location()
    ))
}

fn gap(store: &Arc<dyn ObjectStore>, segment: &Segment, end: Lsn) -> Error {
    Error::new(ErrorKind::Conflict, OPERATION, &segment.name)
        .because(format!(
            "the log in {} ends at {end}, the segment begins at {}",
            store.location(),
            segment.start()
        ))
        .with_hint("archive what is between first; the receiver of the region does that by itself")
}
