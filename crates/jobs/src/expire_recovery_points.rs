//! `expire-recovery-points`: gives up what retention does not keep in this region's store, and deletes what was given up long
//! enough ago, with the log that nothing needs any more.
//!
//! Each region expires its own store. Idempotent because what is given up stays so, and what was deleted is not there to be
//! deleted again. Where something keeps it from deleting, that is an alarm: a store that only grows is found too late.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use dr_config::Schedule;
use dr_model::{ResourceId, Retention};
use dr_provider::driver::{Expire, ExpireRequest, ExpiryReport};
use dr_provider::{Error, ErrorKind, Result};
use jiff::Timestamp;
use serde_json::json;

use crate::{Job, JobContext, Outcome};

/// Deletes what is not kept.
#[derive(Debug, Default)]
pub struct ExpireRecoveryPoints {
    /// When it last ran: a run that has nothing to delete leaves nothing behind.
    ran: Mutex<BTreeMap<ResourceId, Timestamp>>,
}

impl ExpireRecoveryPoints {
    /// Its name, which a schedule's `keep` is for.
    pub const NAME: &str = "expire-recovery-points";
}

#[async_trait]
impl Job for ExpireRecoveryPoints {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    async fn last_success(&self, context: &JobContext) -> Result<Option<Timestamp>> {
        let ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(ran.get(&context.resource).copied())
    }

    async fn run(&self, context: &JobContext) -> Result<Outcome> {
        let began = context.clock.now();
        let request = ExpireRequest {
            region: context.region.clone(),
            retention: context.retention.unwrap_or_default(),
            labels: Vec::new(),
        };
        let report = expire(context)?.expire(&request).await?;
        self.ran
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(context.resource.clone(), began);
        Ok(Outcome {
            summary: summary(&report),
            alarm: alarm(&report),
            figures: figures(&report),
            detail: json!(report),
        })
    }
}

/// Returns what an expiry of the resource keeps: the rule of its schedule, or the usual one. `None` if it has no such schedule.
#[must_use]
pub fn retention(schedules: &[Schedule], resource: &ResourceId) -> Option<Retention> {
    let mut of = schedules.iter().filter(|schedule| {
        schedule.resource == *resource && schedule.job == ExpireRecoveryPoints::NAME
    });
    of.next().map(|schedule| schedule.keep.unwrap_or_default())
}

fn summary(report: &ExpiryReport) -> String {
    let plan = &report.plan;
    if !plan.blocked.is_empty() {
        return "nothing was deleted".to_owned();
    }
    let bytes: u64 = plan.log.iter().map(|log| log.log_bytes).sum();
    format!(
        "{} recovery points kept, {} given up, {} deleted ({} objects), {} MiB of log in {} pieces deleted",
        plan.kept.len(),
        plan.given_up.len(),
        plan.swept.len(),
        report.deleted_objects,
        bytes >> 20,
        report.deleted_pieces
    )
}

fn alarm(report: &ExpiryReport) -> Option<String> {
    if report.denied {
        return Some("the store refuses to delete log: it grows".to_owned());
    }
    let blocked = &report.plan.blocked;
    (!blocked.is_empty()).then(|| format!("nothing is deleted: {}", blocked.join("; ")))
}

fn figures(report: &ExpiryReport) -> Vec<(&'static str, f64)> {
    let plan = &report.plan;
    vec![
        ("kept", plan.kept.len() as f64),
        ("waiting", (plan.waiting.len() + plan.given_up.len()) as f64),
        ("deleted", plan.swept.len() as f64),
        ("deleted_objects", report.deleted_objects as f64),
        ("deleted_log_pieces", report.deleted_pieces as f64),
        ("blocked", plan.blocked.len() as f64),
    ]
}

/// Returns the driver's role, or says that the resource's kind has none.
fn expire(context: &JobContext) -> Result<&dyn Expire> {
    context.driver.expire_role().ok_or_else(|| {
        let subject = context.resource.to_string();
        let why = format!("kind `{}` deletes nothing", context.driver.kind());
        Error::new(
            ErrorKind::Unsupported,
            "expire the recovery points of",
            subject,
        )
        .because(why)
    })
}
