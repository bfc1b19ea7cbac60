//! Plans: what stands in them, and that they are the same on every machine.

use std::fmt::Write;

use dr_model::loss::{Bound, Verdict};
use dr_model::{Epoch, TimelineId};
use rstest::rstest;

use super::runs::planned;
use super::world::{Everything, before_noon, database, east, runbook, shipped, west};
use crate::plan::{ExpectedProof, Plan};
use crate::request::{Request, Rung};
use crate::{observe, plan};

fn lines(plan: &Plan) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        let background = if step.background {
            ", in the background"
        } else {
            ""
        };
        writeln!(text, "{} ({}{background})", step.id, step.undo).unwrap();
        for lane in &step.lanes {
            for action in &lane.actions {
                writeln!(text, "  {}: {}", lane.target, action.summary).unwrap();
            }
            if let Some(branch) = &lane.fallback {
                writeln!(text, "    {}:", branch.condition).unwrap();
                for action in branch.actions.iter().flatten() {
                    writeln!(text, "    {}", action.summary).unwrap();
                }
            }
        }
    }
    for warning in &plan.warnings {
        writeln!(text, "! {warning}").unwrap();
    }
    text
}

#[tokio::test(start_paused = true)]
async fn the_shipped_runbook_is_planned() {
    let world = Everything::new().await;
    let plan = planned(&world, &Request::new(west())).await;
    insta::assert_snapshot!(lines(&plan), @r"
    assess (read-only)
      register: check that epoch 1 is still the newest
      database: look at `database` in us-west-2
    gate (read-only)
      database: compare the loss of `database` with the budget of 60 s
    approve (read-only)
      workload: record that no approval is required (quorum 0)
    epoch (reversible: a later epoch)
      register: create epoch 2 with primary us-west-2
    fence (reversible: start it, in the background)
      database: stop-instance in us-east-1
    confirm (read-only)
    seal (compensable: a later epoch)
      database: seal-chain in us-west-2
    promote (point of no return: a new timeline begins)
      database: promote-standby in us-west-2
        if promote-database definitely cannot be done:
        restore-instance in us-west-2
    serve (compensable: stop `ledger`)
      ledger: run `ledger …` on west-host unless `ledger` runs
    verify (read-only)
      GET http://10.8.2.20:8080/health: wait for GET http://10.8.2.20:8080/health
    switch (reversible: a later epoch can switch back)
      rfc2136 orders.acme.example: let `rfc2136 orders.acme.example` answer 10.8.2.20
    prove (read-only)
      rfc2136 orders.acme.example: ask everybody who answers `rfc2136 orders.acme.example`; GET http://orders.acme.example:8080/health as a client
    notify (compensable: send a correction)
      https://hooks.acme.example: send to https://hooks.acme.example, at least once
    rearm (reversible: drop them)
      database: keep-slots in us-west-2
    record (compensable: it stays; what undoes the rest is recorded behind it)
      workload: add a record to the evidence in the store of us-west-2
    ! step `notify` has its effect at least once: again after a crash
    ");
    assert_eq!((&plan.from, &plan.to), (&east(), &west()));
    assert_eq!((plan.ended, plan.opens), (Epoch(1), Epoch(2)));
    assert_eq!(plan.register.region, west());
    assert_eq!(plan.claims[&database()].timeline, TimelineId(2));
    assert_eq!(plan.proofs[&database()], ExpectedProof::Stopped);
    assert_eq!(plan.rung, Rung::Promote);
    assert_eq!(plan.loss.budget_seconds, 60.0);
    // It is seen stopped, so what it can have taken has an end.
    let seconds = 1.4;
    let since = before_noon(1400);
    assert_eq!(plan.loss.bound, Bound::Seconds { since, seconds });
}

#[tokio::test(start_paused = true)]
async fn a_plan_survives_its_journal() {
    let world = Everything::new().await;
    let plan = planned(&world, &Request::new(west())).await;
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

#[tokio::test(start_paused = true)]
async fn the_hash_is_that_of_what_will_be_done() {
    let world = Everything::new().await;
    let one = planned(&world, &Request::new(west())).await;
    world.clock.advance(std::time::Duration::from_secs(30));
    world.state().delay_seconds = Some(7.0);
    let later = planned(&world, &Request::new(west())).await;
    assert_ne!(one.observed_at, later.observed_at);
    assert_eq!(one.hash, later.hash);
    assert!(later.is_as_shown(&one));
    let mut worse = later.clone();
    worse.loss.estimate.as_mut().unwrap().delay_seconds = 61.0;
    assert!(!worse.is_as_shown(&one) && one.is_as_shown(&worse));
    // Who chose the moment has chosen what it loses, however long that was ago when they said so.
    worse.loss.verdict = Verdict::Chosen;
    assert!(worse.is_as_shown(&one));
    let mut unknown = later.clone();
    unknown.loss.estimate = None;
    assert!(!unknown.is_as_shown(&one));
    world.state().standby = false;
    let other = planned(&world, &Request::new(west())).await;
    assert_ne!(one.hash, other.hash);
    assert!(!other.is_as_shown(&one));
}

/// A living primary writes on while somebody reads the plan.
#[tokio::test(start_paused = true)]
async fn the_hash_is_not_of_the_positions_that_were_seen() {
    let world = Everything::new().await;
    let mut plan = planned(&world, &Request::new(west())).await;
    let rehashed = |plan: &Plan| Plan {
        hash: crate::plan::hash_of(plan),
        ..plan.clone()
    };
    let lane = &mut plan.steps[6].lanes[0];
    lane.actions[0].current = Some("open, ends at 0/5000".to_owned());
    lane.actions[0].parameters = serde_json::json!({ "promised": "0/5000" });
    plan.warnings
        .push("a primary on timeline 1 at 0/5000".to_owned());
    let one = rehashed(&plan);
    plan.steps[6].lanes[0].actions[0].current = Some("open, ends at 0/5100".to_owned());
    plan.warnings.pop();
    plan.warnings
        .push("a primary on timeline 1 at 0/5100".to_owned());
    let later = rehashed(&plan);
    assert_eq!(one.hash, later.hash);
    assert!(later.has_its_hash());
    plan.steps[6].lanes[0].actions[0].parameters = serde_json::json!({ "promised": "0/5100" });
    assert_ne!(one.hash, rehashed(&plan).hash);
    // What was written by an earlier version is what it was.
    let old = rehashed(&Plan { version: 1, ..one });
    let mut other = old.clone();
    other.warnings.pop();
    other
        .warnings
        .push("a primary on timeline 1 at 0/5100".to_owned());
    assert!(old.has_its_hash() && !other.has_its_hash());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_by_looking_and_planning() {
    let world = Everything::new().await;
    planned(&world, &Request::new(west())).await;
    assert!(world.journals().await.is_empty());
    assert_eq!(world.state().effects, []);
}

#[rstest]
#[case(false, None)]
#[case(true, Some(Rung::Restore))]
#[tokio::test(start_paused = true)]
async fn the_lower_rung_is_planned_and_said_so(#[case] standby: bool, #[case] asked: Option<Rung>) {
    let world = Everything::new().await;
    world.state().standby = standby;
    let request = Request {
        rung: asked,
        ..Request::new(west())
    };
    let plan = planned(&world, &request).await;
    assert_eq!(plan.rung, Rung::Restore);
    let said = |warning: &String| warning.contains("restore-database, because promote-database");
    assert!(plan.warnings.iter().any(said), "{:?}", plan.warnings);
    let promote = plan.step(&dr_model::StepId("promote".to_owned())).unwrap();
    assert_eq!(promote.lanes[0].uses, "restore-database");
    assert!(promote.lanes[0].fallback.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_missing_way_back_is_a_warning() {
    let world = Everything::new().await;
    world.state().recovery_point = false;
    let plan = planned(&world, &Request::new(west())).await;
    let said = |warning: &String| warning.contains("there is no other way");
    assert!(plan.warnings.iter().any(said), "{:?}", plan.warnings);
}

#[tokio::test(start_paused = true)]
async fn a_long_time_to_live_is_a_warning() {
    let world = Everything::new().await;
    world.state().traffic.ttl_seconds = 300;
    let plan = planned(&world, &Request::new(west())).await;
    let said = |warning: &String| warning.contains("cached for 300 s");
    assert!(plan.warnings.iter().any(said), "{:?}", plan.warnings);
}

#[tokio::test(start_paused = true)]
async fn a_point_of_no_return_without_a_gate_is_a_warning() {
    let text = "
version: 1
name: bare
summary: No gate.
steps:
  - { id: epoch, uses: open-epoch }
  - { id: fence, uses: fence-primary }
  - { id: seal, uses: seal-wal }
  - { id: promote, uses: promote-database }
";
    let world = Everything::new().await;
    let request = Request::new(west());
    let seen = observe(&world.site("laptop"), &west()).await;
    let plan = plan(&runbook(text).unwrap(), &seen, &request).unwrap();
    let said = |warning: &String| warning.contains("`promote` is a point of no return");
    assert!(plan.warnings.iter().any(said), "{:?}", plan.warnings);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_answers_is_stopped_before_its_log_is_sealed() {
    let world = Everything::new().await;
    world.state().left_running = true;
    let plan = planned(&world, &Request::new(west())).await;
    let fence = plan.step(&dr_model::StepId("fence".to_owned())).unwrap();
    assert!(!fence.background);
}

#[tokio::test(start_paused = true)]
async fn a_seal_is_expected_to_prove_that_nothing_is_lost() {
    let world = Everything::new().await;
    world.state().synchronous = true;
    world.state().left_reachable = false;
    let plan = planned(&world, &Request::new(west())).await;
    assert_eq!(plan.proofs[&database()], ExpectedProof::Sealed);
    assert_eq!(plan.loss.bound, Bound::Zero);
}

#[tokio::test(start_paused = true)]
async fn the_way_back_is_planned_from_the_newest_epoch() {
    let world = Everything::new().await;
    super::runs::failover(&world, &Request::new(west())).await;
    let seen = observe(&world.site("laptop"), &east()).await;
    assert_eq!(seen.register.head().unwrap().primary, west());
    // The fake east has no standby to promote; what counts is where the plan would start from.
    let refusal = plan(&shipped(), &seen, &Request::new(east())).unwrap_err();
    assert!(
        refusal.to_string().contains("promote-database"),
        "{refusal}"
    );
}
