//! What can go wrong with a journal.

use dr_model::ExecutionId;
use dr_provider::ErrorKind;
use jiff::Timestamp;

use crate::Actor;

/// A journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has written the next entry: whoever gets this stops at once.
    #[error("execution `{execution}` was taken over by {by} at {at:.0}")]
    TakenOver {
        /// The execution.
        execution: ExecutionId,
        /// Who runs it now.
        by: Box<Actor>,
        /// Since when, by that actor's clock.
        at: Timestamp,
    },
    /// There is no such execution in this store.
    #[error("execution `{execution}` is not in {location}")]
    NotFound {
        /// The execution.
        execution: ExecutionId,
        /// The store.
        location: String,
    },
    /// An entry is there and cannot be what it should be, or cannot be written as JSON.
    #[error("entry {sequence} of execution `{execution}` is damaged: {why}")]
    Damaged {
        /// The execution.
        execution: ExecutionId,
        /// The entry.
        sequence: u64,
        /// What is wrong.
        why: String,
    },
    /// The store failed.
    #[error("cannot use entry {sequence} of execution `{execution}`")]
    Store {
        /// The execution.
        execution: ExecutionId,
        /// The entry.
        sequence: u64,
        /// What the store said. If it is not definite, the entry may have been written; appending it again resolves that.
        #[source]
        source: Box<dr_provider::Error>,
    },
}

impl Error {
    /// Returns the kind that decides what may be done next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TakenOver { .. } => ErrorKind::Superseded,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Store { source, .. } => source.kind(),
        }
    }
}

impl From<Error> for dr_provider::Error {
    fn from(error: Error) -> Self {
        let execution = match &error {
            Error::TakenOver { execution, .. }
            | Error::NotFound { execution, .. }
            | Error::Damaged { execution, .. }
            | Error::Store { execution, .. } => execution.to_string(),
        };
        Self::new(error.kind(), "use the journal of", execution).because(error)
    }
}
