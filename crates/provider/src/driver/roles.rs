//! Roles that a kind of resource may have.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dr_model::{Epoch, Lsn, RegionName, Retention, SystemIdentifier, TimelineId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Proof, Role};
use crate::{ObjectStore, Result};

/// A base backup in a store, with what is needed to choose it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPoint {
    /// Its label, which sorts by time.
    pub label: String,
    /// The cluster that it was taken of.
    pub system_identifier: SystemIdentifier,
    /// The timeline that it was taken on.
    pub timeline: TimelineId,
    /// Where replay has to begin.
    pub start: Lsn,
    /// Where the backup becomes consistent.
    pub stop: Lsn,
    /// When it was begun.
    pub started_at: Timestamp,
    /// When it was complete.
    pub stopped_at: Timestamp,
    /// Bytes of the database's files.
    pub database_bytes: u64,
    /// Bytes in the store.
    pub stored_bytes: u64,
    /// How it was taken.
    #[serde(default)]
    pub taken: Taken,
    /// What the proofs in this store say is wrong with it, or with a pack that it refers to; `None` if nothing.
    #[serde(default)]
    pub failure: Option<String>,
}

/// How a recovery point was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Taken {
    /// The older one that it shares its unchanged content with; `None` if everything was read. Either way it holds all,
    /// and is restored by itself.
    pub parent: Option<String>,
    /// The newest of its ancestors for which everything was read; `None` if that is this one.
    pub full: Option<String>,
    /// Who read the files, one word: `server` or `agent`.
    pub read_by: String,
    /// How it was known what had changed since the parent, one word: `pages` or `summaries`.
    pub found_by: Option<String>,
    /// Bytes of the database that were read; zero where this is not known.
    pub read_bytes: u64,
    /// Bytes that the parent does not have; zero where this is not known.
    pub changed_bytes: u64,
    /// Damaged pages of the database, each with its place; not more than fit a manifest.
    pub damaged: Vec<String>,
    /// The number of damaged pages. What is in them is as damaged in the recovery point.
    pub damaged_pages: u64,
    /// What an operator should know.
    pub remarks: Vec<String>,
}

/// The recovery points that a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPoints {
    /// Those that were committed and can be read, newest first.
    pub complete: Vec<RecoveryPoint>,
    /// Those that were committed and cannot be read any more: label, and what is wrong.
    pub damaged: Vec<String>,
    /// Why those of the complete ones cannot be read here whose keys are not at hand, by label. Nothing is known to be wrong with them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub no_key: BTreeMap<String, String>,
}

/// What taking a backup cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// The new recovery point.
    pub recovery_point: RecoveryPoint,
    /// How long it took.
    pub took: Duration,
}

/// What copying recovery points cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyReport {
    /// Labels that are new here.
    pub copied: Vec<String>,
    /// Labels that were here already.
    pub present: Vec<String>,
    /// Bytes copied.
    pub copied_bytes: u64,
    /// Recovery points that were left where they are, each with the reason: here they could not be brought back.
    #[serde(default)]
    pub unusable: Vec<String>,
    /// Labels that were left where they are because here they would expire at once.
    #[serde(default)]
    pub expired: Vec<String>,
}

/// Takes backups and copies them.
#[async_trait]
pub trait Backup: Send + Sync {
    /// Takes a backup of the primary in `region` into that region's store. It may refer to what older ones hold there; it
    /// is restored by itself all the same.
    async fn take(&self, region: &RegionName) -> Result<BackupReport>;

    /// Lists the recovery points in a store. Partial ones are invisible (principle 1); a damaged one is named beside the
    /// others and never hides them.
    async fn list(&self, store: &Arc<dyn ObjectStore>) -> Result<RecoveryPoints>;

    /// Lists the recovery points in a store that were given up and are going to be deleted: nothing begins with them unless they are
    /// taken back. One that cannot be read is left out: it is going to be deleted all the same.
    async fn given_up(&self, store: &Arc<dyn ObjectStore>) -> Result<Vec<RecoveryPoint>>;

    /// Copies every recovery point that `to` lacks from the store of `from` into that of `to`: data before manifests,
    /// verified by hash (R38). What `retention` would not keep there, and what was given up there, is left out.
    async fn copy(
        &self,
        from: &RegionName,
        to: &RegionName,
        retention: Option<&Retention>,
    ) -> Result<CopyReport>;
}

