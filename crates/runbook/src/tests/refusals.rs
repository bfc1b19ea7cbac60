//! Why there is no plan, one test each.

use std::sync::Arc;
use std::time::Duration;

use dr_model::RegionName;
use dr_provider::driver::Plane;
use dr_provider::store::MemoryStore;
use dr_provider::{Error, ErrorKind, ObjectStore, decorate};
use rstest::rstest;

use super::world::{Everything, Fault, east, noon, runbook, shipped, west};
use crate::check::{Finding, asks_people, check, may_ask_people};
use crate::plan::Class;
use crate::request::{Disruption, Request, Statement};
use crate::step::Impossible;
use crate::{Plan, Refusal, Silent, execute, observe, observe_to_execute, plan};

async fn refused(world: &Everything, request: Request) -> (Class, String, String) {
    let seen = observe(&world.site("laptop"), &request.to).await;
    let refusal = plan(&shipped(), &seen, &request).unwrap_err();
    (
        refusal.class(),
        refusal.to_string(),
        refusal.hint().unwrap_or_default(),
    )
}

async fn accepted(world: &Everything, request: Request) -> Plan {
    let seen = observe(&world.site("laptop"), &request.to).await;
    plan(&shipped(), &seen, &request).unwrap()
}

fn said(statement: Statement) -> Request {
    Request {
        statements: vec![statement],
        ..Request::new(west())
    }
}

#[tokio::test(start_paused = true)]
async fn the_target_is_the_primary() {
    let world = Everything::new().await;
    let (class, text, _) = refused(&world, Request::new(east())).await;
    assert_eq!(class, Class::Safety);
    assert_eq!(
        text,
        "us-east-1 has the primary of `orders` already; the newest epoch is 1"
    );
}

/// A store that is full answers every look, and would take neither the journal nor the epoch.
#[tokio::test(start_paused = true)]
async fn the_store_that_has_to_take_the_journal_is_full() {
    let mut world = Everything::new().await;
    let request = Request::new(west());
    let seen = observe_to_execute(&world.site("laptop"), &west()).await;
    let ready = plan(&shipped(), &seen, &request).unwrap();
    world.fill(&west());
    let seen = observe_to_execute(&world.site("laptop"), &west()).await;
    let refusal = plan(&shipped(), &seen, &request).unwrap_err();
    assert_eq!(refusal.class(), Class::Unavailable);
    let (text, hint) = (refusal.to_string(), refusal.hint().unwrap());
    assert!(
        text.starts_with("the store of us-west-2 takes no writes"),
        "{text}"
    );
    assert!(hint.starts_with("make room in it"), "{hint}");

    // It fills up between the plan and the execution: nothing was begun, and the hint names nothing that is not there.
    let error = execute(Arc::new(world.site("laptop")), ready, &Silent)
        .await
        .unwrap_err();
    assert!(matches!(error, crate::Error::NotBegun { .. }), "{error:?}");
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("nothing was changed, and there is nothing to resume"),
        "{hint}"
    );
    assert!(!hint.contains("dr execution resume"), "{hint}");
    assert_eq!(world.journals().await, Vec::<String>::new());
    assert!(world.state().effects.is_empty());
}

/// The register is lost with a third region: an override puts the epoch elsewhere, so that nothing has to be written there.
#[tokio::test(start_paused = true)]
async fn a_register_that_is_gone_is_not_tried_for_room() {
    let mut world = Everything::new().await;
    let central: RegionName = "eu-central-1".parse().unwrap();
    let third: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new(central.as_str()));
    world.stores.insert(central.clone(), third);
    let register = world.register();
    let mut moved = register.read().await.unwrap().unwrap();
    (moved.epoch, moved.register) = (moved.epoch.next(), central.clone());
    register.create(&moved).await.unwrap();
    register.copy_to(&west()).await.unwrap();
    let gone = decorate::Fault::Before(ErrorKind::Unavailable);
    let gone = vec![decorate::Rule::all("*", gone)];
    let gone = decorate::Faulty::scripted(Arc::clone(&world.stores[&central]), gone);
    world.stores.insert(central, Arc::new(gone));

    let seen = observe_to_execute(&world.site("laptop"), &west()).await;
    let refusal = plan(&shipped(), &seen, &Request::new(west())).unwrap_err();
    assert!(
        matches!(refusal, Refusal::RegisterUnreachable { .. }),
        "{refusal}"
    );
    let request = said(Statement::Override("it burns".to_owned()));
    let plan = plan(&shipped(), &seen, &request).unwrap();
    assert_eq!(plan.register.region, west());
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert!(report.unproven_epoch, "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn the_target_is_no_region_of_the_workload() {
    let world = Everything::new().await;
    let mars: RegionName = "mars".parse().unwrap();
    let (class, text, hint) = refused(&world, Request::new(mars)).await;
    assert_eq!(class, Class::Asked);
    assert!(
        text.contains("neither its home nor a recovery region"),
        "{text}"
    );
    assert!(hint.contains("`us-east-1` or `us-west-2`"), "{hint}");
}

