//! The record as [`Traffic`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dr_model::{Clock, Epoch, RegionName};
use dr_provider::traffic::{TrafficState, View};
use dr_provider::{Error, ErrorKind, Result, SecretSource, Traffic};
use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RData};
use tokio::sync::OnceCell;

use super::client::{self, Signer};
use super::connection::Connection;
use super::content::{Content, parse_answer, parse_name};
use super::marker::Marker;
use super::options::Rfc2136Options;
use super::update::{self, Decision, Names, Verdict};
use super::views;

/// The time that one look or one update may take.
pub(super) const LIMIT: Duration = Duration::from_secs(3);

/// Looks and updates in one switch, of which a lost answer costs one.
const ATTEMPTS: usize = 3;

/// A record that is switched by dynamic update.
#[derive(Debug)]
pub struct Rfc2136 {
    pub(super) name: String,
    pub(super) server: SocketAddr,
    pub(super) servers: Vec<SocketAddr>,
    pub(super) resolvers: Vec<SocketAddr>,
    pub(super) names: Names,
    pub(super) answers: BTreeMap<RegionName, RData>,
    pub(super) clock: Arc<dyn Clock>,
    written: BTreeMap<RegionName, String>,
    ttl_seconds: u32,
    zone: OnceCell<Name>,
    signer: Signer,
}

impl Rfc2136 {
    /// Takes a record's options; `secrets` resolves the key's secret at each use. Asks nobody.
    ///
    /// Fails with `Invalid` if a name, an answer or the time to live cannot be one.
    pub fn new(
        options: Rfc2136Options,
        secrets: Arc<dyn SecretSource>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let invalid = |what: &str| {
            let error = Error::new(ErrorKind::Invalid, "switch", options.name.as_str());
            error.because(format!("`{what}` cannot be used"))
        };
        let name = |text: &str| parse_name(text).ok_or_else(|| invalid(text));
        let owner = name(&options.name)?;
        let marker = name(&format!("_dr.{}", options.name))?;
        let zone = options.zone.as_deref().map(name).transpose()?;
        if zone.as_ref().is_some_and(|zone| !zone.zone_of(&owner)) {
            return Err(invalid("zone"));
        }
        let mut answers = BTreeMap::new();
        for (region, text) in &options.answers {
            let answer = parse_answer(text).ok_or_else(|| invalid(text))?;
            answers.insert(region.clone(), answer);
        }
        let ttl_seconds = u32::try_from(options.ttl.as_secs()).map_err(|_| invalid("ttl"))?;
        Ok(Self {
            names: Names { owner, marker },
            answers,
            ttl_seconds,
            zone: OnceCell::new_with(zone),
            signer: Signer {
                tsig: options.tsig,
                secrets,
                clock: Arc::clone(&clock),
            },
            clock,
            name: options.name,
            server: options.server,
            servers: options.servers,
            resolvers: options.resolvers,
            written: options.answers,
        })
    }

    /// Returns the zone, asking the server the first time.
    pub(super) async fn zone(&self, connection: &mut Connection) -> Result<&Name> {
        self.zone
            .get_or_try_init(|| client::find_zone(connection, &self.names.owner))
            .await
    }

    pub(super) async fn content(&self) -> Result<Content> {
        let look = async {
            let mut connection = Connection::open(self.server, false).await?;
            let zone = self.zone(&mut connection).await?;
            client::read_zone(&mut connection, zone, &self.names).await
        };
        let late = || {
            self.error(ErrorKind::Unavailable, "look up")
                .because(too_late(self.server))
        };
        limited(look, late).await
    }

    pub(super) async fn update(
        &self,
        seen: &Content,
        wanted: (&RData, &Marker),
    ) -> Result<Verdict> {
        let (answer, marker) = wanted;
        let zone = self.known_zone();
        let message = update::switch(zone, &self.names, seen, answer, marker, self.ttl_seconds);
        self.send(message).await
    }

    /// Known since the look before any update.
    fn known_zone(&self) -> &Name {
        self.zone.get().unwrap_or(&self.names.owner)
    }

    async fn send(&self, message: Message) -> Result<Verdict> {
        let late = || {
            self.error(ErrorKind::Unknown, "update")
                .because(too_late(self.server))
        };
        limited(self.signer.send(self.server, message, &self.name), late).await
    }

    fn error(&self, kind: ErrorKind, operation: &str) -> Error {
        Error::new(kind, operation, self.name.as_str())
    }

