//! Which older backup an incremental one shares its unchanged content with, and when there is none (R8).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dr_model::{Lsn, RegionName, TimelineId};
use dr_provider::Result;
use dr_provider::driver::Proofs;
use dr_provider::error::chain;
use dr_repository::BackupReader;

use super::changes::Method;
use super::unbroken::broken;
use crate::backup::base::{Base, FoundBy, Incremental};
use crate::backup::server::Server;
use crate::backup::summary::{self, Changes, Short};
use crate::driver::PostgresDriver;

/// How long the server may take to summarise its log up to the checkpoint that began the backup.
const SUMMARY_LIMIT: Duration = Duration::from_secs(60);

/// How often it is looked at meanwhile.
const SUMMARY_INTERVAL: Duration = Duration::from_millis(100);

/// The parent of an incremental backup.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) reader: BackupReader,
    pub(super) method: Arc<Method>,
    pub(super) incremental: Incremental,
}

/// Chooses the parent of a backup that begins at `start`; without one everything is read. Also says what an operator
/// should know of the choice.
pub(super) async fn choose(
    driver: &PostgresDriver,
    region: &RegionName,
    server: &Server,
    directory: &Path,
    start: Lsn,
) -> Result<(Option<Parent>, Vec<String>)> {
    let full_every = driver.options().backup.full_every;
    if full_every.is_zero() {
        return Ok((None, Vec::new()));
    }
    let store = driver.store(region)?;
    let bases = driver.bases(store, server.system_identifier).await?;
    let Some(base) = bases.usable.first() else {
        return Ok((None, Vec::new()));
    };
    let (full, full_at) = match &base.source.incremental {
        Some(incremental) => (incremental.full.clone(), incremental.full_at),
        None => (base.label.clone(), base.source.started_at),
    };
    let age = driver.clock().now().duration_since(full_at);
    if age.as_secs() >= i64::try_from(full_every.as_secs()).unwrap_or(i64::MAX) {
        return Ok((None, Vec::new()));
    }
    if let Some(why) = unfit(base, server, start) {
        let remark = format!(
            "everything was read although {} is recent: {why}",
            base.label
        );
        return Ok((None, vec![remark]));
    }
    if let Some(why) = broken(driver, region, server, directory, base, start).await? {
        let remark = format!(
            "everything was read although {} is recent: {why}",
            base.label
        );
        return Ok((None, vec![remark]));
    }
    let reader = match driver
        .repository(store, server.system_identifier)?
        .open(&base.label)
        .await
    {
        Ok(reader) => reader,
        Err(error) => {
            let remark = format!(
                "everything was read: {} cannot be opened: {}",
                base.label,
                chain(&error)
            );
            return Ok((None, vec![remark]));
        }
    };
    let written = reader.header().encryption.as_ref();
    let writing = driver.keys().writing();
    if written.map(|with| with.key.as_str()) != writing.map(|key| key.id().as_str()) {
        let remark = format!(
            "everything was read although {} is recent: the key has been changed since, and a backup has one",
            base.label
        );
        return Ok((None, vec![remark]));
    }
    // Its own packs were asked about above. That one of those that it shares lies beside a damaged one is reason enough.
    let failed = |label: &str| bases.proofs.get(label).is_some_and(Proofs::failed);
    let shared = reader.packs().iter().map(|pack| pack.label.as_str());
    if let Some(label) = { shared }.find(|label| failed(label)) {
        let remark = format!(
            "everything was read although {} is recent: it refers to packs of {label}, and the last look at that failed",
            base.label
        );
        return Ok((None, vec![remark]));
    }
    let mut remarks = Vec::new();
    let summaries = summaries(server, directory, base.source.start, start, driver).await;
    let method = match summaries {
        Ok(Some(changes)) => Method::Summaries(changes),
        Ok(None) | Err(_) if let Some(why) = unmoved(base, server) => {
            let remark = format!(
                "everything was read although {} is recent: {why}",
                base.label
            );
            return Ok((None, vec![remark]));
        }
        Ok(None) => Method::Pages {
            since: base.source.start,
        },
        Err(why) => {
            remarks.push(format!(
                "every page was read, because the server's summaries cannot be used: {why}"
            ));
            Method::Pages {
                since: base.source.start,
            }
        }
    };
    let found_by = match method {
        Method::Pages { .. } => FoundBy::Pages,
        Method::Summaries(_) => FoundBy::Summaries,
    };
    let parent = Parent {
        reader,
        method: Arc::new(method),
        incremental: Incremental {
            parent: base.label.clone(),
            full,
            full_at,
            found_by,
        },
    };
    Ok((Some(parent), remarks))
}

