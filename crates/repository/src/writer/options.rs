//! How much a writer does at a time, and the memory that this takes.

use tokio::sync::Semaphore;

use crate::frame::FRAME_BYTES;

/// How a backup is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// Size at which a pack is full. A pack is held in memory while it is filled and written.
    pub pack_bytes: usize,
    /// Most bytes held in memory, plain and compressed together; raised to what two packs and the frames being compressed
    /// need.
    pub memory_bytes: usize,
    /// Frames being compressed at a time; the default is the number of cores.
    pub workers: usize,
    /// Packs being written at a time.
    pub uploads: usize,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            pack_bytes: 16 << 20,
            memory_bytes: 128 << 20,
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            uploads: 4,
        }
    }
}

impl WriterOptions {
    /// Frames begun and not yet in a pack: enough that no worker waits for the one before it.
    pub(super) fn frames_in_flight(&self) -> usize {
        self.workers.max(1) * 2
    }

    /// Permits that always suffice for progress: what can be waiting for more data (one pack, unfinished frames), one
    /// pack being written, and one frame more.
    pub(super) fn budget(&self) -> usize {
        let least = 2 * self.pack_bytes + (self.frames_in_flight() + 2) * FRAME_BYTES;
        self.memory_bytes.max(least).min(Semaphore::MAX_PERMITS)
    }
}
