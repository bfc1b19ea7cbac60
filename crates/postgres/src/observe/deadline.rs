//! Until when the parts of one look may take.
//!
//! The parts are independent: what a store, a server or a host did not say in time hides nothing of what the others said.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dr_model::Clock;
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind, Result};
use tokio::time::timeout;

/// The end of a look, and which parts of it came too late.
pub(super) struct Deadline<'a> {
    clock: &'a dyn Clock,
    limit: Duration,
    at: Duration,
    late: Mutex<Vec<String>>,
}

impl<'a> Deadline<'a> {
    /// Begins now.
    pub(super) fn new(clock: &'a dyn Clock, limit: Duration) -> Self {
        Self {
            clock,
            limit,
            at: clock.elapsed().saturating_add(limit),
            late: Mutex::default(),
        }
    }

    /// Returns what a part of the look came to; the error says which, and how long it had.
    pub(super) async fn of<T>(
        &self,
        part: &str,
        look: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let left = self.at.saturating_sub(self.clock.elapsed());
        timeout(left, look).await.unwrap_or_else(|_| {
            let why = format!("no answer within {} s", self.limit.as_secs_f64());
            Err(Error::new(ErrorKind::Unknown, "look at", part).because(why))
        })
    }

    /// Does the same for a part that says whose the instance is and whether it runs, and notes if it came too late: another look may see
    /// what this one did not.
    pub(super) async fn of_proof<T>(
        &self,
        part: &str,
        look: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let seen = self.of(part, look).await;
        if let Err(error) = &seen
            && error.kind() == ErrorKind::Unknown
        {
            let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            late.push(chain(error));
        }
        seen
    }

    /// Returns the parts that proofs rest on and that came too late.
    pub(super) fn late(self) -> Vec<String> {
        self.late
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
