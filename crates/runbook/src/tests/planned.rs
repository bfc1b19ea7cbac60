//! Planned moves: nothing is promoted before everything is proven to be there, and what was begun can be taken back.

use std::sync::Arc;
use std::time::Duration;

use dr_config::Runbook;
use dr_coordination::register::{self, ClusterClaim, EpochRecord};
use dr_model::loss::Bound;
use dr_model::{Epoch, ExecutionId, Lsn};
use rstest::rstest;

use super::crash::{die_in, mortal_site};
use super::runs::{planned_by, state_of};
use super::world::{
    Everything, Fault, east, shipped, shipped_failback, shipped_planned, shipped_undo, west,
};
use crate::events::Silent;
use crate::outcome::{State, StepState};
use crate::proof::ProofName;
use crate::request::{Request, Statement};
use crate::{Class, Error, Mode, Report, abort, execute, executions, observe, plan, resume};

/// Makes a world in which nothing is wrong.
async fn well() -> Everything {
    let world = Everything::new().await;
    world.state().left_running = true;
    world
}

async fn switch_over(world: &Everything) -> Report {
    let plan = planned_by(world, &shipped_planned(), &Request::new(west())).await;
    let site = Arc::new(world.site("laptop"));
    execute(site, plan, &Silent).await.unwrap()
}

fn effects(world: &Everything) -> Vec<String> {
    let state = world.state();
    state.effects.iter().map(|(name, _)| name.clone()).collect()
}

/// People may think about a plan for days, and a name server die meanwhile. Such a move can wait.
#[tokio::test(start_paused = true)]
async fn a_name_server_that_has_fallen_silent_since_the_plan_stops_a_planned_move_before_anything()
{
    let world = well().await;
    let plan = planned_by(&world, &shipped_planned(), &Request::new(west())).await;
    world.state().name_server_silent = true;
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Failed, "{report:#?}");
    let reason = report.reason.unwrap();
    assert!(reason.contains("could not be led"), "{reason}");
    assert_eq!(effects(&world), [""; 0]);

    // An unplanned one goes on: what is down is not served meanwhile.
    world.state().left_running = false;
    let plan = planned_by(&world, &shipped(), &Request::new(west())).await;
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(state_of(&report, "promote"), StepState::Done);
}

#[rstest]
#[case(shipped_planned())]
#[case(shipped_failback())]
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_and_the_old_primary_follows(#[case] runbook: Runbook) {
    let world = well().await;
    let plan = planned_by(&world, &runbook, &Request::new(west())).await;
    assert_eq!((plan.mode, &plan.loss.bound), (Mode::Planned, &Bound::Zero));
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Completed, "{report:#?}");
    assert_eq!(report.fence, ProofName::Stopped);
    assert_eq!(report.loss.bound, Bound::Zero);
    assert_eq!(
        (report.rpa_seconds, report.rpa_interval_seconds),
        (Some(0.0), None)
    );
    assert_eq!(
        effects(&world),
        [
            "shut-down",
            "seal-chain",
            "promote-standby",
            "start-service",
            "switch-traffic",
            "notify",
            "follow",
            "keep-slots"
        ]
    );
    assert!(world.state().left_follows);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_is_gone_is_not_moved_by_plan() {
    let world = Everything::new().await;
    let seen = observe(&world.site("laptop"), &west()).await;
    let refusal = plan(&shipped_planned(), &seen, &Request::new(west())).unwrap_err();
    assert!(refusal.to_string().contains("no primary runs"), "{refusal}");
    assert!(plan(&shipped(), &seen, &Request::new(west())).is_ok());
}

#[tokio::test(start_paused = true)]
async fn without_everything_nothing_is_promoted_and_the_old_primary_starts_again() {
    let world = well().await;
    // Something was written that neither the standby nor the store has.
    world.state().left_end = Lsn(0x6000);
    let report = switch_over(&world).await;
    assert_eq!(report.state, State::Stuck);
    assert_eq!(state_of(&report, "promote"), StepState::Failed);
    let stuck = report.stuck.as_ref().unwrap();
    assert!(stuck.why.contains("ends at 0/6000"), "{stuck:?}");
    assert!(stuck.remedy[0].contains("dr execution abort"), "{stuck:?}");
    assert_eq!(world.count("promote-standby"), 0);
    is_taken_back(&world, &report.execution).await;
}

