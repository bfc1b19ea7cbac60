//! Observation: everything that a plan rests on, seen once, in parallel, each look with a limit.
//!
//! Nothing here is an error: what cannot be seen is a fact of its own, and the plan decides whether it can do without.
//! Only the looks at the region being left may take its silence for an answer; they are cut off after
//! `LOST_REGION_LIMIT`, so a dead region never holds up the plan (L1). Each part of them has that limit for itself: what was seen in time
//! is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dr_coordination::probe::probe_write;
use dr_coordination::register::{EpochRecord, Guard};
use dr_model::{ApprovalPolicy, RegionName, ResourceName, ServiceName, WorkloadName};
use dr_provider::driver::{Facts, Instance, RegionFacts};
use dr_provider::traffic::TrafficState;
use dr_provider::{ErrorKind, ResourceDriver, Traffic};
use futures::future::{Either, join, join_all, join3, select};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::timeout;

use crate::executions::{self, Unfinished, Unreadable};
use crate::old_primary::{self, LOST_REGION_LIMIT, PART_LIMIT};
use crate::past::Past;
use crate::plan::{Refusal, Target};
use crate::sight::NotSeen;
use crate::site::Site;

/// How long a store or a name server may take to answer.
pub const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// Everything that a plan rests on.
#[derive(Clone, Debug)]
pub struct World {
    /// When it was seen.
    pub observed_at: Timestamp,
    /// The machine that it was seen from.
    pub looked_from: String,
    /// The workload.
    pub workload: WorkloadName,
    /// Its home region.
    pub home: RegionName,
    /// The regions that it can be recovered in.
    pub recovery: Vec<RegionName>,
    /// Its recovery point objective.
    pub rpo: Duration,
    /// Who has to approve.
    pub approval: ApprovalPolicy,
    /// A hash of what the configuration says of each part of it, by its path.
    pub definitions: BTreeMap<String, String>,
    /// Every region's store, as a location to print.
    pub stores: BTreeMap<RegionName, String>,
    /// The register.
    pub register: RegisterFacts,
    /// The resources, looked at in the region of the newest record and in the target.
    pub resources: BTreeMap<ResourceName, ResourceFacts>,
    /// The services that can be started in the target.
    pub services: Vec<ServiceFacts>,
    /// The services in the region being left.
    pub services_left: Vec<ServiceFacts>,
    /// The checks of the target, by description.
    pub probes: Vec<String>,
    /// The traffic records.
    pub traffic: Vec<TrafficFacts>,
    /// The services, checks and records that a move goes on without.
    pub optional: BTreeSet<Target>,
    /// Whom to tell, by description.
    pub notifiers: Vec<String>,
    /// Executions for this workload that have not ended.
    pub unfinished: Vec<Unfinished>,
    /// The execution that opened the newest epoch, if nobody can believe its journal.
    pub unreadable: Option<Unreadable>,
    /// How long the newest executions for it took that were completed, oldest first.
    pub past: Vec<Past>,
    /// What could not be seen although a plan can do without it.
    pub unseen: Vec<NotSeen>,
    /// A store that has to take the journal or the epoch and was seen to take nothing; `None` also if that was not tried.
    pub unwritable: Option<Unwritable>,
}

