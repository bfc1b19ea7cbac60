//! Restoring a moment into a directory that stays, booted and looked at.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dr_model::{Lsn, RegionName};
use dr_provider::Result;
use dr_provider::driver::{RestoreRequest, RestoreTarget, TargetAction};
use jiff::Timestamp;

use super::boot::{SPARE_BYTES, blocking};
use super::scratch::Scratch;
use crate::driver::PostgresDriver;

/// What was restored, and what was seen of it.
pub(crate) struct Prepared {
    /// The data directory.
    pub(crate) data: PathBuf,
    /// Where replay ended.
    pub(crate) reached: Lsn,
    /// The newest heartbeat in it.
    pub(crate) heartbeat_at: Option<Timestamp>,
    /// What the checks said.
    pub(crate) checks: Vec<String>,
}

impl PostgresDriver {
    /// Restores `target` into `place`, of which everything is removed before, with the settings of the region's own server; starts
    /// that server where nobody reaches it, looks at it, and stops it. A check that does not pass is an error.
    pub(crate) async fn prepare(
        &self,
        region: &RegionName,
        target: &RestoreTarget,
        place: &Path,
    ) -> Result<Prepared> {
        let owned = place.to_owned();
        let scratch = Arc::new(blocking(move || Scratch::open(&owned)).await??);
        let wanted = RestoreRequest {
            action: TargetAction::Pause,
            ..RestoreRequest::new(region.clone(), target.clone(), scratch.data())
        };
        let report = self
            .restore_next(&wanted, scratch.free_bytes()?, SPARE_BYTES)
            .await?;
        tracing::debug!(?report, "restored beside the data directory");
        let checked = self.boot_and_look(&scratch).await??;
        scratch.keep();
        Ok(Prepared {
            data: scratch.data(),
            reached: checked.reached,
            heartbeat_at: checked.heartbeat_at,
            checks: checked.said,
        })
    }
}
