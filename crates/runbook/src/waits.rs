//! What an action waits for, for whoever watches: a step that stands still says why.

use std::sync::{Arc, Mutex, PoisonError};

/// Holds what an action that is under way saw last of what it waits for. Its clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Waits(Arc<Mutex<Option<String>>>);

impl Waits {
    /// Says what was seen.
    pub(crate) fn saw(&self, what: &str) {
        *self.lock() = Some(what.to_owned());
    }

    /// Returns what was seen last.
    pub(crate) fn last(&self) -> Option<String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
