//! A person's word against what is seen: the old primary is looked at afresh before a statement counts, and the record says what was
//! seen.

use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;

use super::runs::{failover, planned};
use super::world::{Everything, Fault, database, shipped, west};
use crate::events::Silent;
use crate::outcome::State;
use crate::proof::ProofName;
use crate::request::{Request, Statement};
use crate::{Class, Report, execute, observe, plan, resume};

/// How the old primary shows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// It answers.
    Answers,
    /// It answers, and the store of its region does not.
    AnswersWithoutItsStore,
    /// It does not answer, and its processes are there.
    Runs,
    /// Nothing answers.
    Silent,
    /// Nothing ever comes back.
    Hangs,
}

impl Left {
    fn set(self, world: &Everything) {
        let mut state = world.state();
        let answers = matches!(self, Self::Answers | Self::AnswersWithoutItsStore);
        state.left_running = answers;
        state.left_reachable = answers;
        state.left_hangs = self == Self::Runs;
        state.left_mute = self == Self::Hangs;
        state.left_store_hangs = self == Self::AnswersWithoutItsStore;
    }

    fn is_alive(self) -> bool {
        !matches!(self, Self::Silent | Self::Hangs)
    }
}

fn witness() -> Statement {
    Statement::Witness("Ada: it is off".to_owned())
}

fn overriding() -> Statement {
    Statement::Override("the customer decided".to_owned())
}

/// Leaves an execution behind whose fence ran into its time limit, so that nothing is known of the old primary.
async fn stuck(world: &Everything) -> Report {
    let plan = planned(world, &Request::new(west())).await;
    Left::Silent.set(world);
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Stuck);
    assert!(report.stuck.as_ref().unwrap().why.contains("proves"));
    report
}

async fn resumed(world: &Everything, report: &Report, statements: Vec<Statement>) -> Report {
    // The fence says nothing this time either.
    world.script("stop-instance", [Fault::Hang]);
    let desk = Arc::new(world.site("desk"));
    let going = resume(desk, &report.execution, "go on", statements, &Silent);
    going.await.unwrap()
}

async fn is_written(world: &Everything, text: &str) -> bool {
    let journals = world.journals().await;
    journals
        .iter()
        .any(|entry| entry.contains("\"looked\"") && entry.contains(text))
}

#[rstest]
#[case(Left::Answers, "a primary answers")]
#[case(Left::AnswersWithoutItsStore, "a primary answers")]
#[case(Left::Runs, "connection timed out")]
#[case(Left::Silent, "connection timed out")]
#[case(Left::Hangs, "no answer within 2.5 s")]
#[tokio::test(start_paused = true)]
async fn a_witness_on_resume_counts_unless_the_old_primary_is_seen(
    #[case] left: Left,
    #[case] seen: &str,
) {
    let world = Everything::new().await;
    let begun = stuck(&world).await;
    left.set(&world);
    let report = resumed(&world, &begun, vec![witness()]).await;
    assert!(is_written(&world, seen).await, "{:#?}", report.steps);
    if !left.is_alive() {
        assert_eq!(
            (report.state, report.fence),
            (State::Completed, ProofName::Witness)
        );
        assert_eq!(report.resources[&database()].seen_alive, None);
        return;
    }
    assert_eq!(report.state, State::Stuck, "{report:#?}");
    assert_eq!(world.count("promote-standby"), 0);
    let why = report.stuck.as_ref().unwrap().why.clone();
    assert!(
        why.contains("is alive, whatever was witnessed") && why.contains(seen),
        "{why}"
    );

    // What was stated before counts once it is not seen any more: every resume looks again.
    Left::Silent.set(&world);
    let report = resumed(&world, &report, vec![]).await;
    assert_eq!(
        (report.state, report.fence),
        (State::Completed, ProofName::Witness)
    );
}

