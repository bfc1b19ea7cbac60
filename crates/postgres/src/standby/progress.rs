//! The file beside a data directory which says that its content is unfinished, and ours to remove.
//!
//! While a command works on the directory it holds a lock on the file, so that two never do.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dr_model::Epoch;
use dr_provider::{Error, ErrorKind, Host, Result};
use serde::{Deserialize, Serialize};

use super::{Method, OPERATION};

/// Bytes of the file that are read.
const BYTES: u64 = 1 << 16;

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unfinished {
    /// What was being done.
    pub(super) method: Method,
    /// Where what was there before is kept; `None` if nothing was, or it was not to be.
    pub(super) kept: Option<PathBuf>,
    /// The epoch under which all files were there, beside the directory or in it; `None` while they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) whole: Option<Epoch>,
}

impl Unfinished {
    /// Tells whether all files are there, and are those of the present primary.
    pub(super) fn is_whole(&self, epoch: Epoch) -> bool {
        self.whole == Some(epoch)
    }

    /// Reads it; `None` if nothing is unfinished.
    pub(super) async fn read(host: &dyn Host, directory: &Path) -> Result<Option<Self>> {
        let path = path(directory);
        let content = match host.read(&path, 0, BYTES).await {
            Ok(content) => content,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // Only held, and not written yet: nothing was touched.
        if content.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&content).map(Some).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "read", path.display().to_string()).because(error)
        })
    }
}

fn path(directory: &Path) -> PathBuf {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    directory.with_file_name(format!(".{name}.dr-unfinished"))
}

/// The right to work on a directory.
#[derive(Debug)]
pub(super) struct Hold {
    path: PathBuf,
    file: File,
}

impl Hold {
    /// Takes it, unless another process of this machine has it.
    pub(super) fn take(directory: &Path) -> Result<Self> {
        let path = path(directory);
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Failed, "write", path.display().to_string()).because(error)
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            let subject = directory.display().to_string();
            return Err(Error::new(ErrorKind::Conflict, OPERATION, subject)
                .because("another command works on this directory"));
        }
        Ok(Self { path, file })
    }

    /// Says that the directory's content is ours from here on.
    pub(super) fn begin(&mut self, unfinished: &Unfinished) -> Result<()> {
        let text = serde_json::to_vec(unfinished).expect("names and paths have a JSON form");
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(&text)?;
            file.sync_all()
        };
        write(&mut self.file).map_err(|error| self.failed(error))
    }

    /// Says that it is whole.
    pub(super) fn finish(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|error| self.failed(error))
    }

    /// Returns what an earlier command said.
    pub(super) fn earlier(&mut self) -> Result<Option<Unfinished>> {
        let mut text = String::new();
        let read = self.file.read_to_string(&mut text);
        read.map_err(|error| self.failed(error))?;
        Ok(serde_json::from_str(&text).ok())
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::new(ErrorKind::Failed, "write", self.path.display().to_string()).because(error)
    }
}
