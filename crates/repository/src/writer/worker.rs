//! The threads that read, check, compress and pack.
//!
//! Each has buffers, a compressor and a pack of its own, so that they share nothing but the queue of jobs, and allocate
//! nothing for a frame. Changed blocks and small files of any number of files are collected into frames together.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::file::File;
use super::shared::Shared;
use crate::encryption::SaltText;
use crate::frame::{self, COLLECTED_BYTES, Encoder, FRAME_BYTES};
use crate::manifest::{Extent, Frame};
use crate::pack::Builder;
use crate::{Error, Result};

/// What is not longer shares a frame with others.
pub(super) const SMALL_BYTES: usize = 64 << 10;
/// Most pieces in a collected frame, so that the files waiting for it are not many.
const MOST_PIECES: usize = 1024;

/// Something for a worker to do.
#[derive(Debug)]
pub(super) enum Job {
    /// A frame of content that was handed over.
    Content {
        file: Arc<File>,
        offset: u64,
        plain: BytesMut,
    },
    /// A frame to be read.
    Frame {
        file: Arc<File>,
        offset: u64,
        length: usize,
    },
    /// Stretches to be read and collected, none longer than a collected frame.
    Blocks {
        file: Arc<File>,
        ranges: Vec<Range<u64>>,
    },
}

/// A pack that is complete, for the uploader.
#[derive(Debug)]
pub(super) struct Full {
    pub(super) number: u32,
    pub(super) bytes: Bytes,
}

/// Does jobs until there are none.
pub(super) fn work(shared: &Shared, uploads: mpsc::Sender<Full>) {
    let run = || {
        let mut worker = Worker::new(shared, uploads)?;
        loop {
            let job = {
                let mut jobs = shared.jobs.lock().unwrap_or_else(PoisonError::into_inner);
                jobs.blocking_recv()
            };
            match job {
                // Those waiting to hand over jobs are woken by their being taken.
                Some(_) if shared.has_failed() => {}
                Some(job) => worker.perform(job)?,
                None if shared.has_failed() => return Ok(()),
                None => return worker.finish(),
            }
        }
    };
    if let Err(error) = run() {
        shared.fail(error);
        let mut jobs = shared.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        while jobs.blocking_recv().is_some() {}
    }
}

struct Worker<'a> {
    output: Output<'a>,
    plain: Vec<u8>,
    collected: Vec<u8>,
    pieces: Vec<Piece>,
}

/// A piece of a file in the frame being collected.
struct Piece {
    file: Arc<File>,
    /// Where in the file.
    offset: u64,
    /// Where in the frame.
    from: u32,
    bytes: u32,
}

/// Where frames go.
struct Output<'a> {
    shared: &'a Shared,
    encoder: Encoder,
    filling: Option<Filling>,
    uploads: mpsc::Sender<Full>,
}

struct Filling {
    builder: Builder,
    slot: u32,
    number: u32,
    salt: Option<SaltText>,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared, uploads: mpsc::Sender<Full>) -> Result<Self> {
        let level = shared.level;
        let encoder = Encoder::new(level)
            .map_err(Error::io("compress for", Path::new(shared.label.as_str())))?;
        Ok(Self {
            output: Output {
                shared,
                encoder,
                filling: None,
                uploads,
            },
            plain: vec![0; FRAME_BYTES],
            collected: Vec::with_capacity(COLLECTED_BYTES),
            pieces: Vec::new(),
        })
    }

    fn perform(&mut self, job: Job) -> Result<()> {
        let shared = self.output.shared;
        match job {
            Job::Content {
                file,
                offset,
                plain,
            } => {
                if plain.len() <= SMALL_BYTES {
                    self.make_room(plain.len())?;
                    self.collected.extend_from_slice(&plain);
                    self.collect(&file, offset, plain.len())?;
                } else {
                    self.output.put_piece(&file, offset, &plain)?;
                }
                shared.give_back(plain);
                file.done(shared)
            }
            Job::Frame {
                file,
                offset,
                length,
            } => {
                if length <= SMALL_BYTES {
                    self.read_block(&file, offset, length)?;
                } else {
                    let plain = &mut self.plain[..length];
                    let read = read(&file, offset, plain)?;
                    self.output.put_piece(&file, offset, &plain[..read])?;
                }
                file.done(shared)
            }
            Job::Blocks { file, ranges } => {
                for range in ranges {
                    let length = usize::try_from(range.end - range.start)
                        .expect("a stretch is at most a frame");
                    if !self.read_block(&file, range.start, length)? {
                        break;
                    }
                }
                file.done(shared)
            }
        }
    }

    /// Reads a stretch into the frame being collected; false if the file ended in it.
    fn read_block(&mut self, file: &Arc<File>, offset: u64, length: usize) -> Result<bool> {
        self.make_room(length)?;
        let start = self.collected.len();
        self.collected.resize(start + length, 0);
        let read = read(file, offset, &mut self.collected[start..])?;
        self.collected.truncate(start + read);
        self.collect(file, offset, read)?;
        Ok(read == length)
    }

    fn make_room(&mut self, length: usize) -> Result<()> {
        if self.collected.len() + length > COLLECTED_BYTES || self.pieces.len() >= MOST_PIECES {
            self.flush()?;
        }
        Ok(())
    }

    /// Takes the last `length` collected bytes as a piece of a file.
    fn collect(&mut self, file: &Arc<File>, offset: u64, length: usize) -> Result<()> {
        let start = self.collected.len() - length;
        if frame::is_zero(&self.collected[start..]) {
            self.collected.truncate(start);
            if length > 0 {
                let bytes = length as u64;
                file.add(offset, Extent::Zeros { bytes });
            }
            return Ok(());
        }
        let narrow = |length| u32::try_from(length).expect("a frame is at most 1 MiB");
        file.expect();
        self.pieces.push(Piece {
            file: Arc::clone(file),
            offset,
            from: narrow(start),
            bytes: narrow(length),
        });
        Ok(())
    }

    /// Writes the frame being collected.
    fn flush(&mut self) -> Result<()> {
        if self.pieces.is_empty() {
            return Ok(());
        }
        let Some(frame) = self.output.put(&self.collected)? else {
            return Ok(());
        };
        self.collected.clear();
        for piece in self.pieces.drain(..) {
            let Piece { from, bytes, .. } = piece;
            piece
                .file
                .add(piece.offset, Extent::Stored { frame, from, bytes });
            piece.file.done(self.output.shared)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.output.ship();
        Ok(())
    }
}