    /// Returns the error to end with: never a definite one while an update may have been made.
    fn settle(&self, fate: Fate, error: Error) -> Error {
        match fate {
            Fate::Unsent => error,
            Fate::Unknown(lost) => lost,
            Fate::Made => self
                .error(ErrorKind::Unknown, "verify the switch of")
                .because(error),
        }
    }

    fn lost(&self, kind: ErrorKind, seen: &TrafficState, why: &str) -> Error {
        let there = match seen.epoch {
            Some(epoch) => format!("`{}` of epoch {epoch}", seen.answer),
            None => format!("`{}` without an epoch", seen.answer),
        };
        self.error(kind, "switch")
            .because(format!("{why}: it is {there}"))
    }
}

#[async_trait]
impl Traffic for Rfc2136 {
    fn describe(&self) -> String {
        format!("rfc2136 {}", self.name)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn answer(&self, region: &RegionName) -> Option<String> {
        self.written.get(region).cloned()
    }

    async fn observe(&self) -> Result<TrafficState> {
        Ok(self.content().await?.state(&self.answers))
    }

    async fn switch(
        &self,
        region: &RegionName,
        epoch: Epoch,
        previous: &TrafficState,
    ) -> Result<TrafficState> {
        let answer = self.answers.get(region).ok_or_else(|| {
            self.error(ErrorKind::Invalid, "switch")
                .because(format!("no answer is configured for region `{region}`"))
        })?;
        let marker = Marker {
            epoch,
            region: region.clone(),
        };
        let mut fate = Fate::Unsent;
        for _ in 0..=ATTEMPTS {
            let seen = match self.content().await {
                Ok(seen) => seen,
                Err(error) => return Err(self.settle(fate, error)),
            };
            let state = seen.state(&self.answers);
            let unchanged =
                |_: &Content| (state.epoch, &state.answer) == (previous.epoch, &previous.answer);
            match update::decide(&seen, (answer, &marker), unchanged) {
                Decision::Done => return Ok(state),
                Decision::Go => {}
                Decision::Superseded(_) => {
                    return Err(self.lost(ErrorKind::Superseded, &state, "it has moved on"));
                }
                Decision::Conflict => {
                    return Err(self.lost(ErrorKind::Conflict, &state, "it has been changed"));
                }
            }
            if matches!(fate, Fate::Made) {
                return Err(self.lost(
                    ErrorKind::Failed,
                    &state,
                    "the server took the update and did not make it",
                ));
            }
            fate = match self.update(&seen, (answer, &marker)).await {
                Ok(Verdict::Made) => Fate::Made,
                // The next look tells why; nothing else can be done by one sent before.
                Ok(Verdict::Changed) => Fate::Unsent,
                Ok(Verdict::Refused(error)) | Err(error) => match error.kind() {
                    ErrorKind::Unknown => Fate::Unknown(error),
                    _ => return Err(self.settle(fate, error)),
                },
            };
        }
        let error = self.error(ErrorKind::Conflict, "switch");
        Err(self.settle(
            fate,
            error
                .because("the server says that the records are not what it answers")
                .with_hint("see whether a wildcard record answers for this name"),
        ))
    }

    async fn rehearse(&self) -> Result<()> {
        let seen = self.content().await?;
        let answers = self.answers.values();
        let message = update::rehearsal(self.known_zone(), &self.names, &seen, answers);
        match self.send(message).await? {
            Verdict::Made => Ok(()),
            Verdict::Changed => Err(self
                .error(ErrorKind::Conflict, "update")
                .because("the records are not what the server answers")
                .with_hint("somebody changes them, or a wildcard record answers for this name")),
            Verdict::Refused(error) => Err(error),
        }
    }

    async fn views(&self) -> Vec<View> {
        views::all(self).await
    }
}

/// What has become of the updates sent so far.
#[derive(Debug)]
enum Fate {
    /// None can have been made.
    Unsent,
    /// One may have been made, or may yet arrive.
    Unknown(Error),
    /// The server says that one was made.
    Made,
}

async fn limited<T>(
    work: impl Future<Output = Result<T>>,
    late: impl FnOnce() -> Error,
) -> Result<T> {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(result) => result,
        Err(_) => Err(late()),
    }
}

fn too_late(server: SocketAddr) -> String {
    format!("no answer from {server} within {LIMIT:?}")
}
