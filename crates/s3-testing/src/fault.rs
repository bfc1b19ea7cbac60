//! What goes wrong, with which requests.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Operation;
use crate::mix::Mix;

/// What goes wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with a status and an error code, and nothing is done.
    Refuse {
        /// The HTTP status.
        status: u16,
        /// The code in the answer, such as `SlowDown`.
        code: &'static str,
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
    /// The connection ends before anything is done.
    ResetBefore,
    /// It is done, and the connection ends instead of the answer.
    ResetAfter,
    /// It is done, and half of the answer's body arrives before the connection ends.
    Truncate,
    /// It is done, and one bit in the middle of the answer's body is wrong.
    Corrupt,
    /// It is done after this time.
    Delay(Duration),
    /// Nothing is done, and nobody answers.
    Hang,
    /// A listing shows nothing of so many of the newest writes.
    Stale(u64),
}

impl Fault {
    /// Refuses with a status and a code.
    #[must_use]
    pub fn refuse(status: u16, code: &'static str) -> Self {
        Self::Refuse {
            status,
            code,
            retry_after: None,
        }
    }

    /// Refuses as a server does that is asked too much.
    #[must_use]
    pub fn slow_down() -> Self {
        Self::Refuse {
            status: 503,
            code: "SlowDown",
            retry_after: Some(1),
        }
    }
}

/// A fault for the requests that match.
#[derive(Clone, Debug)]
pub struct Rule {
    operation: Option<Operation>,
    key: String,
    fault: Fault,
    skip: u32,
    times: Option<u32>,
}

impl Rule {
    /// Makes a rule for one operation, on every key.
    #[must_use]
    pub fn on(operation: Operation, fault: Fault) -> Self {
        Self {
            operation: Some(operation),
            ..Self::all(fault)
        }
    }

    /// Makes a rule for all operations.
    #[must_use]
    pub fn all(fault: Fault) -> Self {
        Self {
            operation: None,
            key: String::new(),
            fault,
            skip: 0,
            times: None,
        }
    }

    /// Keeps the rule to keys that hold this text.
    #[must_use]
    pub fn key(mut self, part: impl Into<String>) -> Self {
        self.key = part.into();
        self
    }

    /// Lets the first requests that match pass.
    #[must_use]
    pub fn skip(mut self, requests: u32) -> Self {
        self.skip = requests;
        self
    }

    /// Ends the rule after so many faults.
    #[must_use]
    pub fn times(mut self, faults: u32) -> Self {
        self.times = Some(faults);
        self
    }

    fn claim(&mut self, operation: Operation, key: &str) -> bool {
        if self.operation.is_some_and(|wanted| wanted != operation) || !key.contains(&self.key) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        match &mut self.times {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

/// The rules of a server, and the faults that it draws.
#[derive(Debug)]
pub(crate) struct Faults(Mutex<Sources>);

#[derive(Debug)]
struct Sources {
    rules: Vec<Rule>,
    mix: Option<Mix>,
}

impl Faults {
    /// Makes faults without a rule; some are drawn if there is a seed.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(Mutex::new(Sources {
            rules: Vec::new(),
            mix: seed.map(Mix::new),
        }))
    }

    pub(crate) fn set(&self, rules: Vec<Rule>) {
        self.lock().rules = rules;
    }

    /// Returns the fault of the first rule that applies, or what is drawn.
    pub(crate) fn decide(&self, operation: Operation, key: &str) -> Option<Fault> {
        let mut sources = self.lock();
        let mut rules = sources.rules.iter_mut();
        let ruled = rules.find_map(|rule| rule.claim(operation, key).then(|| rule.fault.clone()));
        ruled.or_else(|| sources.mix.as_mut()?.draw(operation, key))
    }

    fn lock(&self) -> MutexGuard<'_, Sources> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
