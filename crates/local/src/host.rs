//! This machine as a [`Host`].
//!
//! Commands get a clean environment and a process group of their own; files are replaced whole; the
//! epochs seen are kept as files, so that no process on this machine acts for an epoch that another has
//! seen superseded.

mod admission;
mod files;
mod process;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dr_model::{Epoch, WorkloadName};
use dr_provider::host::{Command, Output, PathKind};
use dr_provider::{Error, ErrorKind, Host, Result};

pub use process::INHERITED_ENVIRONMENT;

/// Runs commands and touches files here, as the user that this process runs as.
#[derive(Clone, Debug)]
pub struct LocalHost {
    state_directory: PathBuf,
}

impl LocalHost {
    /// Makes the host; epochs are remembered below `state_directory`, which is created when first
    /// needed.
    ///
    /// All processes that act on this machine MUST be given the same directory.
    #[must_use]
    pub fn new(state_directory: impl Into<PathBuf>) -> Self {
        Self {
            state_directory: state_directory.into(),
        }
    }
}

#[async_trait]
impl Host for LocalHost {
    fn name(&self) -> &'static str {
        "local"
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn run(&self, command: &Command, limit: Duration) -> Result<Output> {
        process::run(command, limit).await
    }

    async fn read(&self, path: &Path, offset: u64, length: u64) -> Result<Bytes> {
        let work = move |path: &Path| files::read(path, offset, length);
        blocking("read file", path, ErrorKind::Unavailable, work).await
    }

    async fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
        let content = content.to_vec();
        let work = move |path: &Path| files::write(path, &content);
        blocking("write file", path, ErrorKind::Unknown, work).await
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        blocking("remove file", path, ErrorKind::Unknown, files::remove).await
    }

    async fn kind(&self, path: &Path) -> Result<PathKind> {
        blocking("look at", path, ErrorKind::Unavailable, files::kind).await
    }

    async fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        blocking("list directory", path, ErrorKind::Unavailable, files::list).await
    }

    async fn admit(&self, workload: &WorkloadName, epoch: Epoch) -> Result<()> {
        let directory = self.state_directory.join("epochs").join(workload.as_str());
        let work = move |directory: &Path| admission::admit(directory, epoch);
        blocking("remember epoch in", &directory, ErrorKind::Unknown, work).await
    }
}

/// Runs blocking work on a path off the runtime's own threads; `lost` is what it is if the work
/// itself dies.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    path: &Path,
    lost: ErrorKind,
    work: impl FnOnce(&Path) -> Result<T> + Send + 'static,
) -> Result<T> {
    let owned = path.to_owned();
    match tokio::task::spawn_blocking(move || work(&owned)).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(lost, operation, path.display().to_string()).because(error)),
    }
}

#[cfg(test)]
mod tests;
