//! Restoring a backup into a directory.
//!
//! The directory can be used only when this has succeeded: files named as *last* (for PostgreSQL `global/pg_control`,
//! without which a server does not start) get their names after everything else is on disk (R5, R32).
//!
//! Every stored frame is read once, decompressed once, and written to all the places that it belongs to, so that restoring
//! an incremental backup reads what restoring a full one does. What has become a few stretches of a frame is written as one, and what
//! is between them afterwards. Lists of files and frames are sorted on disk if they are
//! long.

mod delta;
mod fetch;
mod join;
mod output;
mod piece;
mod place;
mod settle;
mod sweep;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::spill::Sorted;
use crate::{BackupReader, Error, Result};

pub use delta::Delta;
use fetch::{Done, Turn};
use place::Plan;

/// Ranges read at a time, each of at most 2 MiB.
const RANGES_IN_FLIGHT: usize = 8;

/// Decides where an entry goes: a path relative to the directory, or `None` to leave it out.
pub type Placement = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Says in a directory that it is not whole from now on.
pub type Begin = Arc<dyn Fn() -> std::io::Result<()> + Send + Sync>;

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
    /// Directories of the tree, by where they go, that are made elsewhere, with a symbolic link in their place. Each must be
    /// missing or empty, or, over what is there, where that link leads already.
    pub elsewhere: BTreeMap<String, PathBuf>,
    /// User and group that everything will belong to; without it, this process's.
    pub owner: Option<(u32, u32)>,
    /// Called once it is known that the directory can be restored into, before anything else is changed in it.
    pub begin: Option<Begin>,
    /// Restores over what is there: what has the right hash stays, what the backup does not hold goes. Without it the
    /// directory must be missing or empty.
    pub delta: Option<Delta>,
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
    pub total_bytes: u64,
    /// Bytes that were not there already.
    pub written_bytes: u64,
    /// Files and directories removed, because the backup does not hold them.
    pub removed: u64,
    /// Bytes read from the store.
    pub read_bytes: u64,
}

impl BackupReader {
    /// Writes the files into `directory`, checking every frame, and makes them durable.
    ///
    /// After a failure the directory is incomplete: it must be emptied by whoever owns it, or restored over.
    pub async fn restore_into(
        &self,
        directory: &Path,
        options: RestoreOptions,
    ) -> Result<RestoreStats> {
        let plan = place::plan(self, directory, &options).await?;
        let over = match &options.delta {
            Some(delta) => Some((delta.clone(), self.ciphers()?)),
            None => None,
        };
        let prepared = {
            let plan = Arc::clone(&plan);
            let begin = options.begin.clone();
            blocking(move || place::prepare(&plan, begin.as_ref(), over.as_ref())).await?
        };
        let place::Prepared {
            pieces,
            removed,
            there_bytes,
            cleared_bytes,
        } = prepared;
        let total_bytes = plan.total_bytes;
        let written = AtomicU64::new(plan.zero_bytes + there_bytes);
        let report = |bytes: u64| {
            let written_bytes = written.fetch_add(bytes, Ordering::Relaxed) + bytes;
            if let Some(progress) = &options.progress {
                progress(Progress {
                    written_bytes,
                    total_bytes,
                });
            }
        };
        let compare = options.delta.is_some();
        let pieces = Arc::new(pieces);
        let turn = async |turn| {
            let pieces = Arc::clone(&pieces);
            self.restore_pieces(&plan, (pieces, turn), compare, report)
                .await
        };
        let (first, second) = (turn(Turn::First).await?, turn(Turn::Second).await?);
        let written_bytes = cleared_bytes + first.written_bytes + second.written_bytes;
        settle::settle(Arc::clone(&plan), options.owner).await?;
        Ok(RestoreStats {
            files: plan.files,
            total_bytes,
            written_bytes: if compare { written_bytes } else { total_bytes },
            removed,
            read_bytes: first.read_bytes + second.read_bytes,
        })
    }

    /// Writes the pieces of a turn, many ranges of packs at a time, and returns when all are written.
    async fn restore_pieces(
        &self,
        plan: &Plan,
        (pieces, turn): (Arc<Sorted>, Turn),
        compare: bool,
        report: impl Fn(u64),
    ) -> Result<Done> {
        let root = Arc::new(plan.root.clone());
        let (ranges, cutting) = produce(RANGES_IN_FLIGHT, move |sender| {
            fetch::cut_ranges(&pieces, turn, sender)
        });
        // Threads that write cannot be called off: whoever is told of a failure may remove what they write, so nobody is told
        // before the last of them has ended.
        let has_failed = AtomicBool::new(false);
        let restored = ranges
            .take_while(|_| std::future::ready(!has_failed.load(Ordering::Relaxed)))
            .map(|range| async {
                let done = fetch::restore_range(self, Arc::clone(&root), range, compare).await?;
                report(done.placed_bytes);
                Ok::<_, Error>(done)
            })
            .buffer_unordered(RANGES_IN_FLIGHT);
        let mut restored = std::pin::pin!(restored);
        let (mut all, mut failure) = (Done::default(), None);
        while let Some(range) = restored.next().await {
            match range {
                Ok(done) => all.add(done),
                Err(error) => {
                    has_failed.store(true, Ordering::Relaxed);
                    failure.get_or_insert(error);
                }
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        cutting.await.map_err(Error::Worker)??;
        Ok(all)
    }

    /// Returns the ciphers of the packs, in the order of the manifest.
    fn ciphers(&self) -> Result<delta::Ciphers> {
        let packs = self.packs().iter().map(|pack| {
            let key = self.repository.pack_key(&pack.label, pack.number);
            self.cipher(pack.salt.as_ref(), key.as_str())
        });
        packs.collect()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.map_err(Error::Worker)?
}

/// Runs `make` on a thread of its own; what it sends comes out as a stream. Its result counts once the stream has ended.
fn produce<T: Send + 'static>(
    ahead: usize,
    make: impl FnOnce(&mpsc::Sender<T>) -> Result<()> + Send + 'static,
) -> (impl Stream<Item = T>, tokio::task::JoinHandle<Result<()>>) {
    let (sender, receiver) = mpsc::channel(ahead);
    let task = spawn_blocking(move || make(&sender));
    let items = stream::unfold(receiver, async |mut receiver| {
        Some((receiver.recv().await?, receiver))
    });
    (items, task)
}
