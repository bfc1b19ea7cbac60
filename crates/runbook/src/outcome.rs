//! What came of an execution: its state, the numbers, and what it leaves behind.

use std::collections::BTreeMap;

use dr_model::loss::{Bound, Estimate};
use dr_model::{
    ApproverName, Epoch, ExecutionId, Lsn, RegionName, ResourceName, StepId, TimelineId,
    WorkloadName,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::plan::Mode;
use crate::proof::ProofName;
use crate::request::Rung;
use crate::sight::Sight;

/// The state of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It waits for people to approve; nothing has been changed.
    AwaitingApproval,
    /// It runs, or whoever ran it died: then it is resumed.
    Running,
    /// It needs a human; it can be resumed.
    Stuck,
    /// A human stopped it between two actions; it can be resumed.
    Paused,
    /// Everything was done.
    Completed,
    /// Everything that counts was done; never reported as a pass (L17).
    CompletedWithExceptions,
    /// It ended before its epoch was opened: nothing was changed.
    Failed,
    /// A human ended it before its epoch was opened.
    Aborted,
    /// A newer epoch, or whoever took it over, has the say.
    Superseded,
}

impl State {
    /// Returns the word, as in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingApproval => "awaiting-approval",
            Self::Running => "running",
            Self::Stuck => "stuck",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::CompletedWithExceptions => "completed-with-exceptions",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Superseded => "superseded",
        }
    }

    /// Tells whether nothing more will happen.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(
            self,
            Self::AwaitingApproval | Self::Running | Self::Stuck | Self::Paused
        )
    }
}

/// The state of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// It has not begun.
    Pending,
    /// It has begun.
    Running,
    /// It is done.
    Done,
    /// It failed and the execution went on (`continue_on_error`).
    Excepted,
    /// A human decided that it is not done. Never a pass.
    Skipped,
    /// It failed.
    Failed,
}

/// Why an execution needs a human.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stuck {
    /// The step that it stands at.
    pub step: StepId,
    /// What happened there.
    pub why: String,
    /// What has been done so far and stays, one line each.
    pub residue: Vec<String>,
    /// What to do, one line each.
    pub remedy: Vec<String>,
}

/// What came of an execution; `dr failover --json` prints it as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The execution.
    pub execution: ExecutionId,
    /// How it took the region being left.
    #[serde(default, skip_serializing_if = "Mode::is_unplanned")]
    pub mode: Mode,
    /// Its state.
    pub state: State,
    /// Why, in one line, if it is not `completed`.
    pub reason: Option<String>,
    /// The workload.
    pub workload: WorkloadName,
    /// The region left.
    pub from: RegionName,
    /// The region moved to.
    pub to: RegionName,
    /// The epoch opened, or that it would have opened.
    pub epoch: Epoch,
    /// Whether the epoch rests on an override, because the register could not be read.
    pub unproven_epoch: bool,
    /// The lowest rung that any resource took.
    pub rung: Rung,
    /// The weakest proof over the resources.
    pub fence: ProofName,
    /// The reason of an override, if anything rests on one.
    pub override_reason: Option<String>,
    /// Who states that the old primary has stopped, and what was seen, if anybody does.
    #[serde(default)]
    pub witness: Option<String>,
    /// How clients are led where a name server would have refused the switch, if anybody has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients_by_hand: Option<String>,
    /// Where the log of the first resource was sealed; all are in `resources`.
    pub sealed: Option<SealedAt>,
    /// What is lost.
    pub loss: Loss,
    /// Who approved, if the workload asks for that and enough have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalReport>,
    /// By resource.
    pub resources: BTreeMap<ResourceName, ResourceReport>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended or got stuck; `None` while it runs.
    pub finished_at: Option<Timestamp>,
    /// Until clients were proven to be led to the new region: from the disruption if it was measured or stated, from the
    /// beginning of the execution otherwise. `None` if it did not come so far.
    pub rta_seconds: Option<f64>,
    /// What is left out of `rta_seconds`; empty if nothing is.
    pub rta_excludes: String,
    /// The part of `rta_seconds` until a daemon was sure of the disruption; `None` if none saw it.
    #[serde(default)]
    pub detection_seconds: Option<f64>,
    /// The part after that until the execution began; `None` if the disruption was neither measured nor stated.
    #[serde(default)]
    pub decision_seconds: Option<f64>,
    /// The part that the execution took; `None` if it did not come so far.
    #[serde(default)]
    pub execution_seconds: Option<f64>,
    /// How much of the time until it ended no action of a step was under way or waited for: what the engine itself took, most of it
    /// to write the journal. `None` if it was resumed, because nobody knows how long it lay.
    #[serde(default)]
    pub overhead_seconds: Option<f64>,
    /// From the newest heartbeat in the recovered copy, or the newest commit that it replayed if that is younger, to the disruption;
    /// the largest over the resources. `None` if it could not be measured, which is never a pass: without either, and where commits may be missing and nobody saw
    /// when the disruption began.
    pub rpa_seconds: Option<f64>,
    /// What it is at least, where nobody saw exactly when the disruption began: to the last contact, or to the last look that was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpa_at_least_seconds: Option<f64>,
    /// What it is at most then: the bound of the loss, or to the first look that was not answered. `None` if neither is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpa_at_most_seconds: Option<f64>,
    /// The error of `rpa_seconds`: the interval between heartbeats.
    pub rpa_interval_seconds: Option<f64>,
    /// Since when the workload has no proven protection in another region; `None` once it was re-armed.
    pub unprotected_since: Option<Timestamp>,
    /// What was seen before anything was done, from where, and what could not be; `None` if nobody has looked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sight: Option<Sight>,
    /// Why it needs a human, if it does.
    pub stuck: Option<Stuck>,
    /// The steps.
    pub steps: Vec<StepReport>,
}

