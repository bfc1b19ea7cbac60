//! Why a configuration is refused.

use std::fmt;

use dr_model::document::{Problem, Severity};

/// All problems of a configuration, in the order in which they stand in the files; at least one is an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        let errors = self
            .0
            .iter()
            .filter(|p| p.severity == Severity::Error)
            .count();
        match errors {
            1 => f.write_str("1 error in the configuration"),
            _ => write!(f, "{errors} errors in the configuration"),
        }
    }
}
