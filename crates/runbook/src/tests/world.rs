//! A world in memory: two regions, one database, one service, one record that leads clients, one register.
//!
//! The state of the world is one value behind a lock; drivers, hosts and traffic are views of it, with a script of
//! faults by action name. Time stands still unless something here moves it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dr_config::Runbook;
use dr_coordination::Actor;
use dr_coordination::register::{ClusterClaim, EpochRecord, FORMAT_VERSION, Guard, Register};
use dr_model::{
    ApprovalPolicy, Epoch, Lsn, ManualClock, RegionName, ResourceName, SystemIdentifier,
    TimelineId, WorkloadName,
};
use dr_provider::driver::ClaimFacts;
use dr_provider::host::Command;
use dr_provider::notifier::Message;
use dr_provider::store::MemoryStore;
use dr_provider::traffic::{TrafficState, View};
use dr_provider::{ErrorKind, ObjectStore, Probe, ResourceDriver, Secret, decorate};
use jiff::Timestamp;

use self::database::Seen;
use crate::site::{ServiceSite, Site};

mod database;
mod surroundings;

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Definitely not done, for good.
    Definite,
    /// Definitely not done, this time.
    Unavailable,
    /// Done, but the answer is lost.
    AnswerLost,
    /// Not done, and nobody can tell.
    RequestLost,
    /// No answer ever.
    Hang,
    /// Whoever asks is superseded.
    Superseded,
    /// What was to be stopped was seen to be alive.
    Alive,
}

/// The state of the world.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) left_reachable: bool,
    /// Whether processes of it are seen where it does not answer.
    pub(crate) left_hangs: bool,
    /// Whether whoever looks at it never gets an answer.
    pub(crate) left_mute: bool,
    /// Whether whoever looks at more than the server never does.
    pub(crate) left_store_hangs: bool,
    /// Whether the look at its data directory runs out of time.
    pub(crate) left_late: bool,
    pub(crate) left_running: bool,
    /// Whether it is known beforehand that stopping the server would prove nothing.
    pub(crate) unfenceable: bool,
    /// When the server was stopped, if it ran until then.
    pub(crate) ran_until: Option<Timestamp>,
    pub(crate) standby: bool,
    pub(crate) recovery_point: bool,
    pub(crate) synchronous: bool,
    /// What the newest epoch was seen to say of the database.
    pub(crate) claim: Option<ClaimFacts>,
    pub(crate) delay_seconds: Option<f64>,
    /// Whether nothing in the region moved to streams from the primary.
    pub(crate) nobody_streams: bool,
    /// Whether the name server answers nobody.
    pub(crate) name_server_silent: bool,
    /// The newest heartbeat that what comes up holds.
    pub(crate) heartbeat: Timestamp,
    /// When the newest commit was made that what comes up has replayed.
    pub(crate) newest_commit: Option<Timestamp>,
    /// What a standby that is ahead of the store is known to hold: all until 0.6 s ago.
    pub(crate) held: Option<(TimelineId, Lsn)>,
    /// Where the log of the old primary ends, if it was shut down in good order.
    pub(crate) drained: Option<Lsn>,
    /// Where that will be.
    pub(crate) left_end: Lsn,
    /// Whether the old primary is a standby of the new one.
    pub(crate) left_follows: bool,
    pub(crate) sealed: bool,
    /// Whether a moment that lies behind stands beside the database in the east, and whether it took its place.
    pub(crate) prepared: bool,
    pub(crate) replaced: bool,
    /// Whether the new primary has the slots that its log is shipped through.
    pub(crate) slots: bool,
    pub(crate) primary_here: Option<&'static str>,
    pub(crate) serving: bool,
    /// Whether the service runs in the region being left.
    pub(crate) left_serving: bool,
    /// Commands that were run beside those of the service.
    pub(crate) commands: Vec<Command>,
    pub(crate) healthy: bool,
    pub(crate) traffic: TrafficState,
    pub(crate) silent_view: bool,
    /// What others see who look at the record.
    pub(crate) other_views: Vec<View>,
    /// Why the database may not have kept all that it acknowledged.
    pub(crate) doubts: Vec<String>,
    /// Whether the service does not answer to its name.
    pub(crate) turned_away: bool,
    /// Sessions of clients at the old primary, and how often somebody asked for them.
    pub(crate) left_sessions: u64,
    pub(crate) left_asked: u32,
    /// Whether the name server has another secret for our key.
    pub(crate) key_refused: bool,
    pub(crate) highest_epoch: Epoch,
    /// Every effect that was had, in order: what, and for which epoch.
    pub(crate) effects: Vec<(String, Epoch)>,
    pub(crate) messages: Vec<Message>,
    pub(crate) faults: BTreeMap<String, VecDeque<Fault>>,
    pub(crate) blind: BTreeMap<String, u32>,
    pub(crate) error_text: String,
}

