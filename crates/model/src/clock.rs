//! Where time comes from.
//!
//! Wall-clock time is for people and for comparison with what others wrote down; durations within a process come from
//! the monotonic clock (L32). The two are never mixed, and no decision compares the clocks of two machines.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// A source of time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Returns the wall-clock time.
    fn now(&self) -> Timestamp;

    /// Returns the time since an arbitrary fixed moment, which never goes back.
    fn elapsed(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// Makes a clock whose monotonic time starts now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that asks the machine"
    )]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that asks the machine"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// A clock that stands still until it is moved, for tests.
#[derive(Clone, Debug)]
pub struct ManualClock {
    state: Arc<Mutex<(Timestamp, Duration)>>,
}

impl ManualClock {
    /// Makes a clock that shows `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            state: Arc::new(Mutex::new((now, Duration::ZERO))),
        }
    }

    /// Moves both clocks on by `step`.
    ///
    /// # Panics
    ///
    /// If the wall clock would leave the range of years that timestamps can hold.
    pub fn advance(&self, step: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let step_signed = jiff::SignedDuration::try_from(step).expect("a test's step is short");
        state.0 = state
            .0
            .checked_add(step_signed)
            .expect("a test's time stays in range");
        state.1 += step;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn elapsed(&self) -> Duration {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}
