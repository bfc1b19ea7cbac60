//! Pausing an execution that runs elsewhere, and leaving a step out.

use std::sync::{Arc, Mutex};

use dr_model::{Clock, ExecutionId, StepId};
use rstest::rstest;
use tokio::sync::Notify;

use super::runs::{failover, planned, planned_by, state_of};
use super::world::{Everything, Fault, east, shipped_recover, west};
use crate::events::{Event, Monitor, Silent};
use crate::outcome::{State, StepState};
use crate::request::Request;
use crate::{Decided, Error, Plan, Report, Site, execute, executions, pause, resume, resume_with};

/// Tells when an action begins.
struct At {
    action: &'static str,
    execution: Mutex<Option<ExecutionId>>,
    begins: Notify,
}

impl Monitor for At {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Started { execution, .. } => {
                *self.execution.lock().unwrap() = Some((*execution).clone());
            }
            Event::ActionBegan { action, .. } if action.name == self.action => {
                self.begins.notify_one();
            }
            _ => {}
        }
    }
}

/// Keeps what is said beside the steps.
#[derive(Default)]
pub(crate) struct Notes(pub(crate) Mutex<Vec<String>>);

impl Monitor for Notes {
    fn event(&self, event: &Event<'_>) {
        if let Event::Note(note) = event {
            self.0.lock().unwrap().push((*note).to_owned());
        }
    }
}

