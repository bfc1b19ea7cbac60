//! Who did something: a person on a machine in a process.
//!
//! Written into every record, so that the loser of a race can be told who won it (L13).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A process that acts, and the person or account that it acts for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// Name of the account.
    pub user: String,
    /// Name of the machine.
    pub host: String,
    /// Number of the process there.
    pub process_id: u32,
}

impl Actor {
    /// Makes an actor from what the caller found out about itself.
    #[must_use]
    pub fn new(user: impl Into<String>, host: impl Into<String>, process_id: u32) -> Self {
        Self {
            user: user.into(),
            host: host.into(),
            process_id,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}@{} (process {})",
            self.user, self.host, self.process_id
        )
    }
}