/// Reads from the file's reader; notes if the file ends there.
fn read(file: &File, offset: u64, buffer: &mut [u8]) -> Result<usize> {
    let reader = file.reader.as_ref();
    let reader = reader.expect("only files with a reader are read");
    match reader.read(offset, buffer) {
        Ok(read) => {
            let read = read.min(buffer.len());
            if read < buffer.len() {
                file.end_at(offset + read as u64);
            }
            Ok(read)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            file.vanish();
            Ok(0)
        }
        Err(error) => Err(Error::io("read", Path::new(&file.path))(error)),
    }
}

impl Output<'_> {
    /// Writes a frame of one file.
    fn put_piece(&mut self, file: &File, offset: u64, plain: &[u8]) -> Result<()> {
        if frame::is_zero(plain) {
            if !plain.is_empty() {
                let bytes = plain.len() as u64;
                file.add(offset, Extent::Zeros { bytes });
            }
        } else if let Some(frame) = self.put(plain)? {
            let (from, bytes) = (0, frame.plain_bytes);
            file.add(offset, Extent::Stored { frame, from, bytes });
        }
        Ok(())
    }

    /// Writes a frame; nothing comes back if the backup has been given up.
    fn put(&mut self, plain: &[u8]) -> Result<Option<Frame>> {
        let stored = self.encoder.compress(plain);
        let full = self.filling.as_ref().is_some_and(|filling| {
            !filling.builder.is_empty()
                && filling.builder.size_with(stored.len()) > self.shared.pack_bytes
        });
        if full {
            ship(self.shared, &mut self.filling, &self.uploads);
        }
        let filling = match &mut self.filling {
            Some(filling) => filling,
            none => match begin(self.shared)? {
                Some(filling) => none.insert(filling),
                None => return Ok(None),
            },
        };
        let placed = filling.builder.push(plain, stored);
        Ok(Some(Frame {
            pack: filling.slot,
            offset: placed.offset,
            stored_bytes: placed.stored_bytes,
            plain_bytes: u32::try_from(plain.len()).expect("a frame is at most 1 MiB"),
            hash: placed.hash,
        }))
    }

    fn ship(&mut self) {
        ship(self.shared, &mut self.filling, &self.uploads);
    }
}

/// Takes memory for a pack, waiting while there is none; there is none any more if the uploader has gone.
fn begin(shared: &Shared) -> Result<Option<Filling>> {
    let mut free = shared.free.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(memory) = free.blocking_recv() else {
        return Ok(None);
    };
    let (slot, number) = shared.begin_pack();
    let seal = shared.seal(&shared.repository.pack_key(&shared.label, number))?;
    let salt = seal.as_ref().map(|(salt, _)| *salt);
    Ok(Some(Filling {
        builder: Builder::new(memory, shared.pack_bytes, seal),
        slot,
        number,
        salt,
    }))
}

/// Hands the pack being filled to the uploader. If that has gone, the backup has failed or been abandoned.
fn ship(shared: &Shared, filling: &mut Option<Filling>, uploads: &mpsc::Sender<Full>) {
    let Some(Filling {
        builder,
        slot,
        number,
        salt,
    }) = filling.take()
    else {
        return;
    };
    let (bytes, info) = builder.finish();
    shared.complete_pack(slot, number, info, salt);
    if uploads.blocking_send(Full { number, bytes }).is_err() {
        shared.abandon();
    }
}
