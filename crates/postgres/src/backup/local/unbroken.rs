//! Whether the log since an older backup says everything: no incremental backup is based on one from before a time of
//! `wal_level = minimal` (R8).
//!
//! In such a time pages change of which the log says nothing, and nothing before it can be recovered past it. The level changes
//! only when the server is started, and then the log says so in its first record. So a server that has not been started since
//! has kept its level; of one that has, the log is looked through, in `pg_wal` as far as it goes back, before that in the store.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dr_coordination::chain::{ChainReader, Section};
use dr_model::{Lsn, RegionName, SegmentSize};
use dr_provider::Result;
use dr_provider::error::chain as explain;
use tokio::task::spawn_blocking;

use crate::backup::base::Base;
use crate::backup::server::Server;
use crate::driver::PostgresDriver;
use crate::register::patience;
use crate::wal::{Decoder, Expected, MinimalSearch};

/// Log that is looked through at most, and no more than the database is long: reading everything once is cheaper then.
const SEARCH_BYTES: u64 = 16 << 30;

/// Bytes that are read from a file at a time.
const READ_BYTES: usize = 1 << 20;

/// Follows records until one says that the level was minimal.
struct Search {
    decoder: Decoder,
    minimal: MinimalSearch,
}

impl Search {
    /// Takes the next bytes; the error says why nothing behind them can be read.
    fn feed(&mut self, bytes: &[u8]) -> std::result::Result<(), String> {
        let minimal = &mut self.minimal;
        let fed = self.decoder.feed(bytes, |record| minimal.see(&record));
        fed.map_err(|stop| stop.to_string())
    }

    /// Takes a file's bytes up to `limit`.
    fn feed_file(mut self, place: &Path, limit: u64) -> std::result::Result<Self, String> {
        let failed = |error: std::io::Error| format!("`{}`: {error}", place.display());
        let mut file = File::open(place).map_err(failed)?.take(limit);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => return Ok(self),
                length => self.feed(&buffer[..length])?,
            }
        }
    }
}

/// Says why `base` cannot be the parent of a backup that begins at `start`; `None` if the log in between says everything.
///
/// They must be of one timeline.
pub(super) async fn broken(
    driver: &PostgresDriver,
    region: &RegionName,
    server: &Server,
    directory: &Path,
    base: &Base,
    start: Lsn,
) -> Result<Option<String>> {
    let source = &base.source;
    if source.server_started_at == Some(server.started_at) {
        return Ok(None);
    }
    let unproven = |why: String| {
        format!(
            "the server was started anew since, and that its `wal_level` was never `minimal` cannot be seen: {why}"
        )
    };
    let size = server.segment_bytes;
    let from = size.start_of(source.start);
    let length = start.bytes_since(from);
    if length > search_limit(base.recovery_point().database_bytes, size) {
        let why = format!("{} MiB of log are too much to look through", length >> 20);
        return Ok(Some(unproven(why)));
    }
    let (local, files) = kept(server, directory, from, start);
    let expected = Expected {
        system_identifier: server.system_identifier,
        timeline: server.timeline,
    };
    let mut search = Search {
        decoder: Decoder::new(from, size, Some(expected)),
        // What is before was before the older backup.
        minimal: MinimalSearch::new(source.start),
    };
    if from < local {
        let opened = ChainReader::open(
            Arc::clone(driver.store(region)?),
            Section::new(server.system_identifier, server.timeline, from, local),
            patience(),
        );
        let mut reader = match opened.await {
            Ok(reader) => reader.with_keys(driver.keys()),
            Err(error) => return Ok(Some(unproven(explain(&error)))),
        };
        loop {
            let bytes = match reader.next().await {
                Ok(Some((_, bytes))) => bytes,
                Ok(None) => break,
                Err(error) => return Ok(Some(unproven(explain(&error)))),
            };
            let fed = spawn_blocking(move || search.feed(&bytes).map(|()| search));
            match joined(fed.await) {
                Ok(fed) => search = fed,
                Err(why) => return Ok(Some(unproven(why))),
            }
        }
    }
    for (begin, place) in files {
        let limit = start.min(begin.advance(size.bytes())).bytes_since(begin);
        let fed = spawn_blocking(move || search.feed_file(&place, limit));
        match joined(fed.await) {
            Ok(fed) => search = fed,
            Err(why) => return Ok(Some(unproven(why))),
        }
    }
    Ok(search.minimal.found().map(|time| {
        let at = time.from;
        format!("the server has run with `wal_level = minimal` since, as the log says at {at}")
    }))
}

/// Returns how much log is looked through. Of a database that is hardly longer than a segment, two: where the log of a backup begins,
/// and where the next one does.
fn search_limit(database_bytes: u64, size: SegmentSize) -> u64 {
    SEARCH_BYTES.min(database_bytes.max(2 * size.bytes()))
}

fn joined<T>(
    fed: std::result::Result<std::result::Result<T, String>, tokio::task::JoinError>,
) -> std::result::Result<T, String> {
    fed.unwrap_or_else(|error| Err(error.to_string()))
}

/// Returns from where on the server still has its log as a whole, and the files that it is in.
fn kept(server: &Server, directory: &Path, from: Lsn, start: Lsn) -> (Lsn, Vec<(Lsn, PathBuf)>) {
    let size = server.segment_bytes;
    let mut begin = size.start_of(start).advance(size.bytes());
    let mut files = Vec::new();
    while from < begin {
        let before = Lsn(begin.0 - size.bytes());
        let name = size.file_name(server.timeline, before);
        let place = directory.join("pg_wal").join(name);
        if !place.is_file() {
            break;
        }
        files.push((before, place));
        begin = before;
    }
    files.reverse();
    (begin.min(start), files)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const SEGMENT: u64 = 16 << 20;

    #[rstest]
    #[case::hardly_longer_than_a_segment(20 << 20, 2 * SEGMENT)]
    #[case::small(100 << 20, 100 << 20)]
    #[case::large(1 << 40, 16 << 30)]
    fn no_more_log_is_looked_through_than_the_database_is_long(
        #[case] database_bytes: u64,
        #[case] expected: u64,
    ) {
        let limit = search_limit(database_bytes, SegmentSize::DEFAULT);
        assert_eq!(limit, expected);
    }
}
