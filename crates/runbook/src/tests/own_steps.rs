//! Steps for runbooks of one's own: `wait`, `stop-service`, `run-command`.

use std::sync::Arc;
use std::time::Duration;

use dr_config::Runbook;
use rstest::rstest;

use super::crash::die_in;
use super::runs::{planned_by, state_of};
use super::world::{Everything, Fault, runbook, shipped_undo, west};
use crate::events::Silent;
use crate::outcome::{State, StepState};
use crate::plan::Class;
use crate::request::Request;
use crate::{Report, abort, execute, executions, observe, plan, resume};

const PLANNED: &str = include_str!("../../../../runbooks/failover-planned.yaml");
const UNPLANNED: &str = include_str!("../../../../runbooks/failover-region.yaml");

/// Puts a step before another one of a shipped runbook.
fn with(text: &str, before: &str, step: &str) -> Runbook {
    let before = format!("  - {{ id: {before},");
    assert!(text.contains(&before));
    runbook(&text.replacen(&before, &format!("  - {step}\n{before}"), 1)).unwrap()
}

fn stopping() -> Runbook {
    with(PLANNED, "stop", "{ id: quiet, uses: stop-service }")
}

fn warming() -> Runbook {
    let step = "{ id: warm, uses: run-command, with: { on: ledger, run: [warm-up, --all] } }";
    with(UNPLANNED, "verify", step)
}

async fn well() -> Everything {
    let world = Everything::new().await;
    world.state().left_running = true;
    world.state().left_serving = true;
    world
}

async fn carried_out(world: &Everything, runbook: &Runbook) -> Report {
    let plan = planned_by(world, runbook, &Request::new(west())).await;
    let site = Arc::new(world.site("laptop"));
    execute(site, plan, &Silent).await.unwrap()
}

async fn left_behind(world: &Everything) -> Option<executions::Summary> {
    let clock: Arc<dyn dr_model::Clock> = world.clock.clone();
    let (found, _) = executions::list(&world.stores, &clock).await;
    found.into_iter().find(|found| !found.state.is_final())
}

