//! Executions from beginning to end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dr_config::Runbook;
use dr_model::loss::Bound;
use dr_model::{Epoch, Lsn, TimelineId};
use rstest::rstest;

use super::world::{Everything, Fault, before_noon, database, noon, shipped, west};
use crate::events::{Event, Monitor, Silent};
use crate::outcome::{SealedAt, State, StepState};
use crate::proof::ProofName;
use crate::request::{Disruption, Request, Rung, Statement};
use crate::{Plan, Report, execute, executions, observe, plan, resume};

pub(crate) async fn planned(world: &Everything, request: &Request) -> Plan {
    planned_by(world, &shipped(), request).await
}

pub(crate) async fn planned_by(world: &Everything, runbook: &Runbook, request: &Request) -> Plan {
    let site = world.site("laptop");
    let seen = observe(&site, &request.to).await;
    plan(runbook, &seen, request).unwrap()
}

pub(crate) async fn failover(world: &Everything, request: &Request) -> Report {
    let plan = planned(world, request).await;
    let site = Arc::new(world.site("laptop"));
    execute(site, plan, &Silent).await.unwrap()
}

pub(crate) fn state_of(report: &Report, step: &str) -> StepState {
    let mut steps = report.steps.iter();
    steps.find(|s| s.id.0 == step).unwrap().state
}

/// Keeps what is shown of steps, a line each.
#[derive(Default)]
pub(crate) struct Lines(pub(crate) Mutex<Vec<String>>);

