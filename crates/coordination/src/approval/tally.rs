//! What counts, and why the rest does not. Pure.

use dr_model::{ApprovalPolicy, Approver, ApproverKey, ApproverName, ExecutionId};
use jiff::Timestamp;

use super::{Approval, Found};

/// What is to be approved.
#[derive(Clone, Debug)]
pub struct Request {
    /// The execution that waits.
    pub execution: ExecutionId,
    /// The hash of its plan.
    pub plan: String,
    /// The largest estimated loss that the plan accepts.
    pub accepted_loss_milliseconds: u64,
    /// Who asked for it.
    pub requested_by: ApproverName,
    /// When, by the clock of whoever asked.
    pub requested_at: Timestamp,
    /// Who has to agree, as the plan says.
    pub policy: ApprovalPolicy,
}

/// Why an approval does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody of that name may approve.
    #[error("`{0}` is not among those who may approve")]
    NotAnApprover(String),
    /// Nobody with that key may approve.
    #[error("the key {0} is not of anybody who may approve")]
    NotAKey(ApproverKey),
    /// It is by whoever asked.
    #[error("`{0}` asked for it, and nobody approves what they asked for")]
    Requester(ApproverName),
    /// The request has expired, and every approval of it.
    #[error("the request expired at {0:.0}, and every approval of it")]
    Expired(Timestamp),
    /// It is of another execution.
    #[error("it approves execution {0}")]
    OtherExecution(ExecutionId),
    /// It is of another plan, or of the same one with another loss.
    #[error("it approves plan {plan:.16} with a loss of up to {loss} ms, not this one")]
    OtherPlan {
        /// The hash of the plan that it approves.
        plan: String,
        /// The loss that it accepts, in milliseconds.
        loss: u64,
    },
    /// It says that it is somebody else's than its place does.
    #[error("it lies where the approval of `{0}` does and says that it is another's")]
    OtherApprover(String),
    /// It was not signed with the approver's key, or was changed since.
    #[error("its signature is not that of `{0}`")]
    Signature(ApproverName),
    /// It is no approval.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

/// An approval that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Whose it is.
    pub approver: ApproverName,
    /// When it was given.
    pub approved_at: Timestamp,
}

/// What there is of approvals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Those that count, each approver once.
    pub counted: Vec<Counted>,
    /// Those that do not: whose they should be, and why not.
    pub refused: Vec<(String, Refused)>,
}

impl Request {
    /// Returns when the request ends, and with it every approval.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        let length = jiff::SignedDuration::try_from(self.policy.expires);
        let end = length
            .ok()
            .and_then(|l| self.requested_at.checked_add(l).ok());
        end.unwrap_or(Timestamp::MAX)
    }

    /// Tells whether the request has ended.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at()
    }

    /// Returns who may approve with this key, now.
    pub fn approver(&self, key: &ApproverKey, now: Timestamp) -> Result<&Approver, Refused> {
        let mut all = self.policy.approvers.iter();
        let known = all.find(|approver| approver.key == *key);
        self.admit(known.ok_or(Refused::NotAKey(*key))?, now)
    }

    fn admit<'a>(&self, approver: &'a Approver, now: Timestamp) -> Result<&'a Approver, Refused> {
        if approver.name == self.requested_by {
            return Err(Refused::Requester(approver.name.clone()));
        }
        if self.is_expired(now) {
            return Err(Refused::Expired(self.expires_at()));
        }
        Ok(approver)
    }

    fn judge(&self, found: &Found, now: Timestamp) -> Result<Counted, Refused> {
        let approval = found.approval.as_ref();
        let approval: &Approval = approval.map_err(|why| Refused::Unreadable(why.clone()))?;
        if approval.approver.as_str() != found.name {
            return Err(Refused::OtherApprover(found.name.clone()));
        }
        let mut all = self.policy.approvers.iter();
        let approver = all.find(|approver| approver.name == approval.approver);
        let approver = approver.ok_or_else(|| Refused::NotAnApprover(found.name.clone()))?;
        if !approval.is_signed_by(&approver.key) {
            return Err(Refused::Signature(approver.name.clone()));
        }
        if approval.execution != self.execution {
            return Err(Refused::OtherExecution(approval.execution.clone()));
        }
        let loss = approval.accepted_loss_milliseconds;
        if approval.plan != self.plan || loss != self.accepted_loss_milliseconds {
            let plan = approval.plan.clone();
            return Err(Refused::OtherPlan { plan, loss });
        }
        self.admit(approver, now)?;
        if approval.approved_at >= self.expires_at() {
            return Err(Refused::Expired(self.expires_at()));
        }
        Ok(Counted {
            approver: approver.name.clone(),
            approved_at: approval.approved_at,
        })
    }
}

/// Counts the approvals of a request.
#[must_use]
pub fn tally(request: &Request, found: &[Found], now: Timestamp) -> Tally {
    let mut tally = Tally {
        counted: Vec::new(),
        refused: Vec::new(),
    };
    for one in found {
        match request.judge(one, now) {
            Ok(counted) => tally.counted.push(counted),
            Err(why) => tally.refused.push((one.name.clone(), why)),
        }
    }
    tally
}
