//! Conditions of steps, and what `dr runbook check` finds.

use std::sync::Arc;

use dr_config::Runbook;
use rstest::rstest;

use super::runs::{planned_by, state_of};
use super::world::{Everything, runbook, west};
use crate::check::check;
use crate::events::Silent;
use crate::execute;
use crate::outcome::{State, StepState};
use crate::request::Request;
use crate::{Class, Refusal, observe, plan};

const UNPLANNED: &str = include_str!("../../../../runbooks/failover-region.yaml");

fn asking(word: &str) -> Runbook {
    let plain = "  - { id: verify, uses: check-health }";
    assert!(UNPLANNED.contains(plain));
    let text = format!("  - {{ id: verify, uses: check-health, if: {word} }}");
    runbook(&UNPLANNED.replace(plain, &text)).unwrap()
}

#[rstest]
#[case("primary-answers", true, true, true)]
#[case("primary-answers", false, true, false)]
#[case("primary-silent", true, true, false)]
#[case("primary-silent", false, true, true)]
#[case("standby-runs", false, true, true)]
#[case("standby-runs", false, false, false)]
#[case("standby-missing", false, true, false)]
#[case("standby-missing", false, false, true)]
#[tokio::test(start_paused = true)]
async fn a_condition_is_decided_when_the_plan_is_made(
    #[case] word: &str,
    #[case] primary: bool,
    #[case] standby: bool,
    #[case] holds: bool,
) {
    let world = Everything::new().await;
    world.state().left_running = primary;
    world.state().standby = standby;
    let plan = planned_by(&world, &asking(word), &Request::new(west())).await;
    let step = plan
        .steps
        .iter()
        .find(|step| step.id.0 == "verify")
        .unwrap();
    assert_eq!(!step.lanes.is_empty(), holds);
    let why = (!holds).then(|| format!("`{word}` does not hold"));
    assert_eq!(step.left_out, why);
    // The world changes; the plan does not.
    world.state().left_running = !primary;
    world.state().healthy = holds;
    let report = execute(Arc::new(world.site("laptop")), plan, &Silent).await;
    let report = report.unwrap();
    assert_eq!(report.state, State::Completed, "{report:#?}");
    assert_eq!(state_of(&report, "verify"), StepState::Done);
    let verify = report.steps.iter().find(|step| step.id.0 == "verify");
    let summary = verify.unwrap().summary.clone().unwrap();
    assert_eq!(summary.contains("left out"), !holds, "{summary}");
}

#[test]
fn a_word_that_is_not_known_is_refused() {
    let text = UNPLANNED.replace("uses: check-health", "uses: check-health, if: tuesday");
    let problems = runbook(&text).unwrap_err();
    assert!(
        problems.contains("there is no condition `tuesday`"),
        "{problems}"
    );
    assert!(problems.contains("`primary-answers`"), "{problems}");
}

#[test]
fn what_others_rest_on_has_no_condition() {
    let text = UNPLANNED.replace("uses: seal-wal", "uses: seal-wal, if: primary-silent");
    let problems = runbook(&text).unwrap_err();
    assert!(problems.contains("that cannot be skipped"), "{problems}");
}

#[rstest]
#[case::only_people(
    "  - { id: gate, uses: check-data-loss }\n",
    "",
    Some("approve"),
    Some(("promote", true, "without a gate before it"))
)]
#[case::only_the_gate(
    "  - { id: gate, uses: check-data-loss }\n",
    "  - { id: gate, uses: check-data-loss }\n",
    None,
    None
)]
#[case::gate_that_stops_nobody(
    "{ id: gate, uses: check-data-loss }",
    "{ id: gate, uses: check-data-loss, continue_on_error: true }",
    Some("approve"),
    Some(("gate", true, "must not fail"))
)]
#[case::no_gate(
    "  - { id: gate, uses: check-data-loss }\n",
    "",
    None,
    Some(("promote", true, "without a gate before it"))
)]
#[case::region_left(
    "  - { id: serve, uses: start-service }",
    "  - { id: serve, uses: start-service }\n  - { id: follow, uses: follow-primary }",
    Some("approve"),
    Some(("follow", true, "depends on the region being left"))
)]
#[case::created(
    "uses: promote-database, fallback: restore-database",
    "uses: restore-database",
    Some("approve"),
    Some(("promote", false, "creates the database on the day"))
)]
#[case::nothing_comes_up(
    "  - { id: promote, uses: promote-database, fallback: restore-database }\n",
    "",
    Some("approve"),
    Some(("epoch", true, "no step behind it brings it up again"))
)]
#[case::something_comes_up_on_some_days(
    "promote-database, fallback: restore-database }",
    "promote-database, if: standby-runs }",
    Some("approve"),
    Some(("epoch", true, "on some days no step behind it brings it up again"))
)]
#[case::one_of_two_comes_up(
    "promote-database, fallback: restore-database }\n",
    "promote-database, if: standby-runs }\n  - { id: rebuild, uses: restore-database, if: standby-missing }\n",
    Some("approve"),
    Some(("rebuild", false, "creates the database on the day"))
)]
#[case::sealed_too_early(
    "{ id: fence, uses: fence-primary }",
    "{ id: early, uses: seal-wal }\n  - { id: fence, uses: fence-primary }",
    Some("approve"),
    Some(("early", false, "what that acknowledges in between is lost"))
)]
fn what_should_not_be_so_is_found(
    #[case] from: &str,
    #[case] to: &str,
    #[case] approve: Option<&str>,
    #[case] found: Option<(&str, bool, &str)>,
) {
    assert!(UNPLANNED.contains(from));
    let mut text = UNPLANNED.replace(from, to);
    if approve.is_none() {
        text = text.replace("  - { id: approve, uses: await-approval }\n", "");
    }
    let findings = check(&runbook(&text).unwrap());
    let found = found.map(|(step, is_grave, what)| {
        let one = findings.first().unwrap();
        assert_eq!((one.step.0.as_str(), one.is_grave), (step, is_grave));
        assert!(one.what.contains(what), "{one:?}");
    });
    assert_eq!(findings.len(), usize::from(found.is_some()), "{findings:?}");
}

/// Carried out as a move it would end as `completed`, and nothing would have been moved.
#[tokio::test(start_paused = true)]
async fn a_runbook_that_opens_no_epoch_is_no_move() {
    let looks = "version: 1\nname: look\nsummary: Look.\nsteps:\n  - { id: assess, uses: assess-region }\n  \
                 - { id: gate, uses: check-data-loss }\n";
    let looks = runbook(looks).unwrap();
    let empty = runbook("version: 1\nname: empty\nsummary: Nothing.\nsteps: []\n");
    assert!(empty.unwrap_err().contains("there is no step"));
    let world = Everything::new().await;
    let seen = observe(&world.site("laptop"), &west()).await;
    let refusal = plan(&looks, &seen, &Request::new(west())).unwrap_err();
    assert!(matches!(refusal, Refusal::MovesNothing { .. }), "{refusal}");
    assert_eq!(refusal.class(), Class::Invalid);
    assert!(refusal.hint().unwrap().contains("open-epoch"));
    let findings = check(&looks);
    let grave: Vec<_> = findings.iter().filter(|found| found.is_grave).collect();
    assert_eq!(grave.len(), 1, "{findings:?}");
    assert!(
        grave[0].what.contains("no step opens an epoch"),
        "{grave:?}"
    );
}
