//! Keeping the data directory of an old primary before anything is changed in it.
//!
//! What it has that the present history has not is nowhere else. It is kept beside its old place, as a standby of nobody on a
//! port of its own: whoever starts it can look at everything, and write nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dr_model::{Epoch, RegionName};
use dr_provider::host::{Command, PathKind};
use dr_provider::{ErrorKind, Host, Result};

use super::divergence::{Divergence, Kept};
use super::settings;
use crate::driver::PostgresDriver;
use crate::restore::{TARGETS, substitute};

/// The note in a kept directory.
pub(crate) const NOTE: &str = "dr-kept.json";

/// Bytes of a note that are read.
pub(super) const NOTE_BYTES: u64 = 1 << 20;

/// Where a kept server listens.
const SIDE_PORT: u16 = 54321;

/// How long copying or removing a directory may take.
pub(super) const LONG: Duration = Duration::from_secs(24 * 3600);

/// How a directory is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Its files are copied: what is there will be changed in place.
    Copy,
    /// It is moved: something new takes its place.
    Move,
}

/// Returns how the names of kept directories begin.
pub(crate) fn kept_prefix(directory: &Path) -> String {
    let name = directory.file_name().unwrap_or_default();
    format!("{}.kept-", name.to_string_lossy())
}

impl PostgresDriver {
    /// Returns where the directory would be kept now.
    pub(super) fn place_to_keep(&self, directory: &Path) -> PathBuf {
        let at = self.clock().now().strftime("%Y%m%dT%H%M%SZ");
        directory.with_file_name(format!("{}{at}", kept_prefix(directory)))
    }

    /// Keeps the directory of `region` at `place`.
    pub(super) async fn keep(
        &self,
        region: &RegionName,
        epoch: Epoch,
        place: &Path,
        how: How,
        divergence: Option<Divergence>,
    ) -> Result<Kept> {
        let host = self.host(region)?;
        let directory = &self.instance_options(region)?.data_directory;
        let shown = |path: &Path| path.display().to_string();
        // A copy gets its name when it is complete; what is moved is whole at any moment.
        let moved = match how {
            How::Copy => false,
            // A volume that is mounted there cannot be moved.
            How::Move => self.rename(&**host, directory, place).await.is_ok(),
        };
        let written = match moved {
            false => {
                let unfinished =
                    directory.with_file_name(format!("{}copying", kept_prefix(directory)));
                self.remove_all(&**host, &unfinished).await?;
                let copy = ["cp", "--archive", "--reflink=auto", "--no-target-directory"];
                let copy = copy.map(str::to_owned).into_iter();
                let copy = Command::new(copy.chain([shown(directory), shown(&unfinished)]));
                self.run_long(&**host, copy, LONG).await?;
                unfinished
            }
            true => place.to_owned(),
        };
        let kept = self
            .keep_at(region, epoch, place, &written, divergence)
            .await?;
        if written != place {
            self.rename(&**host, &written, place).await?;
        }
        Ok(kept)
    }

    /// Isolates the files in `written` that are kept at `place`, and leaves the note; the same again does no harm.
    pub(crate) async fn keep_at(
        &self,
        region: &RegionName,
        epoch: Epoch,
        place: &Path,
        written: &Path,
        divergence: Option<Divergence>,
    ) -> Result<Kept> {
        let kept = Kept {
            version: 1,
            resource: self.resource().clone(),
            region: region.clone(),
            epoch,
            kept_at: self.clock().now(),
            directory: place.to_owned(),
            start: self.pg_ctl(place, &["start"]).argv,
            port: SIDE_PORT,
            divergence,
        };
        self.isolate(&**self.host(region)?, written, &kept).await?;
        Ok(kept)
    }

    /// Tells whether the directory at `place` is kept as it should be: moved there, isolated, and with its note, which says so. One about
    /// another place was in the directory before: somebody has put back what was kept, or restored it with an older `dr`.
    pub(crate) async fn is_kept(&self, region: &RegionName, place: &Path) -> Result<bool> {
        let host = self.host(region)?;
        match host.read(&place.join(NOTE), 0, NOTE_BYTES).await {
            Ok(note) => {
                let note = serde_json::from_slice::<Kept>(&note);
                Ok(note.is_ok_and(|note| note.directory == place))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes what stands in a directory a standby of nobody, and leaves the note.
    async fn isolate(&self, host: &dyn Host, directory: &Path, kept: &Kept) -> Result<()> {
        host.write(&directory.join("standby.signal"), b"").await?;
        host.remove(&directory.join("postmaster.pid")).await?;
        host.remove(&directory.join("recovery.signal")).await?;
        let mut all: Vec<(&str, String)> = Vec::new();
        let connections = [
            "primary_conninfo",
            "primary_slot_name",
            "restore_command",
            "archive_cleanup_command",
            "recovery_end_command",
            "synchronous_standby_names",
        ];
        for none in connections.iter().chain(&TARGETS) {
            all.push((none, String::new()));
        }
        all.push(("recovery_target_timeline", "current".to_owned()));
        all.push(("archive_mode", "off".to_owned()));
        all.push(("hot_standby", "on".to_owned()));
        // Nothing of its log is removed, which is what it is kept for.
        all.push(("wal_keep_size", "1048576MB".to_owned()));
        all.push(("port", kept.port.to_string()));
        let remark =
            "Written by dr: kept to be looked at. A standby of nobody, on a port of its own.";
        settings::append(host, directory, &settings::text(remark, &all)).await?;
        for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
            let path = directory.join(name);
            if host.kind(&path).await? == PathKind::Missing {
                // It stood outside the directory: the least that a server starts with.
                let text = substitute(name, &directory.join("global/pg_control"))
                    .map_err(|error| self.failed("keep", error.to_string()))?;
                host.write(&path, text.as_bytes()).await?;
            }
        }
        let note = serde_json::to_vec_pretty(kept)
            .expect("names, numbers and times always have a JSON form");
        host.write(&directory.join(NOTE), &note).await
    }

    /// Gives a directory another name beside it.
    pub(crate) async fn rename(&self, host: &dyn Host, from: &Path, to: &Path) -> Result<()> {
        let (from, to) = (from.display().to_string(), to.display().to_string());
        self.made(host, &["mv", "--no-target-directory", "--", &from, &to])
            .await
            .map(drop)
    }

    /// Removes a directory with all that is in it; succeeds if it is missing.
    pub(crate) async fn remove_all(&self, host: &dyn Host, directory: &Path) -> Result<()> {
        let shown = directory.display().to_string();
        let command = Command::new(["rm", "--recursive", "--force", "--", &shown]);
        self.run_long(host, command, LONG).await.map(drop)
    }
}
