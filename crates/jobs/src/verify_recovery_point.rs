//! `verify-recovery-point`: reads the recovery points of this region's store back, those that were not read back lately.
//!
//! Idempotent because each look adds a record of its own and changes nothing else. It makes a recovery point *hashed*; one
//! is *booted* by `boot-recovery-point` (PROTOCOL 10). What is damaged is an alarm, and looked at again with the next run:
//! repeating a read of everything at once would change nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use dr_model::ResourceId;
use dr_provider::driver::{VerifiedDue, Verify, VerifyMeans, VerifyRecord};
use dr_provider::{Error, ErrorKind, Result};
use jiff::Timestamp;
use serde_json::json;

use crate::{Job, JobContext, Outcome};

/// Reads recovery points back.
#[derive(Debug, Default)]
pub struct VerifyRecoveryPoint {
    /// When it last ran: where everything was read lately a run leaves nothing behind.
    ran: Mutex<BTreeMap<ResourceId, Timestamp>>,
}

#[async_trait]
impl Job for VerifyRecoveryPoint {
    fn name(&self) -> &'static str {
        "verify-recovery-point"
    }

    async fn last_success(&self, context: &JobContext) -> Result<Option<Timestamp>> {
        let stored = last(context, VerifyMeans::Hash).await?;
        let ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(stored.max(ran.get(&context.resource).copied()))
    }

    async fn run(&self, context: &JobContext) -> Result<Outcome> {
        let began = context.clock.now();
        let VerifiedDue { records, unread } = verify(context)?.verify_due(&context.region).await?;
        self.ran
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(context.resource.clone(), began);
        let bytes: u64 = records.iter().map(|record| record.read_bytes).sum();
        let seconds: f64 = records.iter().map(|record| record.took_seconds).sum();
        let failed = records.iter().filter(|record| record.failure.is_some());
        let failed = match failed.count() {
            0 => String::new(),
            count => format!("; {count} of them FAILED"),
        };
        let not_read = match unread.len() {
            0 => String::new(),
            count => format!("; {count} CANNOT be read here"),
        };
        let unread = unread.iter().map(|one| format!("recovery point {one}"));
        let alarms: Vec<String> = alarm(&records).into_iter().chain(unread).collect();
        Ok(Outcome {
            summary: match records.len() {
                0 if not_read.is_empty() => "all recovery points were read back lately".to_owned(),
                count => format!(
                    "{count} recovery points read back: {} MiB in {seconds:.1} s{failed}{not_read}",
                    bytes >> 20
                ),
            },
            alarm: (!alarms.is_empty()).then(|| alarms.join("; ")),
            figures: Vec::new(),
            detail: json!(records),
        })
    }
}

/// Says what is wrong with recovery points.
pub(crate) fn alarm(records: &[VerifyRecord]) -> Option<String> {
    let failed = records.iter().filter_map(|record| {
        let failure = record.failure.as_ref()?;
        Some(format!("recovery point {}: {failure}", record.label))
    });
    let failed: Vec<String> = failed.collect();
    (!failed.is_empty()).then(|| failed.join("; "))
}

/// Returns when a recovery point in this store was last looked at in some way.
pub(crate) async fn last(context: &JobContext, means: VerifyMeans) -> Result<Option<Timestamp>> {
    let proofs = verify(context)?.proofs(&context.store).await?;
    let marks = proofs.values().filter_map(|proofs| proofs.last(means));
    Ok(marks.map(|mark| mark.at).max())
}

/// Returns the driver's role, or says that the resource's kind has none.
pub(crate) fn verify(context: &JobContext) -> Result<&dyn Verify> {
    context.driver.verify_role().ok_or_else(|| {
        let subject = context.resource.to_string();
        let why = format!("kind `{}` cannot be verified", context.driver.kind());
        Error::new(ErrorKind::Unsupported, "verify", subject).because(why)
    })
}
