//! A look at a workload from outside.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// What a probe found. Unknown is a result of its own and never healthy (principle 6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "health", content = "detail")]
pub enum Health {
    /// The check passed; what was seen.
    Healthy(String),
    /// The check was answered and failed; what was seen.
    Unhealthy(String),
    /// No answer; why.
    Unknown(String),
}

/// A check of a workload as a client makes it, which knows nothing but a name.
#[async_trait]
pub trait ClientProbe: Send + Sync + std::fmt::Debug {
    /// Returns what a client asks for by `name`, such as `GET http://orders.acme.example:8080/health`.
    fn describe(&self, name: &str) -> String;

    /// Looks once, within the probe's own time limit, at what `name` leads to: `answer`, as whoever was asked for it said. Whoever
    /// answers there MUST be asked for `name`.
    async fn probe(&self, name: &str, answer: &str) -> Health;
}

/// A check of a workload in one place.
#[async_trait]
pub trait Probe: Send + Sync + std::fmt::Debug {
    /// Returns what is checked, such as `GET http://10.8.2.20:8080/health`.
    fn describe(&self) -> String;

    /// Looks once, within the probe's own time limit.
    async fn probe(&self) -> Health;
}
