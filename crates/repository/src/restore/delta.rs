//! Restoring over what is there: only what differs is read from the store and written.
//!
//! What is there proves nothing by its name or its time; its bytes are compared with the hashes of the backup.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use dr_encryption::ObjectCipher;

use crate::manifest::{FileEntry, Frame};
use crate::{Error, FRAME_BYTES, Hash, Result, frame};

/// What is not compared with the backup.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// Paths below the directory that are left as they are.
    pub left_alone: BTreeSet<String>,
}

/// The ciphers of a backup's packs, by their place in its list; `None` for one that is not encrypted.
pub(super) type Ciphers = Vec<Option<ObjectCipher>>;

/// A file that is there, being compared.
pub(super) struct There {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl There {
    /// Opens a file that is to have the content of `entry`, and cuts off what is too long. What is there is no link: those have
    /// been removed.
    pub(super) fn open(path: PathBuf, entry: &FileEntry) -> Result<Self> {
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let mut file = match opened {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        if let Some(there) = &file {
            let metadata = there.metadata().map_err(Error::io("look at", &path))?;
            if metadata.nlink() > 1 {
                // It has another name, by which somebody else may know it.
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                file = None;
            } else if metadata.len() > entry.size {
                there.set_len(entry.size).map_err(Error::io("cut", &path))?;
            }
        }
        Ok(Self {
            path,
            file,
            buffer: Vec::new(),
        })
    }

    /// Reads a part; `None` if the file ends before.
    fn read(&mut self, position: u64, bytes: usize) -> Result<Option<&[u8]>> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        self.buffer.resize(bytes, 0);
        match file.read_exact_at(&mut self.buffer, position) {
            Ok(()) => Ok(Some(&self.buffer)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(Error::io("read", &self.path)(error)),
        }
    }

    /// Tells whether an extent's content is there already. That of a part of a frame cannot be told: the hash is the frame's.
    pub(super) fn holds(
        &mut self,
        frame: &Frame,
        (from, bytes): (u32, u32),
        position: u64,
        cipher: Option<&ObjectCipher>,
    ) -> Result<bool> {
        if from != 0 || bytes != frame.plain_bytes {
            return Ok(false);
        }
        let plain = self.read(position, bytes as usize)?;
        Ok(plain.is_some_and(|plain| {
            let hash = match cipher {
                Some(cipher) => cipher.hash(plain).into(),
                None => Hash::of(plain),
            };
            hash == frame.hash
        }))
    }

    /// Makes a stretch zero. Returns how many bytes were not.
    pub(super) fn clear(&mut self, position: u64, bytes: u64) -> Result<u64> {
        let (mut at, end) = (position, position + bytes);
        let mut written = 0;
        while at < end {
            let length =
                usize::try_from(end - at).map_or(FRAME_BYTES, |left| left.min(FRAME_BYTES));
            let zero = match self.read(at, length)? {
                Some(plain) => frame::is_zero(plain),
                // It ends in here; what follows is made when it gets its length.
                None => {
                    self.shorten(at)?;
                    return Ok(written);
                }
            };
            if !zero {
                self.buffer.fill(0);
                if let Some(file) = &self.file {
                    file.write_all_at(&self.buffer, at)
                        .map_err(Error::io("write", &self.path))?;
                }
                written += length as u64;
            }
            at += length as u64;
        }
        Ok(written)
    }

    /// Cuts off what begins at `at`, if there is anything.
    fn shorten(&self, at: u64) -> Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let length = file.metadata().map_err(Error::io("look at", &self.path))?;
        if length.len() > at {
            file.set_len(at).map_err(Error::io("cut", &self.path))?;
        }
        Ok(())
    }
}
