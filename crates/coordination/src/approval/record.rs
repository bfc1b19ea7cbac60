//! An approval as it is stored.

use bytes::Bytes;
use dr_model::{ApproverKey, ApproverName, ExecutionId};
use dr_provider::store::record;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::key::{SigningKey, is_signed};
use crate::versioned;

/// The version of the format that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// One person's yes to one plan of one execution: written once, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// The execution.
    pub execution: ExecutionId,
    /// The hash of its plan.
    pub plan: String,
    /// The largest estimated loss that the plan accepts, which its hash says nothing of.
    pub accepted_loss_milliseconds: u64,
    /// Who approves.
    pub approver: ApproverName,
    /// When, by the approver's clock.
    pub approved_at: Timestamp,
    /// The Ed25519 signature of all that, in hexadecimal.
    pub signature: String,
}

impl Approval {
    /// Signs an approval.
    #[must_use]
    pub fn sign(
        key: &SigningKey,
        execution: ExecutionId,
        plan: String,
        accepted_loss_milliseconds: u64,
        approver: ApproverName,
        approved_at: Timestamp,
    ) -> Self {
        let mut approval = Self {
            version: FORMAT_VERSION,
            execution,
            plan,
            accepted_loss_milliseconds,
            approver,
            approved_at,
            signature: String::new(),
        };
        approval.signature = key.sign(&approval.message());
        approval
    }

    /// Tells whether the holder of `key` has signed exactly this.
    #[must_use]
    pub fn is_signed_by(&self, key: &ApproverKey) -> bool {
        is_signed(key, &self.message(), &self.signature)
    }

    /// Returns what is signed: lines of text, so that any program can check a signature.
    fn message(&self) -> Vec<u8> {
        format!(
            "dr approval 1\nexecution {}\nplan {}\naccepted loss {} ms\napprover {}\nat {}\n",
            self.execution,
            self.plan,
            self.accepted_loss_milliseconds,
            self.approver,
            self.approved_at
        )
        .into_bytes()
    }

    /// Returns the bytes that are stored.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        record::encode(self)
    }

    /// Reads a stored approval; the error says what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        Ok(versioned::decode(bytes, FORMAT_VERSION)?)
    }
}
