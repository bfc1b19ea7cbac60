//! A primary that stops by itself: what is counted on, what for how long, and what is not.

use std::sync::Arc;
use std::time::Duration;

use dr_coordination::register::Guard;
use dr_model::StepId;
use dr_model::loss::Bound;
use rstest::rstest;
use tokio::time::Instant;

use super::runs::planned;
use super::world::{Everything, Fault, database, shipped, west};
use crate::events::Silent;
use crate::outcome::State;
use crate::plan::ExpectedProof;
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
    assert!(report.stuck.unwrap().why.contains("still answers"));
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
