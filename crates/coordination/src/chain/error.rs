//! What can go wrong with a chain.

use dr_model::Lsn;
use dr_provider::ErrorKind;

use super::{ChainId, SealRecord};

/// A chain could not be written, sealed or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The chain has ended: whoever writes it stops for ever.
    #[error(
        "the log of {chain} was sealed at {} by {} for epoch {}",
        seal.lsn, seal.sealed_by, seal.successor
    )]
    Superseded {
        /// The chain.
        chain: ChainId,
        /// Its end.
        seal: Box<SealRecord>,
    },
    /// What is stored contradicts what was received, or itself. A human must look.
    #[error("`{}` in {location} is damaged: {why} (the log of {chain} at {at})", key_at(chain, *at))]
    Corrupt {
        /// The chain.
        chain: ChainId,
        /// The position.
        at: Lsn,
        /// The store.
        location: String,
        /// What is wrong.
        why: String,
    },
    /// A piece of log is not what was written. A human must look.
    #[error("{key} in {location} is damaged: {why}")]
    CorruptPiece {
        /// Its key.
        key: String,
        /// The store.
        location: String,
        /// What is wrong.
        why: String,
    },
    /// An object is encrypted with a key that is not at hand. Nothing is known to be wrong with it.
    #[error("{key} in {location} cannot be read: {why}")]
    Locked {
        /// Its key.
        key: String,
        /// The store.
        location: String,
        /// Which key is missing.
        why: String,
    },
    /// Log that was asked for is not there.
    #[error("the log of {subject} has a hole from {from} to {to} in {location}")]
    Hole {
        /// Cluster and timeline.
        subject: String,
        /// The first missing position.
        from: Lsn,
        /// Where the missing part ends: the next position that is there, or the end of what was asked for.
        to: Lsn,
        /// The store.
        location: String,
    },
    /// The store has not confirmed anything for so long that what is known of the tail may be out of date: open again.
    #[error("the tail of {chain} was not confirmed for too long and has to be read again")]
    Away {
        /// The chain.
        chain: ChainId,
    },
    /// A chunk does not continue the one before, or has no allowed length.
    #[error(
        "a chunk from {start} to {end} cannot follow the log of {chain}, which ends at {expected}"
    )]
    Misplaced {
        /// The chain.
        chain: ChainId,
        /// Start of the chunk.
        start: Lsn,
        /// End of the chunk.
        end: Lsn,
        /// Where it would have had to start.
        expected: Lsn,
    },
    /// Two different history files for one timeline.
    #[error("the history of {subject} in {location} differs from the one to be written")]
    HistoryDiffers {
        /// Cluster and timeline.
        subject: String,
        /// The store.
        location: String,
    },
    /// The store failed.
    #[error("cannot use the log of {subject}")]
    Store {
        /// Chain, or cluster and timeline.
        subject: String,
        /// What the store said.
        #[source]
        source: Box<dr_provider::Error>,
    },
}

/// Returns the key of what stands at a position of a chain; at none, that is where it says where it begins.
fn key_at(chain: &ChainId, at: Lsn) -> dr_provider::Key {
    if at == Lsn::INVALID {
        chain.origin_key()
    } else {
        chain.link_key(at)
    }
}

impl Error {
    /// Returns the kind that decides what may be done next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Superseded { .. } => ErrorKind::Superseded,
            Self::Corrupt { .. } | Self::CorruptPiece { .. } | Self::HistoryDiffers { .. } => {
                ErrorKind::Corrupt
            }
            Self::Locked { .. } => ErrorKind::Denied,
            Self::Hole { .. } => ErrorKind::NotFound,
            Self::Away { .. } => ErrorKind::Unavailable,
            Self::Misplaced { .. } => ErrorKind::Invalid,
            Self::Store { source, .. } => source.kind(),
        }
    }

    pub(crate) fn store(subject: impl std::fmt::Display, source: dr_provider::Error) -> Self {
        Self::Store {
            subject: subject.to_string(),
            source: Box::new(source),
        }
    }
}

impl From<Error> for dr_provider::Error {
    fn from(error: Error) -> Self {
        let subject = match &error {
            Error::Superseded { chain, .. }
            | Error::Corrupt { chain, .. }
            | Error::Away { chain }
            | Error::Misplaced { chain, .. } => chain.to_string(),
            Error::CorruptPiece { key, .. } | Error::Locked { key, .. } => key.clone(),
            Error::Hole { subject, .. }
            | Error::HistoryDiffers { subject, .. }
            | Error::Store { subject, .. } => subject.clone(),
        };
        let hint = match &error {
            Error::Store { source, .. } => source.hint().map(str::to_owned),
            Error::Locked { .. } => {
                Some("name the file of that key under `encryption` in `dr.yaml`".to_owned())
            }
            _ => None,
        };
        let made = Self::new(error.kind(), "use the log of", subject).because(error);
        match hint {
            Some(hint) => made.with_hint(hint),
            None => made,
        }
    }
}
