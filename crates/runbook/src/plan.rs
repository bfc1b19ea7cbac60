//! A plan: a runbook resolved against observed facts, as a value.
//!
//! Everything that will be done stands in it, with its fallbacks and their conditions, so it can be printed, compared
//! and tested without I/O; the execution makes no choices of its own (principle 5). It is journaled whole with the
//! first entry of an execution, so any machine can resume from the journal alone.

mod behind;
pub mod condition;
pub(crate) mod elsewhere;
mod gate;
mod hash;
pub(crate) mod in_place;
mod lint;
mod make;
mod mode;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};

use dr_coordination::register::ClusterClaim;
use dr_model::loss::{Bound, Estimate, Verdict};
use dr_model::{
    ApproverName, Epoch, RegionName, ResourceName, ServiceName, StepId, SystemIdentifier,
    TimelineId, WorkloadName,
};
use dr_provider::driver::{Action, LossFacts, RestoreTarget, Undo};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use behind::is_behind;
#[cfg(test)]
pub(crate) use hash::of as hash_of;
#[cfg(test)]
pub(crate) use lint::dependencies as depends_on_region_left;
pub(crate) use lint::{
    COMES_UP, asks_people, awaits_guards, comes_up, left_down, may_ask_people, ordered, wrong,
};
pub use make::plan;
pub use mode::Mode;
pub use refusal::{Class, Refusal};

use crate::request::{Disruption, Rung, Statement};
use crate::sight::Sight;

/// The version of the plan's form in the journal. What changed with 2 is what the hash is of.
pub const VERSION: u32 = 2;

/// What will be done, step by step, and what it is expected to cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The version of this form: [`VERSION`].
    pub version: u32,
    /// The runbook's name.
    pub runbook: String,
    /// How it takes the region being left.
    #[serde(default, skip_serializing_if = "Mode::is_unplanned")]
    pub mode: Mode,
    /// The workload that is moved.
    pub workload: WorkloadName,
    /// The region being left: the primary of the ended epoch.
    pub from: RegionName,
    /// The region moved to.
    pub to: RegionName,
    /// The epoch that is ended.
    pub ended: Epoch,
    /// The epoch that is opened.
    pub opens: Epoch,
    /// A hash of what the configuration that it was made with says of each part of the workload, by its path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub definitions: BTreeMap<String, String>,
    /// Where its record is created, and what is known of the register.
    pub register: RegisterPlan,
    /// The timelines claimed with the new epoch, one for each cluster.
    pub claims: BTreeMap<ResourceName, Claim>,
    /// What is lost, as two numbers, against the budget.
    pub loss: LossPlan,
    /// How each resource is expected to be proven stopped before it comes up again.
    pub proofs: BTreeMap<ResourceName, ExpectedProof>,
    /// The lowest rung that any resource takes.
    pub rung: Rung,
    /// What people stated when they asked for this.
    pub statements: Vec<Statement>,
    /// Who asks for it, if people have to approve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester: Option<ApproverName>,
    /// The moment that databases are put back to, if that is what it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moment: Option<RestoreTarget>,
    /// When the disruption began: what the achieved recovery point is measured from. `None` if nobody knows.
    pub disrupted_at: Option<Timestamp>,
    /// When it began, if that was measured or stated: what the time to recover is counted from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption: Option<Disruption>,
    /// The longest interval between heartbeats: the error of the achieved recovery point. `None` if there are none.
    pub heartbeat_seconds: Option<f64>,
    /// The steps in the order in which they run.
    pub steps: Vec<PlannedStep>,
    /// What was seen of everything but the databases in the region moved to, which are looked at again when it begins.
    #[serde(default)]
    pub sight: Sight,
    /// What somebody should know before saying yes.
    pub warnings: Vec<String>,
    /// Predicted length of the execution in seconds; `None` while no execution has been measured.
    pub predicted_seconds: Option<f64>,
    /// When the facts were seen.
    pub observed_at: Timestamp,
    /// BLAKE3 of the plan's canonical JSON without what changes by the second: times, positions, loss, what was seen and this field.
    pub hash: String,
}

/// Where the new epoch's record is created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterPlan {
    /// The region whose store decides.
    pub region: RegionName,
    /// The region whose store decides about the epoch after this one.
    pub next: RegionName,
    /// Why the newest record could not be read where it counts; `None` if it was. With a reason here the epoch rests on
    /// copies and on an override, and is reported as unproven for ever.
    pub unproven: Option<String>,
}

/// A timeline claimed for a cluster, which no other region may choose (PROTOCOL 2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// One more than any timeline in any record of the register or seen anywhere; where a move is undone, the one that the
    /// region had before it.
    pub timeline: TimelineId,
    /// Where its log goes on, if a move is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_lsn: Option<dr_model::Lsn>,
}

impl From<&Claim> for ClusterClaim {
    /// A claim of an epoch that begins a log of its own.
    fn from(claim: &Claim) -> Self {
        Self {
            system_identifier: claim.system_identifier,
            timeline: claim.timeline,
            start_lsn: claim.start_lsn,
            log_epoch: None,
        }
    }
}

/// What the move loses (PROTOCOL 8).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossPlan {
    /// The largest estimate over the resources; `None` if one of them has none.
    pub estimate: Option<Estimate>,
    /// The bound as expected once the old primary is fenced and its log sealed.
    pub bound: Bound,
    /// The largest estimate that is accepted, in seconds.
    pub budget_seconds: f64,
    /// Whether the estimate is within it.
    pub verdict: Verdict,
    /// By resource.
    pub resources: BTreeMap<ResourceName, LossFacts>,
    /// Those that come up, by override, without anything of what was written in the newest epoch: nobody can tell how much that is.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub behind: BTreeSet<ResourceName>,
}

