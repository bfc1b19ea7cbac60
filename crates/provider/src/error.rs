//! The one error of everything behind a seam.

use std::fmt;
use std::time::Duration;

/// The result of an operation behind a seam.
pub type Result<T> = std::result::Result<T, Error>;

/// Says what kind of failure it was, which decides what may be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The subject is proven not to exist. A store says so only while its identity object is readable (PROTOCOL 4).
    NotFound,
    /// A create-only write found the subject there already (HTTP 412, `EEXIST`).
    AlreadyExists,
    /// A precondition on the subject's previous value did not hold.
    Conflict,
    /// A higher epoch has been seen, or the subject is sealed: whoever asks is superseded.
    Superseded,
    /// The other side cannot be reached or cannot answer now. Nothing was changed.
    Unavailable,
    /// No answer came in time, or the answer was lost: **it is unknown whether the change was made**.
    Unknown,
    /// The credentials are wrong or lack a privilege.
    Denied,
    /// There is no room left.
    Full,
    /// What was read is not what was written.
    Corrupt,
    /// The request or the configuration behind it is wrong.
    Invalid,
    /// The other side cannot do this.
    Unsupported,
    /// The work was called off by ourselves.
    Cancelled,
    /// It was tried and definitely not done, for another reason.
    Failed,
}

impl ErrorKind {
    /// Returns the kind as one lower-case word, for logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::Conflict => "conflict",
            Self::Superseded => "superseded",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Denied => "denied",
            Self::Full => "full",
            Self::Corrupt => "corrupt",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// An operation behind a seam that did not succeed: what was tried, on what, and why.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    operation: String,
    subject: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    hint: Option<String>,
    retry_after: Option<Duration>,
    is_answer: bool,
}

impl Error {
    /// Makes an error: `operation` is a verb phrase ("create object"), `subject` names what it was done to.
    #[must_use]
    pub fn new(kind: ErrorKind, operation: impl Into<String>, subject: impl Into<String>) -> Self {
        Self {
            kind,
            operation: operation.into(),
            subject: subject.into(),
            source: None,
            hint: None,
            retry_after: None,
            is_answer: false,
        }
    }

    /// Adds the cause, an error or a sentence fragment.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what the operator can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds how long the other side asked to be left alone.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Says that the other side has answered, as one does that serves: it is there, whatever is wrong.
    #[must_use]
    pub fn answered(mut self) -> Self {
        self.is_answer = true;
        self
    }

    /// Tells whether the other side is known to have answered. Otherwise it may be silent, or nothing was asked of it: a secret of ours could
    /// not be read, for example.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        self.is_answer
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns what was tried.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// Returns what it was tried on.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns what the operator can do about it, if that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns how long the other side asked to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Tells whether trying again without changing anything is pointless.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        !matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Unknown)
    }

    /// Tells whether it is certain that nothing was changed. Only then may a fallback run (PROTOCOL 9).
    #[must_use]
    pub fn is_definite(&self) -> bool {
        !matches!(self.kind, ErrorKind::Unknown | ErrorKind::Cancelled)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} `{}`", self.operation, self.subject)?;
        let said = match self.kind {
            ErrorKind::NotFound => "it does not exist",
            ErrorKind::AlreadyExists => "it exists already",
            ErrorKind::Conflict => "what is there does not allow it",
            ErrorKind::Superseded => "superseded by a newer epoch",
            ErrorKind::Unavailable => "not reachable",
            ErrorKind::Unknown => "no answer, so it is unknown whether it was done",
            ErrorKind::Denied => "permission denied",
            ErrorKind::Full => "no space left",
            ErrorKind::Corrupt => "the content is damaged",
            ErrorKind::Unsupported => "not supported",
            ErrorKind::Cancelled => "called off",
            ErrorKind::Invalid | ErrorKind::Failed => return Ok(()),
        };
        write!(f, ": {said}")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Writes an error and its causes on one line, for logs, journals and evidence.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