/// Who approved an execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApprovalReport {
    /// How many had to.
    pub quorum: u32,
    /// Who asked.
    pub requested_by: ApproverName,
    /// Who approved.
    pub approved_by: Vec<ApproverName>,
    /// How long it was waited for them. A part of the time to recover (L33).
    pub waited_seconds: f64,
}

/// A position that was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedAt {
    /// The timeline.
    pub timeline: TimelineId,
    /// Its end.
    pub lsn: Lsn,
}

/// What is lost, as two numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// The shipping delay at last contact.
    pub estimate: Option<Estimate>,
    /// What cannot be exceeded, as known now.
    pub bound: Bound,
}

/// What came of one resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResourceReport {
    /// The rung that it took or was to take.
    pub rung: Rung,
    /// Every proof that there is that the old primary stopped, strongest first.
    pub proofs: Vec<ProofName>,
    /// What was seen of the old primary, if it was seen to be alive when it was last looked at and nothing has proven since that it
    /// stopped: whatever came up rests on an override then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_alive: Option<String>,
    /// Where its log was sealed.
    pub sealed: Option<SealedAt>,
    /// When the conditions of synchronous mode were last seen before the seal; `None` without them. What happened between
    /// that look and the seal was not seen.
    #[serde(default)]
    pub conditions_checked_at: Option<Timestamp>,
    /// What it lost.
    pub loss: Loss,
    /// Why it may have lost something although it was started again with its own files, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
    /// The timeline of the new primary.
    pub timeline: Option<TimelineId>,
    /// The newest heartbeat of the old primary found in the recovered copy.
    pub heartbeat: Option<Timestamp>,
    /// When the newest commit of the old primary was made that the recovered copy has replayed, by the clock of that; `None` if that is
    /// not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_commit: Option<Timestamp>,
    /// Its achieved recovery point, in seconds; `None` if it could not be measured.
    pub rpa_seconds: Option<f64>,
    /// What that is at least, where nobody saw exactly when the disruption began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpa_at_least_seconds: Option<f64>,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Its id.
    pub id: StepId,
    /// The step that it used: the fallback, if that was taken.
    pub uses: String,
    /// Its state.
    pub state: StepState,
    /// When it first began.
    pub started_at: Option<Timestamp>,
    /// How long it took since it was begun last: not how long an execution lay that was interrupted in it. `None` also if it was left
    /// out.
    pub took_seconds: Option<f64>,
    /// One line.
    pub summary: Option<String>,
}
