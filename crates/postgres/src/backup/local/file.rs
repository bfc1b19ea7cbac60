//! Reading a file of the data directory while the server writes it, and looking at its pages.
//!
//! A page that does not carry its checksum is read again: if it has become right or is becoming something else, the
//! server was writing it, and replay will. If it stays as it is, it is remembered, and looked at once more when
//! everything has been read: whatever still is the same by then is damaged (R7). Nothing is decided by the page's own
//! position in the log, which may be what is damaged.
//!
//! A backup may end only when everything has been read: each file holds an [`Outstanding`] until its last byte has been.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dr_model::Lsn;
use dr_repository::FrameReader;
use rustix::fs::{Advice, fadvise};
use rustix::io::ReadWriteFlags;
use tokio::sync::mpsc;

use super::walk::about;
use crate::backup::base::DamagedPage;
use crate::page;

/// How often a page that keeps changing is read again.
const LOOKS: usize = 8;

/// The most pages that are remembered one by one.
const MOST_SUSPECTS: usize = 4096;

/// Held by whatever is still to be read.
pub(super) type Outstanding = mpsc::Sender<()>;

/// What all files of a backup are read by, and what was found in them.
#[derive(Debug)]
pub(super) struct Inspection {
    /// Bytes of a page.
    pub(super) page_bytes: usize,
    /// Whether pages carry checksums.
    checksums: bool,
    read_bytes: AtomicU64,
    suspects: Mutex<Suspects>,
}

#[derive(Debug, Default)]
struct Suspects {
    pages: Vec<Suspect>,
    /// Those beyond the most that are remembered.
    more: u64,
}

/// A page that was the same wrong page twice.
#[derive(Clone, Debug)]
struct Suspect {
    path: String,
    place: PathBuf,
    /// Where in the file it begins.
    offset: u64,
    /// Its number in the relation.
    block: u32,
    /// Stands for its content.
    sum: u32,
    lsn: Lsn,
}

/// A file being read.
#[derive(Debug)]
pub(super) struct DataFile {
    path: String,
    place: PathBuf,
    /// The number of its first page in the relation; `None` if it does not consist of pages.
    first_block: Option<u32>,
    inspection: Arc<Inspection>,
    opened: OnceLock<Opened>,
    /// Bytes that are still to be read, and what is held until then.
    left: AtomicU64,
    outstanding: Mutex<Option<Outstanding>>,
    /// Whether what was cut off is read as zeros. The file is patched then, and the log cuts it off again.
    padded: AtomicBool,
}

#[derive(Debug)]
struct Opened {
    file: File,
    /// Whether none of it was in memory: then none of it stays there on our account.
    cold: bool,
}

impl Inspection {
    pub(super) fn new(page_bytes: usize, checksums: bool) -> Arc<Self> {
        Arc::new(Self {
            page_bytes,
            checksums,
            read_bytes: AtomicU64::new(0),
            suspects: Mutex::default(),
        })
    }

    /// Returns how many bytes have been read from the data directory.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Looks once more at every page that was wrong, and returns those that still are the same, with the number of those
    /// that were too many to be remembered.
    pub(super) fn damaged(&self) -> io::Result<(Vec<DamagedPage>, u64)> {
        let Suspects { mut pages, more } =
            std::mem::take(&mut *self.suspects.lock().unwrap_or_else(PoisonError::into_inner));
        pages.sort_by(|a, b| (&a.path, a.block).cmp(&(&b.path, b.block)));
        pages.dedup_by(|a, b| (&a.path, a.block) == (&b.path, b.block));
        let mut damaged = Vec::new();
        let mut bytes = vec![0; self.page_bytes];
        for suspect in pages {
            let read = File::open(&suspect.place)
                .and_then(|file| file.read_exact_at(&mut bytes, suspect.offset));
            match read {
                Ok(()) => {}
                // Removed or cut off since: what it held is of no account.
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) =>
                {
                    continue;
                }
                Err(error) => return Err(about(&suspect.place, error)),
            }
            if crc32c::crc32c(&bytes) == suspect.sum {
                damaged.push(DamagedPage {
                    file: suspect.path,
                    block: suspect.block,
                    lsn: Some(suspect.lsn),
                });
            }
        }
        Ok((damaged, more))
    }

    fn suspect(&self, suspect: Suspect) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if suspects.pages.len() < MOST_SUSPECTS {
            suspects.pages.push(suspect);
        } else {
            suspects.more += 1;
        }
    }
}

