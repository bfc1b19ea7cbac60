//! Writing a backup.
//!
//! Files come in whatever order. A fixed number of workers, one a core, read and compress frames and fill packs, which are
//! written several at a time. Memory is bounded by the number of packs that there is memory for: a worker that needs one
//! waits until another is durable. The list of files is sorted, on disk if it is long, and becomes the tree at the end.

mod file;
mod finish;
mod options;
mod remove;
mod shared;
mod upload;
mod worker;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
pub use options::WriterOptions;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::file::File;
use self::shared::Shared;
use self::worker::{Job, SMALL_BYTES};
use crate::frame::{COLLECTED_BYTES, FRAME_BYTES};
use crate::manifest::{Entry, Extent, Header, Metadata, StoredFile};
use crate::{Error, Label, Repository, Result, path};

/// Content of a file that is being backed up.
///
/// Called on worker threads, for several frames of a file at a time.
pub trait FrameReader: Send + Sync + std::fmt::Debug {
    /// Reads at `offset` and returns how many bytes it read.
    ///
    /// MUST fill the buffer unless the file ends before: a short result says that the file ends there. May check and must
    /// not change what it read other than by reading again. `NotFound` says that the file does not exist any more; it is
    /// left out of the backup (R6). Any other error fails the backup.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A file whose content is handed over.
#[derive(Debug)]
struct Open {
    file: Arc<File>,
    /// Content that is not in a frame yet, and where in the file it begins.
    plain: BytesMut,
    offset: u64,
}

/// Gives a backup up when it is dropped; one that has been finished does not notice.
#[derive(Debug)]
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// Writes one backup. Dropping it before [`finish`](Self::finish) leaves no backup, only packs that nobody refers to;
/// [`abandon`](Self::abandon) removes those too, as `finish` does if it fails.
///
/// Paths may come in any order; one that occurs twice or lies below a file is refused at the end. A writer of which the
/// future of a call was dropped half-way has lost bytes and refuses everything afterwards.
#[derive(Debug)]
pub struct BackupWriter {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    /// Workers, and the uploader.
    tasks: JoinSet<()>,
    open: Option<Open>,
    /// Set while bytes are between two places, so that it stays set if that does not come to its end.
    broken: bool,
    guard: Guard,
}

impl BackupWriter {
    pub(crate) fn new(repository: Repository, label: Label, options: &WriterOptions) -> Self {
        let packs = options.packs_in_memory();
        let (jobs, taken) = mpsc::channel(options.jobs_in_flight());
        let (give, free) = mpsc::channel(packs);
        for _ in 0..packs {
            let memory = BytesMut::new();
            give.try_send(memory)
                .expect("there is room for all of them");
        }
        let shared = Arc::new(Shared::new(repository, label, options, taken, free));
        let (full, packed) = mpsc::channel(packs);
        let mut tasks = JoinSet::new();
        for _ in 0..options.workers.max(1) {
            let (shared, full) = (Arc::clone(&shared), full.clone());
            tasks.spawn_blocking(move || worker::work(&shared, full));
        }
        tasks.spawn(upload::upload(
            Arc::clone(&shared),
            packed,
            give,
            options.uploads.max(1),
        ));
        Self {
            guard: Guard(Arc::clone(&shared)),
            shared,
            jobs,
            tasks,
            open: None,
            broken: false,
        }
    }

    /// Returns the label.
    #[must_use]
    pub fn label(&self) -> &Label {
        &self.shared.label
    }

    /// Adds a directory.
    pub fn add_directory(&mut self, path: &str, metadata: Metadata) -> Result<()> {
        self.check("add a directory", path)?;
        let path = path.to_owned();
        self.shared.add_entry(&Entry::Directory { path, metadata })
    }

    /// Adds a symbolic link.
    pub fn add_symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.check("add a symbolic link", path)?;
        let (path, target) = (path.to_owned(), target.to_owned());
        self.shared.add_entry(&Entry::Symlink { path, target })
    }

    /// Adds a file of `size` bytes whose content the workers read, several frames at a time. If it turns out shorter, it
    /// is as long as it turns out; what it has grown beyond `size` is not read (R6).
    ///
    /// Returns when the last of its frames has been handed to a worker.
    pub async fn read_file(
        &mut self,
        path: &str,
        metadata: Metadata,
        size: u64,
        reader: Arc<dyn FrameReader>,
    ) -> Result<()> {
        self.check("add a file", path)?;
        let file = File::new(path, metadata, size, Some(reader), Vec::new());
        self.broken = true;
        let mut offset = 0;
        while offset < size {
            let length = piece(size - offset, FRAME_BYTES);
            let job = Job::Frame {
                file: Arc::clone(&file),
                offset,
                length,
            };
            self.send(&file, job).await?;
            offset += length as u64;
        }
        file.done(&self.shared)?;
        self.broken = false;
        Ok(())
    }

