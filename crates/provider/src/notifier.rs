//! Telling people and other systems.

use async_trait::async_trait;
use serde_json::Value;

use crate::Result;

/// A message about something that happened.
#[derive(Clone, Debug)]
pub struct Message {
    /// One line.
    pub subject: String,
    /// The same on every attempt, so that the other side can drop repeats: delivery is *at least once* (PROTOCOL 9).
    pub idempotency_key: String,
    /// Everything else, as data.
    pub body: Value,
}

/// Somewhere to send messages.
#[async_trait]
pub trait Notifier: Send + Sync + std::fmt::Debug {
    /// Returns where messages go, without credentials.
    fn describe(&self) -> String;

    /// Sends one message once.
    async fn notify(&self, message: &Message) -> Result<()>;
}