impl DataFile {
    pub(super) fn new(
        path: String,
        place: PathBuf,
        first_block: Option<u32>,
        inspection: &Arc<Inspection>,
    ) -> Arc<Self> {
        Arc::new(Self {
            path,
            place,
            first_block,
            inspection: Arc::clone(inspection),
            opened: OnceLock::new(),
            left: AtomicU64::new(0),
            outstanding: Mutex::new(None),
            padded: AtomicBool::new(false),
        })
    }

    /// Announces that `bytes` in all will be asked for, all of it even if the file turns out shorter.
    pub(super) fn expect(&self, bytes: u64, outstanding: Outstanding) {
        if bytes > 0 {
            self.left.store(bytes, Ordering::Relaxed);
            *self
                .outstanding
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(outstanding);
        }
    }

    /// Makes sure that the file is there from now on, whatever becomes of its name, and full to any length.
    pub(super) fn pad(&self) -> io::Result<()> {
        self.open().map_err(|error| about(&self.place, error))?;
        self.padded.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Counts what was asked for as read.
    fn count(&self, asked: usize) {
        let asked = asked as u64;
        let counted = self
            .left
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |left| {
                left.checked_sub(asked)
            });
        if counted == Ok(asked) {
            self.outstanding
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
        }
    }

    /// Reads, and looks at every page, without counting.
    pub(super) fn look(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let named = |error: io::Error| about(&self.place, error);
        let opened = self.open().map_err(named)?;
        let mut filled = 0;
        while filled < buffer.len() {
            match opened
                .file
                .read_at(&mut buffer[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(named(error)),
            }
        }
        if opened.cold {
            let _taken = fadvise(
                &opened.file,
                offset,
                NonZeroU64::new(filled as u64),
                Advice::DontNeed,
            );
        }
        self.inspection
            .read_bytes
            .fetch_add(filled as u64, Ordering::Relaxed);
        self.inspect(&opened.file, offset, &mut buffer[..filled])
            .map_err(named)?;
        Ok(filled)
    }

    fn open(&self) -> io::Result<&Opened> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let file = File::open(&self.place)?;
        let cold = is_cold(&file, file.metadata()?.len());
        // Advice only: where it is not taken, reading is as right.
        let _taken = fadvise(&file, 0, None, Advice::Sequential);
        Ok(self.opened.get_or_init(|| Opened { file, cold }))
    }

    /// Looks at every whole page of what was read at `offset`.
    fn inspect(&self, file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let page_bytes = self.inspection.page_bytes;
        let Some(first_block) = self.first_block.filter(|_| self.inspection.checksums) else {
            return Ok(());
        };
        if !offset.is_multiple_of(page_bytes as u64) {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "pages are read from their beginning",
            ));
        }
        let mut at = offset;
        for page in bytes.chunks_exact_mut(page_bytes) {
            let nth = u32::try_from(at / page_bytes as u64).map_err(io::Error::other)?;
            let block = first_block.wrapping_add(nth);
            if page::is_unfit(page, block) {
                self.look_again(file, at, block, page)?;
            }
            at += page_bytes as u64;
        }
        Ok(())
    }

    /// Reads a page until it is right, or twice the same.
    fn look_again(&self, file: &File, offset: u64, block: u32, page: &mut [u8]) -> io::Result<()> {
        let mut again = vec![0; page.len()];
        for _ in 0..LOOKS {
            match file.read_exact_at(&mut again, offset) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
            let same = again == page;
            page.copy_from_slice(&again);
            if !page::is_unfit(page, block) {
                return Ok(());
            }
            if same {
                self.inspection.suspect(Suspect {
                    path: self.path.clone(),
                    place: self.place.clone(),
                    offset,
                    block,
                    sum: crc32c::crc32c(page),
                    lsn: page::lsn(page),
                });
                return Ok(());
            }
        }
        Ok(())
    }
}

impl FrameReader for DataFile {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let asked = buffer.len();
        let read = self.look(offset, buffer);
        self.count(asked);
        let filled = read?;
        if filled < asked && self.padded.load(Ordering::Relaxed) {
            buffer[filled..].fill(0);
            return Ok(asked);
        }
        Ok(filled)
    }
}

/// Tells whether a file seems not to be in memory: neither its beginning, its middle nor its end can be had without
/// waiting for the disk. What others use must not be thrown out.
fn is_cold(file: &File, length: u64) -> bool {
    let mut byte = [0];
    let mut in_memory = |offset| {
        let mut parts = [io::IoSliceMut::new(&mut byte)];
        // A file system that does not know the question is taken for one that has it in memory.
        !matches!(
            rustix::io::preadv2(file, &mut parts, offset, ReadWriteFlags::NOWAIT),
            Err(rustix::io::Errno::AGAIN)
        )
    };
    length > 0 && !in_memory(0) && !in_memory(length / 2) && !in_memory(length - 1)
}

#[cfg(test)]
mod tests;
