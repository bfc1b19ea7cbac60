//! What is left of a server whose first process was killed: processes that notice that within moments and end, and until then keep
//! another server from starting in their data directory.

use std::path::Path;
use std::time::Duration;

use dr_provider::{Host, Result};

use crate::actions::processes;
use crate::data_directory::Postmaster;
use crate::driver::PostgresDriver;
use crate::wait::Deadline;

/// What runs in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Running {
    /// The processes of a server, as far as can be told; none if nothing runs.
    Server(Vec<String>),
    /// Processes that went on for longer than they were waited for after the first one of their server had ended.
    Orphans(Vec<String>),
}

impl PostgresDriver {
    /// Returns what runs in a data directory, once those have ended whose server has: nothing that stops a server would stop them.
    pub(crate) async fn running_without_orphans(
        &self,
        host: &dyn Host,
        directory: &Path,
        limit: Duration,
    ) -> Result<Running> {
        let deadline = Deadline::new(self.clock(), limit);
        loop {
            let running = processes(host, directory).await?;
            let first = Postmaster::number(host, directory).await?;
            let orphaned = first.is_some_and(|first| !running.contains(&first));
            if running.is_empty() || !orphaned {
                return Ok(Running::Server(running));
            }
            if !deadline.pause().await {
                return Ok(Running::Orphans(running));
            }
        }
    }
}
