//! Every step: fail here, lose the answer here. What is repeated is in `repeats`.

use std::sync::Arc;

use rstest::rstest;

use super::runs::{failover, planned, state_of};
use super::world::{Everything, Fault, west};
use crate::events::Silent;
use crate::history::History;
use crate::outcome::{State, StepState};
use crate::plan::Idempotency;
use crate::record::{Outcome, Place, Record};
use crate::request::Request;
use crate::step::Work;
use crate::steps::registry;
use crate::waits::Waits;
use crate::{execute, resume};

/// Effects by the step that has them, with what a definite failure of it comes to.
const EFFECTS: [(&str, &str, State); 6] = [
    ("seal", "seal-chain", State::Stuck),
    ("promote", "promote-standby", State::Completed),
    ("serve", "start-service", State::Stuck),
    ("switch", "switch-traffic", State::Stuck),
    ("notify", "notify", State::CompletedWithExceptions),
    ("rearm", "keep-slots", State::CompletedWithExceptions),
];

#[tokio::test(start_paused = true)]
async fn fail_here_and_go_on_later() {
    for (step, action, state) in EFFECTS {
        let world = Everything::new().await;
        world.script(action, [Fault::Definite]);
        let report = failover(&world, &Request::new(west())).await;
        assert_eq!(report.state, state, "{step}");
        if state != State::Stuck {
            continue;
        }
        assert_eq!(state_of(&report, step), StepState::Failed, "{step}");
        assert_eq!(report.stuck.as_ref().unwrap().step.0, step);
        let site = Arc::new(world.site("desk"));
        let report = resume(site, &report.execution, "again", vec![], &Silent)
            .await
            .unwrap();
        assert_eq!(report.state, State::Completed, "{step}");
        assert_eq!(state_of(&report, step), StepState::Done, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn lose_the_answer_here_and_look() {
    for (step, action, _) in EFFECTS {
        let world = Everything::new().await;
        world.script(action, [Fault::AnswerLost]);
        let report = failover(&world, &Request::new(west())).await;
        match step {
            // Whether a message arrived cannot be seen, and nobody waits for it.
            "notify" => assert_eq!(report.state, State::CompletedWithExceptions),
            _ => assert_eq!(report.state, State::Completed, "{step}: {report:#?}"),
        }
        assert_eq!(world.count(action), 1, "{step}");
    }
}

#[rstest]
#[case("notify", Idempotency::AtLeastOnce)]
#[case("open-epoch", Idempotency::Conditional)]
#[case("switch-traffic", Idempotency::Conditional)]
#[case("promote-database", Idempotency::Idempotent)]
#[case("check-health", Idempotency::ReadOnly)]
fn classes(#[case] name: &str, #[case] class: Idempotency) {
    assert_eq!(registry::find(name).unwrap().idempotency(), class);
}

/// Only fencing may address the region being left, apart from a register that is still there, and from the steps of moves
/// that rely on it.
#[test]
fn only_fencing_touches_the_region_being_left() {
    let touching: Vec<_> = registry::ALL
        .iter()
        .filter(|entry| entry.step.may_touch_region_left())
        .map(|entry| entry.step.name())
        .collect();
    assert_eq!(
        touching,
        [
            "open-epoch",
            "stop-service",
            "fence-primary",
            "stop-writes",
            "follow-primary",
            "resume-primary"
        ]
    );
}

/// A restore is refused on a standby that has been promoted, whatever the journal says next.
#[tokio::test(start_paused = true)]
async fn a_restore_never_targets_a_promoted_standby() {
    let world = Everything::new().await;
    let plan = planned(&world, &Request::new(west())).await;
    let site = Arc::new(world.site("laptop"));
    let report = execute(Arc::clone(&site), plan.clone(), &Silent)
        .await
        .unwrap();
    let clock: Arc<dyn dr_model::Clock> = world.clock.clone();
    let found = crate::executions::find(&world.stores, &clock, &report.execution).await;
    let history = found.unwrap().history;
    let step = plan
        .steps
        .iter()
        .find(|step| step.id.0 == "promote")
        .unwrap();
    let work = Work {
        site,
        history: Arc::new(history),
        step: Arc::new(step.clone()),
        opened: None,
        takeovers: 0,
        waits: Waits::default(),
    };
    let restore = registry::find("restore-database").unwrap();
    let unmet = restore
        .check(&work, &step.lanes[0].target)
        .await
        .unwrap_err();
    assert!(
        format!("{unmet:?}").contains("must not be overwritten"),
        "{unmet:?}"
    );
}

/// The state of an execution is a fold: the same entries give the same state, in one batch or in many.
#[tokio::test(start_paused = true)]
async fn a_history_is_a_fold() {
    let world = Everything::new().await;
    let plan = planned(&world, &Request::new(west())).await;
    let at = plan.observed_at;
    let step = plan.steps[5].id.clone();
    let place = Place {
        step: step.clone(),
        lane: 0,
        fallback: false,
        action: 0,
    };
    let records = [
        Record::Opened {
            plan: Box::new(plan),
            at,
        },
        Record::Began { step, at },
        Record::Intended {
            place: place.clone(),
            attempt: 1,
            at,
        },
        Record::Concluded {
            place: place.clone(),
            outcome: Outcome::NotDone {
                why: "no".to_owned(),
            },
            took_seconds: 0.0,
        },
    ];
    let id: dr_model::ExecutionId = "20261121T120000Z-us-west-2-0000".parse().unwrap();
    let whole = History::from_records(id.clone(), &records).unwrap();
    let mut step_by_step = History::from_records(id.clone(), &records[..1]).unwrap();
    for record in &records[1..] {
        step_by_step.take(record);
    }
    assert_eq!(whole.progress(&place), step_by_step.progress(&place));
    assert_eq!(whole.state(), State::Running);
    assert!(whole.residue().is_empty());
    assert!(History::from_records(id, &records[1..]).is_none());
}
