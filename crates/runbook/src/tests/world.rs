//! A world in memory: two regions, one database, one service, one record that leads clients, one register.
//!
//! The state of the world is one value behind a lock; drivers, hosts and traffic are views of it, with a script of
//! faults by action name. Time stands still unless something here moves it.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dr_config::Runbook;
use dr_coordination::Actor;
use dr_coordination::register::{ClusterClaim, EpochRecord, FORMAT_VERSION, Register};
use dr_model::loss::{Bound, Estimate};
use dr_model::{
    Epoch, Lsn, ManualClock, RegionName, ResourceName, SystemIdentifier, TimelineId, WorkloadName,
};
use dr_provider::driver::{
    Action, Applied, Dependency, Evidence, Facts, Fence, Fenced, Frontier, Goal, Instance,
    LogFacts, LogStream, LossFacts, Plane, PromiseFacts, Recovered, RecoveryPoint, RegionFacts,
    Role, Sealed, StopProof, Undo, Verified,
};
use dr_provider::host::{Command, Output, PathKind};
use dr_provider::notifier::Message;
use dr_provider::probe::Health;
use dr_provider::store::MemoryStore;
use dr_provider::traffic::{TrafficState, View};
use dr_provider::{
    Error, ErrorKind, Host, Notifier, ObjectStore, Probe, ResourceDriver, Result, Secret, Traffic,
};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use crate::site::{ServiceSite, Site};

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
}