/// A store that takes no writes.
#[derive(Clone, Debug)]
pub struct Unwritable {
    /// Its region.
    pub region: RegionName,
    /// What it answered.
    pub why: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl From<Unwritable> for Refusal {
    fn from(store: Unwritable) -> Self {
        Self::Unwritable {
            region: store.region,
            why: store.why,
            hint: store.hint,
        }
    }
}

/// What is known of the register.
#[derive(Clone, Debug)]
pub enum RegisterFacts {
    /// All records, oldest first and at least one, read where it counts.
    Proven(Vec<EpochRecord>),
    /// There is no record yet.
    Empty,
    /// It could not be read where it counts.
    Unreachable {
        /// Why not.
        why: String,
        /// The newest record among the copies, which need not be the newest there is.
        newest_copy: Option<Box<EpochRecord>>,
    },
    /// Records are missing or are not what they should be: no copy can be believed either.
    Damaged {
        /// What is wrong.
        why: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl RegisterFacts {
    /// Returns the newest record known, proven or not.
    #[must_use]
    pub fn head(&self) -> Option<&EpochRecord> {
        match self {
            Self::Proven(records) => records.last(),
            Self::Empty | Self::Damaged { .. } => None,
            Self::Unreachable { newest_copy, .. } => newest_copy.as_deref(),
        }
    }

    /// Returns the guard that the primary's cluster is known to run under: only what the register itself says counts.
    #[must_use]
    pub fn guard(&self, resource: &ResourceName) -> Option<Guard> {
        match self {
            Self::Proven(records) => records.last()?.guards.get(resource).copied(),
            Self::Empty | Self::Damaged { .. } | Self::Unreachable { .. } => None,
        }
    }

    /// Returns all records known, oldest first; of copies only the newest.
    #[must_use]
    pub fn records(&self) -> &[EpochRecord] {
        match self {
            Self::Proven(records) => records,
            Self::Empty | Self::Damaged { .. } => &[],
            Self::Unreachable { newest_copy, .. } => {
                newest_copy.as_deref().map_or(&[], std::slice::from_ref)
            }
        }
    }
}

/// A resource as seen. The driver is here because deciding is its job too; its `plan` and `loss` are pure.
#[derive(Clone, Debug)]
pub struct ResourceFacts {
    /// Its driver.
    pub driver: Arc<dyn ResourceDriver>,
    /// What was seen.
    pub facts: Facts,
    /// What was seen of the other regions where the region of the primary is not left; empty in a move.
    pub elsewhere: BTreeMap<RegionName, RegionFacts>,
    /// The interval between its heartbeats.
    pub heartbeat: Option<Duration>,
}

/// A service that can be started in the target.
#[derive(Clone, Debug)]
pub struct ServiceFacts {
    /// Its name.
    pub name: ServiceName,
    /// The machine that it runs on.
    pub host: String,
    /// The program that starts it, without its arguments, which may hold secrets.
    pub program: String,
    /// The program that stops it, without its arguments.
    pub stop: Option<String>,
}

/// A traffic record as seen.
#[derive(Clone, Debug)]
pub struct TrafficFacts {
    /// Its description.
    pub name: String,
    /// The answer configured for the target.
    pub answer: Option<String>,
    /// The checks that a client makes by its name, by description.
    pub clients: Vec<String>,
    /// What the authority answers, or why it does not.
    pub state: Result<TrafficState, String>,
    /// Why the authority would not take a switch from us, if it said so; one that is silent may take it yet. `None` also if that
    /// was not tried.
    pub denied: Option<Denied>,
}

/// A name server that does not take our key.
#[derive(Clone, Debug)]
pub struct Denied {
    /// What it answered.
    pub why: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Denied {
    /// Returns why the switch of `record` is not begun.
    pub(crate) fn refuses(self, record: String) -> Refusal {
        Refusal::TrafficDenied {
            record,
            why: self.why,
            hint: self.hint,
        }
    }
}

/// Looks at everything that a move to `to` rests on; changes nothing.
pub async fn observe(site: &Site, to: &RegionName) -> World {
    let register_and_resources = async {
        let register = look_at_register(site).await;
        let from = register.head().map(|record| record.primary.clone());
        let resources = look_at_resources(site, to, from.as_ref()).await;
        (register, resources, from)
    };
    let ((register, resources, from), newest, traffic) = join3(
        register_and_resources,
        executions::newest(site),
        look_at_traffic(site, to),
    )
    .await;
    let unfinished = may_go_on(newest.unfinished, &register);
    let opened = register.head().and_then(|head| head.execution.clone());
    let mut damaged = newest.damaged.into_iter();
    let unreadable = damaged.find(|damaged| Some(&damaged.execution) == opened.as_ref());
    World {
        observed_at: site.clock.now(),
        looked_from: site.actor.host.clone(),
        workload: site.workload.clone(),
        home: site.home.clone(),
        recovery: site.recovery.clone(),
        rpo: site.rpo,
        approval: site.approval.clone(),
        definitions: site.definitions.clone(),
        stores: site
            .stores
            .iter()
            .map(|(region, store)| (region.clone(), store.location().to_owned()))
            .collect(),
        register,
        resources,
        services: services(site, to),
        services_left: from.map(|from| services(site, &from)).unwrap_or_default(),
        probes: site
            .probes
            .get(to)
            .map(|probes| probes.iter().map(|probe| probe.describe()).collect())
            .unwrap_or_default(),
        traffic,
        optional: site.optional.clone(),
        notifiers: site.notifiers.iter().map(|n| n.describe()).collect(),
        unfinished,
        unreadable,
        past: newest.past,
        unseen: newest.unseen,
        unwritable: None,
    }
}

/// Returns the executions for the workload that have not ended and may go on.
pub async fn unfinished(site: &Site) -> Vec<Unfinished> {
    let (register, newest) = join(look_at_register(site), executions::newest(site)).await;
    may_go_on(newest.unfinished, &register)
}

fn may_go_on(mut unfinished: Vec<Unfinished>, register: &RegisterFacts) -> Vec<Unfinished> {
    unfinished.retain(|execution| register.head().is_none_or(|head| execution.may_go_on(head)));
    unfinished
}

/// Looks as [`observe`] does, and tries whether the stores take the journal and the epoch, by one small object in each: a store
/// that is full, read-only or denied answers every other look. The region being left is not asked for it. Tries also whether the
/// name servers take our key, by an update of nothing.
pub async fn observe_to_execute(site: &Site, to: &RegionName) -> World {
    let tries = site.traffic.iter().map(|traffic| denied(traffic.as_ref()));
    let (mut world, journal, denied) =
        join3(observe(site, to), unwritable(site, to), join_all(tries)).await;
    for (traffic, denied) in world.traffic.iter_mut().zip(denied) {
        traffic.denied = denied;
    }
    // One that is silent takes no record: an override puts it into the store moved to.
    let register = match &world.register {
        RegisterFacts::Proven(records) => records.last(),
        _ => None,
    };
    let register = register.filter(|head| ![to, &head.primary].contains(&&head.register));
    world.unwritable = match (journal, register) {
        (None, Some(head)) => unwritable(site, &head.register).await,
        (journal, _) => journal,
    };
    world
}

/// Tells why the store of a region takes nothing, by one small object.
pub(crate) async fn unwritable(site: &Site, region: &RegionName) -> Option<Unwritable> {
    let store = site.stores.get(region)?;
    let probe = probe_write(store.as_ref(), site.clock.now(), rand::random());
    let (why, hint) = match timeout(LOOK_LIMIT, probe).await {
        Ok(Ok(tried)) => {
            // Whoever may not delete leaves it there: a few bytes.
            timeout(LOOK_LIMIT, store.delete(&tried)).await.ok();
            return None;
        }
        Ok(Err(error)) => {
            let hint = match error.kind() {
                ErrorKind::Full => Some("make room in it".to_owned()),
                _ => error.hint().map(str::to_owned),
            };
            (dr_provider::error::chain(&error), hint)
        }
        Err(_) => (format!("no answer within {} s", LOOK_LIMIT.as_secs()), None),
    };
    Some(Unwritable {
        region: region.clone(),
        why,
        hint,
    })
}

async fn look_at_register(site: &Site) -> RegisterFacts {
    let why = match site.register.read_all().await {
        Ok(records) if records.is_empty() => return RegisterFacts::Empty,
        Ok(records) => return RegisterFacts::Proven(records),
        Err(error @ dr_coordination::register::Error::Damaged { .. }) => {
            return RegisterFacts::Damaged {
                hint: error.hint().map(str::to_owned),
                why: error.to_string(),
            };
        }
        Err(error) => dr_provider::error::chain(&error),
    };
    let views = site.register.read_copies().await;
    let copies = views.into_iter().filter_map(|view| view.newest.ok()?);
    RegisterFacts::Unreachable {
        why,
        newest_copy: copies.max_by_key(|record| record.epoch).map(Box::new),
    }
}

async fn look_at_resources(
    site: &Site,
    to: &RegionName,
    from: Option<&RegionName>,
) -> BTreeMap<ResourceName, ResourceFacts> {
    let looks = site.resources.iter().map(|(name, driver)| async move {
        let seen = async {
            let mut facts = driver.observe(std::slice::from_ref(to)).await;
            driver.look_closely(to, &mut facts).await;
            facts
        };
        let (mut facts, left) = match from.filter(|from| *from != to) {
            Some(from) => {
                let (seen, left) = join(seen, look_at_left(driver.as_ref(), from)).await;
                (seen, Some(left))
            }
            None => (seen.await, None),
        };
        if let Some((regions, identifier)) = left {
            facts.regions.extend(regions);
            facts.system_identifier = facts.system_identifier.or(identifier);
        }
        let elsewhere = match from {
            Some(from) if from == to => look_elsewhere(site, driver.as_ref(), to).await,
            _ => BTreeMap::new(),
        };
        let facts = ResourceFacts {
            driver: Arc::clone(driver),
            facts,
            elsewhere,
            heartbeat: driver.log_stream().map(|s| s.heartbeat_interval()),
        };
        (name.clone(), facts)
    });
    join_all(looks).await.into_iter().collect()
}

async fn look_elsewhere(
    site: &Site,
    driver: &dyn ResourceDriver,
    to: &RegionName,
) -> BTreeMap<RegionName, RegionFacts> {
    let regions = std::iter::once(&site.home).chain(&site.recovery);
    let others = regions.filter(|region| *region != to);
    let looks = others.map(|region| look_at_left(driver, region));
    let looks = join_all(looks).await.into_iter();
    looks.flat_map(|(regions, _)| regions).collect()
}

type Left = (
    BTreeMap<RegionName, RegionFacts>,
    Option<dr_model::SystemIdentifier>,
);

async fn look_at_left(driver: &dyn ResourceDriver, from: &RegionName) -> Left {
    let everything = driver.observe_within(std::slice::from_ref(from), PART_LIMIT);
    let everything = pin!(timeout(LOST_REGION_LIMIT, everything));
    let alone = pin!(timeout(LOST_REGION_LIMIT, driver.look(from)));
    let (everything, alone) = match select(everything, alone).await {
        // The server is a part of what was seen.
        Either::Left((Ok(facts), _)) => return (facts.regions, facts.system_identifier),
        Either::Left((silent, alone)) => (silent, alone.await),
        Either::Right((alone, everything)) => (everything.await, alone),
    };
    match everything {
        Ok(facts) => (facts.regions, facts.system_identifier),
        // A server that answers is not silent because its store is.
        Err(_) => {
            let why = old_primary::no_answer();
            let silent = RegionFacts {
                instance: alone.unwrap_or_else(|_| Instance::Unreachable {
                    why: why.clone(),
                    runs: false,
                    on_host: false,
                    hint: None,
                }),
                log: Err(why.clone()),
                detail: Value::Null,
                late: vec![format!("everything in {from}: {why}")],
            };
            (BTreeMap::from([(from.clone(), silent)]), None)
        }
    }
}

async fn look_at_traffic(site: &Site, to: &RegionName) -> Vec<TrafficFacts> {
    let looks = site.traffic.iter().map(|traffic| async move {
        let state = match timeout(LOOK_LIMIT, traffic.observe()).await {
            Ok(Ok(state)) => Ok(state),
            Ok(Err(error)) => Err(dr_provider::error::chain(&error)),
            Err(_) => Err(format!("no answer within {} s", LOOK_LIMIT.as_secs())),
        };
        TrafficFacts {
            name: traffic.describe(),
            answer: traffic.answer(to),
            clients: site
                .clients_of(traffic.as_ref(), to)
                .iter()
                .map(|client| client.describe(traffic.name()))
                .collect(),
            state,
            denied: None,
        }
    });
    join_all(looks).await
}

/// Tells why the authority of a traffic record would not take a switch from us, by an update of nothing.
pub(crate) async fn denied(traffic: &dyn Traffic) -> Option<Denied> {
    match timeout(LOOK_LIMIT, traffic.rehearse()).await {
        // Refused by the server, or a key of ours that cannot be used: waiting changes neither.
        Ok(Err(error))
            if matches!(
                error.kind(),
                ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::NotFound
            ) =>
        {
            Some(Denied {
                why: dr_provider::error::chain(&error),
                hint: error.hint().map(str::to_owned),
            })
        }
        _ => None,
    }
}

fn services(site: &Site, to: &RegionName) -> Vec<ServiceFacts> {
    let here = |(name, regions): (
        &ServiceName,
        &BTreeMap<RegionName, crate::site::ServiceSite>,
    )| {
        let service = regions.get(to)?;
        Some(ServiceFacts {
            name: name.clone(),
            host: service.host.name().to_owned(),
            program: service.start.argv.first().cloned().unwrap_or_default(),
            stop: service
                .stop
                .as_ref()
                .and_then(|stop| stop.argv.first().cloned()),
        })
    };
    site.services.iter().filter_map(here).collect()
}
