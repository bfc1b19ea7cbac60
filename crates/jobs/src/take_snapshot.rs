//! `take-snapshot`: a full backup of the primary into its own region's store.
//!
//! Idempotent because each run makes a recovery point under a label of its own; one that was cut off stays invisible.

use async_trait::async_trait;
use dr_provider::driver::Backup;
use dr_provider::{Error, ErrorKind, Result};
use jiff::Timestamp;
use serde_json::json;

use crate::{Job, JobContext, Outcome};

/// Takes a full backup.
#[derive(Clone, Copy, Debug)]
pub struct TakeSnapshot;

#[async_trait]
impl Job for TakeSnapshot {
    fn name(&self) -> &'static str {
        "take-snapshot"
    }

    async fn last_success(&self, context: &JobContext) -> Result<Option<Timestamp>> {
        // After a failover the new timeline has no recovery point of its own, and is unprotected until it has (L19).
        let claim = context.record.clusters.get(&context.resource.resource);
        let points = backup(context)?.list(&context.store).await?;
        let newest = points.complete.into_iter().find(|point| {
            claim.is_some_and(|claim| {
                claim.system_identifier == point.system_identifier
                    && claim.timeline == point.timeline
            })
        });
        let Some(newest) = newest else {
            return Ok(None);
        };
        // From before a hole in the log nobody gets to the present: only a new recovery point helps.
        let lost = match context.driver.log_stream() {
            Some(stream) => stream.lost_since(&context.region, newest.start).await?,
            None => Vec::new(),
        };
        Ok(lost.is_empty().then_some(newest.started_at))
    }

    async fn run(&self, context: &JobContext) -> Result<Outcome> {
        let report = backup(context)?.take(&context.region).await?;
        let point = &report.recovery_point;
        Ok(Outcome {
            summary: format!(
                "recovery point {}: {} MiB in {} MiB, {:.1} s",
                point.label,
                point.database_bytes >> 20,
                point.stored_bytes >> 20,
                report.took.as_secs_f64()
            ),
            detail: json!(report),
        })
    }
}

/// Returns the driver's role, or says that the resource's kind has none.
pub(crate) fn backup(context: &JobContext) -> Result<&dyn Backup> {
    context.driver.backup().ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            "back up",
            context.resource.to_string(),
        )
        .because(format!("kind `{}` takes no backups", context.driver.kind()))
    })
}
