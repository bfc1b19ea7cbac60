//! What a client reaches by the name, and who is still connected to the old primary.

use std::sync::Arc;

use dr_model::StepId;
use dr_provider::traffic::{Role, TrafficState, View};
use rstest::rstest;
use serde_json::Value;

use super::runs::{failover, planned, state_of};
use super::world::{Everything, Fault, noon, west};
use crate::events::Silent;
use crate::outcome::{Report, State, StepState};
use crate::request::{Request, Statement};
use crate::{Decided, execute, executions, resume, resume_with};

fn summary(report: &Report) -> &str {
    let mut steps = report.steps.iter();
    let prove = steps.find(|step| step.id.0 == "prove").unwrap();
    prove.summary.as_deref().unwrap()
}

fn overridden() -> Request {
    let mut request = Request::new(west());
    request.statements = vec![Statement::Override("Ada: it burns".to_owned())];
    request
}

/// Returns what the journal says of the step, as evidence.
async fn evidence(world: &Everything, report: &Report) -> Value {
    let clock: Arc<dyn dr_model::Clock> = world.clock.clone();
    let found = executions::find(&world.stores, &clock, &report.execution).await;
    let history = found.unwrap().history;
    let mut places = history.actions().map(|(place, _)| place);
    let place = places.find(|place| place.step.0 == "prove").unwrap();
    history.applied(place).unwrap().evidence.clone()
}

/// The check passes at the address and not for the name.
#[tokio::test(start_paused = true)]
async fn a_service_that_refuses_its_name_is_not_reached() {
    let world = Everything::new().await;
    world.state().turned_away = true;
    let report = failover(&world, &Request::new(west())).await;
    assert_eq!(report.state, State::Stuck);
    assert_eq!(state_of(&report, "verify"), StepState::Done);
    assert_eq!(report.rta_seconds, None);
    let stuck = report.stuck.unwrap();
    assert_eq!(stuck.step.0, "prove");
    let why = "GET http://orders.acme.example:8080/health, which 10.8.0.53 leads to 10.8.2.20, is unhealthy: 421";
    assert!(stuck.why.contains(why), "{}", stuck.why);

    world.state().turned_away = false;
    let site = Arc::new(world.site("desk"));
    let report = resume(site, &report.execution, "it answers", vec![], &Silent)
        .await
        .unwrap();
    assert_eq!(report.state, State::Completed);
}