/// Executes a plan, and pauses it from `desk` when it begins an action; returns what its executor says.
pub(crate) async fn paused_at(site: Site, plan: Plan, desk: Site, action: &'static str) -> Report {
    let monitor = At {
        action,
        execution: Mutex::default(),
        begins: Notify::new(),
    };
    let somebody = async {
        monitor.begins.notified().await;
        let id = monitor.execution.lock().unwrap().clone().unwrap();
        let why = "the storage team wants to look";
        pause(Arc::new(desk), &id, why).await.unwrap();
    };
    let run = execute(Arc::new(site), plan, &monitor);
    let (report, ()) = tokio::join!(run, somebody);
    report.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_pause_stops_it_before_its_next_effect_and_resume_goes_on() {
    let world = Everything::new().await;
    // The answer to the promotion is lost, and the first look finds nothing out: time for somebody to come in between.
    world.script("promote-standby", [Fault::AnswerLost]);
    world.state().blind.insert("promote-standby".to_owned(), 1);
    let plan = planned(&world, &Request::new(west())).await;
    let [site, desk] = ["laptop", "desk"].map(|machine| world.site(machine));
    let report = paused_at(site, plan, desk, "promote-standby").await;
    assert_eq!(report.state, State::Paused, "{report:#?}");
    let reason = report.reason.clone().unwrap();
    assert!(reason.contains("paused by ada@desk"), "{reason}");
    assert!(
        reason.contains("the storage team wants to look"),
        "{reason}"
    );
    assert_eq!(world.count("promote-standby"), 1, "done to its end");
    assert_eq!(world.count("start-service"), 0);
    let clock: Arc<dyn Clock> = world.clock.clone();
    let (listed, _) = executions::list(&world.stores, &clock).await;
    assert_eq!(listed[0].state, State::Paused);
    // Whoever wants to begin another is told of this one.
    let seen = crate::observe(&world.site("desk"), &west()).await;
    assert_eq!(seen.unfinished.len(), 1);
    let again = pause(Arc::new(world.site("desk")), &report.execution, "again").await;
    assert!(matches!(
        again.unwrap_err(),
        Error::NotRunning {
            state: State::Paused,
            ..
        }
    ));
    let site = Arc::new(world.site("desk"));
    let report = resume(site, &report.execution, "they have looked", vec![], &Silent).await;
    let report = report.unwrap();
    assert_eq!(report.state, State::Completed);
    assert_eq!(world.count("promote-standby"), 1);
    assert_eq!(world.count("start-service"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_over_is_not_paused() {
    let world = Everything::new().await;
    let report = failover(&world, &Request::new(west())).await;
    let late = pause(Arc::new(world.site("desk")), &report.execution, "late").await;
    assert!(matches!(
        late.unwrap_err(),
        Error::Over {
            state: State::Completed,
            ..
        }
    ));
}

pub(crate) async fn stuck_at(world: &Everything, action: &str) -> ExecutionId {
    world.script(action, [Fault::Definite; 2]);
    let report = failover(world, &Request::new(west())).await;
    assert_eq!(report.state, State::Stuck);
    report.execution
}

#[tokio::test(start_paused = true)]
async fn a_step_that_was_left_out_is_no_pass() {
    let world = Everything::new().await;
    let execution = stuck_at(&world, "start-service").await;
    let skip = [StepId("serve".to_owned()), StepId("verify".to_owned())];
    let site = Arc::new(world.site("desk"));
    let reason = "started by hand with hunter2";
    let report = resume_with(
        site,
        &execution,
        reason,
        vec![],
        &Decided {
            skip: skip.into(),
            ..Decided::default()
        },
        &Silent,
    )
    .await;
    let report = report.unwrap();
    assert_eq!(report.state, State::CompletedWithExceptions);
    assert_eq!(state_of(&report, "serve"), StepState::Skipped);
    assert_eq!(state_of(&report, "verify"), StepState::Skipped);
    let why = report.reason.as_deref().unwrap();
    for step in ["step `serve`", "step `verify`"] {
        let skipped = format!("{step}: skipped by ada@desk");
        assert!(why.contains(&skipped), "{why}");
    }
    assert!(why.contains("started by hand with ***"), "{why}");
    assert_eq!(world.count("start-service"), 0);
    assert_eq!(world.count("switch-traffic"), 1);
    // It is said in the journal, to any machine.
    let journal = world.journals().await.join("\n");
    assert!(journal.contains("\"record\": \"skipped\""), "{journal}");
    assert!(!journal.contains("hunter2"));
    let clock: Arc<dyn Clock> = world.clock.clone();
    let found = executions::find(&world.stores, &clock, &execution).await;
    assert_eq!(found.unwrap().history.report(), report);
}

#[rstest]
#[case("epoch", "what follows rests on `open-epoch`")]
#[case("seal", "what follows rests on `seal-wal`")]
#[case("fence", "what follows rests on `fence-primary`")]
#[case("promote", "what follows rests on `promote-database`")]
#[case("gate", "it is over")]
#[case("nothing", "its steps are assess, gate, approve")]
#[tokio::test(start_paused = true)]
async fn what_a_promise_rests_on_is_not_left_out(#[case] step: &str, #[case] why: &str) {
    let world = Everything::new().await;
    let plan = planned(&world, &Request::new(west())).await;
    // It dies with its gate noted and nothing else.
    assert!(super::crash::die_in(&world, plan, 3, true).await);
    let clock: Arc<dyn Clock> = world.clock.clone();
    let (listed, _) = executions::list(&world.stores, &clock).await;
    let before = world.journals().await;
    let skip = [StepId(step.to_owned())];
    let site = Arc::new(world.site("desk"));
    let id = &listed[0].execution;
    let refused = resume_with(
        site,
        id,
        "in haste",
        vec![],
        &Decided {
            skip: skip.into(),
            ..Decided::default()
        },
        &Silent,
    )
    .await;
    let error = refused.unwrap_err();
    assert!(matches!(error, Error::Skip { .. }), "{error}");
    assert!(error.to_string().contains(why), "{error}");
    assert_eq!(world.journals().await, before, "nothing was written");
}

/// Whoever left out the wrong step has it done after all, as long as the execution has not ended.
#[tokio::test(start_paused = true)]
async fn what_was_left_out_is_done_after_all() {
    let world = Everything::new().await;
    let execution = stuck_at(&world, "start-service").await;
    let skip = Decided {
        skip: vec![StepId("switch".to_owned())],
        ..Decided::default()
    };
    let notes = Notes::default();
    world.script("start-service", []);
    let site = Arc::new(world.site("desk"));
    let stuck = resume_with(site, &execution, "the wrong one", vec![], &skip, &notes).await;
    // Clients are still led to the east: that is proven not to be over.
    let stuck = stuck.unwrap();
    assert_eq!(stuck.state, State::Stuck, "{stuck:#?}");
    assert_eq!(stuck.stuck.as_ref().unwrap().step.0, "prove");
    let said = notes.0.lock().unwrap().join("\n");
    for words in [
        "nobody but you does this now: let `",
        "--unskip switch --reason",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let unskip = Decided {
        unskip: vec![StepId("switch".to_owned())],
        ..Decided::default()
    };
    let site = Arc::new(world.site("desk"));
    let done = resume_with(site, &execution, "not by hand", vec![], &unskip, &Silent).await;
    let done = done.unwrap();
    assert_eq!(done.state, State::Completed, "{done:#?}");
    assert_eq!(state_of(&done, "switch"), StepState::Done);
    assert_eq!(world.count("switch-traffic"), 1);
    let journal = world.journals().await.join("\n");
    assert!(journal.contains("\"record\": \"unskipped\""), "{journal}");
    let clock: Arc<dyn Clock> = world.clock.clone();
    let found = executions::find(&world.stores, &clock, &execution).await;
    assert_eq!(found.unwrap().history.report(), done);
}

#[rstest]
#[case("serve", "it was not left out")]
#[case("gate", "it was not left out")]
#[case("nothing", "it was not left out")]
#[tokio::test(start_paused = true)]
async fn what_was_not_left_out_is_not_done_after_all(#[case] step: &str, #[case] why: &str) {
    let world = Everything::new().await;
    let execution = stuck_at(&world, "start-service").await;
    let before = world.journals().await;
    let unskip = Decided {
        unskip: vec![StepId(step.to_owned())],
        ..Decided::default()
    };
    let site = Arc::new(world.site("desk"));
    let refused = resume_with(site, &execution, "in haste", vec![], &unskip, &Silent).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, Error::Unskip { .. }), "{error}");
    assert!(error.to_string().contains(why), "{error}");
    assert_eq!(world.journals().await, before, "nothing was written");
}

/// A service that was started since would be stopped.
#[tokio::test(start_paused = true)]
async fn what_a_later_step_rests_on_by_now_is_not_done_after_all() {
    let world = Everything::new().await;
    world.script("stop-service", [Fault::Definite]);
    let plan = planned_by(&world, &shipped_recover(), &Request::new(east())).await;
    let stuck = execute(Arc::new(world.site("laptop")), plan, &Silent).await;
    let stuck = stuck.unwrap();
    assert_eq!(stuck.stuck.as_ref().unwrap().step.0, "quiet");
    let quiet = || vec![StepId("quiet".to_owned())];
    let skip = Decided {
        skip: quiet(),
        ..Decided::default()
    };
    // Whether it was started is not known.
    world.script("start-left", [Fault::RequestLost]);
    let site = Arc::new(world.site("desk"));
    let stuck = resume_with(site, &stuck.execution, "it hangs", vec![], &skip, &Silent).await;
    let stuck = stuck.unwrap();
    assert_eq!(stuck.stuck.as_ref().unwrap().step.0, "serve");
    let unskip = Decided {
        unskip: quiet(),
        ..Decided::default()
    };
    let site = Arc::new(world.site("desk"));
    let refused = resume_with(site, &stuck.execution, "again", vec![], &unskip, &Silent).await;
    let error = refused.unwrap_err().to_string();
    assert!(
        error.contains("`serve` has acted on ledger since"),
        "{error}"
    );
}
