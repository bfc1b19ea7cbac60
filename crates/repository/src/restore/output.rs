//! Files that are being written: long stretches past the system's cache, the rest through it.
//!
//! A restore writes more than fits there, and once. To copy it into the cache and have it collected again takes several times
//! what the disk does (docs/benchmarks.md), and throws out what others have there. A sync of the file is needed either way.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::frame::ALIGNMENT;
use crate::{Error, Result};

/// Shorter stretches go through the cache, which gathers them.
const DIRECT_BYTES: usize = 128 << 10;

/// A file as long as this is made as long as it will be at once, so that writers anywhere in it do not wait for each other.
const LONG_BYTES: u64 = 1 << 20;

/// A file that several threads may be writing, each through an output of its own.
#[derive(Debug)]
pub(super) struct Output {
    cached: File,
    direct: Direct,
}

/// The way past the cache.
#[derive(Debug)]
enum Direct {
    Untried,
    Open(File),
    /// The file system has none.
    Refused,
}

impl Output {
    /// Opens a file, making it if it is not there yet.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let cached = options().open(path).map_err(Error::io("open", path))?;
        Ok(Self {
            cached,
            direct: Direct::Untried,
        })
    }

    /// Writes at a position of the file at `path`.
    pub(super) fn write(&mut self, path: &Path, content: &[u8], position: u64) -> Result<()> {
        let failed = |error| Error::io("write", path)(error);
        if is_for_disk(content, position)
            && let Some(direct) = self.direct(path)
        {
            match direct.write_all_at(content, position) {
                Err(error) if is_refusal(&error) => self.direct = Direct::Refused,
                written => return written.map_err(failed),
            }
        }
        self.cached.write_all_at(content, position).map_err(failed)
    }

    /// Tells whether what is about to be written is there already.
    pub(super) fn holds(&self, path: &Path, content: &[u8], position: u64) -> Result<bool> {
        let mut there = vec![0; content.len()];
        match self.cached.read_exact_at(&mut there, position) {
            Ok(()) => Ok(there == content),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    fn direct(&mut self, path: &Path) -> Option<&File> {
        if matches!(self.direct, Direct::Untried) {
            let flag = OFlags::DIRECT.bits().cast_signed();
            // Whatever else is wrong with the file, writing through the cache will tell.
            self.direct = match options().custom_flags(flag).open(path) {
                Ok(file) => Direct::Open(file),
                Err(_) => Direct::Refused,
            };
        }
        match &self.direct {
            Direct::Open(file) => Some(file),
            Direct::Untried | Direct::Refused => None,
        }
    }
}

/// Makes a file of `size` bytes if it is a long one.
pub(super) fn make_long(path: &Path, size: u64) -> Result<()> {
    if size < LONG_BYTES {
        return Ok(());
    }
    let file = options().open(path).map_err(Error::io("open", path))?;
    file.set_len(size).map_err(Error::io("lengthen", path))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    options
}

fn is_for_disk(content: &[u8], position: u64) -> bool {
    content.len() >= DIRECT_BYTES
        && content.len().is_multiple_of(ALIGNMENT)
        && position.is_multiple_of(ALIGNMENT as u64)
        && content.as_ptr().addr().is_multiple_of(ALIGNMENT)
}

/// Tells whether the file system took the flag and does not take the write, or not this one.
fn is_refusal(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whichever way each stretch goes, and whether or not the file system has both, the file is the same.
    #[test]
    fn both_ways_make_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let memory: Vec<u8> = (0..(4 << 20) + ALIGNMENT)
            .map(|at| (at / 97) as u8)
            .collect();
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        let content = &memory[start..start + (4 << 20)];
        make_long(&path, content.len() as u64).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 4 << 20);
        let mut output = Output::open(&path).unwrap();
        let cuts = [
            0,
            1 << 20,
            (1 << 20) + 8192,
            3 << 20,
            (3 << 20) + 300_001,
            4 << 20,
        ];
        for pair in cuts.windows(2).rev() {
            let part = &content[pair[0]..pair[1]];
            output.write(&path, part, pair[0] as u64).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == content);
    }

    #[test]
    fn what_is_not_aligned_goes_through_the_cache() {
        let memory = vec![0; 4 * DIRECT_BYTES];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        let aligned = &memory[start..start + 2 * DIRECT_BYTES];
        assert!(is_for_disk(aligned, 8192));
        assert!(!is_for_disk(aligned, 512));
        assert!(!is_for_disk(&aligned[..DIRECT_BYTES + 512], 0));
        assert!(!is_for_disk(&aligned[..8192], 0));
        assert!(!is_for_disk(&memory[start + 512..][..DIRECT_BYTES], 0));
    }
}
