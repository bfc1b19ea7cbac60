//! What protects and recovers one kind of resource.
//!
//! Jobs and steps know a resource only through [`ResourceDriver`] and its role traits; what a PostgreSQL cluster is,
//! only its driver knows. Planning is pure: `observe` looks, `plan` decides, `apply` does what was decided.

mod action;
mod evidence;
mod expire;
mod facts;
mod roles;
mod verify;

use std::time::Duration;

use async_trait::async_trait;
use dr_model::{Epoch, ExecutionId, RegionName, WorkloadName};

pub use action::{Action, Applied, Dependency, Plane, Undo, Verified};
pub use evidence::{Drained, Evidence, Fenced, Recovered, Sealed, StopProof};
pub use expire::{
    Expire, ExpireRequest, ExpiredLog, ExpiryPlan, ExpiryReport, HoldNote, Judged, Swept,
};
pub use facts::{
    ClaimFacts, Facts, Instance, LogFacts, LossFacts, PromiseFacts, RegionFacts, Role,
};
pub use roles::{
    Backup, BackupReport, CompactReport, CopyReport, Existing, Frontier, KeptLog, LogReach,
    LogStream, LogStretch, OutsidePlaces, Query, RecoveryPoint, RecoveryPoints, Restore,
    RestorePlan, RestoreProgress, RestoreReport, RestoreRequest, RestoreTarget, SelfFence, Taken,
    TargetAction, TargetTimeline,
};
pub use verify::{
    Proof, Proofs, RehearsedCheck, VerifiedDue, Verify, VerifyHow, VerifyMark, VerifyMeans,
    VerifyRecord, VerifyRequest,
};

use crate::Result;

/// On whose behalf an effect is made: carried by every one of them and checked at the place of the effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The workload.
    pub workload: WorkloadName,
    /// The epoch that the effect belongs to.
    pub epoch: Epoch,
    /// The execution that makes it.
    pub execution: ExecutionId,
    /// How often that had been taken over when its executor began: of two of them, the one with the larger number has the say.
    pub takeovers: u32,
}

/// What a step wants of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The instance in `region` accepts no more writes, with a stated proof (PROTOCOL 7). Best effort, bounded, and the
    /// only goal that may address the region being left.
    Fence {
        /// The region being left.
        region: RegionName,
    },
    /// The log of epoch `ended` is complete and sealed in the store of `region` (PROTOCOL 3, and 6 steps 1 to 4).
    Seal {
        /// The region moved to.
        region: RegionName,
        /// The epoch being ended.
        ended: Epoch,
        /// Other regions, none of which is left, that hold more of the log than the store of `region`: what they hold comes first.
        gather: Vec<RegionName>,
    },
    /// The standby in `region` is the primary of the epoch after `ended` (PROTOCOL 6).
    Promote {
        /// The region moved to.
        region: RegionName,
        /// The epoch being ended.
        ended: Epoch,
    },
    /// An instance rebuilt from the store of `region` is the primary of the epoch after `ended`.
    Restore {
        /// The region moved to.
        region: RegionName,
        /// The epoch being ended.
        ended: Epoch,
    },
    /// The new primary in `region` is protected again: slots exist, its log is shipped.
    Rearm {
        /// The region moved to.
        region: RegionName,
    },
    /// The primary in `region` has ended in an orderly way, so that its last position is known, and does not come back
    /// writable. For a planned move, in which the region being left is there.
    StopWrites {
        /// The region being left.
        region: RegionName,
        /// The region moved to, which gets its log to the last byte.
        to: RegionName,
    },
    /// The stopped instance in `region` is a standby of the primary in `primary`, from whose history it does not differ.
    Follow {
        /// The region that was left.
        region: RegionName,
        /// The region moved to.
        primary: RegionName,
    },
    /// No server of the resource runs in `region`, with a stated proof, and none that is started there accepts writes: the
    /// region is not left, so that its host can be asked.
    Vacate {
        /// The region of the primary.
        region: RegionName,
    },
    /// The primary in `region`, which has ended, runs again as it was: same timeline, same log.
    Restart {
        /// The region of the primary.
        region: RegionName,
    },
    /// What the resource was at `target` stands beside the data directory in `region`, booted and looked at. The primary is not
    /// touched.
    Prepare {
        /// The region of the primary.
        region: RegionName,
        /// Where to end.
        target: RestoreTarget,
    },
    /// What was prepared has taken the place of the data directory in `region`, which is kept, and is the primary of the epoch
    /// after `ended`.
    Replace {
        /// The region of the primary.
        region: RegionName,
        /// The epoch being ended.
        ended: Epoch,
    },
    /// The stopped primary in `region` accepts writes again, and the standby in `standby`, which nobody promoted, follows
    /// it: what undoes a move that came to no promotion.
    ResumePrimary {
        /// The region that was being left.
        region: RegionName,
        /// The region that was being moved to.
        standby: RegionName,
        /// Whether the journal of the move says that no promotion was begun there: then the standby need not be seen.
        unpromoted: bool,
    },
}