/// Calls a move off, and looks at what there is then.
async fn is_taken_back(world: &Everything, execution: &ExecutionId) {
    let site = Arc::new(world.site("desk"));
    let aborted = abort(site, execution, "not today", &shipped_undo(), &Silent).await;
    let aborted = aborted.unwrap();
    assert_eq!(aborted.report.unwrap().state, State::Aborted);
    if let Some(undone) = aborted.undone_by {
        assert_eq!(
            (undone.state, undone.mode),
            (State::Completed, Mode::Undo),
            "{undone:#?}"
        );
        let head = world.register().read().await.unwrap().unwrap();
        assert_eq!((head.epoch, &head.primary), (Epoch(3), &east()));
        let claim = head.clusters.values().next().unwrap();
        assert_eq!((claim.timeline.0, claim.start_lsn), (1, Some(Lsn(0x5000))));
    }
    assert!(world.state().left_running);
    assert_eq!(world.state().primary_here, None);
    assert_eq!(world.count("promote-standby"), 0);
    let seen = observe(&world.site("desk"), &west()).await;
    assert!(seen.unfinished.is_empty(), "{:?}", seen.unfinished);
}

async fn left_behind(world: &Everything) -> Option<executions::Summary> {
    let clock: Arc<dyn dr_model::Clock> = world.clock.clone();
    let (found, _) = executions::list(&world.stores, &clock).await;
    found.into_iter().next()
}

#[rstest]
#[case(shipped_planned())]
#[case(shipped_failback())]
#[tokio::test(start_paused = true)]
async fn a_planned_move_survives_every_crash(#[case] runbook: Runbook) {
    for lands in [false, true] {
        let mut survived = 0;
        for last in 1.. {
            let world = well().await;
            let plan = planned_by(&world, &runbook, &Request::new(west())).await;
            if !die_in(&world, plan, last, lands).await {
                break;
            }
            survived += 1;
            let Some(left) = left_behind(&world).await else {
                assert_eq!((last, lands, effects(&world)), (1, false, vec![]));
                continue;
            };
            let at = format!("death {last}, landed: {lands}");
            let site = Arc::new(world.site("desk"));
            match resume(site, &left.execution, "it died", vec![], &Silent).await {
                Ok(report) => {
                    assert_eq!(report.state, State::Completed, "{at}: {report:#?}");
                    assert_eq!(report.loss.bound, Bound::Zero, "{at}");
                }
                Err(Error::Over { state, .. }) => assert_eq!(state, State::Completed, "{at}"),
                Err(error) => panic!("{at}: {error}"),
            }
            for once in ["shut-down", "seal-chain", "promote-standby", "follow"] {
                assert_eq!(world.count(once), 1, "{at}: {once}");
            }
            let head = world.register().read().await.unwrap().unwrap();
            assert_eq!((head.epoch, head.primary), (Epoch(2), west()), "{at}");
        }
        assert!(survived > 12, "{survived}");
    }
}

/// Whoever calls a move off after its executor died gets the old primary back, or is told that it was replaced.
#[tokio::test(start_paused = true)]
async fn a_planned_move_can_be_called_off_at_every_point_before_the_promotion() {
    let (mut taken_back, mut refused) = (0, 0);
    for lands in [false, true] {
        for last in 1.. {
            let world = well().await;
            let plan = planned_by(&world, &shipped_planned(), &Request::new(west())).await;
            if !die_in(&world, plan, last, lands).await {
                break;
            }
            let Some(left) = left_behind(&world)
                .await
                .filter(|left| !left.state.is_final())
            else {
                continue;
            };
            let begun = effects(&world).contains(&"promote-standby".to_owned());
            let site = Arc::new(world.site("desk"));
            let undo = shipped_undo();
            match abort(site, &left.execution, "no", &undo, &Silent).await {
                Err(Error::HasEffects { why, .. }) => {
                    // What is only about to open its epoch is no reason.
                    assert!(why.contains("a point of no return"), "{why}");
                    refused += 1;
                }
                Err(error) => panic!("death {last}, landed: {lands}: {error}"),
                Ok(aborted) => {
                    assert!(!begun, "death {last}, landed: {lands}");
                    assert_eq!(aborted.report.unwrap().state, State::Aborted);
                    assert!(world.state().left_running, "death {last}, landed: {lands}");
                    assert_eq!(world.count("promote-standby"), 0);
                    taken_back += 1;
                }
            }
        }
    }
    assert!(taken_back > 6 && refused > 6, "{taken_back}, {refused}");
}