#[tokio::test(start_paused = true)]
async fn there_is_no_epoch() {
    let mut world = Everything::new().await;
    for (name, store) in &mut world.stores {
        *store = std::sync::Arc::new(dr_provider::store::MemoryStore::new(name.as_str()));
    }
    let (class, text, hint) = refused(&world, Request::new(west())).await;
    assert_eq!(class, Class::Invalid);
    assert!(text.contains("has no epoch yet"), "{text}");
    assert!(hint.contains("dr daemon"), "{hint}");
}

#[tokio::test(start_paused = true)]
async fn the_estimate_exceeds_the_budget() {
    let world = Everything::new().await;
    world.state().delay_seconds = Some(75.2);
    let (class, text, hint) = refused(&world, Request::new(west())).await;
    assert_eq!(class, Class::Safety);
    assert!(text.contains("75.2 s, about 40 commits"), "{text}");
    assert_eq!(hint, "accept it with `--max-loss 76s`");
    let named = Request {
        max_loss: Some(Duration::from_secs(76)),
        ..Request::new(west())
    };
    assert_eq!(accepted(&world, named).await.loss.budget_seconds, 76.0);
    // A reason is no number: an override does not raise the budget.
    let (class, ..) = refused(&world, said(Statement::Override("hurry".to_owned()))).await;
    assert_eq!(class, Class::Safety);
}

#[tokio::test(start_paused = true)]
async fn the_loss_is_unknown() {
    let world = Everything::new().await;
    world.state().delay_seconds = None;
    let (class, text, hint) = refused(&world, Request::new(west())).await;
    assert_eq!(class, Class::Safety);
    assert!(text.contains("unknown: as scripted"), "{text}");
    assert!(hint.contains("--override"), "{hint}");
    accepted(&world, said(Statement::Override("known lost".to_owned()))).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_will_prove_that_the_primary_has_stopped() {
    let world = Everything::new().await;
    world.state().left_reachable = false;
    let (class, text, hint) = refused(&world, Request::new(west())).await;
    assert_eq!(class, Class::Safety);
    assert!(
        text.contains("it cannot be seen: connection timed out"),
        "{text}"
    );
    assert!(
        hint.contains("--witness") && hint.contains("--override"),
        "{hint}"
    );
    let witness = || said(Statement::Witness("Ada: it burns".to_owned()));
    accepted(&world, witness()).await;
    accepted(&world, said(Statement::Override("it burns".to_owned()))).await;
    // What does not answer and is there all the same was not seen stopped by anybody.
    world.state().left_hangs = true;
    let (class, _, hint) = refused(&world, witness()).await;
    assert_eq!(class, Class::Safety);
    assert!(!hint.contains("--witness"), "{hint}");
}

/// Who says that it has stopped is wrong: it answers.
#[tokio::test(start_paused = true)]
async fn a_witness_does_not_outweigh_a_primary_that_answers() {
    let world = Everything::new().await;
    world.state().left_running = true;
    world.state().unfenceable = true;
    let witness = || Statement::Witness("Ada: it is off".to_owned());
    let (class, text, hint) = refused(&world, said(witness())).await;
    assert_eq!(class, Class::Safety);
    assert!(text.contains("in us-east-1 runs, and"), "{text}");
    assert!(text.contains("of another cluster"), "{text}");
    assert!(!hint.contains("--witness"), "{hint}");
    accepted(&world, said(Statement::Override("two at once".to_owned()))).await;
    // Stopped, the witness counts for what could not be looked at.
    world.state().left_running = false;
    accepted(&world, said(witness())).await;
}

/// A machine that is busy answers a second look: nobody is led to an override by the first. What is wrong for good is said as before.
#[tokio::test(start_paused = true)]
async fn what_ran_out_of_time_is_looked_at_again_first() {
    let world = Everything::new().await;
    world.state().unfenceable = true;
    let (_, _, hint) = refused(&world, Request::new(west())).await;
    assert!(hint.starts_with("put right what keeps it"), "{hint}");
    world.state().left_late = true;
    let (class, text, hint) = refused(&world, Request::new(west())).await;
    assert_eq!(class, Class::Safety);
    assert!(text.contains("nothing proves"), "{text}");
    assert!(hint.starts_with("run it again first"), "{hint}");
    for said in [
        "its data directory: no answer within 2.4 s",
        "--witness",
        "--override",
    ] {
        assert!(hint.contains(said), "{hint}");
    }
}

/// What is there already is not overwritten, whoever asks; what is wrong with the configuration is no rule, and waiting changes nothing.
#[test]
fn only_what_is_there_is_forbidden() {
    let of = |kind| Impossible::from(Error::new(kind, "plan", "database")).class;
    assert_eq!(of(ErrorKind::AlreadyExists), Class::Safety);
    assert_eq!(of(ErrorKind::Invalid), Class::Invalid);
    assert_eq!(of(ErrorKind::Failed), Class::Unavailable);
}

/// Nobody has to try again what can never be done.
#[rstest]
#[case::no_such_service(
    "  - { id: more, uses: run-command, with: { on: nowhere, run: [\"true\"] } }",
    "there is no service `nowhere`"
)]
#[case::twice("  - { id: more, uses: restore-database }", "would bring up what step")]
#[tokio::test(start_paused = true)]
async fn what_no_day_changes_is_the_runbooks_fault(#[case] step: &str, #[case] said: &str) {
    let text = format!(
        "{}\n{step}\n",
        include_str!("../../../../runbooks/failover-region.yaml").trim_end()
    );
    let text = text.replace("name: failover-region", "name: own");
    let world = Everything::new().await;
    let seen = observe(&world.site("laptop"), &west()).await;
    let runbook = runbook(&text).unwrap();
    let refusal = plan(&runbook, &seen, &Request::new(west())).unwrap_err();
    assert!(refusal.to_string().contains(said), "{refusal}");
    assert_eq!(refusal.class(), Class::Invalid);
}