/// Protects and recovers one resource in all its regions.
#[async_trait]
pub trait ResourceDriver: Send + Sync + std::fmt::Debug {
    /// Returns the kind, as in the configuration: `postgres`.
    fn kind(&self) -> &'static str;

    /// Looks at the resource in the given regions and at what their stores hold; changes nothing.
    ///
    /// MUST answer within a few seconds whatever is broken: what cannot be seen is a fact of its own, not an error.
    async fn observe(&self, regions: &[RegionName]) -> Facts;

    /// Looks as [`Self::observe`] does, for no longer than `limit`; changes nothing.
    ///
    /// The parts of the look SHOULD have the limit each for itself, so that a store that is slow hides no host that answers: what was seen in
    /// time is kept, and [`RegionFacts::late`] names what a proof rests on and was not. Whoever calls bounds it all the same.
    async fn observe_within(&self, regions: &[RegionName], _limit: Duration) -> Facts {
        self.observe(regions).await
    }

    /// Looks at the instance in a region alone, whatever its store answers and however its host is; changes nothing.
    ///
    /// An instance that answers MUST be seen as soon as it does, and what answers in its place and is not of this resource MUST be
    /// told apart as [`Self::observe`] does. Whoever calls bounds it: what takes longer was not seen.
    async fn look(&self, region: &RegionName) -> Instance {
        let mut facts = self.observe(std::slice::from_ref(region)).await;
        let seen = facts.regions.remove(region);
        seen.map_or(Instance::NotConfigured, |seen| seen.instance)
    }

    /// Looks whether what the store of `region` holds can be restored there, if it is a restore that would bring the resource up, and
    /// corrects what [`Self::observe`] has seen of the region by what it finds; changes nothing else.
    ///
    /// `observe` goes by names and is cheap; this opens what would be restored and costs a read for each segment of log, so that it is
    /// for whoever plans a move or is about to take the first step of one. MUST end within several seconds: what did not answer by
    /// then, or not at all, stays as it was.
    async fn look_closely(&self, _region: &RegionName, _facts: &mut Facts) {}

    /// Decides what reaches the goal. MUST be pure: no I/O, no clock.
    ///
    /// Fails with `Unsupported` or `Failed` if the goal cannot be reached from these facts, saying what is missing; a
    /// runbook's fallback may then be taken.
    fn plan(&self, goal: &Goal, facts: &Facts) -> Result<Vec<Action>>;

    /// Looks whether actions that were decided from earlier facts, and have not been begun, can still bring an instance up from these.
    /// MUST be pure. The error says what has become of it; `Unavailable` if that cannot be seen.
    fn still_holds(&self, _actions: &[Action], _facts: &Facts) -> Result<()> {
        Ok(())
    }

    /// Does one action. MUST be idempotent: doing it twice leaves the same state as once.
    ///
    /// An error whose [`is_definite`](crate::Error::is_definite) holds means that the action was not done.
    async fn apply(&self, action: &Action, fence: &Fence) -> Result<Applied>;

    /// Looks whether the action has been done; used after `apply` and first on resume.
    async fn verify(&self, action: &Action, fence: &Fence) -> Result<Verified>;

    /// Returns what the facts say a move to `target` would lose. Pure.
    fn loss(&self, target: &RegionName, facts: &Facts) -> LossFacts;

    /// Returns the role of taking backups, if the kind has it.
    fn backup(&self) -> Option<&dyn Backup> {
        None
    }

    /// Returns the role of shipping a log, if the kind has it.
    fn log_stream(&self) -> Option<&dyn LogStream> {
        None
    }

    /// Returns the role of restoring into a directory, if the kind has it.
    fn restore(&self) -> Option<&dyn Restore> {
        None
    }

    /// Returns the role of proving recovery points, if the kind has it.
    fn verify_role(&self) -> Option<&dyn Verify> {
        None
    }

    /// Returns the role of deleting what is not kept, if the kind has it.
    fn expire_role(&self) -> Option<&dyn Expire> {
        None
    }

    /// Returns the role of answering queries, if the kind has it.
    fn query(&self) -> Option<&dyn Query> {
        None
    }

    /// Returns the role of stopping by itself, if the kind has it.
    fn self_fence(&self) -> Option<&dyn SelfFence> {
        None
    }
}
