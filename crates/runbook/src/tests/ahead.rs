//! What would stop an execution further on is seen before it goes on: it is refused while it can be taken back, and goes on with a
//! warning behind that.

use std::sync::Arc;

use dr_model::{Clock, ExecutionId, StepId};

use super::crash::die_in;
use super::pauses::{Notes, stuck_at};
use super::runs::{planned, state_of};
use super::world::{Everything, west};
use crate::events::Silent;
use crate::outcome::{State, StepState};
use crate::request::{Request, Statement};
use crate::{Class, Decided, Error, Refusal, executions, resume, resume_with};

/// Returns an execution that died with nothing but its gate noted.
async fn died(world: &Everything) -> ExecutionId {
    let plan = planned(world, &Request::new(west())).await;
    assert!(die_in(world, plan, 3, true).await);
    let clock: Arc<dyn Clock> = world.clock.clone();
    let (mut listed, _) = executions::list(&world.stores, &clock).await;
    listed.remove(0).execution
}

/// Resumes an execution, which has to be refused with nothing written and nothing done.
async fn refused(world: &Everything, execution: &ExecutionId) -> Refusal {
    let before = (world.journals().await, world.state().effects.clone());
    let site = Arc::new(world.site("desk"));
    let error = resume(site, execution, "go on", vec![], &Silent).await;
    let error = error.unwrap_err();
    let hint = error.hint().unwrap();
    assert!(hint.contains("dr execution abort"), "{hint}");
    let after = (world.journals().await, world.state().effects.clone());
    assert_eq!(after, before);
    match error {
        Error::NotResumed { refusal, .. } => *refusal,
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_exchanged_meanwhile_is_seen_before_anything_is_done() {
    let world = Everything::new().await;
    let execution = died(&world).await;
    world.state().key_refused = true;
    let refusal = refused(&world, &execution).await;
    assert!(
        matches!(refusal, Refusal::TrafficDenied { .. }),
        "{refusal}"
    );
    assert_eq!(refusal.class(), Class::Invalid);
    assert!(refusal.hint().unwrap().contains("another secret"));

    // Put right, it goes on.
    world.state().key_refused = false;
    let site = Arc::new(world.site("desk"));
    let report = resume(site, &execution, "go on", vec![], &Silent).await;
    assert_eq!(report.unwrap().state, State::Completed);
}

/// Whoever leads the clients, or leaves the switch out, knows of it.
#[tokio::test(start_paused = true)]
async fn whoever_needs_no_key_is_not_asked_for_one() {
    let by_hand = Statement::ClientsByHand("the load balancer is moved".to_owned());
    let skip = ["switch", "prove"].map(|id| StepId(id.to_owned()));
    for (statements, skip, state) in [
        (vec![by_hand], Vec::new(), State::Stuck),
        (Vec::new(), skip.to_vec(), State::CompletedWithExceptions),
    ] {
        let world = Everything::new().await;
        let execution = died(&world).await;
        world.state().key_refused = true;
        let site = Arc::new(world.site("desk"));
        let decided = Decided {
            skip,
            ..Decided::default()
        };
        let report = resume_with(site, &execution, "by hand", statements, &decided, &Silent).await;
        let report = report.unwrap();
        assert_eq!(report.state, state, "{report:#?}");
        assert_eq!(state_of(&report, "promote"), StepState::Done);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_full_by_now_is_seen_before_anything_is_done() {
    let mut world = Everything::new().await;
    let execution = died(&world).await;
    world.fill(&west());
    let refusal = refused(&world, &execution).await;
    assert!(matches!(refusal, Refusal::Unwritable { .. }), "{refusal}");
    assert_eq!(refusal.class(), Class::Unavailable);
}

/// What was agreed to is what is done: another configuration means something else by the same names.
#[tokio::test(start_paused = true)]
async fn a_configuration_that_says_something_else_is_seen_before_anything_is_done() {
    let world = Everything::new().await;
    let execution = died(&world).await;
    let other = |quorum| {
        let mut site = world.site("desk");
        site.approval.quorum = quorum;
        site.definitions = [("services.ledger", "2"), ("checks[0]", "3")]
            .map(|(path, hash)| (path.to_owned(), hash.to_owned()))
            .into();
        Arc::new(site)
    };
    let error = resume(other(1), &execution, "go on", vec![], &Silent).await;
    let Error::NotResumed { refusal, .. } = error.unwrap_err() else {
        panic!("it is refused");
    };
    assert_eq!(refusal.class(), Class::Safety);
    let said = refusal.to_string();
    assert!(said.contains("`checks[0]`, `services.ledger`"), "{said}");

    // Where nobody had to agree, whoever puts something right goes on with it, and is told.
    let notes = Notes::default();
    let report = resume(other(0), &execution, "put right", vec![], &notes).await;
    assert_eq!(report.unwrap().state, State::Completed);
    let said = notes.0.lock().unwrap().join("\n");
    assert!(said.contains("`checks[0]`"), "{said}");

    // Behind the promotion whoever has put a command right goes on with it, and is told.
    let world = Everything::new().await;
    let execution = stuck_at(&world, "start-service").await;
    world.script("start-service", []);
    let notes = Notes::default();
    let mut site = world.site("desk");
    site.approval.quorum = 1;
    site.definitions.clear();
    let report = resume(Arc::new(site), &execution, "put right", vec![], &notes).await;
    assert_eq!(report.unwrap().state, State::Completed);
    let said = notes.0.lock().unwrap().clone();
    let told = said
        .iter()
        .filter(|note| note.contains("`services.ledger`"));
    assert_eq!(told.count(), 1, "{said:?}");
}

/// Once something was promoted, a database that serves counts for more than the name that leads to it.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_back_goes_on_with_a_warning() {
    let world = Everything::new().await;
    let execution = stuck_at(&world, "start-service").await;
    world.script("start-service", []);
    world.state().key_refused = true;
    let notes = Notes::default();
    let site = Arc::new(world.site("desk"));
    let report = resume(site, &execution, "it can be started", vec![], &notes).await;
    let report = report.unwrap();
    assert_eq!(state_of(&report, "serve"), StepState::Done);
    assert_eq!(report.stuck.unwrap().step.0, "switch");
    let said = notes.0.lock().unwrap().join("\n");
    for words in [
        "warning: the switch of",
        "goes on all the same",
        "another secret",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

/// For how long nobody worked at it is no part of what a step took.
#[tokio::test(start_paused = true)]
async fn how_long_an_execution_lay_is_no_part_of_a_step() {
    let world = Everything::new().await;
    let execution = stuck_at(&world, "start-service").await;
    world.script("start-service", []);
    world.clock.advance(std::time::Duration::from_secs(3600));
    let site = Arc::new(world.site("desk"));
    let report = resume(site, &execution, "after an hour", vec![], &Silent).await;
    let report = report.unwrap();
    assert_eq!(report.state, State::Completed);
    let serve = report.steps.iter().find(|step| step.id.0 == "serve");
    let serve = serve.unwrap();
    assert!(serve.took_seconds.unwrap() < 60.0, "{serve:?}");
    // When it began first is told all the same.
    assert!(
        serve.started_at.unwrap()
            < dr_model::Clock::now(&*world.clock) - jiff::SignedDuration::from_secs(3000)
    );
    assert!(report.rta_seconds.unwrap() > 3600.0, "clients waited");
}
