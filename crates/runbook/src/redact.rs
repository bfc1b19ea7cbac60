//! Keeps secrets out of the journal.
//!
//! Nobody below should let one slip into a message, and somebody will. A plan that holds one is refused, because it is
//! a mistake of a driver that would otherwise be written down for ever; in what comes back from an action, whose text
//! may be another program's, it is replaced.

use dr_provider::Secret;
use dr_provider::driver::Applied;
use serde_json::Value;

use crate::record::Outcome;

/// Shorter values are no secrets, and replacing them would make texts unreadable.
const MIN_LENGTH: usize = 4;

/// Replaces secrets in texts.
#[derive(Debug)]
pub(crate) struct Redactor {
    secrets: Vec<Secret>,
}

impl Redactor {
    pub(crate) fn new(secrets: &[Secret]) -> Self {
        let long = |secret: &&Secret| secret.expose().len() >= MIN_LENGTH;
        Self {
            secrets: secrets.iter().filter(long).cloned().collect(),
        }
    }

    /// Tells whether any text in `value` holds a secret.
    pub(crate) fn finds_in(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.secrets.iter().any(|s| text.contains(s.expose())),
            Value::Array(values) => values.iter().any(|value| self.finds_in(value)),
            Value::Object(fields) => fields.values().any(|value| self.finds_in(value)),
            _ => false,
        }
    }

    /// Returns the text without secrets.
    pub(crate) fn text(&self, text: &str) -> String {
        let replace = |text: String, secret: &Secret| text.replace(secret.expose(), "***");
        self.secrets.iter().fold(text.to_owned(), replace)
    }

    fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(values) => values.into_iter().map(|value| self.value(value)).collect(),
            Value::Object(fields) => fields
                .into_iter()
                .map(|(key, value)| (key, self.value(value)))
                .collect(),
            scalar => scalar,
        }
    }

    /// Returns the outcome without secrets.
    pub(crate) fn outcome(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Done { applied, observed } => Outcome::Done {
                applied: Applied {
                    summary: self.text(&applied.summary),
                    evidence: self.value(applied.evidence),
                    at: applied.at,
                },
                observed,
            },
            Outcome::NotDone { why } => Outcome::NotDone {
                why: self.text(&why),
            },
            Outcome::Unknown { why } => Outcome::Unknown {
                why: self.text(&why),
            },
        }
    }
}