    /// Adds a file of `size` bytes that differs from `parent`, the same file in an older backup, in the stretches
    /// `changed` alone: those are read, the rest refers to where the older backup has it.
    ///
    /// `changed` is ordered and without overlaps, and covers everything from the parent's end on; a reference to older
    /// packs costs nothing, and restoring takes what restoring a full backup does. What has become shorter meanwhile is as
    /// in [`read_file`](Self::read_file), where the reading notices it.
    pub async fn patch_file(
        &mut self,
        path: &str,
        metadata: Metadata,
        size: u64,
        parent: &StoredFile,
        changed: &[Range<u64>],
        reader: Arc<dyn FrameReader>,
    ) -> Result<()> {
        self.check("add a file", path)?;
        let key = self.shared.repository.keys().writing();
        if parent.key.as_deref() != key.map(|key| key.id().as_str()) {
            return Err(out_of_turn(
                "refer to an older backup",
                "it is encrypted with another key, or only one of the two is: a full backup is needed",
            ));
        }
        let (kept, read) = divide(parent, changed, size).map_err(|why| Error::Path {
            path: path.to_owned(),
            why,
        })?;
        let pieces = self.shared.refer(parent, kept);
        let file = File::new(path, metadata, size, Some(reader), pieces);
        self.broken = true;
        for ranges in read {
            let job = Job::Blocks {
                file: Arc::clone(&file),
                ranges,
            };
            self.send(&file, job).await?;
        }
        file.done(&self.shared)?;
        self.broken = false;
        Ok(())
    }

    /// Begins a file; its content follows by [`write`](Self::write).
    pub fn begin_file(&mut self, path: &str, metadata: Metadata) -> Result<()> {
        self.check("begin a file", path)?;
        self.open = Some(Open {
            file: File::new(path, metadata, u64::MAX, None, Vec::new()),
            plain: self.shared.plain_buffer(),
            offset: 0,
        });
        Ok(())
    }

    /// Appends to the file begun. Waits while memory is used up, and fails if an earlier pack could not be written.
    pub async fn write(&mut self, mut data: Bytes) -> Result<()> {
        self.check_usable("write to a file")?;
        let Some(mut open) = self.open.take() else {
            return Err(out_of_turn("write to a file", "none has been begun"));
        };
        self.broken = true;
        while !data.is_empty() {
            let room = FRAME_BYTES - open.plain.len();
            let piece = data.split_to(room.min(data.len()));
            open.plain.extend_from_slice(&piece);
            if open.plain.len() == FRAME_BYTES {
                let next = self.shared.plain_buffer();
                let plain = std::mem::replace(&mut open.plain, next);
                self.hand_over(&mut open, plain).await?;
            }
        }
        self.open = Some(open);
        self.broken = false;
        Ok(())
    }

    /// Ends the file begun.
    pub async fn end_file(&mut self) -> Result<()> {
        self.check_usable("end a file")?;
        let Some(mut open) = self.open.take() else {
            return Err(out_of_turn("end a file", "none has been begun"));
        };
        self.broken = true;
        let plain = std::mem::take(&mut open.plain);
        open.file.end_at(open.offset + plain.len() as u64);
        if plain.is_empty() {
            self.shared.give_back(plain);
        } else {
            self.hand_over(&mut open, plain).await?;
        }
        open.file.done(&self.shared)?;
        self.broken = false;
        Ok(())
    }

    async fn hand_over(&mut self, open: &mut Open, plain: BytesMut) -> Result<()> {
        let offset = open.offset;
        open.offset += plain.len() as u64;
        let job = Job::Content {
            file: Arc::clone(&open.file),
            offset,
            plain,
        };
        self.send(&open.file, job).await
    }

