//! `copy-recovery-points`: pulls what the primary's store has and this region's lacks.
//!
//! Pulled by the region that needs it, so that a dead or stolen region can neither block nor erase the copy
//! (PROTOCOL 1). Idempotent because what is here already, by label, is left alone.

use async_trait::async_trait;
use dr_provider::Result;
use jiff::Timestamp;
use serde_json::json;

use crate::take_snapshot::backup;
use crate::{Job, JobContext, Outcome};

/// Copies recovery points from the primary's region.
#[derive(Clone, Copy, Debug)]
pub struct CopyRecoveryPoints;

impl CopyRecoveryPoints {
    /// Its name.
    pub const NAME: &str = "copy-recovery-points";
}

#[async_trait]
impl Job for CopyRecoveryPoints {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    async fn last_success(&self, context: &JobContext) -> Result<Option<Timestamp>> {
        let points = backup(context)?.list(&context.store).await?;
        Ok(points.complete.first().map(|point| point.started_at))
    }

    async fn run(&self, context: &JobContext) -> Result<Outcome> {
        let report = backup(context)?
            .copy(
                &context.record.primary,
                &context.region,
                context.retention.as_ref(),
            )
            .await?;
        Ok(Outcome {
            summary: match report.copied.as_slice() {
                [] => format!("all {} recovery points are here", report.present.len()),
                copied => format!(
                    "copied {} from {}, {} MiB",
                    copied.join(", "),
                    context.record.primary,
                    report.copied_bytes >> 20
                ),
            },
            detail: json!(report),
            alarm: None,
            figures: Vec::new(),
        })
    }
}