/// Says why a backup cannot be the parent of one of this server that begins at `start`.
fn unfit(base: &Base, server: &Server, start: Lsn) -> Option<String> {
    let source = &base.source;
    let major = source
        .server_version
        .split(|c: char| !c.is_ascii_digit())
        .next();
    if source.timeline != server.timeline {
        Some(format!(
            "it is of timeline {}, the server on timeline {}",
            source.timeline, server.timeline
        ))
    } else if source.stop > start {
        Some(format!(
            "it ends at {}, behind the server's position {start}: the server has gone back",
            source.stop
        ))
    } else if source.data_checksums != server.checksums {
        Some("page checksums have been turned on or off since".to_owned())
    } else if major != Some(server.major.to_string().as_str())
        || source.segment_bytes != server.segment_bytes
    {
        Some(format!("it is of PostgreSQL {}", source.server_version))
    } else if let Some(why) = &base.failure {
        Some(why.clone())
    } else if !source.damaged_pages.is_empty() || source.more_damaged_pages > 0 {
        Some("it holds damaged pages".to_owned())
    } else {
        None
    }
}

/// Says why a page may have been changed since without its position having moved, so that it would be taken for the older backup's.
///
/// Where neither page checksums nor `wal_log_hints` are on, `VACUUM` marks a page as all-visible without moving it (`visibilitymap_set`), and
/// the bit in the visibility map, which is read whole, would be restored without the mark: later changes would not clear it, and
/// scans of an index alone would return rows that are deleted.
fn unmoved(base: &Base, server: &Server) -> Option<String> {
    if server.checksums {
        return None;
    }
    if !server.logs_hints {
        let why = "neither page checksums nor `wal_log_hints` are on, so that a page may change without its position \
            (`wal_log_hints = on`, or from 17 on `summarize_wal = on`, makes incremental backups possible)";
        return Some(why.to_owned());
    }
    (base.source.server_started_at != Some(server.started_at)).then(|| {
        "the server was started anew since, and nothing says whether `wal_log_hints` was on before".to_owned()
    })
}

/// Reads what the server wrote down of its log from one position to another; `None` if it writes nothing down.
async fn summaries(
    server: &Server,
    directory: &Path,
    from: Lsn,
    to: Lsn,
    driver: &PostgresDriver,
) -> std::result::Result<Option<Changes>, String> {
    if !server.summarizes {
        return Ok(None);
    }
    let deadline = driver.clock().elapsed() + SUMMARY_LIMIT;
    loop {
        let short = match read(directory, server.timeline, from, to).await? {
            Ok(changes) => return Ok(Some(changes)),
            Err(short) => short,
        };
        if short.hole || driver.clock().elapsed() >= deadline {
            return Err(format!(
                "they reach from {from} to {}, not to {to}",
                short.reached
            ));
        }
        tokio::time::sleep(SUMMARY_INTERVAL).await;
    }
}

async fn read(
    directory: &Path,
    timeline: TimelineId,
    from: Lsn,
    to: Lsn,
) -> std::result::Result<std::result::Result<Changes, Short>, String> {
    let directory = directory.to_owned();
    let work = move || match summary::cover(&directory, timeline, from, to)? {
        Ok(cover) => cover.read().map(Ok),
        Err(short) => Ok(Err(short)),
    };
    let read = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| error.to_string())?;
    read.map_err(|error| error.to_string())
}