    /// Writes what is left and then the manifest: from that moment the backup exists. Returns its header.
    ///
    /// `source` is kept as it is for whoever restores. Fails if a pack of an older backup that this one refers to has gone
    /// or is going (R37). If the error's kind is `Unknown`, the backup may exist; it is complete then.
    pub async fn finish(self, source: Value) -> Result<Header> {
        if let Err(error) = self.check_between("finish a backup") {
            self.abandon().await;
            return Err(error);
        }
        let (shared, guard, ended) = self.end().await;
        let header = match ended {
            Ok(()) if shared.has_failed() => Err(failure(&shared)),
            Ok(()) => finish::finish(&shared, source).await,
            Err(error) => Err(error),
        };
        drop(guard);
        if header.is_err() {
            remove::remove(&shared).await;
        }
        header
    }

    /// Gives the backup up and removes what it has written, as far as it may: nobody refers to that, and it takes the room that
    /// others need. A store that does not let it leaves it to the next pruning.
    pub async fn abandon(self) {
        self.shared.abandon();
        let (shared, guard, _ended) = self.end().await;
        drop(guard);
        remove::remove(&shared).await;
    }

    /// Waits until nothing is written any more.
    async fn end(self) -> (Arc<Shared>, Guard, Result<()>) {
        let Self {
            shared,
            jobs,
            mut tasks,
            guard,
            ..
        } = self;
        drop(jobs);
        let mut ended = Ok(());
        while let Some(done) = tasks.join_next().await {
            ended = ended.and(done.map_err(Error::Worker));
        }
        (shared, guard, ended)
    }

    fn check_usable(&self, operation: &'static str) -> Result<()> {
        if self.shared.has_failed() {
            Err(failure(&self.shared))
        } else if self.broken {
            Err(out_of_turn(operation, "this backup has failed already"))
        } else {
            Ok(())
        }
    }

    fn check(&self, operation: &'static str, path: &str) -> Result<()> {
        self.check_between(operation)?;
        path::check(path)
    }

    fn check_between(&self, operation: &'static str) -> Result<()> {
        self.check_usable(operation)?;
        if self.open.is_some() {
            return Err(out_of_turn(operation, "a file has not been ended"));
        }
        Ok(())
    }

    async fn send(&self, file: &File, job: Job) -> Result<()> {
        file.expect();
        if self.jobs.send(job).await.is_err() || self.shared.has_failed() {
            return Err(failure(&self.shared));
        }
        Ok(())
    }
}

/// Returns why the backup failed; what comes later is told less.
fn failure(shared: &Shared) -> Error {
    let failure = shared.take_failure();
    failure.unwrap_or_else(|| out_of_turn("go on", "this backup has failed already"))
}

fn piece(left: u64, most: usize) -> usize {
    usize::try_from(left).map_or(most, |left| left.min(most))
}

/// Divides a file into stretches that its parent has, with where they begin, and groups of stretches to be read.
#[expect(
    clippy::type_complexity,
    reason = "the two are used where they are made"
)]
fn divide(
    parent: &StoredFile,
    changed: &[Range<u64>],
    size: u64,
) -> std::result::Result<(Vec<(u64, Extent)>, Vec<Vec<Range<u64>>>), &'static str> {
    let mut kept = Vec::new();
    let mut groups: Vec<Vec<Range<u64>>> = Vec::new();
    let mut in_group = COLLECTED_BYTES;
    let mut extents = parent.entry.extents.iter();
    let mut extent = extents.next().copied();
    // Where the extent begins.
    let mut begin = 0;
    let mut position = 0;
    let end = size..size;
    for range in changed.iter().chain([&end]) {
        if range.start < position || range.end < range.start {
            return Err("its changed stretches are not in order");
        }
        let range = range.start.min(size)..range.end.min(size);
        while position < range.start {
            let Some(current) = extent else {
                return Err("what lies behind its parent's end is not named as changed");
            };
            let extent_end = begin + current.bytes();
            if extent_end <= position {
                begin = extent_end;
                extent = extents.next().copied();
                continue;
            }
            let until = extent_end.min(range.start);
            kept.push((position, current.part(position - begin, until - position)));
            position = until;
        }
        while position < range.end {
            if in_group >= COLLECTED_BYTES {
                groups.push(Vec::new());
                in_group = 0;
            }
            let length = piece(range.end - position, COLLECTED_BYTES - in_group);
            let group = groups.last_mut().expect("one has been begun");
            group.push(position..position + length as u64);
            in_group += length;
            position += length as u64;
        }
    }
    Ok((kept, groups))
}

fn out_of_turn(operation: &'static str, why: &'static str) -> Error {
    Error::OutOfTurn { operation, why }
}

const _: () = assert!(SMALL_BYTES <= COLLECTED_BYTES);
