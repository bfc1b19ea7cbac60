//! Scripted faults.

use super::Fault;
use crate::decorate::Operation;

/// A fault for the calls that match.
#[derive(Clone, Debug)]
pub struct Rule {
    operation: Option<Operation>,
    pattern: String,
    fault: Fault,
    skip: u32,
    times: Option<u32>,
}

impl Rule {
    /// Makes a rule for one operation on keys (or prefixes of listings) that match a pattern: text
    /// in which each `*` stands for anything.
    pub fn on(operation: Operation, pattern: impl Into<String>, fault: Fault) -> Self {
        Self {
            operation: Some(operation),
            ..Self::all(pattern, fault)
        }
    }

    /// Makes a rule for all operations.
    pub fn all(pattern: impl Into<String>, fault: Fault) -> Self {
        Self {
            operation: None,
            pattern: pattern.into(),
            fault,
            skip: 0,
            times: None,
        }
    }

    /// Lets the first `calls` that match pass this rule by.
    #[must_use]
    pub fn skip(mut self, calls: u32) -> Self {
        self.skip = calls;
        self
    }

    /// Ends the rule after so many faults.
    #[must_use]
    pub fn times(mut self, faults: u32) -> Self {
        self.times = Some(faults);
        self
    }

    fn matches(&self, operation: Operation, subject: &str) -> bool {
        self.operation.is_none_or(|wanted| wanted == operation) && glob(&self.pattern, subject)
    }

    /// Counts a call that matches and says whether the fault applies to it.
    fn claim(&mut self) -> bool {
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

/// Returns the fault of the first rule that applies.
pub(super) fn decide(rules: &mut [Rule], operation: Operation, subject: &str) -> Option<Fault> {
    rules
        .iter_mut()
        .find_map(|rule| (rule.matches(operation, subject) && rule.claim()).then_some(rule.fault))
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            rest.is_empty()
                || (0..=text.len()).any(|at| text.get(at..).is_some_and(|text| glob(rest, text)))
        }),
    }
}
