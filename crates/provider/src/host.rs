//! A machine that commands run on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dr_model::{Epoch, WorkloadName};

use crate::Result;

/// A program with its arguments: never a shell line, so nothing is quoted and nothing is expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables added to the environment.
    pub environment: Vec<(String, String)>,
}

impl Command {
    /// Makes a command from its words.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
        }
    }
}

/// What a command left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: Bytes,
    /// Standard error.
    pub stderr: Bytes,
}

impl Output {
    /// Returns how the command ended and the last line that it said on standard error, which is not trusted to be short.
    #[must_use]
    pub fn said(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let last = text.lines().last().unwrap_or("");
        let last: String = last.chars().take(200).collect();
        let ended = match self.status {
            Some(status) => format!("exit status {status}"),
            None => "ended by a signal".to_owned(),
        };
        match last.is_empty() {
            true => ended,
            false => format!("{ended}: {last}"),
        }
    }
}

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// Nothing; proven, not merely unreadable.
    Missing,
    /// A regular file.
    File,
    /// A directory without entries.
    EmptyDirectory,
    /// A directory with entries.
    Directory,
    /// Something else.
    Other,
}

/// A machine that commands run on: `local` or `ssh://user@name`.
///
/// Every call takes at most the time that it is given and answers `Unknown` when a change may have been made.
#[async_trait]
pub trait Host: Send + Sync + std::fmt::Debug {
    /// Returns the host's name for messages.
    fn name(&self) -> &str;

    /// Tells whether paths on this host can be opened by this process.
    fn is_local(&self) -> bool;

    /// Runs a command to its end. A non-zero status is not an error of the host.
    async fn run(&self, command: &Command, limit: Duration) -> Result<Output>;

    /// Reads up to `length` bytes of a file from `offset`.
    async fn read(&self, path: &Path, offset: u64, length: u64) -> Result<Bytes>;

    /// Writes a small file whole, so that a reader sees the old or the new content; durable when it returns.
    async fn write(&self, path: &Path, content: &[u8]) -> Result<()>;

    /// Removes a file; succeeds if it is missing.
    async fn remove(&self, path: &Path) -> Result<()>;

    /// Says what stands at a path.
    async fn kind(&self, path: &Path) -> Result<PathKind>;

    /// Lists the names in a directory, sorted.
    async fn list(&self, path: &Path) -> Result<Vec<PathBuf>>;

    /// Remembers `epoch` as the highest seen for the workload, or fails with `Superseded` if a higher one was seen.
    ///
    /// Called before every effect on the host (PROTOCOL 2 and 9).
    async fn admit(&self, workload: &WorkloadName, epoch: Epoch) -> Result<()>;
}
