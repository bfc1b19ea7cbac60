//! Writing a backup from a stream of files.
//!
//! The caller hands over files in whatever order they come. Frames are compressed on worker threads, joined to packs in
//! order, and packs are written several at a time. One budget of bytes bounds all of it: whoever holds bytes holds that
//! many permits, from the plain frame until its pack is durable.

mod options;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
pub use options::WriterOptions;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};

use crate::frame::{self, Encoded, FRAME_BYTES};
use crate::manifest::{Entry, FileEntry, Frame, Header, Metadata, PackInfo};
use crate::{Error, Label, Repository, Result, manifest, pack, path, store};

/// A frame being compressed.
#[derive(Debug)]
struct Pending {
    /// Index of the file's entry.
    entry: usize,
    task: JoinHandle<(Encoded, OwnedSemaphorePermit)>,
}

/// A pack being filled, with the permits for its bytes.
#[derive(Debug)]
struct Filling {
    builder: pack::Builder,
    permits: Option<OwnedSemaphorePermit>,
}

/// Writes one backup. Dropping it before [`finish`](Self::finish) leaves no backup, only packs that nobody refers to.
#[derive(Debug)]
pub struct BackupWriter {
    repository: Repository,
    label: Label,
    options: WriterOptions,
    budget: Arc<Semaphore>,
    entries: Vec<Entry>,
    paths: HashSet<String>,
    /// Whether the last entry is a file still being written.
    in_file: bool,
    /// Content of that file that is not in a frame yet.
    plain: BytesMut,
    pending: VecDeque<Pending>,
    filling: Filling,
    packs: Vec<Option<PackInfo>>,
    uploads: JoinSet<Result<(usize, PackInfo)>>,
    /// Set while bytes are between two places, so that it stays set if that does not come to its end.
    failed: bool,
}

impl BackupWriter {
    pub(crate) fn new(repository: Repository, label: Label, options: WriterOptions) -> Self {
        Self {
            repository,
            label,
            options,
            budget: Arc::new(Semaphore::new(options.budget())),
            entries: Vec::new(),
            paths: HashSet::new(),
            in_file: false,
            plain: BytesMut::new(),
            pending: VecDeque::new(),
            filling: Filling {
                builder: pack::Builder::new(options.pack_bytes),
                permits: None,
            },
            packs: Vec::new(),
            uploads: JoinSet::new(),
            failed: false,
        }
    }

    /// Returns the label.
    #[must_use]
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// Adds a directory.
    pub fn add_directory(&mut self, path: &str, metadata: Metadata) -> Result<()> {
        self.add(Entry::Directory {
            path: path.to_owned(),
            metadata,
        })
    }

