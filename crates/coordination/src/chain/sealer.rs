//! The sealer of a chain: the state machine.
//!
//! Tries to create the seal at the tail's key. If that key is taken, whatever stands there decides: a chunk moves the tail
//! to its end, a seal of the same successor is ours, a seal of another means that we are superseded. The loop ends because
//! each round moves on, and a writer that is faster for ever is a primary that must be fenced by other means.

use dr_model::Lsn;

use super::link::{Link, Reply};
use super::{ChunkHeader, SealRecord};
use crate::mutation::{Mutation, Rules};

/// What the sealer wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Task {
    /// Create this seal at its key.
    Create(Box<SealRecord>),
    /// Read what stands at this key.
    Read(Lsn),
}

/// How sealing ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// The chain ends with this seal, which is for our successor.
    Sealed(Box<SealRecord>),
    /// The chain ends with a seal for another successor.
    Superseded(Box<SealRecord>),
    /// What stands at the tail's key is not a link.
    Damaged {
        /// Where.
        at: Lsn,
        /// What is wrong.
        why: String,
    },
}

/// The state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sealer {
    seal: Box<SealRecord>,
    reading: bool,
    last: Option<ChunkHeader>,
    rules: Rules,
}

impl Sealer {
    /// Starts with a seal whose position is known to be on the chain; `last` is the chunk that ends there, if known.
    pub(crate) fn new(seal: SealRecord, last: Option<ChunkHeader>) -> Self {
        Self {
            seal: Box::new(seal),
            reading: false,
            last,
            rules: Rules::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Returns the last chunk that was met.
    pub(crate) fn last(&self) -> Option<&ChunkHeader> {
        self.last.as_ref()
    }

    /// Returns what is to be done next.
    pub(crate) fn next(&self) -> Task {
        if self.reading {
            Task::Read(self.seal.lsn)
        } else {
            Task::Create(self.seal.clone())
        }
    }

    /// Takes the answer. An operation that failed is asked for again.
    pub(crate) fn feed(&mut self, reply: Reply<ChunkHeader>) -> Option<End> {
        match reply {
            Reply::Created => return Some(End::Sealed(self.seal.clone())),
            Reply::Exists if self.rules.break_by(Mutation::SealTrustsTakenKey) => {
                return Some(End::Sealed(self.seal.clone()));
            }
            Reply::Exists => self.reading = true,
            Reply::Found(Link::Chunk(header)) => {
                self.seal.lsn = header.end;
                self.last = Some(header);
                self.reading = false;
            }
            Reply::Found(Link::Seal(seal)) if seal.successor == self.seal.successor => {
                return Some(End::Sealed(seal));
            }
            Reply::Found(Link::Seal(seal)) => return Some(End::Superseded(seal)),
            Reply::Missing => self.reading = false,
            Reply::Damaged(why) => {
                return Some(End::Damaged {
                    at: self.seal.lsn,
                    why,
                });
            }
            Reply::Failed => {}
        }
        None
    }
}