/// A handle on the world.
#[derive(Clone, Debug)]
pub(crate) struct Everything {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) stores: BTreeMap<RegionName, Arc<dyn ObjectStore>>,
    /// The name of the record.
    record: &'static str,
    state: Arc<Mutex<State>>,
}

pub(crate) fn east() -> RegionName {
    "us-east-1".parse().unwrap()
}

pub(crate) fn west() -> RegionName {
    "us-west-2".parse().unwrap()
}

pub(crate) fn database() -> ResourceName {
    "database".parse().unwrap()
}

/// The database that is beside.
pub(crate) fn archive() -> ResourceName {
    "archive".parse().unwrap()
}

pub(crate) fn orders() -> WorkloadName {
    "orders".parse().unwrap()
}

const SYSTEM: SystemIdentifier = SystemIdentifier(7_312_345_678_901_234_567);

pub(crate) fn noon() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

pub(crate) fn before_noon(milliseconds: i64) -> Timestamp {
    noon() - jiff::SignedDuration::from_millis(milliseconds)
}

impl Everything {
    /// Makes a world whose primary in the east has just been lost; it can be found stopped.
    pub(crate) async fn new() -> Self {
        Self::of(&[database()]).await
    }

    /// The same of a workload with these databases. This is the world of the first.
    pub(crate) async fn of(databases: &[ResourceName]) -> Self {
        let stores = [east(), west()].map(|region| {
            let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new(region.as_str()));
            (region, store)
        });
        let world = Self {
            clock: Arc::new(ManualClock::new(noon())),
            stores: stores.into(),
            record: "orders.acme.example",
            state: Arc::new(Mutex::new(State {
                left_reachable: true,
                left_hangs: false,
                left_mute: false,
                left_store_hangs: false,
                left_late: false,
                left_running: false,
                unfenceable: false,
                ran_until: None,
                standby: true,
                recovery_point: true,
                synchronous: false,
                claim: None,
                delay_seconds: Some(0.4),
                nobody_streams: false,
                name_server_silent: false,
                heartbeat: before_noon(1250),
                newest_commit: None,
                held: None,
                drained: None,
                left_end: Lsn(0x5000),
                left_follows: false,
                sealed: false,
                prepared: false,
                replaced: false,
                slots: false,
                primary_here: None,
                serving: false,
                left_serving: false,
                commands: Vec::new(),
                healthy: true,
                traffic: TrafficState {
                    region: Some(east()),
                    answer: "10.0.2.20".to_owned(),
                    epoch: Some(Epoch(1)),
                    ttl_seconds: 30,
                    serial: None,
                },
                silent_view: false,
                other_views: Vec::new(),
                doubts: Vec::new(),
                turned_away: false,
                left_sessions: 0,
                left_asked: 0,
                key_refused: false,
                highest_epoch: Epoch(1),
                effects: Vec::new(),
                messages: Vec::new(),
                faults: BTreeMap::new(),
                blind: BTreeMap::new(),
                error_text: "as scripted".to_owned(),
            })),
        };
        let claim = ClusterClaim {
            system_identifier: SYSTEM,
            timeline: TimelineId(1),
            start_lsn: None,
            log_epoch: None,
        };
        let first = EpochRecord {
            version: FORMAT_VERSION,
            epoch: Epoch::FIRST,
            workload: orders(),
            primary: east(),
            register: west(),
            clusters: databases
                .iter()
                .map(|name| (name.clone(), claim.clone()))
                .collect(),
            sync: BTreeMap::new(),
            created_at: noon(),
            created_by: Actor::new("dr", "east", 1),
            reason: "first".to_owned(),
            sync_lost: std::collections::BTreeMap::new(),
            guards: std::collections::BTreeMap::new(),
            execution: None,
            override_reason: None,
        };
        world.register().create(&first).await.unwrap();
        world
    }

    /// Makes a world of another database of the same workload, with a service and a record of its own.
    pub(crate) async fn beside(&self) -> Self {
        Self {
            clock: self.clock.clone(),
            stores: self.stores.clone(),
            record: "archive.acme.example",
            ..Self::new().await
        }
    }

    /// Makes the parts that an execution works with, with what is beside.
    pub(crate) fn site_with(&self, machine: &str, other: &Self) -> Site {
        let (mut site, mut beside) = (self.site(machine), other.site(machine));
        let driver = beside.resources.remove(&database()).unwrap();
        site.resources.insert(archive(), driver);
        let service = beside.services.remove(&"ledger".parse().unwrap()).unwrap();
        site.services.insert("archive".parse().unwrap(), service);
        for (region, probes) in beside.probes {
            site.probes.entry(region).or_default().extend(probes);
        }
        site.traffic.extend(beside.traffic);
        site
    }

    /// Records that the primary was seen to run under a guard.
    pub(crate) async fn arm(&self, lease_seconds: u32) {
        let head = self.register().read().await.unwrap().unwrap();
        let guards = [(database(), Guard { lease_seconds })].into();
        self.register()
            .create(&head.with_guards(guards))
            .await
            .unwrap();
    }

    /// Lets the newest epoch be seen.
    pub(crate) async fn see_claim(&self) {
        let head = self.register().read().await.unwrap().unwrap();
        let chain = head.chain(&database()).unwrap();
        self.state().claim = Some(ClaimFacts {
            epoch: head.epoch,
            proven: true,
            log_epoch: chain.epoch,
            timeline: chain.timeline,
            sync: Vec::new(),
            sync_lost: None,
        });
    }

    pub(crate) fn register(&self) -> Register {
        Register::new(orders(), self.stores.clone(), west())
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Lets the next calls of an action go wrong.
    pub(crate) fn script(&self, action: &str, faults: impl IntoIterator<Item = Fault>) {
        let faults = faults.into_iter().collect();
        self.state().faults.insert(action.to_owned(), faults);
    }

    /// Returns how often an effect was had.
    pub(crate) fn count(&self, effect: &str) -> usize {
        let state = self.state();
        state
            .effects
            .iter()
            .filter(|(name, _)| name == effect)
            .count()
    }

    /// Lets a region's store take nothing more from now on.
    pub(crate) fn fill(&mut self, region: &RegionName) {
        let full = decorate::Fault::Before(ErrorKind::Full);
        let full = decorate::Rule::on(decorate::Operation::Create, "*", full);
        let store = Arc::clone(&self.stores[region]);
        let filled = decorate::Faulty::scripted(store, vec![full]);
        self.stores.insert(region.clone(), Arc::new(filled));
    }

    /// Makes the parts that an execution works with, for a process on a machine.
    pub(crate) fn site(&self, machine: &str) -> Site {
        let view = || Seen(self.clone());
        let service = ServiceSite {
            host: Arc::new(view()),
            start: Command::new(["ledger", "--password", "hunter2"]),
            stop: Some(Command::new(["stop"])),
            check: Some(Command::new(["check"])),
        };
        let left = ServiceSite {
            host: Arc::new(view()),
            start: Command::new(["start-left"]),
            stop: Some(Command::new(["stop-left"])),
            check: Some(Command::new(["check-left"])),
        };
        Site {
            workload: orders(),
            home: east(),
            recovery: vec![west()],
            rpo: Duration::from_secs(60),
            approval: ApprovalPolicy::default(),
            stores: self.stores.clone(),
            register: Arc::new(self.register()),
            resources: [(database(), Arc::new(view()) as Arc<dyn ResourceDriver>)].into(),
            services: [(
                "ledger".parse().unwrap(),
                [(west(), service), (east(), left)].into(),
            )]
            .into(),
            probes: [(west(), vec![Arc::new(view()) as Arc<dyn Probe>])].into(),
            clients: vec![Arc::new(view())],
            traffic: vec![Arc::new(view())],
            optional: BTreeSet::new(),
            notifiers: vec![Arc::new(view())],
            clock: self.clock.clone(),
            actor: Actor::new("ada", machine, 42),
            definitions: [("services.ledger".to_owned(), "1".to_owned())].into(),
            secrets: vec![Secret::new("hunter2")],
        }
    }

    /// Returns every journal entry of every execution as text.
    pub(crate) async fn journals(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for store in self.stores.values() {
            let all = dr_provider::store::list_all(store.as_ref(), "execution/").await;
            for info in all.unwrap() {
                let bytes = store.get(&info.key).await.unwrap();
                texts.push(String::from_utf8(bytes.to_vec()).unwrap());
            }
        }
        texts
    }
}

