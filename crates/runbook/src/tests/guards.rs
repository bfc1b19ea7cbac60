//! A primary that stops by itself: what is counted on, what for how long, and what is not.

use std::sync::Arc;
use std::time::Duration;

use dr_config::Runbook;
use dr_coordination::register::Guard;
use dr_model::StepId;
use dr_model::loss::Bound;
use rstest::rstest;
use tokio::time::Instant;

use super::in_place::Meanwhile;
use super::runs::{planned, planned_by};
use super::world::{Everything, Fault, database, runbook, shipped, west};
use crate::check::check;
use crate::events::Silent;
use crate::outcome::State;
use crate::plan::{ExpectedProof, PlannedStep};
use crate::proof::ProofName;
use crate::request::{Request, Statement};
use crate::{Class, execute, observe, plan};

const GUARD: Guard = Guard { lease_seconds: 10 };

/// A region out of sight, whose primary runs on.
async fn out_of_sight() -> Everything {
    let world = Everything::new().await;
    world.state().left_reachable = false;
    world
}

#[expect(
    clippy::disallowed_methods,
    reason = "the runtime's own clock, which is paused"
)]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn nothing_comes_up_before_the_guard_has_had_its_time() {
    let world = out_of_sight().await;
    world.arm(GUARD.lease_seconds).await;
    let plan = planned(&world, &Request::new(west())).await;
    assert_eq!(plan.proofs[&database()], ExpectedProof::SelfStopped);
    assert!(
        matches!(plan.loss.bound, Bound::Seconds { .. }),
        "{:?}",
        plan.loss
    );
    let began = now();
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(
        (report.state, report.fence),
        (State::Completed, ProofName::SelfStopped)
    );
    assert!(began.elapsed() >= GUARD.stopped_after());
    assert!(GUARD.stopped_after() > Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn what_is_proven_otherwise_is_not_waited_for() {
    let world = Everything::new().await;
    world.arm(300).await;
    let plan = planned(&world, &Request::new(west())).await;
    assert_eq!(plan.proofs[&database()], ExpectedProof::Stopped);
    let began = now();
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(
        (report.state, report.fence),
        (State::Completed, ProofName::Stopped)
    );
    assert!(began.elapsed() < Duration::from_secs(60));
}

/// A server that was to be stopped by now and still answers has no guard, whatever the register says.
#[tokio::test(start_paused = true)]
async fn a_guard_that_has_not_stopped_it_is_no_proof() {
    let world = Everything::new().await;
    world.arm(GUARD.lease_seconds).await;
    world.state().left_running = true;
    world.script("stop-instance", [Fault::Alive; 4]);
    let plan = planned(&world, &Request::new(west())).await;
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Stuck, "{report:#?}");
    assert_eq!(world.count("promote-standby"), 0);
    assert!(report.stuck.unwrap().why.contains("still alive"));
}

/// What the plan saw alive and nothing could stop is looked at when the guard's time is over, whatever became of the fence.
#[rstest]
#[case::answers(true, false, false, false, Some("a primary answers"))]
#[case::answers_without_its_store(true, false, false, true, Some("a primary answers"))]
#[case::runs(false, true, false, false, Some("connection timed out"))]
#[case::hangs(false, false, true, false, Some("cannot be looked at now"))]
#[case::silent(false, false, false, false, None)]
#[tokio::test(start_paused = true)]
async fn what_the_plan_saw_alive_has_to_be_gone(
    #[case] answers: bool,
    #[case] runs: bool,
    #[case] mute: bool,
    #[case] store_hangs: bool,
    #[case] refused: Option<&str>,
    #[values(true, false)] unfenceable: bool,
) {
    let world = Everything::new().await;
    world.arm(GUARD.lease_seconds).await;
    {
        let mut state = world.state();
        (state.left_running, state.unfenceable) = (true, true);
    }
    let mut plan = planned(&world, &Request::new(west())).await;
    assert_eq!(plan.proofs[&database()], ExpectedProof::SelfStopped);
    if !unfenceable {
        // One that is tried, and comes to nothing.
        world.state().unfenceable = false;
        let fenced = planned(&world, &Request::new(west())).await;
        let fence = |step: &PlannedStep| step.uses == "fence-primary";
        let at = plan.steps.iter().position(fence).unwrap();
        plan.steps[at] = fenced.steps.into_iter().find(fence).unwrap();
        world.script("stop-instance", [Fault::Hang]);
    }
    {
        let mut state = world.state();
        state.left_running = answers;
        state.left_reachable = answers;
        state.left_hangs = runs;
        state.left_mute = mute;
        state.left_store_hangs = store_hangs;
    }
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    match refused {
        Some(seen) => {
            assert_eq!(report.state, State::Stuck, "{report:#?}");
            let why = report.stuck.unwrap().why;
            assert!(why.contains(seen), "{why}");
            assert_eq!(world.count("promote-standby"), 0);
        }
        None => assert_eq!(
            (report.state, report.fence),
            (State::Completed, ProofName::SelfStopped)
        ),
    }
}

/// A guard that is waited for once something has come up already proves nothing to that.
#[tokio::test(start_paused = true)]
async fn a_wait_behind_the_promotion_is_not_counted_on() {
    let world = out_of_sight().await;
    world.arm(GUARD.lease_seconds).await;
    let mut runbook = shipped();
    let at = |runbook: &Runbook, uses: &str| {
        let mut steps = runbook.steps.iter();
        steps.position(|step| step.uses == uses).unwrap()
    };
    let await_fence = at(&runbook, "await-fence");
    let mut late = runbook.steps.remove(await_fence);
    for step in &mut runbook.steps {
        for need in &mut step.needs {
            if need.0 == "confirm" {
                *need = StepId("fence".to_owned());
            }
        }
    }
    late.needs = vec![StepId("promote".to_owned())];
    let promote = at(&runbook, "promote-database");
    runbook.steps.insert(promote + 1, late);
    let seen = observe(&world.site("laptop"), &west()).await;
    let refused = plan(&runbook, &seen, &Request::new(west())).unwrap_err();
    assert_eq!(refused.class(), Class::Safety, "{refused}");
    assert!(
        check(&runbook)
            .iter()
            .any(|found| found.is_grave && found.what.contains("`await-fence`")),
        "{:?}",
        check(&runbook)
    );
}

/// What was acknowledged while the guard still had time is not in a log that was sealed before that.
#[tokio::test(start_paused = true)]
async fn what_ran_on_behind_the_seal_is_held_against_the_budget() {
    let world = out_of_sight().await;
    world.arm(GUARD.lease_seconds).await;
    let text = include_str!("../../../../runbooks/failover-region.yaml");
    let seal = "  - { id: seal, uses: seal-wal }\n";
    let confirm = "  - { id: confirm, uses: await-fence }\n";
    let sealed_first = text
        .replace(seal, "")
        .replace(confirm, &format!("{seal}{confirm}"));
    let runbook = runbook(&sealed_first).unwrap();
    let request = Request {
        max_loss: Some(Duration::from_secs(20)),
        ..Request::new(west())
    };
    let plan = planned_by(&world, &runbook, &request).await;
    let passes = Meanwhile {
        at: "confirm",
        happens: || world.clock.advance(Duration::from_secs(30)),
    };
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &passes).await.unwrap();
    assert_eq!(report.state, State::Stuck, "{report:#?}");
    let why = report.stuck.unwrap().why;
    assert!(why.contains("after the log was sealed"), "{why}");
    assert_eq!(world.count("promote-standby"), 0);
}

