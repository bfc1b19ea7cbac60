//! `copy-recovery-points`: pulls what the primary's store has and this region's lacks.
//!
//! Pulled by the region that needs it, so that a dead or stolen region can neither block nor erase the copy
//! (PROTOCOL 1). Idempotent because what is here already, by label, is left alone.

use async_trait::async_trait;
use dr_model::RegionName;
use dr_provider::Result;
use dr_provider::driver::CopyReport;
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
            summary: summary(&report, &context.record.primary),
            detail: json!(report),
            alarm: None,
            figures: Vec::new(),
        })
    }
}

/// Says what came of it. One that stays where it is, most often because its log has not arrived here yet, is not passed over.
fn summary(report: &CopyReport, from: &RegionName) -> String {
    let done = match report.copied.as_slice() {
        [] if report.unusable.is_empty() => {
            format!("all {} recovery points are here", report.present.len())
        }
        [] => format!("nothing was copied, and {} are here", report.present.len()),
        copied => format!(
            "copied {} from {from}, {} MiB",
            copied.join(", "),
            report.copied_bytes >> 20
        ),
    };
    match report.unusable.as_slice() {
        [] => done,
        left => format!("{done}; not copied: {}", left.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_copied_is_named() {
        let from: RegionName = "us-east-1".parse().unwrap();
        let mut report = CopyReport {
            present: vec!["one".to_owned()],
            ..CopyReport::default()
        };
        assert_eq!(summary(&report, &from), "all 1 recovery points are here");
        report.unusable.push("two: its log is not here".to_owned());
        let expected = "nothing was copied, and 1 are here; not copied: two: its log is not here";
        assert_eq!(summary(&report, &from), expected);
        report.copied.push("three".to_owned());
        let expected = "copied three from us-east-1, 0 MiB; not copied: two: its log is not here";
        assert_eq!(summary(&report, &from), expected);
    }
}
