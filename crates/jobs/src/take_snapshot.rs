//! `take-snapshot`: a backup of the primary into its own region's store.
//!
//! Idempotent because each run makes a recovery point under a label of its own; one that was cut off stays invisible.

use async_trait::async_trait;
use dr_provider::driver::Backup;
use dr_provider::{Error, ErrorKind, Result};
use jiff::Timestamp;
use serde_json::json;

use crate::{Job, JobContext, Outcome};

/// Takes a backup: full, or what changed since an older one and the rest by reference to it.
#[derive(Clone, Copy, Debug)]
pub struct TakeSnapshot;

impl TakeSnapshot {
    /// Its name.
    pub const NAME: &str = "take-snapshot";
}

#[async_trait]
impl Job for TakeSnapshot {
    fn name(&self) -> &'static str {
        Self::NAME
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
        let taken = &point.taken;
        let kind = match &taken.parent {
            Some(parent) => format!("{} MiB changed since {parent}, ", taken.changed_bytes >> 20),
            None => String::new(),
        };
        // Why everything was read, or sent, is said first.
        let remark = match (&taken.parent, taken.remarks.first()) {
            (None, Some(remark)) => format!("; {remark}"),
            _ => String::new(),
        };
        let damage = match taken.damaged_pages {
            0 => String::new(),
            pages => format!("; it holds {pages} damaged pages"),
        };
        let alarm = (taken.damaged_pages > 0).then(|| {
            format!(
                "recovery point {} holds {} damaged pages: {}",
                point.label,
                taken.damaged_pages,
                taken.damaged.join("; ")
            )
        });
        Ok(Outcome {
            summary: format!(
                "recovery point {}: {kind}{} MiB in {} MiB, {:.1} s{damage}{remark}",
                point.label,
                point.database_bytes >> 20,
                point.stored_bytes >> 20,
                report.took.as_secs_f64()
            ),
            detail: json!(report),
            alarm,
            figures: Vec::new(),
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