/// How far a receiver has got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frontier {
    /// What the receiver is doing, one word: `connecting`, `streaming`, `waiting`, `sealed`.
    pub state: String,
    /// The epoch that it writes.
    pub epoch: Option<Epoch>,
    /// Its timeline.
    pub timeline: Option<TimelineId>,
    /// Received from the primary.
    pub received: Lsn,
    /// Durable and contiguous in the region's store.
    pub durable: Lsn,
    /// The primary's WAL end as last reported.
    pub primary_end: Lsn,
    /// When the primary last said anything.
    pub heard_at: Option<Timestamp>,
    /// Newest instant at which `durable` covered `primary_end`: exposure is measured from here (PROTOCOL 10).
    pub covered_at: Option<Timestamp>,
    /// Chunks written since the receiver started.
    pub chunks: u64,
    /// Bytes of log written since the receiver started.
    pub log_bytes: u64,
    /// Bytes put into the store since the receiver started.
    pub stored_bytes: u64,
    /// Why the receiver is not streaming, if it is not.
    pub problem: Option<String>,
    /// What a person has to see to although the log arrives, one line each: a slot about to be lost or to fill the
    /// primary's disk, synchronous mode that was lost.
    #[serde(default)]
    pub alarms: Vec<String>,
    /// What the primary keeps for this region, or beside the primary for all of them.
    #[serde(default)]
    pub kept: Vec<KeptLog>,
}

/// Log that the primary keeps for somebody who has not taken it yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLog {
    /// The name of the slot.
    pub name: String,
    /// Bytes that are kept; `None` if nothing is.
    pub kept_bytes: Option<u64>,
    /// Bytes that may still be written before some of it is lost; `None` if the primary sets no limit.
    pub safe_bytes: Option<u64>,
    /// Bytes free where the primary keeps its log; `None` if that cannot be seen from here.
    pub free_bytes: Option<u64>,
}

impl Default for Frontier {
    fn default() -> Self {
        Self {
            state: "connecting".to_owned(),
            epoch: None,
            timeline: None,
            received: Lsn::INVALID,
            durable: Lsn::INVALID,
            primary_end: Lsn::INVALID,
            heard_at: None,
            covered_at: None,
            chunks: 0,
            log_bytes: 0,
            stored_bytes: 0,
            problem: None,
            alarms: Vec::new(),
            kept: Vec::new(),
        }
    }
}

/// What merging the log in a store came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactReport {
    /// Pieces written.
    pub pieces: u64,
    /// Bytes of log in them.
    pub log_bytes: u64,
    /// Bytes that they take in the store.
    pub stored_bytes: u64,
    /// Objects removed because pieces hold what they held.
    pub removed: u64,
    /// Whether objects that may go stayed because the store refused to remove them.
    pub removal_denied: bool,
    /// Log that is missing, one line each: from where to where, on which timeline, in which store.
    pub missing: Vec<String>,
}

/// Ships the log into a region's store.
#[async_trait]
pub trait LogStream: Send + Sync {
    /// Follows the primary that the register names and writes its log into the store of `region`, until `stop` turns
    /// true or something permanent happens.
    ///
    /// Reconnects by itself. Returns `Superseded` when the chain it writes has been sealed: the caller reads the
    /// register and may start it again for the new epoch.
    async fn ship(
        &self,
        region: &RegionName,
        frontier: watch::Sender<Frontier>,
        stop: watch::Receiver<bool>,
    ) -> Result<()>;

    /// Merges what was shipped into the store of `region` into few objects, and removes what has been merged for long enough.
    ///
    /// MUST be idempotent and safe to cut off anywhere, beside any number of receivers. Log that is found to be missing is
    /// recorded in the store and reported; the rest is merged all the same.
    async fn compact(&self, region: &RegionName) -> Result<CompactReport>;

    /// Says what is recorded as lost of the log behind `since` in the store of `region`, or of another whose recovery points come
    /// from there, and has not arrived after all: one line each. A recovery point that starts at `since` cannot be brought to the
    /// present there then.
    async fn lost_since(&self, region: &RegionName, since: Lsn) -> Result<Vec<String>>;

    /// Returns the time between two heartbeats, which is the error of an achieved recovery point.
    fn heartbeat_interval(&self) -> Duration;

