//! Two who want different things, or the same, at once.

use std::sync::{Arc, Mutex};

use dr_coordination::register::EpochRecord;
use dr_model::{Epoch, RegionName};

use super::crash::die;
use super::runs::{failover, planned};
use super::world::{Everything, Fault, east, shipped_undo, west};
use crate::events::{Event, Monitor, Silent};
use crate::outcome::State;
use crate::plan::Class;
use crate::request::Request;
use crate::{Error, Refusal, abort, execute, executions, observe, plan, resume};

#[tokio::test(start_paused = true)]
async fn of_two_at_once_one_wins_and_the_other_is_told_by_whom() {
    let world = Everything::new().await;
    let plan = planned(&world, &Request::new(west())).await;
    let (one, other) = (world.site("laptop"), world.site("desk"));
    let (one, other) = tokio::join!(
        execute(Arc::new(one), plan.clone(), &Silent),
        execute(Arc::new(other), plan, &Silent),
    );
    let mut reports = [one.unwrap(), other.unwrap()];
    reports.sort_by_key(|report| report.state != State::Completed);
    let [winner, loser] = reports;
    assert_eq!(winner.state, State::Completed);
    assert_eq!(loser.state, State::Superseded);
    let reason = loser.reason.unwrap();
    assert!(reason.contains(winner.execution.as_str()), "{reason}");
    assert!(reason.contains("ada@"), "{reason}");
    assert_eq!(world.count("promote-standby"), 1);
    assert_eq!(world.count("switch-traffic"), 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_to_different_regions_one_wins_and_the_other_is_told_by_whom() {
    for west_first in [true, false] {
        let mut world = Everything::new().await;
        let central: RegionName = "eu-central-1".parse().unwrap();
        let store: Arc<dyn dr_provider::ObjectStore> =
            Arc::new(dr_provider::store::MemoryStore::new(central.as_str()));
        world.stores.insert(central.clone(), store);
        let to_west = planned(&world, &Request::new(west())).await;
        let mut elsewhere = to_west.clone();
        elsewhere.to = central;
        let (one, other) = match west_first {
            true => (to_west, elsewhere),
            false => (elsewhere, to_west),
        };
        let (one, other) = tokio::join!(
            execute(Arc::new(world.site("laptop")), one, &Silent),
            execute(Arc::new(world.site("desk")), other, &Silent),
        );
        let mut reports = [one.unwrap(), other.unwrap()];
        reports.sort_by_key(|report| report.state == State::Superseded);
        let [winner, loser] = reports;
        assert_ne!(winner.state, State::Superseded);
        assert_eq!(loser.state, State::Superseded);
        let reason = loser.reason.unwrap();
        assert!(reason.contains(winner.execution.as_str()), "{reason}");
        assert!(reason.contains(winner.to.as_str()), "{reason}");
        let head = world.register().read().await.unwrap().unwrap();
        assert_eq!((head.epoch, head.primary), (Epoch(2), winner.to));
        assert_eq!(world.count("promote-standby"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_plan_is_superseded_by_a_newer_epoch() {
    let world = Everything::new().await;
    let old = planned(&world, &Request::new(west())).await;
    let moved = failover(&world, &Request::new(west())).await;
    assert_eq!(moved.state, State::Completed);
    let site = Arc::new(world.site("desk"));
    let report = execute(site, old, &Silent).await.unwrap();
    assert_eq!(report.state, State::Superseded);
    assert!(report.reason.unwrap().contains(moved.execution.as_str()));
    assert_eq!(world.count("promote-standby"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_second_one_is_told_of_the_first() {
    let world = Everything::new().await;
    world.state().healthy = false;
    let stuck = failover(&world, &Request::new(west())).await;
    assert_eq!(stuck.state, State::Stuck);
    let site = world.site("desk");
    let back = observe(&site, &east()).await;
    assert_eq!(back.unfinished.len(), 1);
    let refusal = plan(&super::world::shipped(), &back, &Request::new(east())).unwrap_err();
    let Refusal::Unfinished(other) = &refusal else {
        panic!("{refusal}");
    };
    assert_eq!(other.execution, stuck.execution);
    assert_eq!(other.store, west());
    let said = refusal.to_string();
    assert!(
        said.contains("ada@laptop") && said.contains("stuck"),
        "{said}"
    );
    assert!(refusal.hint().unwrap().contains("dr execution resume"));
}

#[tokio::test(start_paused = true)]
async fn the_same_move_again_is_told_to_go_on_with_the_first() {
    let world = Everything::new().await;
    world.state().healthy = false;
    let stuck = failover(&world, &Request::new(west())).await;
    assert_eq!(stuck.state, State::Stuck);
    // Its epoch is open: the target is the primary, and serves nobody yet.
    let head = world.register().read().await.unwrap().unwrap();
    assert_eq!(head.primary, west());
    let again = observe(&world.site("desk"), &west()).await;
    let refusal = plan(&super::world::shipped(), &again, &Request::new(west())).unwrap_err();
    assert_eq!(refusal.class(), Class::Busy, "{refusal}");
    let resume = format!("dr execution resume {}", stuck.execution);
    assert!(refusal.hint().unwrap().contains(&resume));
}

/// Takes the execution over when a step begins, as another person would.
struct Rival {
    at: &'static str,
    taken: Mutex<Option<dr_model::ExecutionId>>,
    world: Everything,
}

impl Monitor for Rival {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Started { execution, .. } => {
                *self.taken.lock().unwrap() = Some((*execution).clone());
            }
            Event::StepBegan { step, .. } if step.id.0 == self.at => {
                let execution = self.taken.lock().unwrap().clone().unwrap();
                let site = Arc::new(self.world.site("desk"));
                // On a thread of its own, because a monitor does not wait; the world stands still meanwhile.
                let thread = std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .build()
                        .unwrap();
                    let going = resume(site, &execution, "took too long", vec![], &Silent);
                    runtime.block_on(going).unwrap().state
                });
                assert_eq!(thread.join().unwrap(), State::Completed);
            }
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_taken_over_has_no_further_effect() {
    for at in [
        "epoch", "fence", "seal", "promote", "serve", "switch", "notify", "rearm",
    ] {
        let world = Everything::new().await;
        let plan = planned(&world, &Request::new(west())).await;
        let rival = Rival {
            at,
            taken: Mutex::new(None),
            world: world.clone(),
        };
        let site = Arc::new(world.site("laptop"));
        let report = execute(site, plan, &rival).await.unwrap();
        assert_eq!(report.state, State::Superseded, "at {at}");
        let reason = report.reason.unwrap();
        assert!(reason.contains("ada@desk"), "{reason}");
        for effect in [
            "promote-standby",
            "switch-traffic",
            "start-service",
            "notify",
        ] {
            assert_eq!(world.count(effect), 1, "{effect} at {at}");
        }
        let clock: Arc<dyn dr_model::Clock> = world.clock.clone();
        let (all, _) = executions::list(&world.stores, &clock).await;
        assert_eq!(all[0].state, State::Completed);
        assert_eq!(all[0].holder.host, "desk");
    }
}

#[tokio::test(start_paused = true)]
async fn a_resumed_execution_whose_epoch_was_ended_stops() {
    let world = Everything::new().await;
    world.state().healthy = false;
    let stuck = failover(&world, &Request::new(west())).await;
    // Somebody moves on by hand, two epochs further.
    let register = world.register();
    let mut next = register.read().await.unwrap().unwrap();
    next.epoch = Epoch(3);
    next.execution = None;
    next.reason = "by hand".to_owned();
    register.create(&next).await.unwrap();
    let site = Arc::new(world.site("desk"));
    let report = resume(site, &stuck.execution, "go on", vec![], &Silent)
        .await
        .unwrap();
    assert_eq!(report.state, State::Superseded);
    assert!(report.reason.unwrap().contains("by hand"));
    assert_eq!(world.count("switch-traffic"), 0);
    let site = Arc::new(world.site("desk"));
    let again = resume(site, &stuck.execution, "go on", vec![], &Silent).await;
    assert!(matches!(again, Err(Error::Over { .. })));
}

#[tokio::test(start_paused = true)]
async fn only_what_has_promoted_nothing_can_be_aborted() {
    let world = Everything::new().await;
    world.state().healthy = false;
    let undo = shipped_undo();
    let stuck = failover(&world, &Request::new(west())).await;
    let site = Arc::new(world.site("desk"));
    let refused = abort(site, &stuck.execution, "no", &undo, &Silent)
        .await
        .unwrap_err();
    let Error::HasEffects { residue, hint, .. } = &refused else {
        panic!("{refused}");
    };
    // What it has changed is listed, and is no part of the sentence.
    assert!(residue.len() > 3, "{residue:?}");
    assert!(!refused.to_string().contains(&residue[0]), "{refused}");
    assert!(hint.ends_with("then move back"), "{hint}");

    // This one dies before it opens its epoch.
    let world = Everything::new().await;
    assert!(die(&world, &Request::new(west()), 2, false).await);
    let clock: Arc<dyn dr_model::Clock> = world.clock.clone();
    let (all, _) = executions::list(&world.stores, &clock).await;
    let execution = all[0].execution.clone();
    let site = Arc::new(world.site("desk"));
    let aborted = abort(site, &execution, "not today", &undo, &Silent).await;
    let aborted = aborted.unwrap();
    assert_eq!(aborted.report.unwrap().state, State::Aborted);
    assert_eq!(aborted.undone_by, None);
    let seen = observe(&world.site("desk"), &west()).await;
    assert!(seen.unfinished.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_has_seen_a_higher_epoch_ends_the_execution() {
    for action in ["seal-chain", "promote-standby", "stop-instance"] {
        let world = Everything::new().await;
        world.script(action, [Fault::Superseded]);
        let report = failover(&world, &Request::new(west())).await;
        assert_eq!(report.state, State::Superseded, "{action}");
        assert_eq!(world.count("switch-traffic"), 0, "{action}");
        assert_eq!(world.count("restore-instance"), 0, "{action}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_register_only_an_override_goes_on_and_its_epoch_is_unproven() {
    let world = Everything::new().await;
    // The register moves to the east, which is then lost for good.
    let register = world.register();
    let mut moved = register.read().await.unwrap().unwrap();
    moved.epoch = Epoch(2);
    moved.register = east();
    register.create(&moved).await.unwrap();
    register.copy_to(&west()).await.unwrap();
    let lost: Arc<dyn dr_provider::ObjectStore> = Arc::new(Lost(east()));
    let mut world = world;
    world.stores.insert(east(), lost);
    let site = world.site("laptop");
    let seen = observe(&site, &west()).await;
    let refusal = plan(&super::world::shipped(), &seen, &Request::new(west())).unwrap_err();
    assert!(
        matches!(refusal, Refusal::RegisterUnreachable { .. }),
        "{refusal}"
    );
    let request = Request {
        statements: vec![crate::Statement::Override("the east burns".to_owned())],
        ..Request::new(west())
    };
    let plan = plan(&super::world::shipped(), &seen, &request).unwrap();
    assert!(plan.warnings[0].contains("unproven"), "{:?}", plan.warnings);
    let report = execute(Arc::new(site), plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Completed, "{report:#?}");
    assert!(report.unproven_epoch);
    let head = world.register().read().await.unwrap().unwrap();
    assert_eq!((head.epoch, head.primary), (Epoch(3), west()));
    assert_eq!(head.override_reason.as_deref(), Some("the east burns"));
}

/// An override is for a register that is gone, not for one that is wrong.
#[tokio::test(start_paused = true)]
async fn no_override_goes_past_a_register_with_records_missing() {
    let world = Everything::new().await;
    let register = world.register();
    let first = register.read().await.unwrap().unwrap();
    let second = first.with_register(first.register.clone());
    register.create(&second).await.unwrap();
    register.copy_to(&east()).await.unwrap();
    let key = EpochRecord::key(&second.workload, second.epoch);
    world.stores[&second.register].delete(&key).await.unwrap();
    let seen = observe(&world.site("laptop"), &west()).await;
    let request = Request {
        statements: vec![crate::Statement::Override("quickly".to_owned())],
        ..Request::new(west())
    };
    let refusal = plan(&super::world::shipped(), &seen, &request).unwrap_err();
    assert!(
        matches!(refusal, Refusal::RegisterDamaged { .. }),
        "{refusal}"
    );
    assert!(refusal.hint().unwrap().contains(key.as_str()));
}

/// A store that is gone.
#[derive(Debug)]
struct Lost(RegionName);

impl Lost {
    fn gone<T>(&self) -> dr_provider::Result<T> {
        let kind = dr_provider::ErrorKind::Unavailable;
        Err(dr_provider::Error::new(
            kind,
            "use the store of",
            self.0.as_str(),
        ))
    }
}

#[async_trait::async_trait]
impl dr_provider::ObjectStore for Lost {
    fn location(&self) -> &str {
        "memory://lost"
    }

    async fn create(&self, _: &dr_provider::Key, _: bytes::Bytes) -> dr_provider::Result<()> {
        self.gone()
    }

    async fn get(&self, _: &dr_provider::Key) -> dr_provider::Result<bytes::Bytes> {
        self.gone()
    }

    async fn get_range(
        &self,
        _: &dr_provider::Key,
        _: u64,
        _: u64,
    ) -> dr_provider::Result<bytes::Bytes> {
        self.gone()
    }

    async fn head(
        &self,
        _: &dr_provider::Key,
    ) -> dr_provider::Result<dr_provider::store::ObjectInfo> {
        self.gone()
    }

    async fn list(
        &self,
        _: &str,
        _: Option<&dr_provider::Key>,
        _: usize,
    ) -> dr_provider::Result<Vec<dr_provider::store::ObjectInfo>> {
        self.gone()
    }

    async fn delete(&self, _: &dr_provider::Key) -> dr_provider::Result<()> {
        self.gone()
    }
}
