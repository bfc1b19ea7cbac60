//! Every execution that ends leaves one record of how, and what cannot be recorded stops nobody.

use std::sync::Arc;

use dr_coordination::evidence::{Evidence, faults, read_all};
use dr_provider::decorate::{Fault as StoreFault, Faulty, Operation, Rule};
use dr_provider::{ErrorKind, ObjectStore};
use serde_json::json;

use super::runs::{failover, planned, state_of};
use super::world::{Everything, Fault, east, orders, shipped_undo, west};
use crate::events::Silent;
use crate::outcome::{State, StepState};
use crate::request::Request;
use crate::{Decided, Report, abort, execute, resume, resume_with};

/// Returns the records in a region's store, of which nothing may be wrong.
async fn records(world: &Everything, region: &dr_model::RegionName) -> Vec<Evidence> {
    let chain = read_all(&*world.stores[region], &orders()).await.unwrap();
    assert_eq!(faults(&orders(), &chain), Vec::<String>::new());
    let records = chain.records.into_iter().map(|found| found.record);
    records.collect::<Result<_, _>>().unwrap()
}

/// Checks that there is one record, of this execution in this state.
async fn recorded(world: &Everything, report: &Report, state: &str) -> Evidence {
    let mut all = records(world, &report.to).await;
    let record = all.remove(0);
    assert_eq!(all, [], "one record");
    assert_eq!(record.subject, report.execution.to_string());
    assert_eq!(record.state, state);
    assert_eq!(record.body["report"]["state"], state);
    record
}

/// Lets the store of the west take no evidence.
fn take_none(world: &mut Everything, fault: StoreFault) {
    let store: Arc<dyn ObjectStore> = Arc::clone(&world.stores[&west()]);
    let rule = Rule::on(Operation::Create, "evidence/*", fault);
    let store = Faulty::scripted(store, vec![rule]);
    world.stores.insert(west(), Arc::new(store));
}

#[tokio::test(start_paused = true)]
async fn what_was_completed_is_recorded_by_the_step_alone() {
    let world = Everything::new().await;
    let report = failover(&world, &Request::new(west())).await;
    let record = recorded(&world, &report, "completed").await;
    assert_eq!(record.kind, "execution");
    assert_eq!(record.body["runbook"], "failover-region");
    let recorded = &record.body["report"];
    assert_eq!(recorded["rta_seconds"], json!(report.rta_seconds));
    assert_eq!(recorded["loss"], json!(report.loss));
    assert_eq!(
        records(&world, &east()).await,
        [],
        "no other store is asked"
    );
}

#[tokio::test(start_paused = true)]
async fn what_ended_with_exceptions_says_so() {
    let world = Everything::new().await;
    world.script("notify", [Fault::Definite]);
    let report = failover(&world, &Request::new(west())).await;
    assert_eq!(report.state, State::CompletedWithExceptions);
    recorded(&world, &report, "completed-with-exceptions").await;
}

#[tokio::test(start_paused = true)]
async fn what_failed_before_it_changed_anything_is_recorded_by_whoever_ran_it() {
    let world = Everything::new().await;
    let plan = planned(&world, &Request::new(west())).await;
    // What was planned to come up is gone.
    world.state().standby = false;
    world.state().recovery_point = false;
    let report = execute(Arc::new(world.site("laptop")), plan, &Silent).await;
    let report = report.unwrap();
    assert_eq!(report.state, State::Failed, "{report:#?}");
    let record = recorded(&world, &report, "failed").await;
    assert_eq!(record.body["report"]["reason"], json!(report.reason));
}

/// What is stuck is not over: it has no record before somebody has ended it.
#[tokio::test(start_paused = true)]
async fn what_is_stuck_is_recorded_by_whoever_ends_it() {
    let world = Everything::new().await;
    world.script("seal-chain", [Fault::Definite]);
    let stuck = failover(&world, &Request::new(west())).await;
    assert_eq!(stuck.state, State::Stuck);
    assert_eq!(records(&world, &west()).await, []);
    let undo = shipped_undo();
    let site = Arc::new(world.site("desk"));
    let aborted = abort(site, &stuck.execution, "not today", &undo, &Silent).await;
    let aborted = aborted.unwrap();
    recorded(&world, &aborted.report.unwrap(), "aborted").await;
    recorded(&world, &aborted.undone_by.unwrap(), "completed").await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_no_evidence_fails_no_failover() {
    for fault in [
        StoreFault::Before(ErrorKind::Denied),
        StoreFault::Before(ErrorKind::Unknown),
        StoreFault::Delay(std::time::Duration::MAX),
    ] {
        let mut world = Everything::new().await;
        take_none(&mut world, fault);
        let report = failover(&world, &Request::new(west())).await;
        assert_eq!(report.state, State::CompletedWithExceptions, "{fault:?}");
        assert_eq!(state_of(&report, "record"), StepState::Excepted);
        assert_eq!(state_of(&report, "prove"), StepState::Done);
        assert!(report.reason.unwrap().contains("step `record`"));
        assert_eq!(records(&world, &west()).await, []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaves_one_record() {
    let mut world = Everything::new().await;
    take_none(&mut world, StoreFault::After);
    let report = failover(&world, &Request::new(west())).await;
    assert_eq!(report.state, State::Completed, "{report:#?}");
    recorded(&world, &report, "completed").await;
}

/// Leaving the step out decides what is waited for, and hides nothing.
#[tokio::test(start_paused = true)]
async fn an_end_without_the_step_is_recorded_all_the_same() {
    let world = Everything::new().await;
    world.script("start-service", [Fault::Definite]);
    let stuck = failover(&world, &Request::new(west())).await;
    let skip = ["record".to_owned()].map(dr_model::StepId);
    let site = Arc::new(world.site("desk"));
    let done = resume_with(
        site,
        &stuck.execution,
        "no",
        vec![],
        &Decided {
            skip: skip.into(),
            ..Decided::default()
        },
        &Silent,
    )
    .await;
    let done = done.unwrap();
    assert_eq!(state_of(&done, "record"), StepState::Skipped);
    recorded(&world, &done, "completed-with-exceptions").await;
}

/// A newer epoch ends an execution: whoever finds that out records it.
#[tokio::test(start_paused = true)]
async fn what_was_superseded_says_so() {
    let world = Everything::new().await;
    world.script("start-service", [Fault::Definite]);
    let stuck = failover(&world, &Request::new(west())).await;
    let head = world.register().read().await.unwrap().unwrap();
    let guards = std::collections::BTreeMap::new();
    world
        .register()
        .create(&head.with_guards(guards))
        .await
        .unwrap();
    let site = Arc::new(world.site("desk"));
    let ended = resume(site, &stuck.execution, "go on", vec![], &Silent).await;
    let ended = ended.unwrap();
    assert_eq!(ended.state, State::Superseded, "{ended:#?}");
    recorded(&world, &ended, "superseded").await;
}
