//! A segment that the server archives, as far as it has to be in memory.
//!
//! One of the usual size is read once. A longer one, of up to 1 GiB, stays in its file and is read in parts.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dr_model::{Lsn, SegmentSize};
use dr_provider::store::record;
use dr_provider::{Error, ErrorKind, Result};
use tokio::task::spawn_blocking;

use super::push::OPERATION;
use crate::receiver::FULL_BYTES;
use crate::wal::{SEGMENT_HEADER_BYTES, SegmentInfo};

/// A file that `archive_command` was given.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Memory(Bytes),
    File { file: Arc<File>, bytes: u64 },
}

impl Content {
    /// Opens a file, and reads it if it is not longer than a segment usually is.
    pub(super) async fn open(path: &Path) -> std::io::Result<Self> {
        let path = path.to_owned();
        let opened = spawn_blocking(move || {
            let mut file = File::open(&path)?;
            let bytes = file.metadata()?.len();
            if bytes > SegmentSize::DEFAULT.bytes() {
                let file = Arc::new(file);
                return Ok(Self::File { file, bytes });
            }
            let mut content = Vec::new();
            file.read_to_end(&mut content)?;
            Ok(Self::Memory(content.into()))
        });
        opened
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory(content) => content.len() as u64,
            Self::File { bytes, .. } => *bytes,
        }
    }

    /// Returns so many bytes from an offset.
    pub(super) async fn read(&self, offset: u64, length: usize) -> std::io::Result<Bytes> {
        let file = match self {
            Self::Memory(content) => {
                let start = usize::try_from(offset).expect("an index in a slice in memory");
                return Ok(content.slice(start..start + length));
            }
            Self::File { file, .. } => Arc::clone(file),
        };
        let read = spawn_blocking(move || {
            let mut part = vec![0; length];
            file.read_exact_at(&mut part, offset)?;
            Ok(Bytes::from(part))
        });
        read.await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }

    /// Returns the first bytes, of a short file all.
    pub(super) async fn head(&self) -> std::io::Result<Bytes> {
        let length = usize::try_from(self.len()).unwrap_or(usize::MAX);
        self.read(0, length.min(SEGMENT_HEADER_BYTES)).await
    }

    /// Returns everything: for what is stored as one object.
    pub(super) async fn all(&self) -> std::io::Result<Bytes> {
        let length = usize::try_from(self.len()).map_err(std::io::Error::other)?;
        self.read(0, length).await
    }

    /// Returns everything, and behind it a line that begins with `mark` and holds its hash.
    pub(super) async fn all_hashed(&self, mark: &'static str) -> std::io::Result<Bytes> {
        let content = self.clone();
        let length = usize::try_from(self.len()).map_err(std::io::Error::other)?;
        let read = spawn_blocking(move || {
            // Once in memory, whatever its length: the line is added where it stands.
            let mut all = Vec::with_capacity(length + mark.len() + 2 * blake3::OUT_LEN + 1);
            match content {
                Self::Memory(content) => all.extend_from_slice(&content),
                Self::File { file, .. } => {
                    all.resize(length, 0);
                    file.read_exact_at(&mut all, 0)?;
                }
            }
            Ok(record::with_hash(all, mark))
        });
        read.await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }
}

/// A segment that is what its name says.
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) info: SegmentInfo,
    pub(super) content: Content,
}

impl Segment {
    pub(super) fn start(&self) -> Lsn {
        self.info.start
    }

    pub(super) fn end(&self) -> Lsn {
        self.info.start.advance(self.info.size.bytes())
    }

    /// Returns the bytes from one position to another: no more than fit the memory.
    pub(super) async fn slice(&self, from: Lsn, to: Lsn) -> Result<Bytes> {
        let length = usize::try_from(to.bytes_since(from)).expect("a part fits the memory");
        let read = self
            .content
            .read(from.bytes_since(self.start()), length)
            .await;
        read.map_err(|error| self.unreadable(error))
    }

    /// Returns the bounds of its parts from a position on, each as long as a chunk may be.
    pub(super) fn parts(&self, from: Lsn) -> impl Iterator<Item = (Lsn, Lsn)> + use<> {
        let (mut at, end) = (from, self.end());
        std::iter::from_fn(move || {
            let start = at;
            at = at.advance(FULL_BYTES as u64).min(end);
            (start < end).then_some((start, at))
        })
    }

    fn unreadable(&self, error: std::io::Error) -> Error {
        Error::new(ErrorKind::Failed, OPERATION, &self.name).because(error)
    }
}
