//! Waiting for a condition, never for time to pass.
//!
//! ```text
//! let mut deadline = Deadline::new(clock, limit);
//! loop {
//!     if condition { break … }
//!     if !deadline.pause().await { return Err(…) }
//! }
//! ```

use std::time::Duration;

use dr_model::Clock;

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// How long a condition may take to come true.
pub(crate) struct Deadline<'a> {
    clock: &'a dyn Clock,
    ends: Duration,
}

/// How long what goes on may stand still.
pub(crate) struct Standstill<'a, T> {
    deadline: Deadline<'a>,
    limit: Duration,
    furthest: Option<T>,
}

impl<'a, T: PartialOrd> Standstill<'a, T> {
    /// Starts now; ends when nothing has got any further for `limit`.
    pub(crate) fn new(clock: &'a dyn Clock, limit: Duration) -> Self {
        Self {
            deadline: Deadline::new(clock, limit),
            limit,
            furthest: None,
        }
    }

    /// Waits until it is time to look again; `false`, at once, if it stands still. `at` is how far it is, if that can be told.
    pub(crate) async fn pause(&mut self, at: Option<T>) -> bool {
        if at > self.furthest {
            self.furthest = at;
            self.deadline.extend(self.limit);
        }
        self.deadline.pause().await
    }
}

impl<'a> Deadline<'a> {
    /// Starts now and ends after `limit`.
    pub(crate) fn new(clock: &'a dyn Clock, limit: Duration) -> Self {
        Self {
            clock,
            ends: clock.elapsed().saturating_add(limit),
        }
    }

    /// Starts anew: there was progress.
    fn extend(&mut self, limit: Duration) {
        self.ends = self.clock.elapsed().saturating_add(limit);
    }

    /// Waits until it is time to look again; `false`, at once, if the time is up.
    pub(crate) async fn pause(&self) -> bool {
        self.pause_for(INTERVAL).await
    }

    /// The same for what is not to be tried as often as one looks.
    pub(crate) async fn pause_for(&self, interval: Duration) -> bool {
        if self.clock.elapsed() >= self.ends {
            return false;
        }
        tokio::time::sleep(interval).await;
        true
    }
}