/// Reads the runbook that is shipped for a lost region.
pub(crate) fn shipped() -> Runbook {
    let text = include_str!("../../../../runbooks/failover-region.yaml");
    runbook(text).unwrap()
}

/// Reads the runbook that is shipped for a planned move.
pub(crate) fn shipped_planned() -> Runbook {
    runbook(include_str!("../../../../runbooks/failover-planned.yaml")).unwrap()
}

/// Reads the runbook that is shipped for a move home.
pub(crate) fn shipped_failback() -> Runbook {
    runbook(include_str!("../../../../runbooks/failback-region.yaml")).unwrap()
}

/// Reads the runbook that is shipped for taking a move back.
pub(crate) fn shipped_undo() -> Runbook {
    runbook(include_str!("../../../../runbooks/undo-move.yaml")).unwrap()
}

/// Reads the runbook that is shipped for one component.
pub(crate) fn shipped_recover() -> Runbook {
    runbook(include_str!("../../../../runbooks/recover-component.yaml")).unwrap()
}

/// Reads the runbook that is shipped for damaged data.
pub(crate) fn shipped_restore() -> Runbook {
    runbook(include_str!("../../../../runbooks/restore-database.yaml")).unwrap()
}

/// Reads a runbook as the configuration does.
pub(crate) fn runbook(text: &str) -> std::result::Result<Runbook, String> {
    let directory = tempfile::tempdir().unwrap();
    let root = "version: 1\nregions:\n  us-east-1: { store: stores/east }\nworkloads: {}\n";
    std::fs::write(directory.path().join("dr.yaml"), root).unwrap();
    std::fs::create_dir(directory.path().join("runbooks")).unwrap();
    std::fs::write(directory.path().join("runbooks/it.yaml"), text).unwrap();
    let kinds = dr_config::Kinds {
        steps: crate::steps::registry::kinds(),
        conditions: crate::plan::condition::words(),
        ..dr_config::Kinds::default()
    };
    let resolver = |text: &str| Err(format!("`{text}` cannot be resolved"));
    let loaded = dr_config::load(directory.path(), &kinds, Arc::new(resolver));
    let loaded = loaded.map_err(|problems| problems.to_string())?;
    let runbooks = loaded.config.runbooks;
    if let Some(file) = runbooks.unusable().first() {
        return Err(file.problems.to_string());
    }
    // Those that are shipped are there beside it.
    let mut own = runbooks.usable().filter(|runbook| !runbook.built_in);
    Ok(own.next().unwrap().clone())
}
