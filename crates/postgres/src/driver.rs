//! The driver: what it is made of, and its answers to jobs and steps.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dr_coordination::register::Register;
use dr_coordination::{Actor, chain};
use dr_model::{Clock, RegionName, ResourceId};
use dr_provider::driver::{
    Action, Applied, Backup, Expire, Facts, Fence, Goal, Instance, LogStream, LossFacts, Query,
    ResourceDriver, Restore, SelfFence, Verified, Verify,
};
use dr_provider::{Error, ErrorKind, Host, ObjectStore, Result, Secret, SecretSource};
use dr_repository::Keys;

use crate::archive::Compactors;
use crate::heartbeat::BeatConnection;
use crate::options::{InstanceOptions, Options};

/// Protects and recovers one PostgreSQL cluster.
#[derive(Clone, Debug)]
pub struct PostgresDriver {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    parts: Parts,
    beats: BeatConnection,
    compactors: Compactors,
}

/// What the driver works with.
#[derive(Debug)]
pub struct Parts {
    /// The resource's full name.
    pub resource: ResourceId,
    /// What the configuration says of it.
    pub options: Options,
    /// The store of each region.
    pub stores: BTreeMap<RegionName, Arc<dyn ObjectStore>>,
    /// The host of each instance.
    pub hosts: BTreeMap<RegionName, Arc<dyn Host>>,
    /// Who is primary.
    pub register: Register,
    /// Who acts, for what is written down.
    pub actor: Actor,
    /// Where passwords come from.
    pub secrets: Arc<dyn SecretSource>,
    /// What backups are encrypted with.
    pub keys: Keys,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// The start of every `restore_command` that is set up: the program and its `--config`, absolute.
    pub program: Vec<String>,
    /// Variables and their values that a server that is started here hands on to its `restore_command`, so that this can open the stores.
    pub environment: Vec<(String, Secret)>,
    /// Where PostgreSQL's own programs are, on hosts that are this machine.
    pub binaries: PathBuf,
}

impl PostgresDriver {
    /// Makes a driver from its parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            inner: Arc::new(Inner {
                parts,
                beats: BeatConnection::default(),
                compactors: Compactors::default(),
            }),
        }
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.inner.parts
    }

    pub(crate) fn beats(&self) -> &BeatConnection {
        &self.inner.beats
    }

    pub(crate) fn compactors(&self) -> &Compactors {
        &self.inner.compactors
    }

    pub(crate) fn resource(&self) -> &ResourceId {
        &self.inner.parts.resource
    }

    pub(crate) fn options(&self) -> &Options {
        &self.inner.parts.options
    }

    pub(crate) fn secrets(&self) -> &dyn SecretSource {
        &*self.inner.parts.secrets
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.inner.parts.clock
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.inner.parts.keys
    }

    /// Returns how this driver writes a chain, as whom.
    pub(crate) fn chain_options(&self, writer: impl Into<String>) -> chain::Options {
        chain::Options {
            keys: self.keys().clone(),
            ..chain::Options::new(writer, Arc::clone(&self.parts().clock))
        }
    }

    pub(crate) fn instance_options(&self, region: &RegionName) -> Result<&InstanceOptions> {
        self.options().instances.get(region).ok_or_else(|| {
            self.invalid(
                "find an instance of",
                format!("no instance is configured in `{region}`"),
            )
        })
    }

    pub(crate) fn host(&self, region: &RegionName) -> Result<&Arc<dyn Host>> {
        self.inner.parts.hosts.get(region).ok_or_else(|| {
            self.invalid(
                "find a host of",
                format!("no instance is configured in `{region}`"),
            )
        })
    }

    pub(crate) fn store(&self, region: &RegionName) -> Result<&Arc<dyn ObjectStore>> {
        self.inner.parts.stores.get(region).ok_or_else(|| {
            self.invalid(
                "find a store for",
                format!("no region `{region}` is configured"),
            )
        })
    }

    /// Makes an error about this resource for something that is definitely not done.
    pub(crate) fn failed(&self, operation: &str, why: impl Into<String>) -> Error {
        Error::new(ErrorKind::Failed, operation, self.resource().to_string()).because(why.into())
    }

    /// Makes an error about this resource for a request that cannot be right.
    pub(crate) fn invalid(&self, operation: &str, why: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, operation, self.resource().to_string()).because(why.into())
    }
}

#[async_trait]
impl ResourceDriver for PostgresDriver {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    async fn observe(&self, regions: &[RegionName]) -> Facts {
        self.observe_regions(regions, Duration::MAX).await
    }

    async fn observe_within(&self, regions: &[RegionName], limit: Duration) -> Facts {
        self.observe_regions(regions, limit).await
    }

    async fn look(&self, region: &RegionName) -> Instance {
        self.look_at_instance(region).await
    }

    async fn look_closely(&self, region: &RegionName, facts: &mut Facts) {
        self.look_at_restorable(region, facts).await;
    }

    fn plan(&self, goal: &Goal, facts: &Facts) -> Result<Vec<Action>> {
        self.plan_goal(goal, facts)
    }

    fn still_holds(&self, actions: &[Action], facts: &Facts) -> Result<()> {
        self.is_still_possible(actions, facts)
    }

    async fn apply(&self, action: &Action, fence: &Fence) -> Result<Applied> {
        self.apply_action(action, fence).await
    }

    async fn verify(&self, action: &Action, fence: &Fence) -> Result<Verified> {
        self.verify_action(action, fence).await
    }

    fn loss(&self, target: &RegionName, facts: &Facts) -> LossFacts {
        crate::loss::loss(self.options(), target, facts)
    }

    fn backup(&self) -> Option<&dyn Backup> {
        Some(self)
    }

    fn log_stream(&self) -> Option<&dyn LogStream> {
        Some(self)
    }

    fn restore(&self) -> Option<&dyn Restore> {
        Some(self)
    }

    fn verify_role(&self) -> Option<&dyn Verify> {
        Some(self)
    }

    fn expire_role(&self) -> Option<&dyn Expire> {
        Some(self)
    }

    fn query(&self) -> Option<&dyn Query> {
        Some(self)
    }

    fn self_fence(&self) -> Option<&dyn SelfFence> {
        Some(self)
    }
}
