//! Deleting recovery points that are not kept any more, and the log that nothing needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use dr_model::{Lsn, RegionName, Retention, TimelineId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ObjectStore, Result};

/// What is to expire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpireRequest {
    /// The region whose store is pruned.
    pub region: RegionName,
    /// What stays.
    pub retention: Retention,
    /// Recovery points that are given up whatever the rule says, by label; still not those that are held, nor the newest.
    pub labels: Vec<String>,
}

/// A recovery point, and why something becomes of it or does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Its label.
    pub label: String,
    /// Each reason, in words.
    pub why: Vec<String>,
}

/// What goes of a recovery point that was given up long enough ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    /// Its label.
    pub label: String,
    /// Objects deleted.
    pub objects: u64,
    /// Packs that stay, because younger recovery points share them.
    pub shared_packs: u64,
}

/// What goes of a timeline's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredLog {
    /// The timeline.
    pub timeline: TimelineId,
    /// All of it stays from here on.
    pub start: Lsn,
    /// Pieces deleted.
    pub pieces: u64,
    /// Bytes of log in them.
    pub log_bytes: u64,
}

/// What will be done, which can be shown without doing it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiryPlan {
    /// What keeps anything from being deleted at all; empty if nothing does.
    pub blocked: Vec<String>,
    /// Recovery points that stay, newest first.
    pub kept: Vec<Judged>,
    /// Those that are given up now: not listed any more, deleted after the grace time.
    pub given_up: Vec<String>,
    /// Those that were given up and are taken back, since somebody holds them.
    pub taken_back: Vec<String>,
    /// Those that were given up and wait.
    pub waiting: Vec<Judged>,
    /// Those that are deleted.
    pub swept: Vec<Swept>,
    /// Log that is deleted.
    pub log: Vec<ExpiredLog>,
    /// Log that stays although nothing is known to need it, one line each.
    pub log_kept: Vec<String>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiryReport {
    /// What was to be done.
    pub plan: ExpiryPlan,
    /// Objects of recovery points deleted.
    pub deleted_objects: u64,
    /// Pieces of log deleted.
    pub deleted_pieces: u64,
    /// Whether the store refused to delete log.
    pub denied: bool,
}

/// Why a recovery point is kept whatever expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldNote {
    /// Who wants it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// Deletes what is not kept.
#[async_trait]
pub trait Expire: Send + Sync {
    /// Decides what goes; writes nothing. MUST decide against deleting whatever cannot be judged.
    async fn plan_expiry(&self, request: &ExpireRequest) -> Result<ExpiryPlan>;

    /// Plans, and does it. May be cut off anywhere and repeated; what is listed is whole at every moment.
    async fn expire(&self, request: &ExpireRequest) -> Result<ExpiryReport>;

    /// Keeps a recovery point in a store until [`release`](Self::release); again, nothing changes. Fails if it is not
    /// there, or was given up.
    async fn hold(
        &self,
        store: &Arc<dyn ObjectStore>,
        recovery_point: &str,
        note: &HoldNote,
    ) -> Result<()>;

    /// Takes a hold back; needs the right to delete. `NotFound` if nobody holds it.
    async fn release(&self, store: &Arc<dyn ObjectStore>, recovery_point: &str) -> Result<()>;

    /// Returns what is held in a store, by label.
    async fn holds(&self, store: &Arc<dyn ObjectStore>) -> Result<BTreeMap<String, HoldNote>>;
}
