//! What a look found.

use serde::Serialize;

use crate::output::{Style, Tone};

/// How grave it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    /// It is as it should be.
    Ok,
    /// It works, and somebody should look.
    Warning,
    /// It could not be seen.
    Unknown,
    /// It is not as it should be.
    Failed,
}

/// One look.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    /// What was looked at: `store of us-east-1`.
    pub(crate) subject: String,
    /// What was found.
    pub(crate) found: String,
    /// What to do, such as the statement to run.
    pub(crate) remedy: Option<String>,
}

impl Finding {
    pub(crate) fn new(level: Level, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            level,
            subject: subject.into(),
            found: found.into(),
            remedy: None,
        }
    }

    pub(crate) fn ok(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Level::Ok, subject, found)
    }

    /// Takes over an error: what does not answer is unknown, everything else has failed.
    pub(crate) fn error(subject: impl Into<String>, error: &dr_provider::Error) -> Self {
        let level = if error.is_permanent() {
            Level::Failed
        } else {
            Level::Unknown
        };
        let mut finding = Self::new(level, subject, dr_provider::error::chain(error));
        finding.remedy = error.hint().map(str::to_owned);
        finding
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub(crate) fn render(&self, style: Style) -> String {
        let (tone, word) = match self.level {
            Level::Ok => (Tone::Good, "ok     "),
            Level::Warning => (Tone::Warning, "warning"),
            Level::Unknown => (Tone::Bad, "unknown"),
            Level::Failed => (Tone::Bad, "FAILED "),
        };
        let mut text = format!(
            "{} {}: {}",
            style.paint(tone, word),
            self.subject,
            self.found
        );
        if let Some(remedy) = &self.remedy {
            text.push_str(&format!("\n          {remedy}"));
        }
        text
    }
}