/// An executor that stands still in the middle of opening its epoch must find the number taken when it wakes: the old primary would be
/// superseded by a move that was called off.
#[tokio::test(start_paused = true)]
async fn what_was_called_off_before_its_epoch_never_opens_it() {
    let mut called_off = 0;
    for last in 1.. {
        let world = well().await;
        let plan = planned_by(&world, &shipped_planned(), &Request::new(west())).await;
        if !die_in(&world, plan, last, true).await {
            break;
        }
        let register = world.register();
        let head = register.read().await.unwrap().unwrap();
        let Some(left) = left_behind(&world).await else {
            continue;
        };
        let site = Arc::new(world.site("desk"));
        let found = executions::find(&world.stores, &site.clock, &left.execution).await;
        let is_opening = found.unwrap().history.actions().count() > 0;
        if head.epoch != Epoch(1) || !is_opening {
            continue;
        }
        let undo = shipped_undo();
        let aborted = abort(Arc::clone(&site), &left.execution, "no", &undo, &Silent).await;
        let aborted = aborted.unwrap();
        assert_eq!(aborted.report.unwrap().state, State::Aborted);
        assert_eq!(aborted.undone_by, None);
        let kept = register.read().await.unwrap().unwrap();
        assert_eq!((kept.epoch, &kept.primary), (Epoch(2), &east()));
        let chains = |record: &EpochRecord| {
            let clusters = record.clusters.values();
            let chain = |claim: &ClusterClaim| (claim.timeline, claim.start_lsn);
            clusters.map(chain).collect::<Vec<_>>()
        };
        assert_eq!(chains(&kept), chains(&head));
        let late = EpochRecord {
            primary: west(),
            execution: Some(left.execution.clone()),
            ..head.renewed()
        };
        let lost = register.create(&late).await.unwrap_err();
        assert!(matches!(lost, register::Error::Lost { .. }), "{lost}");
        assert!(world.state().left_running);
        let seen = observe(&world.site("desk"), &west()).await;
        assert!(seen.unfinished.is_empty(), "{:?}", seen.unfinished);
        called_off += 1;
    }
    assert!(called_off > 0);
}

/// Whoever takes a move back dies at any write of the journal that does it; the same again brings it to its end.
#[tokio::test(start_paused = true)]
async fn taking_a_move_back_survives_every_crash() {
    for lands in [false, true] {
        let mut survived = 0;
        for last in 1.. {
            let world = well().await;
            world.state().left_end = Lsn(0x6000);
            let stuck = switch_over(&world).await.execution;
            let site = Arc::new(mortal_site(&world, &east(), last, lands));
            let undo = shipped_undo();
            let died = abort(site, &stuck, "no", &undo, &Silent).await;
            if died.is_ok() {
                break;
            }
            survived += 1;
            let at = format!("death {last}, landed: {lands}");
            let clock: Arc<dyn dr_model::Clock> = world.clock.clone();
            let (all, _) = executions::list(&world.stores, &clock).await;
            let head = world.register().read().await.unwrap().unwrap();
            let undoing = all.iter().find(|found| found.to == east());
            match undoing.filter(|found| found.may_go_on(&head)) {
                Some(undoing) => {
                    let site = Arc::new(world.site("desk"));
                    let report = resume(site, &undoing.execution, "it died", vec![], &Silent).await;
                    assert_eq!(report.unwrap().state, State::Completed, "{at}");
                }
                None if undoing.is_some() => {}
                None => is_taken_back(&world, &stuck).await,
            }
            // The move that was taken back is ended by whoever asks for it once more.
            let site = Arc::new(world.site("desk"));
            match abort(site, &stuck, "no", &undo, &Silent).await {
                Ok(aborted) => {
                    assert_eq!(aborted.report.unwrap().state, State::Superseded, "{at}");
                    assert_eq!(aborted.undone_by, None, "{at}");
                }
                Err(error) => assert!(matches!(error, Error::Over { .. }), "{at}: {error}"),
            }
            let seen = observe(&world.site("desk"), &west()).await;
            assert!(seen.unfinished.is_empty(), "{at}: {:?}", seen.unfinished);
            assert!(world.state().left_running, "{at}");
            assert_eq!(world.count("resume"), 1, "{at}");
            assert_eq!(world.count("promote-standby"), 0, "{at}");
        }
        assert!(survived > 3, "{survived}");
    }
}

