//! A name server that does not take our key: the move is refused beforehand, and goes on for somebody who leads the clients, and says
//! so in words that set no other rule aside.

use std::sync::Arc;

use rstest::rstest;

use super::runs::{planned_by, state_of};
use super::world::{Everything, shipped, west};
use crate::outcome::{State, StepState};
use crate::request::{Request, Statement};
use crate::{
    Class, Decided, Refusal, Silent, execute, observe, observe_to_execute, plan, resume_with,
};

fn by_hand() -> Statement {
    Statement::ClientsByHand("the load balancer is moved".to_owned())
}

fn overriding() -> Statement {
    Statement::Override("the customer decided".to_owned())
}

fn said(statements: &[Statement]) -> Request {
    Request {
        statements: statements.to_vec(),
        ..Request::new(west())
    }
}

/// A world whose name server has another secret for our key.
async fn refusing() -> Everything {
    let world = Everything::new().await;
    world.state().key_refused = true;
    world
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_name_server_does_not_take_is_found_before_anything_is_done() {
    let world = refusing().await;
    let seen = observe_to_execute(&world.site("laptop"), &west()).await;
    for statements in [&[][..], &[overriding()]] {
        let refusal = plan(&shipped(), &seen, &said(statements)).unwrap_err();
        assert_eq!(refusal.class(), Class::Invalid);
        let (text, hint) = (refusal.to_string(), refusal.hint().unwrap());
        assert!(text.contains("would be refused"), "{text}");
        assert!(hint.contains("another secret"), "{hint}");
        assert!(hint.contains("--clients-by-hand"), "{hint}");
        assert!(!hint.contains("--override"), "{hint}");
    }
    // Whoever only looks asks the server for no update.
    let seen = observe(&world.site("laptop"), &west()).await;
    assert!(seen.traffic[0].denied.is_none());
}

#[tokio::test(start_paused = true)]
async fn clients_led_by_hand_are_in_the_plan_the_journal_and_the_report() {
    let world = refusing().await;
    let seen = observe_to_execute(&world.site("laptop"), &west()).await;
    let plan = plan(&shipped(), &seen, &said(&[by_hand()])).unwrap();
    let warned = |text: &String| {
        text.contains("the switch of `rfc2136 orders.acme.example` would be refused")
            && text.contains("stops at step `switch`")
    };
    assert!(plan.warnings.iter().any(warned), "{:?}", plan.warnings);
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Stuck, "{report:#?}");
    assert_eq!(report.stuck.unwrap().step.0, "switch");
    assert_eq!(
        report.clients_by_hand.as_deref(),
        Some("the load balancer is moved")
    );
    assert_eq!((report.override_reason, report.witness), (None, None));
    let journals = world.journals().await;
    let opened = &journals[0];
    assert!(opened.contains("\"clients-by-hand\""), "{opened}");

    // It is led by hand, and the execution goes on behind it.
    let skip = ["switch", "prove"].map(|id| dr_model::StepId(id.to_owned()));
    let site = Arc::new(world.site("desk"));
    let id = &report.execution;
    let report = resume_with(
        site,
        id,
        "it is moved",
        vec![],
        &Decided {
            skip: skip.into(),
            ..Decided::default()
        },
        &Silent,
    )
    .await;
    let report = report.unwrap();
    assert_eq!(report.state, State::CompletedWithExceptions);
    assert_eq!(state_of(&report, "switch"), StepState::Skipped);
    assert_eq!(state_of(&report, "rearm"), StepState::Done);
}

/// Who says on resuming how clients are led is recorded as well.
#[tokio::test(start_paused = true)]
async fn it_can_be_said_when_the_execution_stands_at_the_switch() {
    let world = Everything::new().await;
    let plan = planned_by(&world, &shipped(), &Request::new(west())).await;
    world.state().key_refused = true;
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Stuck, "{report:#?}");
    let skip = ["switch", "prove"].map(|id| dr_model::StepId(id.to_owned()));
    let site = Arc::new(world.site("desk"));
    let id = &report.execution;
    let report = resume_with(
        site,
        id,
        "go on",
        vec![by_hand()],
        &Decided {
            skip: skip.into(),
            ..Decided::default()
        },
        &Silent,
    )
    .await;
    let report = report.unwrap();
    assert_eq!(report.state, State::CompletedWithExceptions);
    assert!(report.clients_by_hand.is_some());
}

/// What stands in the way of the plan, besides the key.
#[rstest]
#[case(|world: &Everything| world.state().unfenceable = true)]
#[case(|world: &Everything| {
    world.state().left_reachable = false;
    world.state().left_running = false;
})]
#[case(|world: &Everything| world.state().delay_seconds = None)]
#[tokio::test(start_paused = true)]
async fn it_sets_no_other_rule_aside(#[case] change: fn(&Everything)) {
    let world = refusing().await;
    change(&world);
    let seen = observe_to_execute(&world.site("laptop"), &west()).await;
    let refusal = plan(&shipped(), &seen, &said(&[by_hand()])).unwrap_err();
    assert!(
        matches!(
            refusal,
            Refusal::Alive { .. } | Refusal::NoProof { .. } | Refusal::LossUnknown { .. }
        ),
        "{refusal}"
    );
    plan(&shipped(), &seen, &said(&[by_hand(), overriding()])).unwrap();
}