fn refusals(text: &str, step: &str) -> String {
    let before = "  - { id: verify,";
    runbook(&text.replacen(before, &format!("  - {step}\n{before}"), 1)).unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn services_are_stopped_before_they_start_elsewhere() {
    let world = well().await;
    let report = carried_out(&world, &stopping()).await;
    assert_eq!(report.state, State::Completed, "{report:#?}");
    assert!(!world.state().left_serving);
    let effects: Vec<_> = world.state().effects.iter().map(|e| e.0.clone()).collect();
    let at = |name: &str| effects.iter().position(|effect| effect == name).unwrap();
    assert!(at("stop-service") < at("shut-down"), "{effects:?}");
    assert!(at("stop-service") < at("start-service"), "{effects:?}");
    // What is stopped already is left as it is.
    let world = well().await;
    world.state().left_serving = false;
    let report = carried_out(&world, &stopping()).await;
    assert_eq!(report.state, State::Completed);
    assert_eq!(world.count("stop-service"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_move_that_is_called_off_starts_them_again() {
    let world = well().await;
    world.script("seal-chain", [Fault::Definite]);
    let report = carried_out(&world, &stopping()).await;
    assert_eq!(report.state, State::Stuck);
    assert!(!world.state().left_serving);
    let desk = Arc::new(world.site("desk"));
    let undo = shipped_undo();
    let aborted = abort(desk, &report.execution, "no", &undo, &Silent).await;
    assert_eq!(aborted.unwrap().undone_by.unwrap().state, State::Completed);
    assert!(world.state().left_serving && world.state().left_running);
}

/// What a runbook of one's own has done before its epoch is undone by nobody, and it is said.
#[tokio::test(start_paused = true)]
async fn what_was_done_before_the_epoch_stays_and_is_named() {
    let runbook = with(UNPLANNED, "epoch", "{ id: tell, uses: notify }");
    let mut named = 0;
    for last in 1.. {
        let world = Everything::new().await;
        let plan = planned_by(&world, &runbook, &Request::new(west())).await;
        if !die_in(&world, plan, last, true).await {
            break;
        }
        let head = world.register().read().await.unwrap().unwrap();
        let Some(left) = left_behind(&world).await.filter(|_| head.epoch.0 == 1) else {
            continue;
        };
        let desk = Arc::new(world.site("desk"));
        let aborted = abort(desk, &left.execution, "no", &shipped_undo(), &Silent).await;
        let aborted = aborted.unwrap();
        assert_eq!(aborted.report.unwrap().state, State::Aborted);
        assert_eq!(aborted.undone_by, None);
        assert!(
            aborted
                .stays
                .iter()
                .all(|stays| stays.starts_with("tell: "))
        );
        named += aborted.stays.len();
    }
    assert!(named > 0);
}

#[tokio::test(start_paused = true)]
async fn a_region_that_may_be_gone_is_not_waited_for() {
    let world = well().await;
    let runbook = with(UNPLANNED, "fence", "{ id: quiet, uses: stop-service }");
    let seen = observe(&world.site("laptop"), &west()).await;
    let refusal = plan(&runbook, &seen, &Request::new(west())).unwrap_err();
    assert!(refusal.to_string().contains("may be gone"), "{refusal}");
    assert_eq!(refusal.class(), Class::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_cannot_be_stopped_is_not_passed_over() {
    let world = well().await;
    let mut site = world.site("laptop");
    for regions in site.services.values_mut() {
        regions.values_mut().for_each(|service| service.stop = None);
    }
    let seen = observe(&site, &west()).await;
    let refusal = plan(&stopping(), &seen, &Request::new(west())).unwrap_err();
    assert!(
        refusal.to_string().contains("no command that stops it"),
        "{refusal}"
    );
}

#[rstest]
#[case(Fault::Definite, State::Stuck)]
#[case(Fault::AnswerLost, State::Completed)]
#[tokio::test(start_paused = true)]
async fn a_stop_that_goes_wrong_is_looked_at(#[case] fault: Fault, #[case] state: State) {
    let world = well().await;
    world.script("stop-service", [fault]);
    let report = carried_out(&world, &stopping()).await;
    assert_eq!(report.state, state, "{report:#?}");
    if state == State::Stuck {
        assert_eq!(state_of(&report, "quiet"), StepState::Failed);
        let desk = Arc::new(world.site("desk"));
        let again = resume(desk, &report.execution, "again", vec![], &Silent).await;
        assert_eq!(again.unwrap().state, State::Completed);
    }
    assert_eq!(world.count("stop-service"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_runs_with_its_key_and_its_place() {
    let world = Everything::new().await;
    let runbook = warming();
    let planned = planned_by(&world, &runbook, &Request::new(west())).await;
    let step = planned
        .steps
        .iter()
        .find(|step| step.id.0 == "warm")
        .unwrap();
    let action = &step.lanes[0].actions[0];
    assert_eq!(
        action.summary,
        "run `warm-up --all` on west-host, at least once"
    );
    let warned = |warning: &String| warning.contains("`warm` has its effect at least once");
    assert!(
        planned.warnings.iter().any(warned),
        "{:?}",
        planned.warnings
    );
    let report = execute(Arc::new(world.site("laptop")), planned, &Silent).await;
    let report = report.unwrap();
    assert_eq!(report.state, State::Completed, "{report:#?}");
    let commands = world.state().commands.clone();
    assert_eq!(commands.len(), 1);
    assert_eq!(commands[0].argv, ["warm-up", "--all"]);
    let environment = &commands[0].environment;
    let variable = |name: &str| {
        let mut all = environment.iter();
        all.find(|(known, _)| known == name).unwrap().1.clone()
    };
    assert_eq!(
        variable("DR_IDEMPOTENCY_KEY"),
        format!("{}/warm", report.execution)
    );
    assert_eq!(
        (variable("DR_FROM"), variable("DR_TO")),
        ("us-east-1".into(), "us-west-2".into())
    );
    assert_eq!(
        (variable("DR_WORKLOAD"), variable("DR_EPOCH")),
        ("orders".into(), "2".into())
    );
}

/// It runs once or more, always with the same key, and whatever else is done is done once.
#[tokio::test(start_paused = true)]
async fn a_command_survives_every_crash() {
    let mut twice = 0;
    for lands in [false, true] {
        for last in 1.. {
            let world = Everything::new().await;
            let plan = planned_by(&world, &warming(), &Request::new(west())).await;
            if !die_in(&world, plan, last, lands).await {
                break;
            }
            let Some(left) = left_behind(&world).await else {
                continue;
            };
            let desk = Arc::new(world.site("desk"));
            let report = resume(desk, &left.execution, "it died", vec![], &Silent).await;
            let at = format!("death {last}, landed: {lands}");
            assert_eq!(report.unwrap().state, State::Completed, "{at}");
            let commands = world.state().commands.clone();
            assert!((1..=2).contains(&commands.len()), "{at}: {commands:?}");
            assert!(
                commands.iter().all(|command| *command == commands[0]),
                "{at}"
            );
            assert_eq!(world.count("promote-standby"), 1, "{at}");
            twice += usize::from(commands.len() == 2);
        }
    }
    assert!(
        twice > 0,
        "a crash between the effect and its outcome repeats it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_command_that_fails_says_how() {
    let world = Everything::new().await;
    world.script("warm-up", [Fault::Definite]);
    world.state().error_text = "no such queue; password hunter2".to_owned();
    let report = carried_out(&world, &warming()).await;
    assert_eq!(report.state, State::Stuck);
    let why = report.stuck.unwrap().why;
    assert!(
        why.contains("exit status 1") && why.contains("no such queue"),
        "{why}"
    );
    assert!(!why.contains("hunter2"), "{why}");
}

#[tokio::test(start_paused = true)]
#[expect(
    clippy::disallowed_methods,
    reason = "time stands still here unless somebody waits, and that is what is measured"
)]
async fn a_wait_takes_its_time_and_what_was_waited_counts() {
    let world = Everything::new().await;
    let runbook = with(
        UNPLANNED,
        "verify",
        "{ id: settle, uses: wait, with: { for: 10m } }",
    );
    let before = tokio::time::Instant::now();
    let report = carried_out(&world, &runbook).await;
    assert_eq!(report.state, State::Completed);
    assert!(before.elapsed() >= Duration::from_secs(600));
    // What a step waits for is not the engine's own time.
    assert!(report.overhead_seconds.unwrap() < 60.0);

    // Whoever waited dies; seven minutes later another goes on.
    let world = Everything::new().await;
    let plan = planned_by(&world, &runbook, &Request::new(west())).await;
    let run = execute(Arc::new(world.site("laptop")), plan, &Silent);
    let waiting = tokio::time::timeout(Duration::from_secs(300), run).await;
    assert!(waiting.is_err(), "it waits");
    world.clock.advance(Duration::from_secs(420));
    let left = left_behind(&world).await.unwrap();
    let desk = Arc::new(world.site("desk"));
    let before = tokio::time::Instant::now();
    let report = resume(desk, &left.execution, "it died", vec![], &Silent).await;
    let report = report.unwrap();
    assert_eq!(report.state, State::Completed);
    assert_eq!(report.overhead_seconds, None);
    let rest = before.elapsed();
    assert!((180..200).contains(&rest.as_secs()), "{rest:?}");
}

#[rstest]
#[case("{ id: x, uses: wait }", "`for` is missing")]
#[case("{ id: x, uses: wait, with: { for: 2d } }", "too long to wait for")]
#[case(
    "{ id: x, uses: wait, with: { for: soon } }",
    "`soon` is not a duration"
)]
#[case(
    "{ id: x, uses: run-command, with: { on: ledger } }",
    "`run` is missing"
)]
#[case(
    "{ id: x, uses: run-command, with: { on: ledger, run: warm-up } }",
    "no shell reads it"
)]
#[case(
    "{ id: x, uses: run-command, with: { on: ledger, run: [] } }",
    "the command is empty"
)]
#[case(
    "{ id: x, uses: run-command, with: { on: L, run: [a] } }",
    "`L` is not a name"
)]
#[case(
    "{ id: x, uses: run-command, with: { on: ledger, run: [a, \"${env:PASSWORD}\"] } }",
    "a plan is written down"
)]
#[case(
    "{ id: x, uses: stop-service, with: { in: west } }",
    "unknown key `in`"
)]
fn what_is_wrong_with_their_parameters_is_said(#[case] step: &str, #[case] why: &str) {
    let problems = refusals(UNPLANNED, step);
    assert!(problems.contains(why), "{problems}");
}

#[tokio::test(start_paused = true)]
async fn a_command_runs_where_a_service_does() {
    let world = Everything::new().await;
    let step = "{ id: warm, uses: run-command, with: { on: nobody, run: [warm-up] } }";
    let runbook = with(UNPLANNED, "verify", step);
    let seen = observe(&world.site("laptop"), &west()).await;
    let refusal = plan(&runbook, &seen, &Request::new(west())).unwrap_err();
    let text = refusal.to_string();
    assert!(
        text.contains("there is no service `nobody` in us-west-2"),
        "{text}"
    );
}
