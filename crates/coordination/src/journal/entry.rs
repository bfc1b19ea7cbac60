//! An entry of a journal.

use bytes::Bytes;
use dr_model::ExecutionId;
use dr_provider::Key;
use dr_provider::store::record;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Actor;
use crate::operation::key;

/// The version of the entry's format that this code writes: a record with its hash. It reads version 2 too, which has none, and version
/// 1, whose entries do not name the one before them either.
pub const FORMAT_VERSION: u32 = 3;

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "content")]
pub enum Body<T> {
    /// What the execution notes: an intent, an outcome.
    Record(T),
    /// From here on the entry's actor runs the execution; all others stop.
    Takeover {
        /// Why it was taken over.
        reason: String,
    },
}

/// One entry: written once, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<T> {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// Its number: dense, from 1.
    pub sequence: u64,
    /// When it was written, by its writer's clock.
    pub at: Timestamp,
    /// BLAKE3 of the entry before it as it is stored, in hexadecimal; none in the first, and in version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// Who wrote it.
    pub actor: Actor,
    /// What it says.
    pub body: Body<T>,
}

impl<T> Entry<T> {
    /// Returns the key of entry `sequence` of an execution.
    #[must_use]
    pub fn key(execution: &ExecutionId, sequence: u64) -> Key {
        key(format!("execution/{execution}/{sequence:06}"))
    }

    /// Returns what the execution noted; `None` for a takeover.
    pub fn record(&self) -> Option<&T> {
        match &self.body {
            Body::Record(record) => Some(record),
            Body::Takeover { .. } => None,
        }
    }
}

impl<T: Serialize> Entry<T> {
    /// Returns the bytes that are stored; the error says why the body has no JSON form.
    pub(crate) fn to_bytes(&self) -> Result<Bytes, serde_json::Error> {
        // A value whose map keys are no text is the caller's mistake, and told before anything is written.
        serde_json::to_value(self)?;
        Ok(record::encode(self))
    }
}

impl<T: DeserializeOwned> Entry<T> {
    /// Reads a stored entry and checks its number; the error says what is wrong.
    pub(crate) fn from_bytes(bytes: &[u8], sequence: u64) -> Result<Self, String> {
        let text = record::verified(bytes)?;
        let entry: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if !(1..=FORMAT_VERSION).contains(&entry.version) {
            return Err(format!("format version {} is not known", entry.version));
        }
        if entry.version > 2 && text.len() == bytes.len() {
            return Err("its hash is gone".to_owned());
        }
        if entry.sequence != sequence {
            return Err(format!("it is entry {}, not {sequence}", entry.sequence));
        }
        Ok(entry)
    }
}
