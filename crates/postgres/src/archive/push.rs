//! Taking the log from `archive_command` (R10, R12 to R15, R17).
//!
//! A segment goes into the chain of the newest epoch, of which it usually finds most or all there already: what is there
//! has to be the same bytes, what is not is appended. A hole before log that is there is filled with pieces. Success means that every byte of it is durable in the store,
//! except for what was written at `wal_level = minimal`: nothing can be recovered past that, so it is left out, and a hole says so.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dr_coordination::chain::{
    Available, ChainId, ChainReader, ChainWriter, Chunk, Facts, MAX_PIECE_BYTES, PieceFacts,
    available, bounds, fill, write_history,
};
use dr_model::{Lsn, RegionName, SegmentSize, TimelineId};
use dr_provider::{Error, ErrorKind, ObjectStore, Result};
use dr_repository::Keys;
use jiff::Timestamp;

use super::file::{Name, cluster_at, file_key, keep};
use super::segment::{Content, Segment};
use crate::actions::Log;
use crate::driver::PostgresDriver;
use crate::receiver::FULL_BYTES;
use crate::register::patience;
use crate::wal::{Decoder, Expected, MinimalSearch, MinimalTime, TimelineHistory, check_segment};

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
        for _ in 0..ATTEMPTS {
            let (start, end) = (segment.start(), segment.end());
            let (cluster, timeline) = (log.system_identifier, log.timeline);
            let outer = bounds(&**store, cluster, timeline, patience()).await?;
            let held = available(&**store, cluster, timeline, start, end, patience()).await?;
            let holds = |part: &&Available| part.from <= start && start <= part.to;
            let from = match held.iter().find(holds) {
                Some(part) => {
                    let known = part.to.min(end);
                    compare((store, self.keys()), log, segment, (start, known)).await?;
                    if known == end {
                        return Ok(format!(
                            "{} is in {} already",
                            segment.name,
                            store.location()
                        ));
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

    /// Puts what is missing of a segment before `until` into the store as pieces. Log that lies behind must be there, or be of
    /// another timeline: the end of the log belongs to a chain. A segment in which a time at `wal_level = minimal` begins is not put
    /// there, and what is returned says so.
    pub(super) async fn fill_hole(
        &self,
        store: &Arc<dyn ObjectStore>,
        log: Log,
        segment: &Segment,
        (held, until): (&[Available], Lsn),
    ) -> Result<Option<String>> {
        let mut missing = missing(held, segment.start(), until);
        let mut followed = Followed::new(log, segment);
        for (from, to) in segment.parts(segment.start()) {
            let commits;
            let part = segment.slice(from, to).await?;
            (followed, commits) = followed.feed(part, &segment.name).await?;
            for (end, at) in commits {
                let inside = |one: &&mut Missing| one.from < end && end <= one.to;
                if let Some(one) = missing.iter_mut().find(inside) {
                    one.commits += 1;
                    one.last_commit_at = one.last_commit_at.max(Some(at));
                }
            }
        }
        if followed.minimal.found().is_some() {
            return Ok(Some(left_out(store, segment)));
        }
        // Before anything is written: what is there decides whether this is the same log.
        for part in held {
            let part = (part.from.max(segment.start()), part.to.min(segment.end()));
            compare((store, self.keys()), log, segment, part).await?;
        }
        let place = (log.system_identifier, log.timeline);
        for one in missing {
            let facts = PieceFacts {
                epochs: vec![log.epoch],
                commits: one.commits,
                last_commit_at: one.last_commit_at,
                received_at: self.clock().now(),
            };
            let bytes = segment.slice(one.from, one.to).await?;
            let writer = ("archive_command", self.keys());
            fill(
                &**store,
                place,
                one.from,
                &bytes,
                &facts,
                writer,
                patience(),
            )
            .await?;
        }
        Ok(None)
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
            let at = writer.end();
            let Some(time) = minimal_time(log, segment, at).await? else {
                self.append(&mut writer, log, segment, end).await?;
                return Ok(is_left_out);
            };
            let (from, to) = (time.from.max(at), time.to.unwrap_or(end));
            self.append(&mut writer, log, segment, from).await?;
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

    /// Appends the part of a segment before `until` that the chain lacks.
    ///
    /// Each part is checked before it goes, while those before it are compressed and stored: records that are whole are what the
    /// receiver would have stored as well.
    async fn append(
        &self,
        writer: &mut ChainWriter,
        log: Log,
        segment: &Segment,
        until: Lsn,
    ) -> Result<()> {
        let mut followed = Followed::new(log, segment);
        if segment.start() < writer.end() {
            for (from, to) in segment.parts(segment.start()) {
                let to = to.min(writer.end());
                if from < to {
                    let known = segment.slice(from, to).await?;
                    (followed, _) = followed.feed(known, &segment.name).await?;
                }
            }
        }
        while writer.end() < until {
            let start = writer.end();
            let end = start.advance(FULL_BYTES as u64).min(until);
            let part = segment.slice(start, end).await?;
            let commits;
            (followed, commits) = followed.feed(part.clone(), &segment.name).await?;
            let facts = Facts {
                commits: commits.len() as u64,
                last_commit_at: commits.iter().map(|(_, at)| *at).max(),
                received_at: self.clock().now(),
                primary_end: segment.end(),
                promise: None,
            };
            writer
                .push(Chunk {
                    start,
                    log: part,
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

/// Log that a store lacks, and what is known of it.
#[derive(Debug, PartialEq, Eq)]
struct Missing {
    from: Lsn,
    to: Lsn,
    commits: u64,
    last_commit_at: Option<Timestamp>,
}

/// Returns what is missing between two positions, cut where pieces are, so that each fits the memory.
fn missing(held: &[Available], from: Lsn, until: Lsn) -> Vec<Missing> {
    let mut found = Vec::new();
    let mut at = from;
    let end = Available {
        from: until,
        to: until,
    };
    for part in held.iter().chain([&end]) {
        let to = part.from.min(until);
        while at < to {
            let slot = Lsn((at.0 / MAX_PIECE_BYTES + 1) * MAX_PIECE_BYTES).min(to);
            found.push(Missing {
                from: at,
                to: slot,
                commits: 0,
                last_commit_at: None,
            });
            at = slot;
        }
        at = at.max(part.to);
    }
    found
}

/// Ends and times of commits.
type Commits = Vec<(Lsn, Timestamp)>;

/// A segment's records as far as they were followed.
struct Followed {
    decoder: Decoder,
    minimal: MinimalSearch,
}

impl Followed {
    fn new(log: Log, segment: &Segment) -> Self {
        let expected = Expected {
            system_identifier: log.system_identifier,
            timeline: segment.info.timeline,
        };
        let (start, size) = (segment.start(), segment.info.size);
        Self {
            decoder: Decoder::new(start, size, Some(expected)),
            minimal: MinimalSearch::new(start),
        }
    }

    /// Follows the next bytes, off the threads that others wait for, and returns the commits that end in them.
    ///
    /// Refuses what is not WAL, as the receiver does: nothing behind it could be replayed.
    async fn feed(mut self, bytes: Bytes, name: &str) -> Result<(Self, Commits)> {
        let fed = tokio::task::spawn_blocking(move || {
            let mut commits = Commits::new();
            let minimal = &mut self.minimal;
            let fed = self.decoder.feed(&bytes, |record| {
                minimal.see(&record);
                commits.extend(record.commit.map(|commit| (record.end, commit.at)));
            });
            fed.map(|()| (self, commits))
        });
        match fed.await {
            Ok(Ok(fed)) => Ok(fed),
            Ok(Err(stop)) => Err(Error::new(ErrorKind::Invalid, OPERATION, name).because(stop)),
            Err(error) => Err(Error::new(ErrorKind::Failed, OPERATION, name).because(error)),
        }
    }
}

/// Returns the time at `wal_level = minimal` that begins in a segment, unless the store has that already, up to `known`.
async fn minimal_time(log: Log, segment: &Segment, known: Lsn) -> Result<Option<MinimalTime>> {
    let mut followed = Followed::new(log, segment);
    followed.minimal = MinimalSearch::new(known);
    for (from, to) in segment.parts(segment.start()) {
        let part = segment.slice(from, to).await?;
        (followed, _) = followed.feed(part, &segment.name).await?;
    }
    Ok(followed.minimal.found())
}

fn left_out(store: &Arc<dyn ObjectStore>, segment: &Segment) -> String {
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
        log.system_identifier,
        segment.info.timeline,
        from,
        to,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_cut_where_pieces_are() {
        const PIECE: u64 = MAX_PIECE_BYTES;
        let part = |from: u64, to: u64| Available {
            from: Lsn(from),
            to: Lsn(to),
        };
        let spans = |held: &[Available], from, until| -> Vec<(u64, u64)> {
            let found = missing(held, Lsn(from), Lsn(until));
            found.iter().map(|one| (one.from.0, one.to.0)).collect()
        };
        assert_eq!(spans(&[], 0, 100), [(0, 100)]);
        assert_eq!(
            spans(&[part(0, 10), part(PIECE + 20, PIECE + 30)], 0, PIECE + 40),
            [(10, PIECE), (PIECE, PIECE + 20), (PIECE + 30, PIECE + 40)]
        );
        assert_eq!(spans(&[part(0, PIECE)], 0, PIECE), []);
        // A part that begins behind what has to be there leaves all before it.
        assert_eq!(spans(&[part(50, 60)], 0, 40), [(0, 40)]);
    }
}
