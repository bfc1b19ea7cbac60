//! Facts: what was seen of a resource, and what could not be.

use std::collections::BTreeMap;

use dr_model::loss::{Bound, Estimate};
use dr_model::{Epoch, Lsn, RegionName, SystemIdentifier, TimelineId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What an instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It accepts writes.
    Primary,
    /// It follows a primary or an archive.
    Standby,
}

/// An instance of a resource in one region, as seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Instance {
    /// It answers.
    Running {
        /// What it does.
        role: Role,
        /// Its timeline.
        timeline: TimelineId,
        /// Written (primary) or received (standby) position.
        position: Lsn,
        /// Replayed position of a standby.
        replayed: Option<Lsn>,
    },
    /// It is proven not to be running.
    Stopped,
    /// Its data directory is proven not to exist, or empty.
    Absent,
    /// The region has no instance configured.
    NotConfigured,
    /// It could not be seen; why. Never taken for stopped.
    Unreachable {
        /// Why not.
        why: String,
        /// Whether something shows all the same that it runs: processes on its host, or that it turns us away. Then nobody can
        /// have seen it stopped.
        #[serde(default)]
        runs: bool,
        /// Whether it is its host that shows that: then they can be ended there.
        #[serde(default)]
        on_host: bool,
        /// What to do about it, where that is known: of a login that was refused, what to look at.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
}

/// Whether the conditions held under which synchronous mode promises anything (PROTOCOL 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseFacts {
    /// Whether all held.
    pub held: bool,
    /// When they were looked at, by the receiver's clock.
    pub checked_at: Timestamp,
    /// Why they did not, one line each.
    pub reasons: Vec<String>,
    /// The epoch whose sync set they were compared with.
    pub epoch: Epoch,
    /// The log has to reach this position before they prove anything: what was acknowledged before they held lies before
    /// it. `None` if they did not hold.
    pub from: Option<Lsn>,
}

/// What the newest epoch says of the resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimFacts {
    /// The newest epoch.
    pub epoch: Epoch,
    /// Whether the register itself said so; otherwise it is the newest copy, and a newer epoch may exist.
    pub proven: bool,
    /// The epoch after which the chain of its log is named.
    pub log_epoch: Epoch,
    /// The timeline of its log.
    pub timeline: TimelineId,
    /// Regions whose stores commits wait for.
    pub sync: Vec<RegionName>,
    /// Regions that they no longer wait for, because their stores did not take the log, and since which position.
    pub sync_lost: Option<(Lsn, Vec<RegionName>)>,
}

/// What a region's store holds of the resource's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogFacts {
    /// The epoch of the newest chain.
    pub epoch: Epoch,
    /// Its timeline.
    pub timeline: TimelineId,
    /// Where it begins: nothing before this can be replayed from this store.
    ///
    /// Where the region has no instance, so that a restore would be what it takes, everything from here to `end` was seen to
    /// be there, by names unless it was looked at closely; elsewhere it is what the chain says of itself.
    pub start: Lsn,
    /// Its end, the chain's tail.
    pub end: Lsn,
    /// Log that is known to be missing, one line each: from where to where, on which timeline, in which store.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Whether the chain is sealed.
    pub sealed: bool,
    /// The primary's WAL end as reported with the newest chunk.
    pub primary_end: Lsn,
    /// When the primary last reported its WAL end with a chunk; `None` if the chain is empty.
    pub received_at: Option<Timestamp>,
    /// When a daemon last wrote a chunk, rather than a command that the primary runs; `None` if it wrote none of the recent part.
    #[serde(default)]
    pub shipped_at: Option<Timestamp>,
    /// Time of the newest commit in the chain; `None` if the recent part holds none.
    pub last_commit_at: Option<Timestamp>,
    /// Commits a second over the recent part; `None` if unknown.
    pub commits_per_second: Option<f64>,
    /// Newest instant at which `end` covered all that the primary had reported.
    pub covered_at: Option<Timestamp>,
    /// The promise conditions of synchronous mode, as last recorded (PROTOCOL 5).
    pub promise: Option<PromiseFacts>,
    /// Recovery points in this store, newest first.
    pub recovery_points: Vec<super::RecoveryPoint>,
    /// Recovery points that cannot be restored, newest first, each with the reason. They are not among `recovery_points`. By a close
    /// look those are here too that a restore would refuse before it writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unusable: Vec<String>,
    /// The recovery point of an older timeline from which all log to `end` was seen to be there, where none is on this one, as there is not
    /// soon after a promotion. Only a close look finds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<String>,
}

impl LogFacts {
    /// Returns the recovery points that cannot be restored and may be newer than `label`, each with the reason: labels of one second are
    /// in no order.
    pub fn unusable_since<'a>(&'a self, label: &'a str) -> impl Iterator<Item = &'a str> {
        let unusable = self.unusable.iter().map(String::as_str);
        unusable.filter(move |one| second(one) >= second(label))
    }

    /// Returns the newest recovery point that cannot be restored, with the reason, if none that can be is certainly newer.
    #[must_use]
    pub fn newest_unusable(&self) -> Option<&str> {
        let points = self.recovery_points.iter();
        let newest = points.map(|point| point.label.as_str()).max();
        self.unusable_since(newest.unwrap_or_default()).max()
    }
}

/// Returns the part of a label, or of what begins with one, that says when it was begun.
fn second(label: &str) -> &str {
    label.split(['-', ':']).next().unwrap_or_default()
}

/// Everything seen of a resource in one region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionFacts {
    /// The instance.
    pub instance: Instance,
    /// What the store holds, or why that could not be seen. `Ok(None)`: proven that it holds nothing.
    pub log: Result<Option<LogFacts>, String>,
    /// What only the driver understands.
    pub detail: Value,
    /// The parts of the look that ran out of time, of those which say whose the instance is and whether it runs: each with its limit. Another
    /// look may see them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<String>,
}

/// Everything seen of a resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// When it was seen.
    pub observed_at: Timestamp,
    /// The cluster's identity, if it could be learnt.
    pub system_identifier: Option<SystemIdentifier>,
    /// What the newest epoch says of it; `None` if no record could be read.
    #[serde(default)]
    pub claim: Option<ClaimFacts>,
    /// By region.
    pub regions: BTreeMap<RegionName, RegionFacts>,
}

/// What a move would lose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossFacts {
    /// The estimate; `None` if nothing is known, which is never within a budget.
    pub estimate: Option<Estimate>,
    /// The bound as it stands before any fence.
    pub bound: Bound,
    /// What has to come up in the region moved to, the timeline and the position on it, for the bound to hold: a standby may have been
    /// ahead of the store, and something else may come up in its place. `None` if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rests_on: Option<(TimelineId, Lsn)>,
    /// Commits a second when the region last heard from the primary; `None` if unknown. What was committed after that is
    /// in no estimate, only in the bound.
    #[serde(default)]
    pub commits_per_second: Option<f64>,
    /// Whether sealing would prove that nothing acknowledged is lost: synchronous mode, and its conditions held within
    /// the last 10 s before `observed_at`.
    pub sealing_proves_zero: bool,
    /// What the numbers rest on, one line each.
    pub because: Vec<String>,
}
