//! Restoring a backup into a directory.
//!
//! The directory can be used only when this has succeeded: files named as *last* (for PostgreSQL `global/pg_control`,
//! without which a server does not start) get their names after everything else is on disk (R5, R32).

mod fetch;
mod place;
mod settle;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::spawn_blocking;

use crate::{BackupReader, Error, Result};

/// Ranges read at a time.
const RANGES_IN_FLIGHT: usize = 8;

/// Decides where an entry goes: a path relative to the directory, or `None` to leave it out.
pub type Placement = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// How far a restore has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of files written.
    pub written_bytes: u64,
    /// Bytes of files to be written.
    pub total_bytes: u64,
}

/// How to restore.
#[derive(Clone, Default)]
pub struct RestoreOptions {
    /// Where each entry goes; without it, where it was.
    pub place: Option<Placement>,
    /// Files, by where they go, that get their names last, in this order.
    pub last: Vec<String>,
    /// User and group that everything will belong to; without it, this process's.
    pub owner: Option<(u32, u32)>,
    /// Called now and then from worker threads.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

impl std::fmt::Debug for RestoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestoreOptions")
            .field("last", &self.last)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreStats {
    /// Files written.
    pub files: u64,
    /// Bytes in them.
    pub written_bytes: u64,
    /// Bytes read from the store.
    pub read_bytes: u64,
}

impl BackupReader {
    /// Writes the files into `directory`, which must be missing or empty, checking every frame, and makes them durable.
    ///
    /// After a failure the directory is incomplete and must be emptied by whoever owns it.
    pub async fn restore_into(
        &self,
        directory: &Path,
        options: RestoreOptions,
    ) -> Result<RestoreStats> {
        let plan = {
            let (manifest, options) = (Arc::clone(&self.manifest), options.clone());
            let directory = directory.to_owned();
            blocking(move || {
                let plan = place::plan(&manifest, &directory, &options)?;
                place::prepare(&plan)?;
                Ok(Arc::new(plan))
            })
            .await?
        };
        let total_bytes = plan.files.iter().map(|file| file.size).sum();
        let written = AtomicU64::new(0);
        let report = |bytes: u64| {
            let written_bytes = written.fetch_add(bytes, Ordering::Relaxed) + bytes;
            if let Some(progress) = &options.progress {
                progress(Progress {
                    written_bytes,
                    total_bytes,
                });
            }
        };
        let ranges = fetch::ranges(&plan);
        let read: Vec<u64> = stream::iter(ranges)
            .map(|range| async {
                let (read, written) = fetch::restore_range(self, Arc::clone(&plan), range).await?;
                report(written);
                Ok::<u64, Error>(read)
            })
            .buffer_unordered(RANGES_IN_FLIGHT)
            .try_collect()
            .await?;
        settle::settle(Arc::clone(&plan), options.owner).await?;
        Ok(RestoreStats {
            files: plan.files.len() as u64,
            written_bytes: total_bytes,
            read_bytes: read.iter().sum(),
        })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.map_err(Error::Worker)?
}
