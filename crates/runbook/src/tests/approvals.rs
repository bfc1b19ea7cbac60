//! Approvals: nothing is changed before enough people have said yes to this very plan.

use std::sync::Arc;
use std::time::Duration;

use dr_coordination::approval::{self, Approval, SigningKey};
use dr_model::{ApprovalPolicy, Approver, Clock, ExecutionId};
use rstest::rstest;

use super::crash::{die_in, mortal_site};
use super::runs::state_of;
use super::world::{Everything, Fault, shipped, west};
use crate::events::Silent;
use crate::executions::Summary;
use crate::outcome::{State, StepState};
use crate::past::Predictions;
use crate::request::Request;
use crate::site::Site;
use crate::steps::await_approval;
use crate::{Decided, Plan, abort, execute, executions, observe, pause, plan, resume, resume_with};

fn key(name: &str) -> SigningKey {
    let digit = name.as_bytes()[0];
    SigningKey::parse(&format!(
        "dr-approver-key1 {}",
        format!("{digit:02x}").repeat(32)
    ))
    .unwrap()
}

/// Returns a site whose workload wants two people.
fn site(world: &Everything, machine: &str) -> Site {
    let approver = |name: &str| Approver {
        name: name.parse().unwrap(),
        account: None,
        key: key(name).public(),
    };
    Site {
        approval: ApprovalPolicy {
            quorum: 2,
            approvers: ["ada", "barbara", "mary"].map(approver).into(),
            ..ApprovalPolicy::default()
        },
        ..world.site(machine)
    }
}

async fn planned(world: &Everything) -> Plan {
    let seen = observe(&site(world, "laptop"), &west()).await;
    let request = Request {
        requester: Some("ada".parse().unwrap()),
        ..Request::new(west())
    };
    plan(&shipped(), &seen, &request).unwrap()
}

async fn found(world: &Everything) -> Option<Summary> {
    let clock: Arc<dyn Clock> = world.clock.clone();
    let (found, _) = executions::list(&world.stores, &clock).await;
    found.into_iter().next()
}

