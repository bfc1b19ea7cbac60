//! Putting a restored directory in the place of the data directory, which is kept.
//!
//! What is taken away stays beside its place, as a standby of nobody on a port of its own: it has everything that was written after
//! the moment that was restored to. Two renames, and between them what was taken away is isolated; cut off anywhere, what has not
//! been done is done by the next try. Never a copy: a volume that is mounted there cannot be moved, and is refused.
//!
//! Something may start the server again the moment that it has stopped. PostgreSQL works in the directory that it was started in, and writes
//! its control file by the path of that: one that was started just before the first rename would write it into what takes its place. So
//! it is ended between the renames, when nothing can be started by that path.
//!
//! Idempotent because a data directory with the note of this execution has been installed.

use std::path::Path;
use std::time::Duration;

use dr_model::RegionName;
use dr_provider::driver::{Applied, Fence, Verified};
use dr_provider::host::PathKind;
use dr_provider::{ErrorKind, Host, Result};
use serde_json::{Value, json};

use super::processes;
use super::restore_beside::NOTE;
use super::stop_old_primary::kill;
use crate::driver::PostgresDriver;
use crate::standby::kept_prefix;
use crate::wait::Deadline;

const OPERATION: &str = "replace the data directory of";

/// What makes a standby of whatever is started in a directory (PostgreSQL manual, 26.2.2).
const STANDBY_SIGNAL: &str = "standby.signal";

/// How long a server that was started meanwhile may take to end.
const END_LIMIT: Duration = Duration::from_secs(30);

impl PostgresDriver {
    pub(super) async fn install_restored(
        &self,
        region: &RegionName,
        fence: &Fence,
    ) -> Result<Applied> {
        let host = self.admitted(region, fence).await?;
        let beside = self.beside(region)?;
        if let Verified::Done(applied) = self.is_restored_installed(region, fence).await? {
            self.remove_all(&**host, &beside).await?;
            return Ok(applied);
        }
        let directory = self.instance_options(region)?.data_directory.clone();
        let data = beside.join("data");
        if !self.is_of_execution(region, &data, fence).await? {
            let why = format!("`{}` does not hold what was prepared", data.display());
            return Err(self.failed(OPERATION, why));
        }
        let kept =
            directory.with_file_name(format!("{}{}", kept_prefix(&directory), fence.execution));
        if host.kind(&directory).await? == PathKind::Directory {
            let left = processes(&**host, &directory).await?;
            // What was fenced is started as a standby, and may be ended; anything else is somebody's server.
            let signal = host.kind(&directory.join(STANDBY_SIGNAL)).await?;
            if !left.is_empty() && signal == PathKind::Missing {
                let why = format!(
                    "processes {} run in `{}`",
                    left.join(", "),
                    directory.display()
                );
                return Err(self.failed(OPERATION, why));
            }
            let moved = self.rename(&**host, &directory, &kept).await;
            moved.map_err(|error| {
                error.with_hint("let the data directory be one below the mount point")
            })?;
        }
        if host.kind(&kept).await? == PathKind::Directory {
            self.end_moved(&**host, &kept).await?;
        }
        if host.kind(&kept).await? == PathKind::Directory && !self.is_kept(region, &kept).await? {
            self.keep_at(region, fence.epoch, &kept, &kept, None)
                .await?;
        }
        self.rename(&**host, &data, &directory).await?;
        // What is left there is of the server that was looked at: its log and its socket.
        self.remove_all(&**host, &beside).await?;
        Ok(self.installed(region, &kept))
    }

    /// Kills what runs in a directory that was moved away under it: it was started as a standby of nobody a moment ago, and what it has not
    /// written it replays.
    async fn end_moved(&self, host: &dyn Host, kept: &Path) -> Result<()> {
        let deadline = Deadline::new(self.clock(), END_LIMIT);
        loop {
            let left = processes(host, kept).await?;
            if left.is_empty() {
                return Ok(());
            }
            if !deadline.pause().await {
                let why = format!(
                    "processes {} still run in `{}`, which was moved away under them",
                    left.join(", "),
                    kept.display()
                );
                let error = self.failed(OPERATION, why);
                return Err(error.with_hint("end them, and whatever started them"));
            }
            kill(host, &left, kept).await?;
        }
    }

    pub(super) async fn is_restored_installed(
        &self,
        region: &RegionName,
        fence: &Fence,
    ) -> Result<Verified> {
        let directory = self.instance_options(region)?.data_directory.clone();
        if self.is_of_execution(region, &directory, fence).await? {
            let kept =
                directory.with_file_name(format!("{}{}", kept_prefix(&directory), fence.execution));
            return Ok(Verified::Done(self.installed(region, &kept)));
        }
        Ok(Verified::NotDone {
            seen: format!("`{}` is not what was restored", directory.display()),
        })
    }

    async fn is_of_execution(
        &self,
        region: &RegionName,
        data: &Path,
        fence: &Fence,
    ) -> Result<bool> {
        match self.host(region)?.read(&data.join(NOTE), 0, 1 << 16).await {
            Ok(text) => {
                let note = serde_json::from_slice::<Value>(&text).unwrap_or_default();
                Ok(note["execution"] == json!(fence.execution))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn installed(&self, region: &RegionName, kept: &Path) -> Applied {
        let summary = format!(
            "{} in {region} has the restored files; what it had is kept in `{}`",
            self.resource(),
            kept.display()
        );
        self.applied(summary, json!({ "kept": kept }))
    }
}