/// The state of the world.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) left_reachable: bool,
    pub(crate) left_running: bool,
    pub(crate) standby: bool,
    pub(crate) recovery_point: bool,
    pub(crate) synchronous: bool,
    pub(crate) delay_seconds: Option<f64>,
    pub(crate) sealed: bool,
    pub(crate) primary_here: Option<&'static str>,
    pub(crate) serving: bool,
    pub(crate) healthy: bool,
    pub(crate) traffic: TrafficState,
    pub(crate) silent_view: bool,
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
        let stores = [east(), west()].map(|region| {
            let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new(region.as_str()));
            (region, store)
        });
        let world = Self {
            clock: Arc::new(ManualClock::new(noon())),
            stores: stores.into(),
            state: Arc::new(Mutex::new(State {
                left_reachable: true,
                left_running: false,
                standby: true,
                recovery_point: true,
                synchronous: false,
                delay_seconds: Some(0.4),
                sealed: false,
                primary_here: None,
                serving: false,
                healthy: true,
                traffic: TrafficState {
                    region: Some(east()),
                    answer: "10.0.2.20".to_owned(),
                    epoch: Some(Epoch(1)),
                    ttl_seconds: 30,
                    serial: None,
                },
                silent_view: false,
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
            clusters: [(database(), claim)].into(),
            sync: BTreeMap::new(),
            created_at: noon(),
            created_by: Actor::new("dr", "east", 1),
            reason: "first".to_owned(),
            sync_lost: std::collections::BTreeMap::new(),
            execution: None,
            override_reason: None,
        };
        world.register().create(&first).await.unwrap();
        world
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

    /// Makes the parts that an execution works with, for a process on a machine.
    pub(crate) fn site(&self, machine: &str) -> Site {
        let view = || Seen(self.clone());
        let service = ServiceSite {
            host: Arc::new(view()),
            start: Command::new(["ledger", "--password", "hunter2"]),
            check: Some(Command::new(["check"])),
        };
        Site {
            workload: orders(),
            home: east(),
            recovery: vec![west()],
            rpo: Duration::from_secs(60),
            quorum: 0,
            stores: self.stores.clone(),
            register: Arc::new(self.register()),
            resources: [(database(), Arc::new(view()) as Arc<dyn ResourceDriver>)].into(),
            services: [("ledger".parse().unwrap(), [(west(), service)].into())].into(),
            probes: [(west(), vec![Arc::new(view()) as Arc<dyn Probe>])].into(),
            traffic: vec![Arc::new(view())],
            notifiers: vec![Arc::new(view())],
            clock: self.clock.clone(),
            actor: Actor::new("ada", machine, 42),
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

/// Reads the runbook that is shipped.
pub(crate) fn shipped() -> Runbook {
    let text = include_str!("../../../../runbooks/failover-region.yaml");
    runbook(text).unwrap()
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
        ..dr_config::Kinds::default()
    };
    let resolver = |text: &str| Err(format!("`{text}` cannot be resolved"));
    let loaded = dr_config::load(directory.path(), &kinds, Arc::new(resolver));
    let loaded = loaded.map_err(|problems| problems.to_string())?;
    Ok(loaded.config.runbooks.into_values().next().unwrap())
}

#[derive(Clone, Debug)]
struct Seen(Everything);

impl Seen {
    /// Has an effect, unless the script says otherwise; `had` tells whether it is there already.
    async fn have(
        &self,
        name: &str,
        epoch: Epoch,
        effect: impl FnOnce(&mut State) -> bool,
    ) -> Result<()> {
        let error = |kind, why: &str| Error::new(kind, name, "database").because(why.to_owned());
        let fault = {
            let mut state = self.0.state();
            let script = state.faults.get_mut(name);
            script.and_then(VecDeque::pop_front)
        };
        let why = self.0.state().error_text.clone();
        match fault {
            Some(Fault::Definite) => return Err(error(ErrorKind::Failed, &why)),
            Some(Fault::Unavailable) => return Err(error(ErrorKind::Unavailable, &why)),
            Some(Fault::RequestLost) => return Err(error(ErrorKind::Unknown, &why)),
            Some(Fault::Superseded) => return Err(error(ErrorKind::Superseded, &why)),
            Some(Fault::Hang) => std::future::pending::<()>().await,
            Some(Fault::AnswerLost) | None => {}
        }
        self.0.clock.advance(Duration::from_millis(100));
        {
            let mut state = self.0.state();
            if epoch < state.highest_epoch {
                return Err(error(ErrorKind::Superseded, "a higher epoch was seen"));
            }
            state.highest_epoch = epoch;
            if effect(&mut state) {
                state.effects.push((name.to_owned(), epoch));
            }
        }
        if fault == Some(Fault::AnswerLost) {
            return Err(error(ErrorKind::Unknown, &why));
        }
        Ok(())
    }

    fn instance(&self, region: &RegionName) -> Instance {
        let state = self.0.state();
        let running = |role, position| Instance::Running {
            role,
            timeline: TimelineId(1),
            position: Lsn(position),
            replayed: None,
        };
        if *region == east() {
            return match (state.left_reachable, state.left_running) {
                (false, _) => Instance::Unreachable {
                    why: "connection timed out".to_owned(),
                },
                (true, true) => running(Role::Primary, 0x5000),
                (true, false) => Instance::Stopped,
            };
        }
        match state.standby {
            true => running(Role::Standby, 0x4F00),
            false => Instance::NotConfigured,
        }
    }

    fn log(&self) -> LogFacts {
        let state = self.0.state();
        let point = RecoveryPoint {
            label: "20261121T020000Z-0001".to_owned(),
            system_identifier: SYSTEM,
            timeline: TimelineId(1),
            start: Lsn(0x1000),
            stop: Lsn(0x1100),
            started_at: before_noon(36_000_000),
            stopped_at: before_noon(35_990_000),
            database_bytes: 1,
            stored_bytes: 1,
            taken: Default::default(),
        };
        LogFacts {
            epoch: Epoch(1),
            timeline: TimelineId(1),
            start: Lsn(0x1000),
            end: Lsn(0x5000),
            missing: Vec::new(),
            sealed: state.sealed,
            primary_end: Lsn(0x5100),
            received_at: Some(before_noon(1000)),
            last_commit_at: Some(before_noon(1100)),
            commits_per_second: Some(100.0),
            covered_at: Some(before_noon(1400)),
            promise: state.synchronous.then(|| PromiseFacts {
                held: true,
                checked_at: before_noon(1000),
                reasons: Vec::new(),
                epoch: Epoch(1),
                from: Some(Lsn(0x1000)),
            }),
            recovery_points: match state.recovery_point {
                true => vec![point],
                false => Vec::new(),
            },
        }
    }

    fn applied(&self, summary: &str, evidence: Value) -> Applied {
        Applied {
            summary: summary.to_owned(),
            evidence,
            at: dr_model::Clock::now(&*self.0.clock),
        }
    }

    /// Says what an action has left behind, if it has been done.
    fn done(&self, action: &Action) -> Option<Applied> {
        let recovered = || {
            let recovered = Recovered {
                timeline: TimelineId(2),
                start: Lsn(0x5000),
                heartbeat: Some(before_noon(1250)),
            };
            recovered.to_evidence()
        };
        let (sealed, primary, running) = {
            let state = self.0.state();
            (state.sealed, state.primary_here, state.left_running)
        };
        match action.name.as_str() {
            "stop-instance" if !running => {
                let fenced = Fenced {
                    proof: Some(StopProof::Stopped),
                    at: noon(),
                };
                Some(self.applied("stopped", fenced.to_evidence()))
            }
            "seal-chain" if sealed => {
                let sealed = Sealed {
                    timeline: TimelineId(1),
                    lsn: Lsn(0x5000),
                    promise: self
                        .log()
                        .promise
                        .map(|promise| (promise.held, promise.checked_at)),
                    covered_at: Some(before_noon(1400)),
                    sealed_at: noon(),
                };
                Some(self.applied("sealed at 0/5000", sealed.to_evidence()))
            }
            "promote-standby" if primary == Some("promoted") => {
                Some(self.applied("promoted on timeline 2", recovered()))
            }
            "restore-instance" if primary == Some("restored") => {
                Some(self.applied("restored on timeline 2", recovered()))
            }
            "keep-slots" => Some(self.applied("slots are there", Value::Null)),
            _ => None,
        }
    }
}

fn action(name: &str, region: &RegionName, undo: Undo) -> Action {
    Action {
        name: name.to_owned(),
        summary: format!("{name} in {region}"),
        current: None,
        intended: None,
        dependencies: vec![Dependency {
            region: region.clone(),
            plane: Plane::Data,
            what: format!("database in {region}"),
        }],
        undo,
        parameters: Value::Null,
    }
}

#[async_trait]
impl ResourceDriver for Seen {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    async fn observe(&self, regions: &[RegionName]) -> Facts {
        let of = |region: &RegionName| {
            let facts = RegionFacts {
                instance: self.instance(region),
                log: match *region == west() {
                    true => Ok(Some(self.log())),
                    false => Err("connection timed out".to_owned()),
                },
                detail: Value::Null,
            };
            (region.clone(), facts)
        };
        Facts {
            observed_at: noon(),
            system_identifier: Some(SYSTEM),
            claim: None,
            regions: regions.iter().map(of).collect(),
        }
    }

    fn plan(&self, goal: &Goal, facts: &Facts) -> Result<Vec<Action>> {
        let refuse = |why: &str| {
            Error::new(ErrorKind::Failed, "plan", "orders/database").because(why.to_owned())
        };
        let seen = |region: &RegionName| facts.regions.get(region);
        Ok(vec![match goal {
            Goal::Fence { region } => action(
                "stop-instance",
                region,
                Undo::Reversible("start it".to_owned()),
            ),
            Goal::Seal { region, .. } => action(
                "seal-chain",
                region,
                Undo::Compensable("a later epoch".to_owned()),
            ),
            Goal::Promote { region, .. } => match seen(region).map(|seen| &seen.instance) {
                Some(Instance::Running { .. }) => action(
                    "promote-standby",
                    region,
                    Undo::Irreversible("a new timeline begins".to_owned()),
                ),
                _ => return Err(refuse("there is no standby")),
            },
            Goal::Restore { region, .. } => match seen(region).map(|seen| &seen.log) {
                Some(Ok(Some(log))) if !log.recovery_points.is_empty() => action(
                    "restore-instance",
                    region,
                    Undo::Irreversible("a new timeline begins".to_owned()),
                ),
                _ => return Err(refuse("there is no recovery point")),
            },
            Goal::Rearm { region } => action(
                "keep-slots",
                region,
                Undo::Reversible("drop them".to_owned()),
            ),
        }])
    }

    async fn apply(&self, action: &Action, fence: &Fence) -> Result<Applied> {
        if action.name == "stop-instance" && !self.0.state().left_reachable {
            std::future::pending::<()>().await;
        }
        let name = action.name.as_str();
        let effect = |state: &mut State| match name {
            "stop-instance" => std::mem::take(&mut state.left_running),
            "seal-chain" => !std::mem::replace(&mut state.sealed, true),
            "promote-standby" => {
                let before = state.primary_here.replace("promoted");
                assert_ne!(before, Some("restored"), "two rungs were taken");
                assert!(state.sealed, "promoted before the seal");
                before.is_none()
            }
            "restore-instance" => {
                let before = state.primary_here.replace("restored");
                assert_ne!(before, Some("promoted"), "two rungs were taken");
                assert!(state.sealed, "restored before the seal");
                before.is_none()
            }
            _ => true,
        };
        self.have(name, fence.epoch, effect).await?;
        Ok(self.done(action).expect("what was applied is done"))
    }

    async fn verify(&self, action: &Action, _: &Fence) -> Result<Verified> {
        let blind = {
            let mut state = self.0.state();
            let left = state.blind.get_mut(&action.name);
            left.is_some_and(|left| {
                let blind = *left > 0;
                *left = left.saturating_sub(1);
                blind
            })
        };
        if blind {
            return Ok(Verified::Unknown {
                why: "connection timed out".to_owned(),
            });
        }
        Ok(match self.done(action) {
            Some(applied) => Verified::Done(applied),
            None => Verified::NotDone {
                seen: "it is not so".to_owned(),
            },
        })
    }

    fn loss(&self, _: &RegionName, _: &Facts) -> LossFacts {
        let state = self.0.state();
        let estimate = state.delay_seconds.map(|delay_seconds| Estimate {
            delay_seconds,
            missing_bytes: 0x100,
            commits: Some(40),
            last_contact: before_noon(1000),
        });
        LossFacts {
            estimate,
            bound: Bound::Growing {
                since: Some(before_noon(1400)),
            },
            commits_per_second: None,
            sealing_proves_zero: state.synchronous,
            because: vec!["as scripted".to_owned()],
        }
    }

    fn log_stream(&self) -> Option<&dyn LogStream> {
        Some(self)
    }
}

#[async_trait]
impl LogStream for Seen {
    async fn ship(
        &self,
        _: &RegionName,
        _: watch::Sender<Frontier>,
        _: watch::Receiver<bool>,
    ) -> Result<()> {
        Ok(())
    }

    async fn compact(&self, _: &RegionName) -> Result<dr_provider::driver::CompactReport> {
        Ok(dr_provider::driver::CompactReport::default())
    }

    async fn lost_since(&self, _: &RegionName, _: Lsn) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(250)
    }

    async fn beat(&self, _: &RegionName, _: Epoch) -> Result<Timestamp> {
        Ok(noon())
    }

    async fn last_beat(&self, _: &RegionName) -> Result<Option<Timestamp>> {
        Ok(Some(before_noon(1250)))
    }
}

#[async_trait]
impl Traffic for Seen {
    fn describe(&self) -> String {
        "rfc2136 orders.acme.example".to_owned()
    }

    fn answer(&self, region: &RegionName) -> Option<String> {
        Some(
            if *region == east() {
                "10.0.2.20"
            } else {
                "10.8.2.20"
            }
            .to_owned(),
        )
    }

    async fn observe(&self) -> Result<TrafficState> {
        Ok(self.0.state().traffic.clone())
    }

    async fn switch(
        &self,
        region: &RegionName,
        epoch: Epoch,
        previous: &TrafficState,
    ) -> Result<TrafficState> {
        let standing = self.0.state().traffic.clone();
        let subject = Traffic::describe(self);
        if standing.epoch.is_some_and(|there| there > epoch) {
            return Err(Error::new(ErrorKind::Superseded, "switch", subject));
        }
        if (standing.epoch, &standing.answer) != (previous.epoch, &previous.answer) {
            return Err(Error::new(ErrorKind::Conflict, "switch", subject));
        }
        let answer = self.answer(region).unwrap();
        let region = region.clone();
        let change = |state: &mut State| {
            state.traffic.region = Some(region);
            state.traffic.answer = answer;
            state.traffic.epoch = Some(epoch);
            true
        };
        self.have("switch-traffic", epoch, change).await?;
        Ok(self.0.state().traffic.clone())
    }

    async fn views(&self) -> Vec<View> {
        let (state, silent) = {
            let state = self.0.state();
            (state.traffic.clone(), state.silent_view)
        };
        let view = |observer: &str, state| View {
            observer: observer.to_owned(),
            state,
            seen_at: noon(),
        };
        let mut views = vec![view("10.8.0.53", Ok(state))];
        if silent {
            views.push(view("10.0.0.53", Err("no answer".to_owned())));
        }
        views
    }
}

#[async_trait]
impl Probe for Seen {
    fn describe(&self) -> String {
        "GET http://10.8.2.20:8080/health".to_owned()
    }

    async fn probe(&self) -> Health {
        let state = self.0.state();
        match (state.healthy, state.serving && state.primary_here.is_some()) {
            (true, true) => Health::Healthy("200".to_owned()),
            (true, false) => Health::Unknown("connection refused".to_owned()),
            (false, _) => Health::Unhealthy("503".to_owned()),
        }
    }
}

#[async_trait]
impl Notifier for Seen {
    fn describe(&self) -> String {
        "https://hooks.acme.example".to_owned()
    }

    async fn notify(&self, message: &Message) -> Result<()> {
        let send = |state: &mut State| {
            state.messages.push(message.clone());
            true
        };
        let epoch = self.0.state().highest_epoch;
        self.have("notify", epoch, send).await
    }
}

#[async_trait]
impl Host for Seen {
    fn name(&self) -> &str {
        "west-host"
    }

    fn is_local(&self) -> bool {
        false
    }

    async fn run(&self, command: &Command, _: Duration) -> Result<Output> {
        let output = |status, stderr: &str| Output {
            status: Some(status),
            stdout: Bytes::new(),
            stderr: Bytes::copy_from_slice(stderr.as_bytes()),
        };
        if command.argv[0] == "check" {
            return Ok(output(i32::from(!self.0.state().serving), ""));
        }
        let epoch = self.0.state().highest_epoch;
        let start = |state: &mut State| !std::mem::replace(&mut state.serving, true);
        match self.have("start-service", epoch, start).await {
            Err(error) if error.kind() == ErrorKind::Failed => {
                let said = format!("cannot log in with {}", command.argv[2]);
                Ok(output(1, &said))
            }
            Err(error) => Err(error),
            Ok(()) => Ok(output(0, "")),
        }
    }

    async fn read(&self, _: &Path, _: u64, _: u64) -> Result<Bytes> {
        Ok(Bytes::new())
    }

    async fn write(&self, _: &Path, _: &[u8]) -> Result<()> {
        Ok(())
    }

    async fn remove(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    async fn kind(&self, _: &Path) -> Result<PathKind> {
        Ok(PathKind::Missing)
    }

    async fn list(&self, _: &Path) -> Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    async fn admit(&self, _: &WorkloadName, epoch: Epoch) -> Result<()> {
        let mut state = self.0.state();
        if epoch < state.highest_epoch {
            return Err(Error::new(ErrorKind::Superseded, "use", "west-host"));
        }
        state.highest_epoch = epoch;
        Ok(())
    }
}
