//! The database of the world, as a driver sees it.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use dr_model::loss::{Bound, Estimate};
use dr_model::{Epoch, Lsn, RegionName, SystemIdentifier, TimelineId};
use dr_provider::driver::{
    Action, Applied, Dependency, Drained, Evidence, Facts, Fence, Fenced, Frontier, Goal, Instance,
    LogFacts, LogStream, LossFacts, Plane, PromiseFacts, Query, Recovered, RecoveryPoint,
    RegionFacts, Role, Sealed, StopProof, Undo, Verified,
};
use dr_provider::{Error, ErrorKind, ResourceDriver, Result};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use super::{Everything, Fault, SYSTEM, State, before_noon, east, noon, west};

/// A view of the world.
#[derive(Clone, Debug)]
pub(super) struct Seen(pub(super) Everything);

impl Seen {
    /// Has an effect, unless the script says otherwise; `had` tells whether it is there already.
    pub(super) async fn have(
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
            Some(Fault::Alive) => return Err(error(ErrorKind::Conflict, "processes 7 still run")),
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
        if *region == east() && state.left_follows {
            return running(Role::Standby, 0x5000);
        }
        if *region == east() {
            return match (state.left_reachable, state.left_running) {
                (false, _) => Instance::Unreachable {
                    why: "connection timed out".to_owned(),
                    runs: state.left_hangs,
                    on_host: false,
                    hint: None,
                },
                (true, true) => running(Role::Primary, 0x5000),
                (true, false) => Instance::Stopped,
            };
        }
        match state.standby {
            true if state.primary_here.is_some() => running(Role::Primary, 0x5000),
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
            failure: None,
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
            shipped_at: Some(before_noon(1000)),
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
            unusable: Vec::new(),
            earlier: None,
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
            let (heartbeat, newest_commit) = {
                let state = self.0.state();
                (state.heartbeat, state.newest_commit)
            };
            let recovered = Recovered {
                timeline: TimelineId(2),
                start: Lsn(0x5000),
                heartbeat: Some(heartbeat),
                newest_commit,
                doubts: Vec::new(),
            };
            recovered.to_evidence()
        };
        let (sealed, primary, running, ran_until) = {
            let state = self.0.state();
            let ran_until = state.ran_until;
            (
                state.sealed,
                state.primary_here,
                state.left_running,
                ran_until,
            )
        };
        match action.name.as_str() {
            "stop-instance" if !running => {
                let fenced = Fenced {
                    proof: Some(StopProof::Stopped),
                    at: ran_until.unwrap_or_else(noon),
                    ran: ran_until.is_some(),
                    alive: None,
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
            "shut-down" => {
                let drained = self.0.state().drained?;
                let fenced = Fenced {
                    proof: Some(StopProof::Stopped),
                    at: noon(),
                    ran: false,
                    alive: None,
                };
                let drained = Drained {
                    timeline: TimelineId(1),
                    end: drained,
                };
                let mut evidence = fenced.to_evidence();
                evidence[Drained::KEY] = drained.to_evidence()[Drained::KEY].clone();
                (!running).then(|| self.applied("shut down", evidence))
            }
            "prepare" if self.0.state().prepared => Some(self.applied("it came up", Value::Null)),
            "replace" if self.0.state().replaced => {
                let recovered = Recovered {
                    timeline: TimelineId(2),
                    start: Lsn(0x3000),
                    heartbeat: Some(before_noon(60_000)),
                    newest_commit: None,
                    doubts: Vec::new(),
                };
                Some(self.applied("put back", recovered.to_evidence()))
            }
            "follow" if self.0.state().left_follows => {
                Some(self.applied("it follows", Value::Null))
            }
            "resume" if running && primary.is_none() => {
                let resumed = Recovered {
                    timeline: TimelineId(1),
                    start: Lsn(0x5000),
                    heartbeat: Some(before_noon(1250)),
                    newest_commit: None,
                    doubts: self.0.state().doubts.clone(),
                };
                Some(self.applied("it runs again", resumed.to_evidence()))
            }
            "keep-slots" if self.0.state().slots => {
                Some(self.applied("slots are there", Value::Null))
            }
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
impl Query for Seen {
    async fn scalar(&self, _: &RegionName, _: &str, _: Duration) -> Result<Option<String>> {
        Err(Error::new(ErrorKind::Unsupported, "query", "database"))
    }

    async fn role(&self, _: &RegionName) -> Result<(SystemIdentifier, Role)> {
        Err(Error::new(ErrorKind::Unsupported, "query", "database"))
    }

    async fn sessions(&self, region: &RegionName) -> Result<(SystemIdentifier, u64)> {
        assert_eq!(*region, east());
        let mut state = self.0.state();
        state.left_asked += 1;
        Ok((SYSTEM, state.left_sessions))
    }
}

#[async_trait]
impl ResourceDriver for Seen {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    async fn observe(&self, regions: &[RegionName]) -> Facts {
        let hangs = {
            let state = self.0.state();
            regions.contains(&east()) && (state.left_mute || state.left_store_hangs)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        let of = |region: &RegionName| {
            let facts = RegionFacts {
                instance: self.instance(region),
                log: match *region == west() {
                    true => Ok(Some(self.log())),
                    false => Err("connection timed out".to_owned()),
                },
                detail: Value::Null,
                late: match *region == east() && self.0.state().left_late {
                    true => vec!["its data directory: no answer within 2.4 s".to_owned()],
                    false => Vec::new(),
                },
            };
            (region.clone(), facts)
        };
        // Not within the value: the lock would be held while the regions are looked at.
        let claim = self.0.state().claim.clone();
        Facts {
            observed_at: noon(),
            system_identifier: Some(SYSTEM),
            claim,
            regions: regions.iter().map(of).collect(),
        }
    }

    async fn look(&self, region: &RegionName) -> Instance {
        if *region == east() && self.0.state().left_mute {
            std::future::pending::<()>().await;
        }
        self.instance(region)
    }

    fn plan(&self, goal: &Goal, facts: &Facts) -> Result<Vec<Action>> {
        let refuse = |why: &str| {
            Error::new(ErrorKind::Failed, "plan", "orders/database").because(why.to_owned())
        };
        let seen = |region: &RegionName| facts.regions.get(region);
        Ok(vec![match goal {
            Goal::Fence { .. } if self.0.state().unfenceable => {
                return Err(refuse("its data directory is of another cluster"));
            }
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
            Goal::Vacate { region } => action(
                "stop-instance",
                region,
                Undo::Reversible("start it".to_owned()),
            ),
            Goal::Restart { region } => match seen(region).map(|seen| &seen.instance) {
                Some(Instance::Stopped) => {
                    action("resume", region, Undo::Compensable("stop it".to_owned()))
                }
                Some(Instance::Running {
                    role: Role::Primary,
                    ..
                }) => return Ok(Vec::new()),
                _ => return Err(refuse("it cannot be started")),
            },
            Goal::Prepare { region, .. } => {
                action("prepare", region, Undo::Reversible("remove it".to_owned()))
            }
            Goal::Replace { region, .. } => action(
                "replace",
                region,
                Undo::Irreversible("a new timeline begins".to_owned()),
            ),
            Goal::StopWrites { region, .. } => match seen(region).map(|seen| &seen.instance) {
                Some(Instance::Running {
                    role: Role::Primary,
                    ..
                }) => action(
                    "shut-down",
                    region,
                    Undo::Compensable("start it".to_owned()),
                ),
                _ => return Err(refuse("no primary runs")),
            },
            Goal::Follow { region, .. } => {
                action("follow", region, Undo::Reversible("stop it".to_owned()))
            }
            Goal::ResumePrimary {
                region,
                standby,
                unpromoted,
            } => match seen(standby).map(|seen| &seen.instance) {
                Some(Instance::NotConfigured) if *unpromoted => {
                    action("resume", region, Undo::Compensable("move again".to_owned()))
                }
                Some(Instance::Running {
                    role: Role::Standby,
                    ..
                }) => action("resume", region, Undo::Compensable("move again".to_owned())),
                _ => return Err(refuse("there is no standby any more")),
            },
            Goal::Rearm { region } => action(
                "keep-slots",
                region,
                Undo::Reversible("drop them".to_owned()),
            ),
        }])
    }

    fn query(&self) -> Option<&dyn Query> {
        Some(self)
    }

    fn still_holds(&self, actions: &[Action], facts: &Facts) -> Result<()> {
        for action in actions {
            let (region, ended) = (facts.regions.keys().next().unwrap().clone(), Epoch(1));
            let goal = match action.name.as_str() {
                "promote-standby" => Goal::Promote { region, ended },
                "restore-instance" => Goal::Restore { region, ended },
                "shut-down" if self.0.state().nobody_streams => {
                    let error = Error::new(ErrorKind::Unavailable, "stop", "orders/database");
                    return Err(error.because("nothing streams from it"));
                }
                _ => continue,
            };
            self.plan(&goal, facts)?;
        }
        Ok(())
    }

    async fn apply(&self, action: &Action, fence: &Fence) -> Result<Applied> {
        if action.name == "stop-instance" && !self.0.state().left_reachable {
            std::future::pending::<()>().await;
        }
        let name = action.name.as_str();
        let now = dr_model::Clock::now(&*self.0.clock);
        let effect = |state: &mut State| match name {
            "stop-instance" => {
                let ran = std::mem::take(&mut state.left_running);
                state.ran_until = ran.then_some(now).or(state.ran_until);
                ran
            }
            "shut-down" => {
                state.drained = Some(state.left_end);
                std::mem::take(&mut state.left_running)
            }
            "follow" => {
                assert!(state.primary_here.is_some(), "it follows nobody");
                assert!(!state.left_running, "it is a primary");
                !std::mem::replace(&mut state.left_follows, true)
            }
            "resume" => {
                assert_eq!(state.primary_here, None, "two primaries");
                !std::mem::replace(&mut state.left_running, true)
            }
            "seal-chain" => !std::mem::replace(&mut state.sealed, true),
            "prepare" => !std::mem::replace(&mut state.prepared, true),
            "replace" => {
                assert!(state.sealed && state.prepared, "replaced before the seal");
                let first = !std::mem::replace(&mut state.replaced, true);
                assert!(!first || !state.left_running, "it runs");
                state.left_running = true;
                first
            }
            "keep-slots" => !std::mem::replace(&mut state.slots, true),
            "promote-standby" => {
                let before = state.primary_here.replace("promoted");
                assert_ne!(before, Some("restored"), "two rungs were taken");
                assert!(state.sealed, "promoted before the seal");
                assert!(
                    state.drained.is_none() || !state.left_running,
                    "two primaries"
                );
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
                remedy: None,
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
            lived_on_seconds: 0.0,
        });
        LossFacts {
            estimate,
            bound: Bound::Growing {
                since: Some(before_noon(state.held.map_or(1400, |_| 600))),
            },
            rests_on: state.held,
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
