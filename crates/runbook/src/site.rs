//! The parts of the world that an execution works with, put together by the wiring of the binary.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dr_coordination::Actor;
use dr_coordination::register::Register;
use dr_model::{ApprovalPolicy, Clock, RegionName, ResourceName, ServiceName, WorkloadName};
use dr_provider::host::Command;
use dr_provider::probe::ClientProbe;
use dr_provider::{Host, Notifier, ObjectStore, Probe, ResourceDriver, Secret, Traffic};

use crate::plan::Target;

/// One workload with everything that an execution may touch.
pub struct Site {
    /// The workload.
    pub workload: WorkloadName,
    /// Its home region.
    pub home: RegionName,
    /// The regions that it can be recovered in.
    pub recovery: Vec<RegionName>,
    /// Its recovery point objective: the budget of a loss, unless the operator names another.
    pub rpo: Duration,
    /// Who has to approve.
    pub approval: ApprovalPolicy,
    /// Every region's store.
    pub stores: BTreeMap<RegionName, Arc<dyn ObjectStore>>,
    /// The workload's register.
    pub register: Arc<Register>,
    /// The drivers of its resources.
    pub resources: BTreeMap<ResourceName, Arc<dyn ResourceDriver>>,
    /// Its services, by name, and in each where they run, by region.
    pub services: BTreeMap<ServiceName, BTreeMap<RegionName, ServiceSite>>,
    /// Its checks, by the region that they look at.
    pub probes: BTreeMap<RegionName, Vec<Arc<dyn Probe>>>,
    /// Its checks as a client makes them: see `clients_of`.
    pub clients: Vec<Arc<dyn ClientProbe>>,
    /// What leads clients to it.
    pub traffic: Vec<Arc<dyn Traffic>>,
    /// The services, checks and records that a move goes on without.
    pub optional: BTreeSet<Target>,
    /// Whom to tell.
    pub notifiers: Vec<Arc<dyn Notifier>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who acts.
    pub actor: Actor,
    /// A hash of what the configuration says of each of these parts, by its path: what a plan rests on.
    pub definitions: BTreeMap<String, String>,
    /// Values that must never be written down; whatever text holds one is journaled with `***` in its place.
    pub secrets: Vec<Secret>,
}

/// A service in one region.
#[derive(Clone, Debug)]
pub struct ServiceSite {
    /// The machine that it runs on.
    pub host: Arc<dyn Host>,
    /// Starts it; returns once it has been started.
    pub start: Command,
    /// Stops it; returns once it has been stopped. `None` if nobody said how.
    pub stop: Option<Command>,
    /// Exits with 0 if it runs and with anything else if not; `None` if that cannot be told.
    pub check: Option<Command>,
}

impl Site {
    /// Returns the checks that a client makes by the name of a record once that leads to `region`: as in the configuration, the
    /// first record with an answer for it is what checks are about.
    pub(crate) fn clients_of(
        &self,
        traffic: &dyn Traffic,
        region: &RegionName,
    ) -> &[Arc<dyn ClientProbe>] {
        let mut all = self.traffic.iter();
        let first = all.find(|record| record.answer(region).is_some());
        match first.is_some_and(|first| first.describe() == traffic.describe()) {
            true => &self.clients,
            false => &[],
        }
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site")
            .field("workload", &self.workload)
            .field("actor", &self.actor)
            .finish_non_exhaustive()
    }
}
