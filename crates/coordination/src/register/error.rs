//! What can go wrong with a register.

use dr_model::{Epoch, RegionName, WorkloadName};
use dr_provider::ErrorKind;

use super::EpochRecord;

/// A register could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has created the epoch.
    #[error(
        "epoch {} of `{}` was opened by {} at {:.0}: {} (primary `{}`)",
        winner.epoch, winner.workload, winner.created_by, winner.created_at, winner.reason, winner.primary
    )]
    Lost {
        /// The record that won.
        winner: Box<EpochRecord>,
    },
    /// The store that could prove which record is the newest does not answer.
    #[error(
        "cannot tell who is primary of `{workload}`: the register is in `{region}`, whose store does not answer for epoch {epoch}"
    )]
    Unreachable {
        /// The workload.
        workload: WorkloadName,
        /// The region that holds the register.
        region: RegionName,
        /// The first record that could be neither read nor proven missing.
        epoch: Epoch,
        /// What the store said; `None` if the region has no store configured.
        #[source]
        source: Option<Box<dr_provider::Error>>,
    },
    /// A record is there and cannot be what it should be.
    #[error("the register of `{workload}` is damaged at epoch {epoch} in `{region}`: {why}")]
    Damaged {
        /// The workload.
        workload: WorkloadName,
        /// Where the record was read, or should have been.
        region: RegionName,
        /// The record.
        epoch: Epoch,
        /// What is wrong with it.
        why: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The record may not be written as it is.
    #[error("epoch {epoch} of `{workload}` cannot be opened: {why}")]
    Invalid {
        /// The workload.
        workload: WorkloadName,
        /// The epoch that was to be opened.
        epoch: Epoch,
        /// Which rule it breaks.
        why: String,
    },
    /// A store failed while a record was written or copied.
    #[error("cannot write epoch {epoch} of `{workload}` in `{region}`")]
    Write {
        /// The workload.
        workload: WorkloadName,
        /// The region whose store failed.
        region: RegionName,
        /// The record.
        epoch: Epoch,
        /// What the store said. If it is not definite, the record may have been written: read the register.
        #[source]
        source: Box<dr_provider::Error>,
    },
}

impl Error {
    /// Returns the kind that decides what may be done next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Lost { .. } => ErrorKind::Superseded,
            Self::Unreachable { .. } => ErrorKind::Unavailable,
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Write { source, .. } => source.kind(),
        }
    }

    /// Returns what to do about it, if that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Damaged { hint, .. } => hint.as_deref(),
            Self::Unreachable { source, .. } => source.as_deref()?.hint(),
            Self::Write { source, .. } => source.hint(),
            Self::Lost { .. } | Self::Invalid { .. } => None,
        }
    }
}

impl From<Error> for dr_provider::Error {
    fn from(error: Error) -> Self {
        let hint = error.hint().map(str::to_owned);
        let workload = match &error {
            Error::Lost { winner } => winner.workload.to_string(),
            Error::Unreachable { workload, .. }
            | Error::Damaged { workload, .. }
            | Error::Invalid { workload, .. }
            | Error::Write { workload, .. } => workload.to_string(),
        };
        let made = Self::new(error.kind(), "use the register of", workload).because(error);
        match hint {
            Some(hint) => made.with_hint(hint),
            None => made,
        }
    }
}