#[rstest]
#[case(Left::Answers, Some("a primary answers"))]
#[case(Left::Runs, Some("connection timed out"))]
#[case(Left::Silent, None)]
#[tokio::test(start_paused = true)]
async fn an_override_passes_and_the_record_says_what_was_seen(
    #[case] left: Left,
    #[case] seen: Option<&str>,
) {
    let world = Everything::new().await;
    let begun = stuck(&world).await;
    left.set(&world);
    let report = resumed(&world, &begun, vec![overriding()]).await;
    assert_eq!(report.state, State::Completed, "{report:#?}");
    assert_eq!(report.fence, ProofName::None);
    let found = report.resources[&database()].seen_alive.as_deref();
    assert_eq!(found, seen);
    let looked = report.steps.iter().any(|step| {
        let summary = step.summary.as_deref().unwrap_or_default();
        summary.contains("looked at the old primary of `database`")
    });
    assert!(looked, "{:#?}", report.steps);
}

/// It was silent when the plan was made, and is back when it is to be left.
#[tokio::test(start_paused = true)]
async fn a_witness_at_the_beginning_is_looked_behind_too() {
    let world = Everything::new().await;
    Left::Silent.set(&world);
    let request = Request {
        statements: vec![witness()],
        ..Request::new(west())
    };
    let plan = planned(&world, &request).await;
    Left::Answers.set(&world);
    world.script("stop-instance", [Fault::Hang]);
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Stuck, "{report:#?}");
    assert_eq!(world.count("promote-standby"), 0);

    // Nobody has to say anything if it can be stopped.
    let desk = Arc::new(world.site("desk"));
    let again = resume(desk, &report.execution, "again", vec![], &Silent).await;
    let again = again.unwrap();
    assert_eq!(
        (again.state, again.fence),
        (State::Completed, ProofName::Stopped)
    );
    assert_eq!(again.resources[&database()].seen_alive, None);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_states_anything_nothing_is_looked_at() {
    let world = Everything::new().await;
    let report = failover(&world, &Request::new(west())).await;
    assert_eq!(report.state, State::Completed);
    assert!(!is_written(&world, "").await);
}

/// The plan sees the server itself, whatever the store beside it does.
#[tokio::test(start_paused = true)]
async fn a_slow_store_does_not_hide_a_primary_from_the_plan() {
    let world = Everything::new().await;
    Left::AnswersWithoutItsStore.set(&world);
    world.state().unfenceable = true;
    let request = Request {
        statements: vec![witness()],
        ..Request::new(west())
    };
    let seen = observe(&world.site("laptop"), &west()).await;
    let refusal = plan(&shipped(), &seen, &request).unwrap_err();
    assert_eq!(refusal.class(), Class::Safety);
    assert!(refusal.to_string().contains("runs"), "{refusal}");
}

/// People took their time, and the old primary came back meanwhile: until its epoch is ended it is whole.
#[rstest]
#[case::it_answers(Left::Answers, true)]
#[case::its_processes_are_there(Left::Runs, true)]
#[case::still_silent(Left::Silent, false)]
#[tokio::test(start_paused = true)]
async fn what_was_witnessed_is_looked_at_again_before_the_epoch(
    #[case] left: Left,
    #[case] has_come_back: bool,
) {
    let world = Everything::new().await;
    Left::Silent.set(&world);
    let request = Request {
        statements: vec![witness()],
        ..Request::new(west())
    };
    let plan = planned(&world, &request).await;
    world.clock.advance(Duration::from_secs(60));
    left.set(&world);
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    if !has_come_back {
        assert_eq!(report.state, State::Completed);
        return;
    }
    assert_eq!(report.state, State::Failed, "{report:#?}");
    let why = report.reason.unwrap();
    assert!(why.contains("has come back since the plan"), "{why}");
    assert_eq!(world.state().effects, []);
}

/// What it has written since the plan was made is lost as well.
#[rstest]
#[case(30, State::Completed)]
#[case(70, State::Failed)]
#[tokio::test(start_paused = true)]
async fn what_a_living_primary_wrote_while_people_decided_is_judged(
    #[case] seconds: u64,
    #[case] expected: State,
) {
    let world = Everything::new().await;
    Left::Answers.set(&world);
    let plan = planned(&world, &Request::new(west())).await;
    world.clock.advance(Duration::from_secs(seconds));
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, expected, "{report:#?}");
    if expected == State::Failed {
        let why = report.reason.unwrap();
        assert!(why.contains("exceeds the budget"), "{why}");
        assert_eq!(world.state().effects, []);
    }
}
