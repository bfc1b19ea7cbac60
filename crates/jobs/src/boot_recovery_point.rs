//! `boot-recovery-point`: restores the newest recovery point of this region's store into a scratch directory, starts a server
//! from it, looks at what that holds, and removes it.
//!
//! Idempotent because each run adds a record of its own, and removes what an earlier one left. A recovery point that does
//! not come up is an alarm until one does.

use async_trait::async_trait;
use dr_provider::Result;
use dr_provider::driver::{VerifyHow, VerifyMeans, VerifyRequest};
use jiff::Timestamp;
use serde_json::json;

use crate::verify_recovery_point::{alarm, last, verify};
use crate::{Job, JobContext, Outcome};

/// Boots the newest recovery point.
#[derive(Clone, Copy, Debug)]
pub struct BootRecoveryPoint;

#[async_trait]
impl Job for BootRecoveryPoint {
    fn name(&self) -> &'static str {
        "boot-recovery-point"
    }

    async fn last_success(&self, context: &JobContext) -> Result<Option<Timestamp>> {
        last(context, VerifyMeans::Boot).await
    }

    async fn run(&self, context: &JobContext) -> Result<Outcome> {
        let request = VerifyRequest {
            region: context.region.clone(),
            recovery_point: None,
            how: VerifyHow::Boot { scratch: None },
        };
        let record = verify(context)?.verify(&request).await?;
        let summary = match (&record.failure, record.reached) {
            (None, Some(reached)) => format!(
                "recovery point {} came up and replayed the log to {reached}, {:.1} s",
                record.label, record.took_seconds
            ),
            _ => format!("recovery point {} did not come up", record.label),
        };
        Ok(Outcome {
            summary,
            alarm: alarm(std::slice::from_ref(&record)),
            figures: Vec::new(),
            detail: json!(record),
        })
    }
}