    /// Adds a symbolic link.
    pub fn add_symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.add(Entry::Symlink {
            path: path.to_owned(),
            target: target.to_owned(),
        })
    }

    /// Begins a file; its content follows by [`write`](Self::write).
    pub fn begin_file(&mut self, path: &str, metadata: Metadata) -> Result<()> {
        self.add(Entry::File(FileEntry {
            path: path.to_owned(),
            metadata,
            size: 0,
            frames: Vec::new(),
        }))?;
        self.in_file = true;
        Ok(())
    }

    /// Appends to the file begun. Waits while the budget is used up, and fails if an earlier pack could not be written.
    ///
    /// A writer whose future was dropped half-way has lost bytes and refuses everything afterwards.
    pub async fn write(&mut self, data: Bytes) -> Result<()> {
        self.check("write to a file")?;
        let Some(Entry::File(file)) = self.entries.last_mut().filter(|_| self.in_file) else {
            return Err(out_of_turn("write to a file", "none has been begun"));
        };
        file.size += data.len() as u64;
        self.failed = true;
        self.append(data).await?;
        self.failed = false;
        Ok(())
    }

    async fn append(&mut self, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            if self.plain.is_empty() && data.len() >= FRAME_BYTES {
                let frame = data.split_to(FRAME_BYTES);
                self.cut(frame).await?;
                continue;
            }
            let room = FRAME_BYTES - self.plain.len();
            let piece = data.split_to(room.min(data.len()));
            self.plain.extend_from_slice(&piece);
            if self.plain.len() == FRAME_BYTES {
                let frame = self.plain.split().freeze();
                self.cut(frame).await?;
            }
        }
        Ok(())
    }

    /// Ends the file begun.
    pub async fn end_file(&mut self) -> Result<()> {
        self.check("end a file")?;
        if !self.in_file {
            return Err(out_of_turn("end a file", "none has been begun"));
        }
        if !self.plain.is_empty() {
            let frame = self.plain.split().freeze();
            self.failed = true;
            self.cut(frame).await?;
            self.failed = false;
        }
        self.in_file = false;
        Ok(())
    }

    /// Writes what is left and then the manifest: from that moment the backup exists. Returns its header.
    ///
    /// `source` is kept as it is for whoever restores. If the error's kind is `Unknown`, the backup may exist; it is
    /// complete then.
    pub async fn finish(mut self, source: Value) -> Result<Header> {
        self.check("finish a backup")?;
        if self.in_file {
            return Err(out_of_turn("finish a backup", "a file has not been ended"));
        }
        while !self.pending.is_empty() {
            self.join_frame().await?;
        }
        if !self.filling.builder.is_empty() {
            self.upload().await?;
        }
        while !self.uploads.is_empty() {
            self.join_upload().await?;
        }
        let packs: Option<Vec<PackInfo>> = self.packs.iter().copied().collect();
        let packs = packs.ok_or_else(|| out_of_turn("finish a backup", "a pack is missing"))?;
        let (label, entries) = (self.label.clone(), std::mem::take(&mut self.entries));
        let encode = move || manifest::encode(&label, source, &packs, &entries);
        let key = self.repository.manifest_key(&self.label);
        let (bytes, header) = spawn_blocking(encode)
            .await
            .map_err(Error::Worker)?
            .map_err(Error::io("encode", std::path::Path::new(key.as_str())))?;
        store::create(&**self.repository.store(), &key, bytes).await?;
        Ok(header)
    }

    fn check(&self, operation: &'static str) -> Result<()> {
        if self.failed {
            Err(out_of_turn(operation, "this backup has failed already"))
        } else {
            Ok(())
        }
    }

    fn add(&mut self, entry: Entry) -> Result<()> {
        self.check("add to a backup")?;
        if self.in_file {
            return Err(out_of_turn("add to a backup", "a file has not been ended"));
        }
        path::check(entry.path())?;
        if !self.paths.insert(entry.path().to_owned()) {
            return Err(Error::Path {
                path: entry.path().to_owned(),
                why: "it occurs twice",
            });
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Gives the next piece of the open file to a worker.
    async fn cut(&mut self, plain: Bytes) -> Result<()> {
        let ready =
            |pending: &VecDeque<Pending>| pending.front().is_some_and(|p| p.task.is_finished());
        while self.pending.len() >= self.options.frames_in_flight() || ready(&self.pending) {
            self.join_frame().await?;
        }
        let wanted = u32::try_from(plain.len()).expect("a frame is at most 1 MiB");
        let budget = Arc::clone(&self.budget);
        let permit = budget.acquire_many_owned(wanted).await;
        let permit = permit.expect("the budget is never closed");
        let task = spawn_blocking(move || (frame::encode(&plain), permit));
        self.pending.push_back(Pending {
            entry: self.entries.len() - 1,
            task,
        });
        Ok(())
    }

    /// Waits for the oldest frame and puts it into the pack being filled.
    async fn join_frame(&mut self) -> Result<()> {
        let Some(Pending { entry, task }) = self.pending.pop_front() else {
            return Ok(());
        };
        let (encoded, mut permit) = task.await.map_err(Error::Worker)?;
        // What compression saved goes back to the budget.
        drop(permit.split(encoded.plain_bytes as usize - encoded.stored.len()));
        let builder = &self.filling.builder;
        if !builder.is_empty() && builder.size_with(encoded.stored.len()) > self.options.pack_bytes
        {
            self.upload().await?;
        }
        let offset = self.filling.builder.push(&encoded);
        match &mut self.filling.permits {
            Some(permits) => permits.merge(permit),
            none => *none = Some(permit),
        }
        let frame = Frame {
            pack: u32::try_from(self.packs.len())
                .expect("packs of 16 MiB reach far beyond any disk"),
            offset,
            stored_bytes: u32::try_from(encoded.stored.len()).expect("a frame is at most 1 MiB"),
            plain_bytes: encoded.plain_bytes,
            hash: encoded.hash,
        };
        if let Some(Entry::File(file)) = self.entries.get_mut(entry) {
            file.frames.push(frame);
        }
        Ok(())
    }

    /// Begins to write the pack being filled.
    async fn upload(&mut self) -> Result<()> {
        while self.uploads.len() >= self.options.uploads.max(1) {
            self.join_upload().await?;
        }
        while let Some(done) = self.uploads.try_join_next() {
            self.record(done)?;
        }
        let next = Filling {
            builder: pack::Builder::new(self.options.pack_bytes),
            permits: None,
        };
        let Filling { builder, permits } = std::mem::replace(&mut self.filling, next);
        let number = self.packs.len();
        self.packs.push(None);
        let key = self.repository.pack_key(&self.label, number);
        let store = Arc::clone(self.repository.store());
        self.uploads.spawn(async move {
            let (bytes, info) = spawn_blocking(|| builder.finish())
                .await
                .map_err(Error::Worker)?;
            store::create(&*store, &key, bytes).await?;
            drop(permits);
            Ok((number, info))
        });
        Ok(())
    }

    async fn join_upload(&mut self) -> Result<()> {
        match self.uploads.join_next().await {
            Some(done) => self.record(done),
            None => Ok(()),
        }
    }

    fn record(
        &mut self,
        done: std::result::Result<Result<(usize, PackInfo)>, tokio::task::JoinError>,
    ) -> Result<()> {
        let (number, info) = done.map_err(Error::Worker)??;
        self.packs[number] = Some(info);
        Ok(())
    }
}

fn out_of_turn(operation: &'static str, why: &'static str) -> Error {
    Error::OutOfTurn { operation, why }
}