/// People take their time to say yes: what goes meanwhile is seen before anything is changed.
#[rstest]
#[case(shipped_planned())]
#[case(shipped_failback())]
#[case(shipped())]
#[tokio::test(start_paused = true)]
async fn a_standby_that_has_gone_since_stops_nothing(#[case] runbook: Runbook) {
    let world = well().await;
    world.state().recovery_point = false;
    let plan = planned_by(&world, &runbook, &Request::new(west())).await;
    world.state().standby = false;
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Failed, "{report:#?}");
    assert_eq!(state_of(&report, "epoch"), StepState::Failed);
    let reason = report.reason.unwrap();
    assert!(
        reason.contains("not as it was when the plan was made"),
        "{reason}"
    );
    assert!(reason.contains("there is no standby"), "{reason}");
    assert_eq!(effects(&world), [""; 0]);
    assert_eq!(world.register().read_all().await.unwrap().len(), 1);
    assert!(world.state().left_running);
}

/// The same for whoever goes on long after the epoch was opened; and what was shut down is started again although there is no standby
/// to be seen.
#[tokio::test(start_paused = true)]
async fn without_its_standby_a_move_goes_no_further_and_is_taken_back() {
    let world = well().await;
    world.script("shut-down", [Fault::Definite]);
    let report = switch_over(&world).await;
    assert_eq!(state_of(&report, "stop"), StepState::Failed);
    world.state().standby = false;
    let site = Arc::new(world.site("desk"));
    let again = resume(site, &report.execution, "go on", vec![], &Silent).await;
    let again = again.unwrap();
    assert_eq!(state_of(&again, "stop"), StepState::Failed);
    let why = again.stuck.unwrap().why;
    assert!(why.contains("there is no standby"), "{why}");
    assert!(world.state().left_running);
    // It came back for a moment.
    world.state().standby = true;
    world.script("seal-chain", [Fault::Definite]);
    let site = Arc::new(world.site("desk"));
    let again = resume(site, &report.execution, "go on", vec![], &Silent).await;
    assert_eq!(state_of(&again.unwrap(), "seal"), StepState::Failed);
    assert!(!world.state().left_running);
    world.state().standby = false;
    is_taken_back(&world, &report.execution).await;
}

/// An executor that slept over the undoing of its move finds a newer epoch on its host, and has no effect.
#[tokio::test(start_paused = true)]
async fn who_slept_over_it_promotes_nothing() {
    let world = well().await;
    world.script("seal-chain", [Fault::Definite]);
    let stuck = switch_over(&world).await;
    assert_eq!(stuck.state, State::Stuck);
    is_taken_back(&world, &stuck.execution).await;
    let site = Arc::new(world.site("laptop"));
    let again = resume(site, &stuck.execution, "go on", vec![], &Silent).await;
    assert!(matches!(again, Err(Error::Over { .. })), "{again:?}");
}

/// Everything else would be done by the time the switch is tried, and a planned move can wait.
#[tokio::test(start_paused = true)]
async fn a_name_server_that_is_silent_refuses_a_planned_move_alone() {
    let world = well().await;
    world.state().name_server_silent = true;
    let site = world.site("laptop");
    let seen = observe(&site, &west()).await;
    let request = Request::new(west());
    let refused = plan(&shipped_planned(), &seen, &request).unwrap_err();
    assert_eq!(refused.class(), Class::Unavailable, "{refused}");
    assert!(refused.to_string().contains("no answer"), "{refused}");
    let by_hand = Request {
        statements: vec![Statement::ClientsByHand("the load balancer".to_owned())],
        ..request.clone()
    };
    plan(&shipped_planned(), &seen, &by_hand).unwrap();
    plan(&shipped(), &seen, &request).unwrap();
}

/// Whoever is to get the last of the log may have to connect again first.
#[tokio::test(start_paused = true)]
async fn a_planned_move_waits_for_whoever_gets_the_rest_of_the_log() {
    let world = well().await;
    let plan = planned_by(&world, &shipped_planned(), &Request::new(west())).await;
    world.state().nobody_streams = true;
    let connects = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(effects(&world), [""; 0]);
        world.state().nobody_streams = false;
    };
    let run = execute(Arc::new(world.site("laptop")), plan, &Silent);
    let (report, ()) = tokio::join!(run, connects);
    assert_eq!(report.unwrap().state, State::Completed);

    let world = well().await;
    let plan = planned_by(&world, &shipped_planned(), &Request::new(west())).await;
    world.state().nobody_streams = true;
    let run = execute(Arc::new(world.site("laptop")), plan, &Silent);
    let report = run.await.unwrap();
    assert_eq!(report.state, State::Failed, "{report:#?}");
    assert_eq!(effects(&world), [""; 0]);
}
