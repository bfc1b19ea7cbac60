//! The contract of a job.

use std::sync::Arc;

use async_trait::async_trait;
use dr_config::Place;
use dr_coordination::register::EpochRecord;
use dr_model::{Clock, RegionName, ResourceId, Retention};
use dr_provider::{Error, ErrorKind, ObjectStore, ResourceDriver, Result};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// What a job works with: one resource, in one region, under one epoch.
#[derive(Clone, Debug)]
pub struct JobContext {
    /// The daemon's region, the only one whose store is written (PROTOCOL 1).
    pub region: RegionName,
    /// That region's store.
    pub store: Arc<dyn ObjectStore>,
    /// The resource.
    pub resource: ResourceId,
    /// Its driver.
    pub driver: Arc<dyn ResourceDriver>,
    /// The newest epoch.
    pub record: EpochRecord,
    /// What an expiry keeps of it; `None` if nothing ever expires.
    pub retention: Option<Retention>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
}

impl JobContext {
    /// Tells whether a place is the region under this epoch.
    #[must_use]
    pub fn is_at(&self, place: Place) -> bool {
        match place {
            Place::Primary => self.record.primary == self.region,
            Place::Recovery => self.record.primary != self.region,
            Place::All => true,
        }
    }

    /// Says that a place is elsewhere under this epoch.
    #[must_use]
    pub fn elsewhere(&self, name: &str, place: Place) -> Error {
        let place = match place {
            Place::Primary => "the primary's region",
            Place::Recovery => "the recovery regions",
            Place::All => "every region",
        };
        let why = format!(
            "its place is {place}, and in epoch {} {} is the primary",
            self.record.epoch, self.record.primary
        );
        Error::new(
            ErrorKind::Invalid,
            "run",
            format!("{name} {}", self.resource),
        )
        .because(why)
        .with_hint("run it in the other region, with --region")
    }
}

/// What a run left behind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// One line for people.
    pub summary: String,
    /// The same as data.
    pub detail: Value,
    /// What somebody has to look at although the work was done; it makes the daemon unhealthy until the next run.
    pub alarm: Option<String>,
    /// Figures of this run, for the metrics.
    pub figures: Vec<(&'static str, f64)>,
}

/// One kind of periodic, idempotent protection work.
#[async_trait]
pub trait Job: Send + Sync + std::fmt::Debug {
    /// Returns the job's one name.
    fn name(&self) -> &'static str;

    /// Returns when what the job produces was last produced under the present epoch, from the stores: so a daemon that
    /// was away knows what it missed. `None` if never.
    async fn last_success(&self, context: &JobContext) -> Result<Option<Timestamp>>;

    /// Does the work once. MUST be idempotent; an error is reported and tried again by the engine.
    async fn run(&self, context: &JobContext) -> Result<Outcome>;
}