    /// Writes one heartbeat row of `epoch` on the primary in `region` and returns its time.
    async fn beat(&self, region: &RegionName, epoch: Epoch) -> Result<Timestamp>;

    /// Reads the newest heartbeat that the instance in `region` holds; `None` if there is none.
    async fn last_beat(&self, region: &RegionName) -> Result<Option<Timestamp>>;
}

/// Where a restore ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreTarget {
    /// The end of the contiguous log.
    Latest,
    /// The last commit not after this instant.
    Time(Timestamp),
    /// The record that begins at this position or, if none does, the first one after it.
    Lsn(Lsn),
    /// The end of this transaction; of a 64-bit number the lower half counts, as for PostgreSQL.
    Transaction(u64),
    /// The restore point of this name (`pg_create_restore_point`).
    Name(String),
    /// As soon as the files are consistent.
    Immediate,
}

impl fmt::Display for RestoreTarget {
    /// Says it behind "to".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("its latest state"),
            Self::Time(at) => at.fmt(f),
            Self::Lsn(lsn) => write!(f, "position {lsn}"),
            Self::Transaction(number) => write!(f, "the end of transaction {number}"),
            Self::Name(name) => write!(f, "the restore point `{name}`"),
            Self::Immediate => f.write_str("the end of its recovery point"),
        }
    }
}

/// Which timeline a restore follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetTimeline {
    /// That of the newest epoch that has written anything.
    #[default]
    Latest,
    /// The one that the recovery point was taken on.
    Current,
    /// This one.
    Number(TimelineId),
}

/// What the server does once the target is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetAction {
    /// Accepts writes, on a timeline of its own.
    #[default]
    Promote,
    /// Answers queries and waits for `pg_wal_replay_resume()` or a later target.
    Pause,
    /// Stops.
    Shutdown,
}

/// What a directory that is restored into may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Nothing: it is missing or empty.
    #[default]
    Nothing,
    /// The same cluster, of which no server runs there: what differs is written, what does not belong there goes.
    SameCluster,
    /// Any cluster, of which no server runs there.
    AnyCluster,
}

/// What to restore, and where to.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// The region whose store is read.
    pub region: RegionName,
    /// Where to end.
    pub target: RestoreTarget,
    /// Leaves out what the target names: the commits of that instant, the record, the transaction.
    pub exclusive: bool,
    /// Which timeline to follow.
    pub timeline: TargetTimeline,
    /// What the server does at the target.
    pub action: TargetAction,
    /// The recovery point to begin with, by its label; the newest that will do if absent.
    pub recovery_point: Option<String>,
    /// A directory on this machine.
    pub directory: PathBuf,
    /// Whether that is where it will be: a plan looks at no directory that was not named.
    pub is_named: bool,
    /// What it may hold.
    pub existing: Existing,
    /// The port of the restored server, which must not be that of the one it is a copy of.
    pub port: u16,
    /// Where the directories that stood outside the data directory go.
    pub outside: OutsidePlaces,
    /// Whether the log up to the target is read and verified before anything is decided, rather than only looked for.
    pub verify_log: bool,
    /// Told how far it has got.
    pub progress: Option<watch::Sender<RestoreProgress>>,
}

/// Where directories outside the data directory go, by the numbers of the tablespaces. Without any of it, a backup that has
/// some is refused: what stands in the old place may be in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutsidePlaces {
    /// Those that were told.
    pub places: BTreeMap<u32, PathBuf>,
    /// Holds the others, each under its number.
    pub root: Option<PathBuf>,
    /// The others go where they were.
    pub same_place: bool,
}

/// How far a restore has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreProgress {
    /// Bytes of files written.
    pub written_bytes: u64,
    /// Bytes of files to be written; zero until that is known.
    pub total_bytes: u64,
}

impl RestoreRequest {
    /// The port of a restored server unless told otherwise.
    pub const PORT: u16 = 54321;

    /// Makes a request that leaves everything but these three to its default.
    #[must_use]
    pub fn new(region: RegionName, target: RestoreTarget, directory: PathBuf) -> Self {
        Self {
            region,
            target,
            exclusive: false,
            timeline: TargetTimeline::default(),
            action: TargetAction::default(),
            recovery_point: None,
            directory,
            is_named: true,
            existing: Existing::default(),
            port: Self::PORT,
            outside: OutsidePlaces::default(),
            verify_log: false,
            progress: None,
        }
    }
}

