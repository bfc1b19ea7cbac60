//! Putting a fetched file in its place: whole, under another name first, and never over what is longer or no file.
//!
//! A file is written as it arrives, so that no segment of up to 1 GiB has to be in memory. The last one of a log is
//! also followed record by record: a server that has more of it than the store must not lose that (PROTOCOL 6).

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dr_model::{Lsn, SegmentSize};

use crate::wal::{Decoder, Expected};

/// Bytes that are read from a file at a time.
const READ_BYTES: usize = 1 << 20;

/// A file that does not have its name yet; without [`finish`](Self::finish) it is removed.
#[derive(Debug)]
pub(super) struct Put {
    destination: PathBuf,
    temporary: PathBuf,
    file: File,
    finished: bool,
}

impl Put {
    /// Begins a file that will be so long.
    pub(super) fn begin(destination: &Path, length: u64) -> std::io::Result<Self> {
        match std::fs::symlink_metadata(destination) {
            // Renaming over it would put a file in the place of a device, or of a link to somewhere else.
            Ok(there) if !there.is_file() => {
                return Err(std::io::Error::other(format!(
                    "`{}` is there already, and not a regular file",
                    destination.display()
                )));
            }
            Ok(there) if there.len() > length => {
                return Err(std::io::Error::other(format!(
                    "`{}` is there already, and longer",
                    destination.display()
                )));
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut name = destination.as_os_str().to_owned();
        name.push(format!(".dr-{}", std::process::id()));
        let temporary = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        Ok(Self {
            destination: destination.to_owned(),
            file: options.open(&temporary)?,
            temporary,
            finished: false,
        })
    }

    /// Adds the next bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Adds zeros up to a length, and gives the file its name.
    pub(super) fn finish(mut self, length: u64) -> std::io::Result<()> {
        self.file.set_len(length)?;
        std::fs::rename(&self.temporary, &self.destination)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Put {
    fn drop(&mut self) {
        if !self.finished {
            // What is left is of no use; failing to remove it adds nothing to the error.
            std::fs::remove_file(&self.temporary).ok();
        }
    }
}

/// Puts a file that is in memory in its place.
pub(super) fn put(destination: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = Put::begin(destination, content.len() as u64)?;
    file.write(content)?;
    file.finish(content.len() as u64)
}

/// Returns where the last complete record in a segment's file ends; `None` without one, or without the file.
pub(super) fn last_record_end(
    path: &Path,
    start: Lsn,
    size: SegmentSize,
    expected: Expected,
) -> std::io::Result<Option<Lsn>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut decoder = Decoder::new(start, size, Some(expected));
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let length = file.read(&mut buffer)?;
        // It ends where its log does, or where the file does.
        if length == 0 || decoder.feed(&buffer[..length], |_| ()).is_err() {
            return Ok(decoder.last_end());
        }
    }
}