/// Waits until the execution has begun.
async fn begun(world: &Everything) -> ExecutionId {
    loop {
        if let Some(found) = found(world).await {
            return found.execution;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn approve(world: &Everything, execution: &ExecutionId, name: &str) {
    approve_as(world, execution, name, name, |_| {}).await;
}

/// Approves in somebody's name with somebody's key, after a change to what is said.
async fn approve_as(
    world: &Everything,
    execution: &ExecutionId,
    name: &str,
    signer: &str,
    change: impl FnOnce(&mut approval::Request),
) {
    let clock: Arc<dyn Clock> = world.clock.clone();
    let found = executions::find(&world.stores, &clock, execution).await;
    let history = found.unwrap().history;
    let mut asked = await_approval::asked(&history).unwrap();
    change(&mut asked);
    let approval = Approval::sign(
        &key(signer),
        asked.execution,
        asked.plan,
        asked.accepted_loss_milliseconds,
        name.parse().unwrap(),
        world.clock.now(),
    );
    // Where it belongs, whatever it says.
    let stored = dr_provider::Key::new(format!("execution/{execution}/approval/{name}")).unwrap();
    let created = world.stores[&west()].create(&stored, approval.to_bytes());
    created.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_the_quorum_and_goes_on() {
    let world = Everything::new().await;
    let plan = planned(&world).await;
    let people = async {
        let execution = begun(&world).await;
        world.clock.advance(Duration::from_secs(100));
        approve(&world, &execution, "barbara").await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(world.state().effects, [], "one of two is not enough");
        let state = found(&world).await.unwrap().state;
        assert_eq!(state, State::AwaitingApproval);
        world.clock.advance(Duration::from_secs(200));
        approve(&world, &execution, "mary").await;
    };
    let run = execute(Arc::new(site(&world, "laptop")), plan, &Silent);
    let (report, ()) = tokio::join!(run, people);
    let report = report.unwrap();
    assert_eq!(report.state, State::Completed, "{report:#?}");
    let approval = report.approval.as_ref().unwrap();
    let names: Vec<_> = approval.approved_by.iter().map(|n| n.as_str()).collect();
    assert_eq!((approval.quorum, names), (2, vec!["barbara", "mary"]));
    assert_eq!(approval.requested_by.as_str(), "ada");
    assert_eq!(approval.waited_seconds, 300.0);
    // The wait is a part of the time to recover.
    assert!(report.rta_seconds.unwrap() > 300.0);
    // Another machine reads the same report.
    let clock: Arc<dyn Clock> = world.clock.clone();
    let read = executions::find(&world.stores, &clock, &report.execution).await;
    assert_eq!(read.unwrap().history.report(), report);
    // What people took says nothing of the next one.
    let seen = observe(&site(&world, "laptop"), &west()).await;
    let predictions = Predictions::of(&seen.past, &shipped().name, &west());
    let whole = predictions.whole().unwrap();
    assert!((0.1..100.0).contains(&whole), "{whole}");
}

#[rstest]
#[case::requester("ada", "ada", "asked for it")]
#[case::stranger("eve", "eve", "not among those who may approve")]
#[case::forged("mary", "ada", "its signature is not that of `mary`")]
#[tokio::test(start_paused = true)]
async fn what_does_not_count_is_named_when_the_request_ends(
    #[case] name: &str,
    #[case] signer: &str,
    #[case] why: &str,
) {
    let world = Everything::new().await;
    let plan = planned(&world).await;
    let people = async {
        let execution = begun(&world).await;
        approve(&world, &execution, "barbara").await;
        approve_as(&world, &execution, name, signer, |_| {}).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        world.clock.advance(Duration::from_secs(4 * 3600));
    };
    let run = execute(Arc::new(site(&world, "laptop")), plan, &Silent);
    let (report, ()) = tokio::join!(run, people);
    let report = report.unwrap();
    assert_eq!(report.state, State::Failed);
    let reason = report.reason.unwrap();
    assert!(reason.contains(why), "{reason}");
    // Barbara's, which was good while the request was, has expired with it.
    assert!(reason.contains("0 of 2 approvals"), "{reason}");
    assert!(
        reason.contains("`barbara` does not count: the request expired"),
        "{reason}"
    );
    assert_eq!(world.state().effects, []);
    let head = world.register().read().await.unwrap().unwrap();
    assert_eq!(head.epoch.0, 1);
}

#[tokio::test(start_paused = true)]
async fn an_approval_of_another_plan_does_not_count() {
    let world = Everything::new().await;
    let plan = planned(&world).await;
    let people = async {
        let execution = begun(&world).await;
        approve(&world, &execution, "barbara").await;
        approve_as(&world, &execution, "mary", "mary", |asked| {
            asked.plan = "0".repeat(64);
        })
        .await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.state().effects, []);
        let site = Arc::new(site(&world, "desk"));
        pause(site, &execution, "look at this").await.unwrap();
    };
    let run = execute(Arc::new(site(&world, "laptop")), plan, &Silent);
    let (report, ()) = tokio::join!(run, people);
    let report = report.unwrap();
    assert_eq!(report.state, State::Paused);
    assert!(report.reason.unwrap().contains("look at this"));
}

#[tokio::test(start_paused = true)]
async fn what_has_changed_while_people_thought_is_seen() {
    let world = Everything::new().await;
    let plan = planned(&world).await;
    let people = async {
        let execution = begun(&world).await;
        approve(&world, &execution, "barbara").await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        world.state().delay_seconds = Some(900.0);
        approve(&world, &execution, "mary").await;
    };
    let run = execute(Arc::new(site(&world, "laptop")), plan, &Silent);
    let (report, ()) = tokio::join!(run, people);
    let report = report.unwrap();
    assert_eq!(report.state, State::Failed);
    assert!(report.reason.unwrap().contains("exceeds the budget of 60s"));
    assert_eq!(world.state().effects, []);
}

/// Cut short at any write, the wait is taken up by another machine, and its approvals are still there.
#[tokio::test(start_paused = true)]
async fn a_wait_that_was_cut_short_goes_on_elsewhere() {
    let world = Everything::new().await;
    let plan = planned(&world).await;
    let mut left = site(&world, "laptop");
    left.stores = mortal_site(&world, &west(), 1, true).stores;
    assert!(execute(Arc::new(left), plan, &Silent).await.is_err());
    let execution = found(&world).await.unwrap().execution;
    approve(&world, &execution, "mary").await;
    let people = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(world.state().effects, []);
        approve(&world, &execution, "barbara").await;
    };
    let run = resume(
        Arc::new(site(&world, "desk")),
        &execution,
        "it died",
        vec![],
        &Silent,
    );
    let (report, ()) = tokio::join!(run, people);
    let report = report.unwrap();
    assert_eq!(report.state, State::Completed);
    assert_eq!(report.approval.unwrap().requested_by.as_str(), "ada");
}

#[tokio::test(start_paused = true)]
async fn who_waits_learns_that_it_was_called_off() {
    let world = Everything::new().await;
    let plan = planned(&world).await;
    let people = async {
        let execution = begun(&world).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let desk = Arc::new(site(&world, "desk"));
        let undo = super::world::shipped_undo();
        let aborted = abort(desk, &execution, "not today", &undo, &Silent).await;
        assert_eq!(aborted.unwrap().report.unwrap().state, State::Aborted);
    };
    let run = execute(Arc::new(site(&world, "laptop")), plan, &Silent);
    let (report, ()) = tokio::join!(run, people);
    let report = report.unwrap();
    assert_eq!(report.state, State::Superseded);
    assert!(report.reason.unwrap().contains("ada@desk"));
    assert_eq!(world.state().effects, []);
}

/// Enough have approved, and then it dies at any write: nobody is asked twice, nothing is done twice.
#[tokio::test(start_paused = true)]
async fn an_approved_execution_survives_every_crash() {
    for last in 2.. {
        let world = Everything::new().await;
        let plan = planned(&world).await;
        let people = async {
            let execution = begun(&world).await;
            approve(&world, &execution, "barbara").await;
            approve(&world, &execution, "mary").await;
        };
        let mut left = site(&world, "laptop");
        left.stores = mortal_site(&world, &west(), last, true).stores;
        let (ended, ()) = tokio::join!(execute(Arc::new(left), plan, &Silent), people);
        if ended.is_ok() {
            assert!(last > 10, "{last}");
            break;
        }
        let left = found(&world).await.unwrap();
        if left.state.is_final() {
            continue;
        }
        let desk = Arc::new(site(&world, "desk"));
        let report = resume(desk, &left.execution, "it died", vec![], &Silent).await;
        assert_eq!(report.unwrap().state, State::Completed, "{last}");
        assert_eq!(world.count("promote-standby"), 1, "{last}");
    }
}

/// Whoever is not known to be somebody else may be the one who approves.
#[tokio::test(start_paused = true)]
async fn nobody_in_particular_asks_for_nothing() {
    let world = Everything::new().await;
    let seen = observe(&site(&world, "laptop"), &west()).await;
    let plan = plan(&shipped(), &seen, &Request::new(west())).unwrap();
    let run = execute(Arc::new(site(&world, "laptop")), plan, &Silent).await;
    let report = run.unwrap();
    assert_eq!(report.state, State::Failed);
    assert!(report.reason.unwrap().contains("does not say who asked"));
    assert_eq!(world.state().effects, []);
}

#[tokio::test(start_paused = true)]
async fn the_wait_cannot_be_left_out() {
    let world = Everything::new().await;
    let plan = planned(&world).await;
    assert!(die_in(&world, plan, 1, true).await);
    let execution = found(&world).await.unwrap().execution;
    let skip = [dr_model::StepId("approve".to_owned())];
    let desk = Arc::new(site(&world, "desk"));
    let refused = resume_with(
        desk,
        &execution,
        "in haste",
        vec![],
        &Decided {
            skip: skip.into(),
            ..Decided::default()
        },
        &Silent,
    )
    .await;
    let error = refused.unwrap_err();
    assert!(error.to_string().contains("cannot be left out"), "{error}");
    assert_eq!(found(&world).await.unwrap().state, State::Running);
    assert_eq!(world.state().effects, []);
    // A failure after it has nothing to do with it.
    world.script("start-service", [Fault::Definite]);
    approve(&world, &execution, "barbara").await;
    approve(&world, &execution, "mary").await;
    let desk = Arc::new(site(&world, "desk"));
    let report = resume(desk, &execution, "it died", vec![], &Silent)
        .await
        .unwrap();
    assert_eq!(report.state, State::Stuck);
    assert_eq!(state_of(&report, "approve"), StepState::Done);
}
