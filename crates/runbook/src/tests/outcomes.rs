//! What comes of one action decides how it goes on: another way, a look, an exception or a halt.

use std::sync::Arc;

use super::runs::{Lines, failover, planned, state_of};
use super::world::{Everything, Fault, west};
use crate::events::Silent;
use crate::outcome::{State, StepState};
use crate::request::{Request, Rung};
use crate::{execute, resume};

#[tokio::test(start_paused = true)]
async fn a_definite_failure_takes_the_fallback() {
    let world = Everything::new().await;
    world.script("promote-standby", [Fault::Definite]);
    let plan = planned(&world, &Request::new(west())).await;
    let lines = Lines::default();
    let report = execute(Arc::new(world.site("laptop")), plan, &lines)
        .await
        .unwrap();
    assert_eq!(report.state, State::Completed);
    assert_eq!(report.rung, Rung::Restore);
    assert_eq!(
        (
            world.count("promote-standby"),
            world.count("restore-instance")
        ),
        (0, 1)
    );
    let promote = report
        .steps
        .iter()
        .find(|step| step.id.0 == "promote")
        .unwrap();
    assert_eq!(promote.uses, "restore-database");
    let lines = lines.0.lock().unwrap().join("\n");
    assert!(lines.contains("falls back to restore-database"), "{lines}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_looked_up_and_takes_no_fallback() {
    let world = Everything::new().await;
    world.script("promote-standby", [Fault::AnswerLost]);
    let report = failover(&world, &Request::new(west())).await;
    assert_eq!(report.state, State::Completed);
    assert_eq!(report.rung, Rung::Promote);
    assert_eq!(
        (
            world.count("promote-standby"),
            world.count("restore-instance")
        ),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_doubtful_promotion_is_stuck_and_never_restored_over() {
    for (fault, blind) in [
        (Fault::RequestLost, 0),
        (Fault::AnswerLost, 9),
        (Fault::Hang, 0),
    ] {
        let world = Everything::new().await;
        world.script("promote-standby", [fault]);
        world
            .state()
            .blind
            .insert("promote-standby".to_owned(), blind);
        let report = failover(&world, &Request::new(west())).await;
        assert_eq!(report.state, State::Stuck, "{fault:?}");
        assert_eq!(world.count("restore-instance"), 0);
        let stuck = report.stuck.unwrap();
        let unknown = |line: &String| line.contains("unknown whether this was done");
        assert!(stuck.residue.iter().any(unknown), "{stuck:?}");
        // Once it can be seen again, going on finds out by itself.
        world.state().blind.clear();
        let site = Arc::new(world.site("laptop"));
        let report = resume(site, &report.execution, "go on", vec![], &Silent)
            .await
            .unwrap();
        assert_eq!(report.state, State::Completed, "{fault:?}");
        assert_eq!(world.count("promote-standby"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_arrive_is_an_exception_and_never_a_pass() {
    let world = Everything::new().await;
    world.script("notify", [Fault::Definite]);
    let report = failover(&world, &Request::new(west())).await;
    assert_eq!(report.state, State::CompletedWithExceptions);
    assert_eq!(state_of(&report, "notify"), StepState::Excepted);
    assert_eq!(state_of(&report, "rearm"), StepState::Done);
    assert!(report.reason.unwrap().contains("notify"));
}