impl Monitor for Lines {
    fn event(&self, event: &Event<'_>) {
        let line = match event {
            Event::StepEnded { step, summary, .. } => format!("{}: {summary}", step.id),
            Event::FellBack { uses, why, .. } => format!("falls back to {uses}: {why}"),
            Event::Ended(report) => report.state.as_str().to_owned(),
            _ => return,
        };
        self.0.lock().unwrap().push(line);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_region_is_left() {
    let world = Everything::new().await;
    let plan = planned(&world, &Request::new(west())).await;
    let lines = Lines::default();
    let report = execute(Arc::new(world.site("laptop")), plan, &lines)
        .await
        .unwrap();
    insta::assert_snapshot!(lines.0.lock().unwrap().join("\n"), @r"
    assess: epoch 1 is the newest; `database` in us-east-1 is stopped, `rfc2136 orders.acme.example` answers 10.0.2.20; not seen: the log of `database` in the store of us-east-1: connection timed out; `database` in us-west-2 is a standby on timeline 1 at 0/4F00, the log of `database` in the store of us-west-2 reaches 0/5000 on timeline 1
    gate: `database`: 0.4 s, about 40 commits at last contact, within 60s
    approve: not required
    epoch: epoch 2 opened, primary us-west-2
    confirm: nothing to do
    seal: sealed at 0/5000
    fence: stopped
    promote: promoted on timeline 2
    serve: started `ledger`
    verify: GET http://10.8.2.20:8080/health: 200
    switch: `rfc2136 orders.acme.example` answers 10.8.2.20
    prove: 1 of 1 lead to us-west-2; GET http://orders.acme.example:8080/health at 10.8.2.20: 200
    notify: told https://hooks.acme.example
    rearm: slots are there
    record: record 1 in the store of us-west-2
    completed
    ");
    assert_eq!(report.state, State::Completed);
    assert_eq!(report.rung, Rung::Promote);
    assert_eq!(report.fence, ProofName::Stopped);
    let sealed = SealedAt {
        timeline: TimelineId(1),
        lsn: Lsn(0x5000),
    };
    assert_eq!(report.sealed, Some(sealed));
    let bound = Bound::Seconds {
        since: before_noon(1400),
        seconds: 1.4,
    };
    assert_eq!(report.loss.bound, bound);
    // Nobody saw when it began: the last contact is one beat behind the heartbeat, and the bound says how much more it may be.
    assert_eq!(report.rpa_seconds, None);
    assert_eq!(report.rpa_at_least_seconds, Some(0.0));
    assert_eq!(report.rpa_at_most_seconds, Some(1.4));
    assert_eq!(report.rpa_interval_seconds, Some(0.25));
    assert!(report.rta_seconds.is_some_and(|rta| rta > 0.0 && rta < 5.0));
    assert_eq!(report.unprotected_since, None);
    let head = world.register().read().await.unwrap().unwrap();
    assert_eq!((head.epoch, &head.primary), (Epoch(2), &west()));
    assert_eq!(head.clusters[&database()].timeline, TimelineId(2));
    assert_eq!(head.execution.as_ref(), Some(&report.execution));
    let state = world.state();
    assert_eq!(state.traffic.epoch, Some(Epoch(2)));
    assert_eq!(state.messages.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_report_is_what_the_journal_tells() {
    let world = Everything::new().await;
    let report = failover(&world, &Request::new(west())).await;
    let clock: Arc<dyn dr_model::Clock> = world.clock.clone();
    let found = executions::find(&world.stores, &clock, &report.execution).await;
    assert_eq!(found.unwrap().history.report(), report);
    let (all, unseen) = executions::list(&world.stores, &clock).await;
    assert_eq!(
        (all.len(), all[0].state, unseen.len()),
        (1, State::Completed, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn synchronous_mode_loses_nothing_and_waits_for_no_fence() {
    let world = Everything::new().await;
    world.state().synchronous = true;
    world.state().left_reachable = false;
    let plan = planned(&world, &Request::new(west())).await;
    let lines = Lines::default();
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &lines).await.unwrap();
    assert_eq!(report.state, State::Completed);
    assert_eq!(report.fence, ProofName::Sealed);
    assert_eq!(report.loss.bound, Bound::Zero);
    // The fence hangs for two seconds beside the steps; clients were led here before it gave up.
    assert_eq!(state_of(&report, "fence"), StepState::Done);
    let lines = lines.0.into_inner().unwrap();
    let end_of = |step: &str| lines.iter().position(|line| line.starts_with(step));
    let (switched, fenced) = (end_of("switch: ").unwrap(), end_of("fence: ").unwrap());
    assert!(switched < fenced, "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_seal_proves_nothing_if_the_promise_was_not_kept_up() {
    let world = Everything::new().await;
    world.state().synchronous = true;
    world.state().left_reachable = false;
    let plan = planned(&world, &Request::new(west())).await;
    // The promise conditions turn out not to have held when the seal is put there.
    world.state().synchronous = false;
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Stuck);
    assert_eq!(world.count("promote-standby"), 0);
    let stuck = report.stuck.unwrap();
    assert_eq!(stuck.step.0, "promote");
    assert!(stuck.why.contains("nothing proves"), "{}", stuck.why);
    assert!(
        stuck
            .residue
            .iter()
            .any(|line| line.contains("epoch 2 opened"))
    );
    assert!(stuck.residue.iter().any(|line| line.contains("sealed at")));
    assert!(stuck.remedy[0].contains("--witness"));

    let said = Statement::Witness("Ada: the rack has no power".to_owned());
    world.clock.advance(Duration::from_secs(30));
    let site = Arc::new(world.site("laptop"));
    let report = resume(site, &report.execution, "go on", vec![said], &Silent)
        .await
        .unwrap();
    assert_eq!(report.state, State::Completed);
    assert_eq!(report.fence, ProofName::Witness);
    // What the old primary could have taken until somebody knew that it had stopped.
    assert!(matches!(report.loss.bound, Bound::Seconds { seconds, .. } if seconds > 31.0));
    assert_eq!(report.rung, Rung::Promote);
    assert_eq!(world.count("promote-standby"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_proved_nothing_is_tried_again_on_resume() {
    let world = Everything::new().await;
    let plan = planned(&world, &Request::new(west())).await;
    world.state().left_reachable = false;
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Stuck);
    world.state().left_reachable = true;
    let site = Arc::new(world.site("desk"));
    let report = resume(site, &report.execution, "in reach again", vec![], &Silent)
        .await
        .unwrap();
    assert_eq!(
        (report.state, report.fence),
        (State::Completed, ProofName::Stopped)
    );
    assert_eq!(world.count("seal-chain"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_override_leaves_the_loss_open() {
    let world = Everything::new().await;
    world.state().left_reachable = false;
    let request = Request {
        statements: vec![Statement::Override("the customer decided".to_owned())],
        ..Request::new(west())
    };
    let report = failover(&world, &request).await;
    assert_eq!(report.state, State::Completed);
    assert_eq!(report.fence, ProofName::None);
    assert!(matches!(report.loss.bound, Bound::Growing { .. }));
    let head = world.register().read().await.unwrap().unwrap();
    assert_eq!(
        head.override_reason.as_deref(),
        Some("the customer decided")
    );
}

/// The store was last covered 1.4 s ago, and the standby held everything until 0.6 s ago.
#[rstest]
#[case::it_came_up(1, 0x5000, 600)]
#[case::less_came_up(1, 0x5001, 1400)]
#[case::of_another_timeline(2, 0x5000, 1400)]
#[tokio::test(start_paused = true)]
async fn the_bound_is_what_came_up(
    #[case] timeline: u32,
    #[case] position: u64,
    #[case] milliseconds: i64,
) {
    let world = Everything::new().await;
    world.state().held = Some((TimelineId(timeline), Lsn(position)));
    let report = failover(&world, &Request::new(west())).await;
    let Bound::Seconds { since, .. } = report.loss.bound else {
        panic!("{:?}", report.loss.bound);
    };
    assert_eq!(since, before_noon(milliseconds));
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_judged_again_on_the_newest_facts() {
    let world = Everything::new().await;
    let plan = planned(&world, &Request::new(west())).await;
    world.state().delay_seconds = Some(600.0);
    let report = execute(Arc::new(world.site("laptop")), plan, &Silent)
        .await
        .unwrap();
    assert_eq!(report.state, State::Failed);
    assert!(report.reason.unwrap().contains("exceeds the budget"));
    assert_eq!(world.state().effects, []);
    let head = world.register().read().await.unwrap().unwrap();
    assert_eq!(head.epoch, Epoch(1));
}

#[tokio::test(start_paused = true)]
async fn traffic_that_somebody_changed_is_still_switched_under_our_epoch() {
    let world = Everything::new().await;
    let plan = planned(&world, &Request::new(west())).await;
    world.state().traffic.answer = "192.0.2.1".to_owned();
    let report = execute(Arc::new(world.site("laptop")), plan, &Silent)
        .await
        .unwrap();
    assert_eq!(report.state, State::Completed);
    assert_eq!(world.state().traffic.answer, "10.8.2.20");
}

#[tokio::test(start_paused = true)]
async fn a_higher_epoch_at_the_record_ends_the_execution() {
    let world = Everything::new().await;
    let plan = planned(&world, &Request::new(west())).await;
    world.state().traffic.epoch = Some(Epoch(9));
    let report = execute(Arc::new(world.site("laptop")), plan, &Silent)
        .await
        .unwrap();
    assert_eq!(report.state, State::Superseded);
    assert_eq!(world.count("switch-traffic"), 0);
    assert_eq!(world.count("notify"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_is_gone_is_not_waited_for() {
    let world = Everything::new().await;
    world.state().silent_view = true;
    let report = failover(&world, &Request::new(west())).await;
    assert_eq!(report.state, State::Completed);
    let prove = report
        .steps
        .iter()
        .find(|step| step.id.0 == "prove")
        .unwrap();
    assert_eq!(
        prove.summary.as_deref(),
        Some(
            "1 lead to us-west-2, 1 silent; GET http://orders.acme.example:8080/health at 10.8.2.20: 200"
        )
    );
}

#[tokio::test(start_paused = true)]
async fn what_does_not_become_healthy_is_stuck_before_clients_come() {
    let world = Everything::new().await;
    world.state().healthy = false;
    let report = failover(&world, &Request::new(west())).await;
    assert_eq!(report.state, State::Stuck);
    assert_eq!(world.count("switch-traffic"), 0);
    assert!(report.stuck.unwrap().why.contains("503"));
    assert_eq!(report.rta_seconds, None);
    world.state().healthy = true;
    world.clock.advance(Duration::from_secs(60));
    let site = Arc::new(world.site("desk"));
    let report = resume(site, &report.execution, "healthy now", vec![], &Silent)
        .await
        .unwrap();
    assert_eq!(report.state, State::Completed);
    // The clock has run all the time.
    assert!(report.rta_seconds.unwrap() > 60.0);
}

#[tokio::test(start_paused = true)]
async fn secrets_never_reach_the_journal() {
    let world = Everything::new().await;
    world.state().error_text = "password is hunter2".to_owned();
    world.script("promote-standby", [Fault::Definite]);
    world.script("start-service", [Fault::Definite]);
    let report = failover(&world, &Request::new(west())).await;
    assert_eq!(report.state, State::Stuck);
    let texts = world.journals().await;
    assert!(texts.iter().any(|text| text.contains("password is ***")));
    assert!(
        texts
            .iter()
            .any(|text| text.contains("cannot log in with ***"))
    );
    for text in texts {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let said = serde_json::to_string(&report).unwrap();
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_holds_a_secret_is_not_executed() {
    let world = Everything::new().await;
    let mut plan = planned(&world, &Request::new(west())).await;
    plan.steps[6].lanes[0].actions[0].parameters = "postgres://dr:hunter2@west".into();
    let result = execute(Arc::new(world.site("laptop")), plan, &Silent).await;
    assert!(matches!(result, Err(crate::Error::SecretInPlan)));
    assert!(world.journals().await.is_empty());
}

/// Whoever writes heartbeats ended a minute before the primary was lost: their age is no loss.
#[tokio::test(start_paused = true)]
async fn heartbeats_that_were_not_written_are_no_loss() {
    let world = Everything::new().await;
    world.state().heartbeat = before_noon(60_000);
    world.state().newest_commit = Some(before_noon(100));
    let disruption = Some(Disruption::stated(noon()));
    let request = Request {
        disruption,
        ..Request::new(west())
    };
    let report = failover(&world, &request).await;
    assert_eq!(report.rpa_seconds, Some(0.1));

    // Without a younger commit nothing says that anything was lost, and no more than the bound can be.
    let world = Everything::new().await;
    world.state().heartbeat = before_noon(60_000);
    let report = failover(&world, &Request::new(west())).await;
    let between = (report.rpa_at_least_seconds, report.rpa_at_most_seconds);
    assert_eq!(between, (Some(1.4), Some(1.4)));
}

#[tokio::test(start_paused = true)]
async fn the_disruption_can_be_named() {
    let world = Everything::new().await;
    let request = Request {
        disruption: Some(Disruption::stated(noon())),
        ..Request::new(west())
    };
    let report = failover(&world, &request).await;
    assert_eq!(report.rpa_seconds, Some(1.25));
    assert_eq!(report.rpa_at_least_seconds, None);
    assert_eq!(report.detection_seconds, None);
    assert_eq!(report.rta_excludes, "");
    counts_from_the_disruption(&report, 0.0);
}

/// The parts of the time to recover add up to the whole.
fn counts_from_the_disruption(report: &Report, detection: f64) {
    let decision = report.decision_seconds.unwrap();
    let execution = report.execution_seconds.unwrap();
    let whole = report.rta_seconds.unwrap();
    assert!(execution > 0.0 && decision >= 0.0, "{report:?}");
    assert!(
        (detection + decision + execution - whole).abs() < 1e-6,
        "{report:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_time_to_recover_counts_from_a_measured_disruption() {
    let world = Everything::new().await;
    let before = |seconds| noon() - jiff::SignedDuration::from_secs(seconds);
    let undisturbed = planned(&world, &Request::new(west())).await;
    let request = Request {
        disruption: Some(Disruption {
            not_before: before(100),
            not_after: before(98),
            detected_at: Some(before(94)),
            seen_from: Some(west()),
            by_heartbeat: false,
        }),
        ..Request::new(west())
    };
    let plan = planned(&world, &request).await;
    assert_eq!(
        plan.hash, undisturbed.hash,
        "what is done does not depend on it"
    );
    let report = failover(&world, &request).await;
    assert_eq!(report.detection_seconds, Some(6.0));
    assert!(report.decision_seconds.unwrap() >= 94.0, "{report:?}");
    counts_from_the_disruption(&report, 6.0);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_is_seen_alive_outweighs_a_witness() {
    let world = Everything::new().await;
    world.state().left_reachable = false;
    let mut request = Request::new(west());
    request.statements = vec![Statement::Witness("Ada: it is off".to_owned())];
    let plan = planned(&world, &request).await;
    world.state().left_reachable = true;
    world.state().left_running = true;
    world.script("stop-instance", [Fault::Alive]);
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Stuck);
    assert_eq!(report.fence, ProofName::None);
    assert!(matches!(report.loss.bound, Bound::Growing { .. }));
    let stuck = report.stuck.unwrap();
    assert!(
        stuck.why.contains("is alive, whatever was witnessed"),
        "{}",
        stuck.why
    );
    assert!(stuck.why.contains("processes 7 still run"), "{}", stuck.why);
    assert_eq!(world.count("promote-standby"), 0);

    // Once it can be stopped, that is the proof.
    let site = Arc::new(world.site("laptop"));
    let report = resume(site, &report.execution, "it stops now", vec![], &Silent)
        .await
        .unwrap();
    assert_eq!(
        (report.state, report.fence),
        (State::Completed, ProofName::Stopped)
    );
}

/// What goes on where it is needs no proof, and does not make one of another look weak.
#[tokio::test(start_paused = true)]
async fn the_weakest_proof_is_of_what_needs_one() {
    let world = Everything::new().await;
    let report = failover(&world, &Request::new(west())).await;
    let clock: Arc<dyn dr_model::Clock> = world.clock.clone();
    let found = executions::find(&world.stores, &clock, &report.execution).await;
    let mut history = found.unwrap().history;
    let mut plan = history.plan.as_ref().clone();
    let loss = plan.loss.resources[&database()].clone();
    plan.loss.resources.insert("other".parse().unwrap(), loss);
    history.plan = Arc::new(plan);
    assert_eq!(crate::proof::weakest(&history), ProofName::Stopped);
}

/// What it acknowledged between the seal and its end is lost, and the plan knew nothing of it.
#[tokio::test(start_paused = true)]
async fn a_primary_that_went_on_after_the_seal_is_held_against_the_budget() {
    let world = Everything::new().await;
    let plan = planned(&world, &Request::new(west())).await;
    world.state().left_reachable = false;
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Stuck);
    assert!(world.state().sealed);

    world.state().left_reachable = true;
    world.state().left_running = true;
    world.clock.advance(Duration::from_secs(300));
    let again = async |statements| {
        let site = Arc::new(world.site("desk"));
        resume(
            site,
            &report.execution,
            "in reach again",
            statements,
            &Silent,
        )
        .await
        .unwrap()
    };
    let held = again(vec![]).await;
    assert_eq!(held.state, State::Stuck);
    let stuck = held.stuck.unwrap();
    assert!(
        stuck.why.contains("after the log was sealed"),
        "{}",
        stuck.why
    );
    assert!(stuck.remedy[0].contains("--override"), "{:?}", stuck.remedy);
    assert_eq!(world.count("promote-standby"), 0);
    let accepted = again(vec![Statement::Override("it may be lost".to_owned())]).await;
    assert_eq!(accepted.state, State::Completed);
    assert!(
        matches!(accepted.loss.bound, Bound::Seconds { seconds, .. } if seconds > 300.0),
        "{:?}",
        accepted.loss.bound
    );
}
