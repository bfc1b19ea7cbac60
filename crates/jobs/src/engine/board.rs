//! What the daemon knows of itself, for `/health`, `/metrics` and `dr status`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dr_model::ResourceId;
use dr_provider::driver::Frontier;
use jiff::Timestamp;
use tokio::sync::watch;

/// How one task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It works, or rightly has nothing to do; what it did last.
    Good(String),
    /// Nothing has been heard of it yet; why.
    Unknown(String),
    /// It does not work; why.
    Bad(String),
}

/// Counts the runs of one schedule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Runs {
    /// Runs that did their work.
    pub succeeded: u64,
    /// Runs that failed.
    pub failed: u64,
    /// When the last success began; from the stores after a restart.
    pub last_success: Option<Timestamp>,
    /// What the last success said of itself, each by its name.
    pub figures: Vec<(&'static str, f64)>,
}

/// A board that every task writes its own line on.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    failures: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    conditions: BTreeMap<String, Condition>,
    frontiers: BTreeMap<ResourceId, watch::Receiver<Frontier>>,
    runs: BTreeMap<String, Runs>,
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a task's line.
    pub fn set(&self, task: &str, condition: Condition) {
        let mut state = self.state();
        if state.conditions.get(task) == Some(&condition) {
            return;
        }
        match &condition {
            Condition::Good(what) => tracing::info!(task, "{what}"),
            Condition::Unknown(why) => tracing::info!(task, "{why}"),
            Condition::Bad(why) => tracing::warn!(task, "{why}"),
        }
        state.conditions.insert(task.to_owned(), condition);
    }

    /// Writes that a job or a stream does not work any more. What rests on their work is to be looked at again: see
    /// [`Self::failures`].
    pub fn fail(&self, task: &str, why: String) {
        let failed = |condition: &Condition| matches!(condition, Condition::Bad(_));
        let before = self.state().conditions.get(task).is_some_and(failed);
        self.set(task, Condition::Bad(why));
        if !before {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts how often a job or a stream has ceased to work. One that fails again and again counts once.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Takes a task's line away: there is nothing to do for it here any more.
    pub fn remove(&self, task: &str) {
        self.state().conditions.remove(task);
    }

    /// Returns every task's line.
    #[must_use]
    pub fn conditions(&self) -> BTreeMap<String, Condition> {
        self.state().conditions.clone()
    }

    /// Shows the frontier of a resource's log.
    pub fn follow(&self, resource: ResourceId, frontier: watch::Receiver<Frontier>) {
        self.state().frontiers.insert(resource, frontier);
    }

    /// Returns the frontier of every log that is shipped here.
    #[must_use]
    pub fn frontiers(&self) -> BTreeMap<ResourceId, Frontier> {
        let state = self.state();
        state
            .frontiers
            .iter()
            .map(|(id, frontier)| (id.clone(), frontier.borrow().clone()))
            .collect()
    }

    /// Changes the counts of a schedule.
    pub fn count(&self, schedule: &str, change: impl FnOnce(&mut Runs)) {
        change(self.state().runs.entry(schedule.to_owned()).or_default());
    }

    /// Returns the counts of every schedule.
    #[must_use]
    pub fn runs(&self) -> BTreeMap<String, Runs> {
        self.state().runs.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_failing_counts_once_until_it_works_again() {
        let board = Board::default();
        board.fail("ship-wal", "no space left".to_owned());
        board.fail("ship-wal", "no space left on device".to_owned());
        board.set("readiness", Condition::Bad("not ready".to_owned()));
        assert_eq!(board.failures(), 1);
        board.fail("snapshot", "no space left".to_owned());
        assert_eq!(board.failures(), 2);
        board.set("ship-wal", Condition::Good("streaming".to_owned()));
        board.fail("ship-wal", "no space left".to_owned());
        assert_eq!(board.failures(), 3);
    }
}