#[rstest]
#[case::never_armed(false, "await-fence")]
#[case::runbook_does_not_wait(true, "wait")]
#[tokio::test(start_paused = true)]
async fn without_a_record_or_a_wait_it_is_refused(#[case] armed: bool, #[case] uses: &str) {
    let world = out_of_sight().await;
    if armed {
        world.arm(GUARD.lease_seconds).await;
    }
    let mut runbook = shipped();
    if uses == "wait" {
        runbook.steps.retain(|step| step.uses != "await-fence");
        // What needed it follows the one before.
        for step in &mut runbook.steps {
            for need in &mut step.needs {
                if need.0 == "confirm" {
                    *need = StepId("fence".to_owned());
                }
            }
        }
    }
    let request = Request::new(west());
    let seen = observe(&world.site("laptop"), &west()).await;
    let refused = plan(&runbook, &seen, &request).unwrap_err();
    assert_eq!(refused.class(), Class::Safety, "{refused}");
    assert!(refused.to_string().contains("proves"), "{refused}");
}

/// The register does not answer: what it once said of a guard may not be so any more.
#[tokio::test(start_paused = true)]
async fn a_copy_of_a_record_is_not_counted_on() {
    let world = out_of_sight().await;
    world.arm(GUARD.lease_seconds).await;
    let mut seen = observe(&world.site("laptop"), &west()).await;
    let newest = seen.register.head().unwrap().clone();
    seen.register = crate::world::RegisterFacts::Unreachable {
        why: "no answer".to_owned(),
        newest_copy: Some(Box::new(newest)),
    };
    let mut request = Request::new(west());
    request.statements = vec![Statement::Override("a test".to_owned())];
    let plan = plan(&shipped(), &seen, &request).unwrap();
    assert_eq!(plan.proofs[&database()], ExpectedProof::Override);
}
