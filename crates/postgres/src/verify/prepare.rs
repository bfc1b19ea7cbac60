//! Restoring a moment into a directory that stays, booted and looked at.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dr_model::{Lsn, RegionName};
use dr_provider::driver::{RestoreRequest, RestoreTarget, TargetAction};
use dr_provider::{Error, ErrorKind, Result};
use jiff::Timestamp;

use super::boot::{SPARE_BYTES, blocking};
use super::scratch::Scratch;
use crate::driver::PostgresDriver;
use crate::restore::{Damaged, Unrestored};

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
    /// The recovery point that was taken.
    pub(crate) label: String,
    /// Newer ones that were not, each with the reason.
    pub(crate) passed_over: Vec<String>,
}

impl PostgresDriver {
    /// Makes sure that `target` can be restored beside the data directory in `region`, as far as that can be told before anything is written:
    /// whoever plans it finds out what whoever carries it out would.
    ///
    /// # Errors
    ///
    /// Those of the restore: a moment that is not in the log, tablespaces that cannot go anywhere, log that makes one of somebody's.
    pub async fn could_be_put_back(
        &self,
        region: &RegionName,
        target: &RestoreTarget,
    ) -> Result<()> {
        let place = self.beside(region)?.join("data");
        let wanted = RestoreRequest {
            action: TargetAction::Pause,
            ..RestoreRequest::new(region.clone(), target.clone(), place)
        };
        self.could_be_restored(&wanted).await
    }

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
        let store = self.store(region)?;
        let mut damaged = Damaged::default();
        let report = loop {
            let free = scratch.free_bytes()?;
            let restored = self.restore_next(&wanted, free, SPARE_BYTES, &damaged);
            match restored.await {
                Ok(report) => break report,
                // Another one that comes to the same moment loses nothing.
                Err(Unrestored::Damaged { base, error }) if !damaged.holds(&base.label) => {
                    self.note_damage((region, store), &mut damaged, &base, &error)
                        .await;
                    let cleared = Arc::clone(&scratch);
                    blocking(move || cleared.clear()).await?.map_err(|error| {
                        Error::new(ErrorKind::Failed, "empty", place.display().to_string())
                            .because(error)
                    })?;
                }
                Err(unrestored) if damaged.is_empty() => return Err(unrestored.into()),
                Err(unrestored) => {
                    let error = Error::from(unrestored);
                    return Err(Error::new(error.kind(), "restore", self.resource().to_string())
                        .because(error)
                        .with_hint(
                            "the database is as it was: bring what is damaged back into the store, from a copy of it or from the store of \
                             another region, where it has the same name; resumed, the execution tries again",
                        ));
                }
            }
        };
        tracing::debug!(?report, "restored beside the data directory");
        let checked = self.boot_and_look(&scratch, true).await??;
        scratch.keep();
        Ok(Prepared {
            data: scratch.data(),
            reached: checked.reached,
            heartbeat_at: checked.heartbeat_at,
            checks: checked.said,
            label: report.plan.recovery_point.label,
            passed_over: report.plan.passed_over,
        })
    }
}
