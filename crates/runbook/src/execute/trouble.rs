//! Why something was not done, and what to do about it where that is known: kept apart, so that whoever is called at night reads what
//! to do where she looks for it, and not at the end of a sentence.

use std::fmt;

use dr_provider::Error;

use crate::redact::Redactor;

/// Why something was not done or cannot be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) why: String,
    /// What to do, if anybody knows.
    pub(super) remedy: Option<String>,
}

impl Trouble {
    /// Takes an error with its causes and its hint, without secrets.
    pub(super) fn of(error: &Error, redactor: &Redactor) -> Self {
        Self {
            why: redactor.text(&dr_provider::error::chain(error)),
            remedy: error.hint().map(|hint| redactor.text(hint)),
        }
    }

    /// Says more of why, and keeps what to do unless something better is known.
    pub(super) fn and(self, more: &str, remedy: Option<String>) -> Self {
        Self {
            why: format!("{}; {more}", self.why),
            remedy: remedy.or(self.remedy),
        }
    }
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self { why, remedy: None }
    }
}

/// In one line, as records and reports of steps hold it.
impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        match &self.remedy {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}
