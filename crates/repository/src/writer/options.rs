//! How much a writer does at a time, and the memory that this takes.

use std::path::PathBuf;

use crate::frame::FRAME_BYTES;

/// The fastest level: at it, compression is most of what a backup costs, and higher ones gain little on database pages.
const LEVEL: i32 = 1;

/// How a backup is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// Size at which a pack is full. A pack is held in memory while it is filled and written.
    pub pack_bytes: usize,
    /// Most bytes held in memory for content, plain and compressed together; raised to what one pack a worker and one
    /// more need.
    pub memory_bytes: usize,
    /// Threads that read, check, compress; the default is the number of cores. Each fills a pack of its own.
    pub workers: usize,
    /// Packs being written at a time.
    pub uploads: usize,
    /// zstd's level.
    pub level: i32,
    /// Where the list of files is kept while it is too long for memory; without it, the system's place for such files.
    pub spill_directory: Option<PathBuf>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            pack_bytes: 16 << 20,
            memory_bytes: 80 << 20,
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            uploads: 4,
            level: LEVEL,
            spill_directory: None,
        }
    }
}

impl WriterOptions {
    /// Jobs waiting for a worker: enough that none waits for the caller.
    pub(super) fn jobs_in_flight(&self) -> usize {
        self.workers.max(1) * 2
    }

    /// Packs in memory: what the budget leaves beside the frames, at least one for each worker to fill and one to be
    /// written, and no more than can be busy at a time.
    pub(super) fn packs_in_memory(&self) -> usize {
        let workers = self.workers.max(1);
        // Each worker has a plain frame, a compressed one, and a collected one; each waiting job may have a plain one.
        let frames = (3 * workers + self.jobs_in_flight() + 1) * FRAME_BYTES;
        let room = self.memory_bytes.saturating_sub(frames) / self.pack_bytes.max(1);
        room.clamp(workers + 1, workers + self.uploads.max(1))
    }
}