/// Log of one timeline that is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStretch {
    /// The timeline whose segments are read.
    pub timeline: TimelineId,
    /// From here.
    pub from: Lsn,
    /// To here.
    pub to: Lsn,
}

/// What a restore will do, decided before anything is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePlan {
    /// The recovery point that is restored.
    pub recovery_point: RecoveryPoint,
    /// Bytes of the packs that its files are in, those of older recovery points among them: so much is read at most.
    #[serde(default)]
    pub pack_bytes: u64,
    /// Newer recovery points that are not used, each with the reason.
    pub passed_over: Vec<String>,
    /// The log that is replayed at most, in order: each timeline on the way to the target.
    pub log: Vec<LogStretch>,
    /// Segments of log read at most.
    pub log_segments: u64,
    /// Bytes of log read at most.
    pub log_bytes: u64,
    /// Where replay ends, in words.
    pub end: String,
    /// Whether the end was found in the log; if not, PostgreSQL itself finds out, and stops without starting up if it is
    /// not there.
    pub end_proven: bool,
    /// Whether every byte of that log was read and verified. Otherwise it is known to be present, and what is in it is verified as it is
    /// replayed.
    pub log_verified: bool,
    /// The position that nothing is replayed beyond.
    pub log_end: Lsn,
    /// Where each tablespace goes, by its number.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// What has to be known beside that.
    pub notes: Vec<String>,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// What was to be done.
    pub plan: RestorePlan,
    /// How sure it is by now that the recovery point is good.
    pub proof: Proof,
    /// Bytes of files that are there now.
    pub total_bytes: u64,
    /// Bytes written: those that were not there already.
    pub written_bytes: u64,
    /// Files and directories removed, which did not belong there.
    pub removed: u64,
    /// How long it took.
    pub took: Duration,
}

/// How far the log of a recovery point goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogReach {
    /// Everything up to here can be replayed.
    pub end: Lsn,
    /// What ends it before the newest log of the store; `None` if nothing.
    pub hole: Option<String>,
}

/// Restores into a directory.
#[async_trait]
pub trait Restore: Send + Sync {
    /// Says how far the log in the store of `region` goes without a hole from each recovery point there, by its label, as a plan
    /// to its latest state would; one that cannot be made consistent there is left out.
    async fn reaches(&self, region: &RegionName) -> Result<BTreeMap<String, LogReach>>;

    /// Proves that everything needed is in the store and that the directory may be written, and says what would be done; writes
    /// nothing.
    ///
    /// # Errors
    ///
    /// `Conflict` if a rule forbids to restore over what is in the directory: a server runs there, or it is another cluster's.
    async fn plan(&self, request: &RestoreRequest) -> Result<RestorePlan>;

    /// Does what [`plan`](Self::plan) says: writes the directory, ready to be started. Errors as there.
    async fn restore(&self, request: &RestoreRequest) -> Result<RestoreReport>;
}

/// Answers queries.
#[async_trait]
pub trait Query: Send + Sync {
    /// Runs a read-only query in `region` and returns the first column of the first row as text.
    async fn scalar(
        &self,
        region: &RegionName,
        query: &str,
        limit: Duration,
    ) -> Result<Option<String>>;

    /// Asks the instance in `region` itself which cluster it is of and what it does; its host and the stores are not asked.
    async fn role(&self, region: &RegionName) -> Result<(SystemIdentifier, Role)>;

    /// Asks the instance in `region` itself which cluster it is of and how many sessions of clients are open there, ours left out.
    ///
    /// Fails with `Denied` if some cannot be seen.
    async fn sessions(&self, region: &RegionName) -> Result<(SystemIdentifier, u64)>;
}

/// Stops by itself when its guard cannot see that it still is the primary (PROTOCOL 7, the fence `self`).
#[async_trait]
pub trait SelfFence: Send + Sync {
    /// Returns the lease that the configuration wants in `region`; `None` if it wants no guard.
    fn lease(&self, region: &RegionName) -> Option<Duration>;

    /// Asks the instance in `region` itself under what lease it runs; `None` if it runs without a guard.
    ///
    /// What cannot be asked is an error, never a guess: a failover may rest on the answer.
    async fn lease_in_force(&self, region: &RegionName) -> Result<Option<Duration>>;
}
