//! What is wrong with a document, told so that it can be put right.

use std::fmt;

use super::Span;

/// Whether a problem stops the document from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The document is refused.
    Error,
    /// The document is used; somebody should look.
    Warning,
}

/// One problem of a document.
///
/// `Display` prints `dr.yaml:12:5: error: …` and, on lines of their own, what was expected and a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether the document is refused.
    pub severity: Severity,
    /// Where it stands; `None` if it belongs to no place, such as a file that is missing.
    pub span: Option<Span>,
    /// The way to it through the document, such as `workloads.orders.home`; empty at the top.
    pub path: String,
    /// What is wrong: a lowercase fragment.
    pub what: String,
    /// What should stand there.
    pub expected: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl Problem {
    /// Makes an error at a place.
    #[must_use]
    pub fn error(span: &Span, what: impl Into<String>) -> Self {
        Self::new(Severity::Error, Some(span.clone()), what.into())
    }

    /// Makes a warning at a place.
    #[must_use]
    pub fn warning(span: &Span, what: impl Into<String>) -> Self {
        Self::new(Severity::Warning, Some(span.clone()), what.into())
    }

    /// Makes an error that belongs to no place.
    #[must_use]
    pub fn nowhere(what: impl Into<String>) -> Self {
        Self::new(Severity::Error, None, what.into())
    }

    fn new(severity: Severity, span: Option<Span>, what: String) -> Self {
        Self {
            severity,
            span,
            path: String::new(),
            what,
            expected: None,
            hint: None,
        }
    }

    /// Adds what should stand there.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds "did you mean" if `word` is close to one of `known`.
    #[must_use]
    pub fn suggest<S: AsRef<str>>(self, word: &str, known: impl IntoIterator<Item = S>) -> Self {
        match super::closest(word, known) {
            Some(near) => self.hint(format!("did you mean `{near}`?")),
            None => self,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(span) = &self.span {
            write!(f, "{span}: ")?;
        }
        f.write_str(match self.severity {
            Severity::Error => "error: ",
            Severity::Warning => "warning: ",
        })?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)?;
        if let Some(expected) = &self.expected {
            write!(f, "\n  expected: {expected}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}
