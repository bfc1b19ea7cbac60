//! `compact-wal`: merges the chunks of a region's log into pieces, and removes what has been merged for long enough.
//!
//! Runs in every region, each on its own store. Idempotent because a piece's name says what it holds: one that is there is
//! not made again. It looks at all of the log each time, so that what is missing is named within a run.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use dr_model::ResourceId;
use dr_provider::driver::CompactReport;
use dr_provider::{Error, ErrorKind, Result};
use jiff::Timestamp;
use serde_json::json;

use crate::{Job, JobContext, Outcome};

/// Merges the log.
#[derive(Debug, Default)]
pub struct CompactWal {
    /// When it last ran. A run leaves nothing behind where there was nothing to merge, so that no store could tell.
    ran: Mutex<BTreeMap<ResourceId, Timestamp>>,
}

#[async_trait]
impl Job for CompactWal {
    fn name(&self) -> &'static str {
        "compact-wal"
    }

    async fn last_success(&self, context: &JobContext) -> Result<Option<Timestamp>> {
        let ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(ran.get(&context.resource).copied())
    }

    async fn run(&self, context: &JobContext) -> Result<Outcome> {
        let subject = context.resource.to_string();
        let stream = context.driver.log_stream().ok_or_else(|| {
            let why = format!("kind `{}` ships no log", context.driver.kind());
            Error::new(ErrorKind::Unsupported, "compact the log of", &subject).because(why)
        })?;
        let began = context.clock.now();
        let report = stream.compact(&context.region).await?;
        self.ran
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(context.resource.clone(), began);
        if !report.missing.is_empty() {
            let why = report.missing.join("; ");
            return Err(Error::new(ErrorKind::Corrupt, "compact the log of", &subject)
                .because(why)
                .with_hint(
                    "nothing can be restored across it: take a snapshot, and see whether the other region's store has it",
                ));
        }
        Ok(Outcome {
            summary: summary(&report),
            detail: json!(report),
            alarm: None,
            figures: Vec::new(),
        })
    }
}

fn summary(report: &CompactReport) -> String {
    let merged = match report.pieces {
        0 => "nothing to merge".to_owned(),
        pieces => format!(
            "{} MiB of log in {pieces} new pieces of {} MiB",
            report.log_bytes >> 20,
            report.stored_bytes >> 20
        ),
    };
    match (report.removed, report.removal_denied) {
        (_, true) => format!("{merged}; what may go stays, the store refuses to remove it"),
        (0, false) => merged,
        (removed, false) => format!("{merged}, {removed} old objects removed"),
    }
}
