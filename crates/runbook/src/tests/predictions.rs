//! What an execution teaches the next plan: how long its work took, and nothing of what people or broken clocks added.

use std::sync::Arc;
use std::time::Duration;

use dr_model::{Clock, StepId};

use super::runs::failover;
use super::world::{Everything, Fault, shipped, west};
use crate::history::History;
use crate::outcome::State;
use crate::past::{Past, Predictions};
use crate::request::Request;
use crate::{Silent, executions, observe, resume};

/// Returns what is predicted of the whole and of the seal.
fn predicted(past: &[Past]) -> (Option<f64>, Option<f64>) {
    let predictions = Predictions::of(past, &shipped().name, &west());
    let seal = predictions.step(&StepId("seal".to_owned()), "seal-wal");
    (predictions.whole(), seal)
}

async fn history(world: &Everything, report: &crate::Report) -> History {
    let clock: Arc<dyn Clock> = world.clock.clone();
    let found = executions::find(&world.stores, &clock, &report.execution).await;
    found.unwrap().history
}

#[tokio::test(start_paused = true)]
async fn one_that_was_resumed_teaches_nothing() {
    let world = Everything::new().await;
    world.script("start-service", [Fault::Definite]);
    let report = failover(&world, &Request::new(west())).await;
    assert_eq!(report.state, State::Stuck);
    world.clock.advance(Duration::from_secs(7200));
    let desk = Arc::new(world.site("desk"));
    let report = resume(desk, &report.execution, "go on", vec![], &Silent).await;
    let report = report.unwrap();
    assert_eq!(report.state, State::Completed);
    assert!(report.execution_seconds.unwrap() > 7200.0);
    let seen = observe(&world.site("desk"), &west()).await;
    assert_eq!(seen.past, []);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_teaches_nothing() {
    let world = Everything::new().await;
    let report = failover(&world, &Request::new(west())).await;
    let mut history = history(&world, &report).await;
    let past = |history: &History| predicted(&[Past::of(history).unwrap()]);
    let (whole, seal) = past(&history);
    assert!(whole.unwrap() > 0.0 && seal.unwrap() > 0.0);

    let closed = history.closed.as_mut().unwrap();
    let sealing = closed.steps.iter_mut().find(|step| step.uses == "seal-wal");
    sealing.unwrap().took_seconds = Some(-3600.0);
    closed.execution_seconds = Some(-3599.0);
    assert_eq!(past(&history), (None, None));
}
