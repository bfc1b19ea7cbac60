//! What leads clients to a region: a DNS record and its like.

use async_trait::async_trait;
use dr_model::{Epoch, RegionName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Result;

/// What the authority answers now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficState {
    /// The region whose answer is served; `None` if it is none of the configured ones.
    pub region: Option<RegionName>,
    /// The answer itself, such as an address.
    pub answer: String,
    /// The epoch written beside the answer; `None` if there is none yet.
    pub epoch: Option<Epoch>,
    /// How long clients may keep an answer, in seconds.
    pub ttl_seconds: u32,
    /// Serial number of the zone, where there is one.
    pub serial: Option<u32>,
}

/// Whom an observer answers, and with what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It holds the record itself: it is up to date, or lags behind the one that takes updates.
    #[default]
    Authority,
    /// It answers clients with what it was told before, for as long as that may be kept.
    Resolver,
}

/// What one observer sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Who looked: an authoritative server, a resolver, a client.
    pub observer: String,
    /// Whether that is what stands there, or what clients still get.
    #[serde(default)]
    pub role: Role,
    /// What it answered, or why it did not.
    pub state: std::result::Result<TrafficState, String>,
    /// When it was asked.
    pub seen_at: Timestamp,
}

/// How an observer is apart from the authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Apart {
    /// It answers otherwise: what.
    Elsewhere(String),
    /// It does not answer: why.
    Silent(String),
}

impl View {
    /// Compares what was seen here with what the authority answers; `None` if it is the same answer.
    #[must_use]
    pub fn apart(&self, authority: &TrafficState) -> Option<Apart> {
        match &self.state {
            Ok(state) if state.answer == authority.answer => None,
            Ok(state) => Some(Apart::Elsewhere(state.answer.clone())),
            Err(why) => Some(Apart::Silent(why.clone())),
        }
    }
}

/// One record that leads clients to a region.
#[async_trait]
pub trait Traffic: Send + Sync + std::fmt::Debug {
    /// Returns what is switched, such as `rfc2136 orders.acme.example`.
    fn describe(&self) -> String;

    /// Returns the name that clients use, such as `orders.acme.example`.
    fn name(&self) -> &str;

    /// Returns the answer configured for a region.
    fn answer(&self, region: &RegionName) -> Option<String>;

    /// Asks the authority what it answers now.
    async fn observe(&self) -> Result<TrafficState>;

    /// Makes `region` the answer, writing `epoch` beside it in the same update, on condition that the epoch and the
    /// answer are still those of `previous` (PROTOCOL 9).
    ///
    /// Fails with `Conflict` if they are not and `Superseded` if a higher epoch stands there; both leave all as it was.
    async fn switch(
        &self,
        region: &RegionName,
        epoch: Epoch,
        previous: &TrafficState,
    ) -> Result<TrafficState>;

    /// Asks the authority for a change of nothing, with the rights that a switch takes.
    ///
    /// Fails as a switch would whose rights are missing; `Ok` means that the authority would have taken it. Nothing is
    /// different afterwards, the serial number included.
    async fn rehearse(&self) -> Result<()>;

    /// Asks everybody who answers clients: each authoritative server, and resolvers where configured.
    async fn views(&self) -> Vec<View>;
}
