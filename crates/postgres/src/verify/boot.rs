//! Booting a recovery point: restore, start, wait for the end of the log, look, stop, remove.
//!
//! The server answers queries and stays in recovery: nothing in it runs that writes, calls or mails, as what its
//! extensions start would on a primary.

use std::path::Path;
use std::sync::Arc;

use dr_model::RegionName;
use dr_provider::driver::{
    OutsidePlaces, Restore as _, RestoreRequest, RestoreTarget, TargetAction,
};
use dr_provider::{Error, ErrorKind, Result};

use super::checks::Checked;
use super::scratch::Scratch;
use super::server::Server;
use super::{OPERATION, Seen};
use crate::driver::PostgresDriver;
use crate::restore::{check_room, check_scratch};

/// Room left beside the files: a server writes too.
pub(super) const SPARE_BYTES: u64 = 512 << 20;

impl PostgresDriver {
    /// Boots a recovery point in a scratch directory; nothing is left of it whatever comes of it. The outer error is about
    /// the place or the store, the inner one about the recovery point.
    pub(super) async fn boot(
        &self,
        region: &RegionName,
        label: &str,
        place: &Path,
    ) -> Result<Result<Seen>> {
        let place = place.to_owned();
        let scratch = blocking(move || {
            check_scratch(&place)?;
            Scratch::open(&place)
        })
        .await?;
        let scratch = Arc::new(scratch?);
        let outcome = self.boot_in(&scratch, region, label).await;
        let subject = scratch.path().display().to_string();
        let cleared = blocking(move || scratch.clear()).await?;
        cleared.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "empty scratch directory", subject).because(error)
        })?;
        outcome
    }

    async fn boot_in(
        &self,
        scratch: &Arc<Scratch>,
        region: &RegionName,
        label: &str,
    ) -> Result<Result<Seen>> {
        let wanted = RestoreRequest {
            action: TargetAction::Pause,
            recovery_point: Some(label.to_owned()),
            outside: OutsidePlaces {
                root: Some(scratch.path().join("tablespaces")),
                ..OutsidePlaces::default()
            },
            ..RestoreRequest::new(region.clone(), RestoreTarget::Latest, scratch.data())
        };
        let plan = match self.plan(&wanted).await {
            Ok(plan) => plan,
            Err(error) => return Ok(Err(untested(label, error))),
        };
        let needed = plan.recovery_point.database_bytes + SPARE_BYTES;
        let free = scratch.free_bytes()?;
        check_room("boot a recovery point in", scratch.path(), free, needed)?;
        let report = match self.restore(&wanted).await {
            Ok(report) => report,
            Err(error) => return Ok(Err(untested(label, error))),
        };
        let checked = self.boot_and_look(scratch, false).await?;
        Ok(checked.map(|checked| Seen {
            read_bytes: report.plan.recovery_point.stored_bytes,
            timeline: report.plan.log.last().map(|log| log.timeline),
            reached: Some(checked.reached),
            heartbeat_at: checked.heartbeat_at,
            checks: checked.said,
            ..Seen::default()
        }))
    }

    /// Starts the server of what was restored, waits for the end of the replay, looks at it, and stops it, in good order if it is going to be
    /// `used`. The outer error is about the place, the inner one about what was restored.
    pub(super) async fn boot_and_look(
        &self,
        scratch: &Arc<Scratch>,
        used: bool,
    ) -> Result<Result<Checked>> {
        let mut server = Server::start(self, scratch)?;
        let checked = match server.replayed().await {
            Ok(mut instance) => self.check_booted(scratch, &server, &mut instance).await,
            Err(error) => Err(error),
        };
        let stopping = Arc::clone(scratch);
        let stopped = blocking(move || match used {
            true => stopping.shut_down(),
            false => stopping.stop(),
        });
        let stopped = stopped.await?;
        stopped.map_err(|error| {
            let place = scratch.path().display().to_string();
            Error::new(ErrorKind::Unavailable, "stop the server in", place).because(error)
        })?;
        Ok(checked)
    }
}

/// Says of what must not be booted here, because it would take from somebody what is his, that this speaks not against it.
fn untested(label: &str, error: Error) -> Error {
    if error.kind() != ErrorKind::Conflict {
        return error;
    }
    let what = format!("recovery point {label}");
    let untested = Error::new(ErrorKind::Conflict, "boot", what).because(error);
    untested.with_hint(
        "it was not tested, and nothing is said against it: boot one that was taken since (`dr job run`), or on a machine where nothing \
         uses that place",
    )
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::new(ErrorKind::Failed, OPERATION, "a directory").because(error))
}