impl LossPlan {
    /// Tells whether the bound is known and larger than what is accepted.
    #[must_use]
    pub fn bound_exceeds(&self) -> bool {
        matches!(self.bound, Bound::Seconds { seconds, .. } if seconds > self.budget_seconds)
    }
}

/// What is expected to prove that the old primary accepts no more writes (PROTOCOL 7), strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExpectedProof {
    /// Synchronous mode, its conditions held, and the log is sealed.
    Sealed,
    /// The old instance can be reached, to be stopped or found stopped.
    Stopped,
    /// It runs under a guard, which stops it by itself once the new epoch is open.
    SelfStopped,
    /// A named human states it.
    Witness,
    /// None: a named human sets the rule aside.
    Override,
}

impl ExpectedProof {
    /// Returns its name, as in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Stopped => "stopped",
            Self::SelfStopped => "self-stopped",
            Self::Witness => "witness",
            Self::Override => "override",
        }
    }
}

/// A step resolved against the facts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Its id in the runbook.
    pub id: StepId,
    /// The step that it uses.
    pub uses: String,
    /// Its parameters, with defaults filled in.
    pub parameters: serde_json::Value,
    /// The steps that come before it.
    pub needs: Vec<StepId>,
    /// Whether the execution goes on if it fails.
    pub continue_on_error: bool,
    /// How long one attempt at one action may take, in seconds.
    pub timeout_seconds: f64,
    /// How often an action is tried if it was definitely not done for a reason that may pass.
    pub attempts: u32,
    /// The pause between two attempts, in seconds.
    pub retry_delay_seconds: f64,
    /// Whether the execution goes on while it runs, until its result is needed.
    pub background: bool,
    /// What it takes to go back: the gravest of its actions.
    pub undo: Undo,
    /// What happens if an action is done twice.
    pub idempotency: Idempotency,
    /// Predicted length in seconds; `None` while it has not been measured.
    pub predicted_seconds: Option<f64>,
    /// Why the step is left out, if it is: its condition does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
    /// What is done to each thing that the step acts on, in order.
    pub lanes: Vec<Lane>,
}

/// What happens if an action is done twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Idempotency {
    /// It only looks.
    ReadOnly,
    /// The second time leaves everything as the first did.
    Idempotent,
    /// It is a create-only or conditional write: the second time changes nothing.
    Conditional,
    /// The effect may be had twice; it carries a key by which the other side can tell.
    AtLeastOnce,
}

/// What one step does to one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lane {
    /// The thing.
    pub target: Target,
    /// Whether the step goes on without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// The step that acts: the one in the runbook, or the fallback if that was planned from the start.
    pub uses: String,
    /// What it stands in for, if it is the fallback.
    pub replaces: Option<Replaced>,
    /// The actions in order.
    pub actions: Vec<Action>,
    /// What is done instead if these definitely cannot be.
    pub fallback: Option<Branch>,
}

/// A step that could not be planned, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// The step.
    pub uses: String,
    /// Why not.
    pub why: String,
}

/// The other way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Branch {
    /// The step that acts.
    pub uses: String,
    /// When it is taken, for people.
    pub condition: String,
    /// Its actions, or why there are none: then a failure of the main branch is final.
    pub actions: Result<Vec<Action>, String>,
}

/// Something that a step acts on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "name")]
pub enum Target {
    /// The workload as a whole.
    Workload,
    /// Its register.
    Register,
    /// A resource.
    Resource(ResourceName),
    /// A service, by name.
    Service(ServiceName),
    /// A check of the workload, by its description.
    Probe(String),
    /// A traffic record, by its description.
    Traffic(String),
    /// Somebody to tell, by description.
    Notifier(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Workload => f.write_str("workload"),
            Self::Register => f.write_str("register"),
            Self::Resource(name) => name.fmt(f),
            Self::Service(name) => name.fmt(f),
            Self::Probe(name) | Self::Traffic(name) | Self::Notifier(name) => f.pad(name),
        }
    }
}

impl Plan {
    /// Tells whether this is still what the hash is of: the plan that was shown, and maybe approved.
    #[must_use]
    pub fn has_its_hash(&self) -> bool {
        hash::of(self) == self.hash
    }

    /// Tells whether somebody who said yes to `shown` has said yes to this: the same things are done, and no more is lost than was
    /// shown or is accepted anyway. What a moment loses that was chosen grows with the time it took to say so; the moment is what was
    /// said yes to, and it is among what is done.
    #[must_use]
    pub fn is_as_shown(&self, shown: &Self) -> bool {
        let accepted = match (&shown.loss.estimate, &self.loss.estimate) {
            _ if self.loss.verdict == Verdict::Chosen => true,
            (Some(shown), Some(now)) => {
                now.delay_seconds <= shown.delay_seconds.max(self.loss.budget_seconds)
            }
            (Some(_), None) => false,
            (None, _) => true,
        };
        self.hash == shown.hash && accepted
    }

    /// Returns the step with this id.
    #[must_use]
    pub fn step(&self, id: &StepId) -> Option<&PlannedStep> {
        self.steps.iter().find(|step| &step.id == id)
    }
}

/// Tells how grave an undo class is, for choosing the gravest.
pub(crate) fn gravity(undo: &Undo) -> u8 {
    match undo {
        Undo::ReadOnly => 0,
        Undo::Reversible(_) => 1,
        Undo::Compensable(_) => 2,
        Undo::Irreversible(_) => 3,
    }
}