/// Where a person left out what would have seen the service, it is not waited for, and nothing is said to be proven.
#[tokio::test(start_paused = true)]
async fn what_nobody_has_seen_serve_is_asked_once() {
    let world = Everything::new().await;
    world.state().healthy = false;
    world.state().turned_away = true;
    let report = failover(&world, &Request::new(west())).await;
    assert_eq!(report.stuck.unwrap().step.0, "verify");
    let site = Arc::new(world.site("desk"));
    let skip = Decided {
        skip: vec![StepId("verify".to_owned())],
        ..Decided::default()
    };
    let report = resume_with(
        site,
        &report.execution,
        "it comes later",
        vec![],
        &skip,
        &Silent,
    );
    let report = report.await.unwrap();
    assert_eq!(report.state, State::CompletedWithExceptions, "{report:#?}");
    assert_eq!(state_of(&report, "prove"), StepState::Done);
    let said = summary(&report);
    for words in [
        "1 of 1 lead to us-west-2",
        "not proven that a client is served",
        "421",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(report.rta_seconds, None);
    let evidence = evidence(&world, &report).await;
    assert!(
        evidence["unproven"].as_str().unwrap().contains("421"),
        "{evidence}"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_check_by_the_name_nobody_knows_what_a_client_reaches() {
    let world = Everything::new().await;
    let mut site = world.site("laptop");
    site.clients = Vec::new();
    let plan = planned(&world, &Request::new(west())).await;
    let report = execute(Arc::new(site), plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Completed);
    let said = summary(&report);
    assert!(said.contains("what a client reaches is unknown"), "{said}");
}

/// A server that has not followed is named with both serial numbers, a resolver with what its clients get and for how long; both are
/// waited for, across the largest number as well.
#[rstest]
#[case::behind(4, 7)]
#[case::around(u32::MAX - 1, 2)]
#[tokio::test(start_paused = true)]
async fn who_lags_is_named_and_what_clients_still_get_is_told_apart(
    #[case] before: u32,
    #[case] taken: u32,
) {
    let world = Everything::new().await;
    let old = {
        let mut state = world.state();
        let old = state.traffic.clone();
        state.traffic.serial = Some(taken);
        old
    };
    let view = |observer: &str, role, serial, state: &TrafficState| View {
        observer: observer.to_owned(),
        role,
        state: Ok(TrafficState {
            serial,
            ..state.clone()
        }),
        seen_at: noon(),
    };
    let others = |state: &TrafficState, serial| {
        vec![
            view("server 10.0.0.53", Role::Authority, Some(serial), state),
            view("resolver 10.1.0.53", Role::Resolver, None, state),
        ]
    };
    world.state().other_views = others(&old, before);
    let report = failover(&world, &Request::new(west())).await;
    let stuck = report.stuck.as_ref().unwrap();
    assert_eq!(stuck.step.0, "prove");
    let why = format!(
        "server 10.0.0.53 lags: it answers 10.0.2.20 with serial {before}, and the update was taken with {taken}; \
         clients of resolver 10.1.0.53 still get 10.0.2.20, for at most 30 s"
    );
    assert!(stuck.why.contains(&why), "{}", stuck.why);

    let new = world.state().traffic.clone();
    world.state().other_views = others(&new, taken);
    let site = Arc::new(world.site("desk"));
    let report = resume(site, &report.execution, "it follows", vec![], &Silent)
        .await
        .unwrap();
    assert_eq!(report.state, State::Completed);
    let said = summary(&report);
    let agreed =
        format!("2 of 2 lead to us-west-2, serial {taken}; resolvers: 1 of 1 lead to us-west-2");
    assert!(said.contains(&agreed), "{said}");
    let evidence = evidence(&world, &report).await;
    assert_eq!(evidence["taken_with_serial"], taken);
    assert_eq!(evidence["views"][2]["role"], "resolver");
}

/// Only a primary that the fence saw alive is asked who is connected; nobody waits for them to go.
#[rstest]
#[case::stopped(true, false, 0, None, Value::from("stopped"))]
#[case::alive(true, true, 1, Some("3 sessions of clients are open"), serde_json::json!({ "sessions": 3 }))]
#[case::lost(false, false, 0, Some("is unknown: nothing saw it answer"), serde_json::json!({
    "unknown": "nothing saw it answer, and a lost region is not called"
}))]
#[tokio::test(start_paused = true)]
async fn who_is_left_at_the_old_side(
    #[case] reachable: bool,
    #[case] alive: bool,
    #[case] asked: u32,
    #[case] said: Option<&str>,
    #[case] recorded: Value,
) {
    let world = Everything::new().await;
    {
        let mut state = world.state();
        state.left_reachable = reachable;
        state.left_running = alive;
        state.left_sessions = 3;
    }
    if alive {
        world.script("stop-instance", [Fault::Alive; 4]);
    }
    let plan = planned(&world, &overridden()).await;
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Completed, "{report:#?}");
    assert_eq!(world.state().left_asked, asked);
    let text = summary(&report);
    match said {
        Some(said) => assert!(text.contains(said), "{text}"),
        None => assert!(
            !text.contains("connected") && !text.contains("sessions"),
            "{text}"
        ),
    }
    let evidence = evidence(&world, &report).await;
    assert_eq!(evidence["residual"]["database"], recorded);
    let client = &evidence["clients"][0];
    assert_eq!(client["at"], "10.8.2.20");
    assert_eq!(client["led_by"], "10.8.0.53");
}