#[tokio::test(start_paused = true)]
async fn there_is_neither_a_standby_nor_a_recovery_point() {
    let world = Everything::new().await;
    world.state().standby = false;
    world.state().recovery_point = false;
    let (class, text, _) = refused(&world, Request::new(west())).await;
    assert_eq!(class, Class::Unavailable);
    assert!(text.contains("promote-database: cannot plan"), "{text}");
    assert!(text.contains("there is no standby"), "{text}");
    assert!(text.contains("there is no recovery point"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_runbook_that_asks_nobody_is_not_for_a_workload_that_wants_it() {
    let world = Everything::new().await;
    let mut site = world.site("laptop");
    site.approval.quorum = 2;
    let seen = observe(&site, &west()).await;
    plan(&shipped(), &seen, &Request::new(west())).unwrap();
    let text = include_str!("../../../../runbooks/failover-region.yaml");
    let asking = "  - { id: approve, uses: await-approval }\n";
    assert!(text.contains(asking));
    let too_late = text.replace(asking, "").replace(
        "  # Stops the old primary",
        &format!("{asking}  # Stops the old primary"),
    );
    for text in [text.replace(asking, ""), too_late] {
        let runbook = runbook(&text).unwrap();
        assert!(!asks_people(&runbook));
        let refusal = plan(&runbook, &seen, &Request::new(west())).unwrap_err();
        assert!(
            matches!(refusal, Refusal::Approval { quorum: 2, .. }),
            "{refusal}"
        );
        assert_eq!(refusal.class(), Class::Invalid);
        assert!(!may_ask_people(&runbook));
    }
    // Where a condition decides, a plan of the one day is refused and of the other not.
    let first = "  - { id: approve, uses: await-approval }\n";
    let before = format!("  - {{ id: tell, uses: notify, if: primary-silent }}\n{first}");
    let runbook = runbook(&text.replace(first, &before)).unwrap();
    assert!(!asks_people(&runbook) && may_ask_people(&runbook));
    for (runs, refused) in [(true, false), (false, true)] {
        world.state().left_running = runs;
        let seen = observe(&site, &west()).await;
        let planned = plan(&runbook, &seen, &Request::new(west()));
        let is_refused = matches!(planned, Err(Refusal::Approval { .. }));
        assert_eq!(is_refused, refused, "{planned:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_needs_the_region_being_left() {
    let world = Everything::new().await;
    let plan = accepted(&world, Request::new(west())).await;
    let mut steps = plan.steps;
    crate::plan::depends_on_region_left(&steps, &east()).unwrap();
    let promote = steps
        .iter()
        .position(|step| step.uses == "promote-database");
    let action = &mut steps[promote.unwrap()].lanes[0]
        .fallback
        .as_mut()
        .unwrap()
        .actions;
    let need = &mut action.as_mut().unwrap()[0].dependencies[0];
    need.region = east();
    need.plane = Plane::Control;
    need.what = "the console".to_owned();
    let refusal = crate::plan::depends_on_region_left(&steps, &east()).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "step `promote` needs the console in us-east-1, the region being left"
    );
}

const CRITICAL: &str = "
version: 1
name: bad
summary: Bad.
steps:
  - { id: epoch, uses: open-epoch }
  - { id: fence, uses: fence-primary }
  - { id: seal, uses: seal-wal }
  - { id: promote, uses: promote-database }
";

#[rstest]
#[case(
    "uses: seal-wal",
    "uses: seal-wal, continue_on_error: true",
    "seal-wal"
)]
#[case(
    "uses: promote-database",
    "uses: promote-database, fallback: notify",
    "cannot stand in"
)]
#[case(
    "uses: promote-database",
    "uses: promote-database, continue_on_error: true",
    "must not fail"
)]
#[case(
    "uses: promote-database",
    "uses: promote-database, needs: [fence]",
    "seal-wal"
)]
#[case(
    "uses: open-epoch",
    "uses: open-epoch, fallback: notify",
    "cannot stand in"
)]
#[case(
    "uses: promote-database",
    "uses: promote-database, fallback: promote-database",
    "cannot stand in"
)]
#[case("uses: seal-wal", "uses: seal-wal, timeout: 0s", "`timeout` of 0ns")]
#[case(
    "uses: promote-database",
    "uses: promote-database, timeout: 999ms",
    "`timeout` of 999ms"
)]
#[case(
    "  - { id: promote,",
    "  - { id: up, uses: promote-database }\n  - { id: promote,",
    "brought up already"
)]
#[case(
    "  - { id: promote,",
    "  - { id: switch, uses: switch-traffic }\n  - { id: promote,",
    "leads clients"
)]
#[tokio::test(start_paused = true)]
async fn the_runbook_would_not_be_safe(
    #[case] good: &str,
    #[case] bad: &str,
    #[case] expected: &str,
) {
    let world = Everything::new().await;
    let seen = observe(&world.site("laptop"), &west()).await;
    let text = CRITICAL.replace(good, bad);
    // The configuration sees some of it when it loads, the plan the rest.
    let said = match runbook(&text) {
        Err(problems) => problems,
        Ok(runbook) => {
            // It is known long before the day.
            let grave = |found: &Finding| found.is_grave && found.what.contains(expected);
            let found = check(&runbook);
            assert!(found.iter().any(grave), "{found:?}");
            let refusal = plan(&runbook, &seen, &Request::new(west())).unwrap_err();
            assert_eq!(refusal.class(), Class::Invalid);
            refusal.to_string()
        }
    };
    assert!(said.contains(expected), "{said}");
    plan(&runbook(CRITICAL).unwrap(), &seen, &Request::new(west())).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_name_server_that_is_silent_now_is_no_reason_to_refuse() {
    let world = Everything::new().await;
    // What passes needs nobody, although the runbook has no retry.
    world.script("switch-traffic", [Fault::Unavailable; 2]);
    let report = super::runs::failover(&world, &Request::new(west())).await;
    assert_eq!(report.state, crate::State::Completed, "{report:?}");

    // What lasts needs a human, who goes on.
    let world = Everything::new().await;
    world.script("switch-traffic", [Fault::Unavailable; 3]);
    let report = super::runs::failover(&world, &Request::new(west())).await;
    assert_eq!(report.state, crate::State::Stuck);
    assert!(report.stuck.unwrap().remedy[1].contains("dr execution resume"));
}

/// Nothing of what the primary did after the last contact has reached the other region.
#[tokio::test(start_paused = true)]
async fn what_is_known_to_have_lived_on_is_lost() {
    let world = Everything::new().await;
    let until = noon() + jiff::SignedDuration::from_secs(80);
    let asked = |seen_from| {
        let disruption = Disruption {
            seen_from,
            ..Disruption::stated(until)
        };
        Request {
            disruption: Some(disruption),
            ..Request::new(west())
        }
    };
    let (class, text, hint) = refused(&world, asked(Some(west()))).await;
    assert_eq!(class, Class::Safety);
    assert!(text.contains("would lose 81.4 s"), "{text}");
    assert!(
        text.contains("lived 81.0 s after the last contact"),
        "{text}"
    );
    // With a minute to spare: while it lives, more is lost by the time the command is run again.
    assert!(hint.contains("--max-loss 142s"), "{hint}");
    // A person says when it was disrupted, not that it was seen to live until then.
    let plan = accepted(&world, asked(None)).await;
    assert_eq!(plan.loss.estimate.unwrap().delay_seconds, 0.4);
}

#[tokio::test(start_paused = true)]
async fn a_bound_beyond_the_budget_is_said() {
    for (seconds, said) in [(1, true), (2, false)] {
        let world = Everything::new().await;
        let request = Request {
            max_loss: Some(Duration::from_secs(seconds)),
            ..Request::new(west())
        };
        let plan = accepted(&world, request.clone()).await;
        assert_eq!(plan.loss.bound_exceeds(), said, "{:?}", plan.loss);
        // It grows with every second: a plan that nothing else has changed is still the one that was shown.
        world.clock.advance(Duration::from_secs(5));
        let later = accepted(&world, request).await;
        assert_eq!(later.hash, plan.hash);
    }
}
