//! A journal that somebody has tampered with: refused, with nothing done and nothing written.

use std::sync::Arc;

use dr_model::{Clock, ExecutionId};
use dr_provider::Key;
use dr_provider::store::record;

use super::crash::{die, die_in};
use super::runs::planned_by;
use super::world::{
    Everything, east, shipped, shipped_planned, shipped_recover, shipped_undo, west,
};
use crate::events::Silent;
use crate::outcome::State;
use crate::plan::{Refusal, plan};
use crate::request::{Request, Statement};
use crate::{Error, executions, observe, resume, take_back};

/// Leaves an execution behind that died at its `last`-th entry.
async fn left_behind(last: u64) -> (Everything, ExecutionId) {
    let world = Everything::new().await;
    assert!(die(&world, &Request::new(west()), last, true).await);
    let clock: Arc<dyn Clock> = world.clock.clone();
    let (found, _) = executions::list(&world.stores, &clock).await;
    (world, found[0].execution.clone())
}

fn key(execution: &ExecutionId, sequence: u64) -> Key {
    Key::new(format!("execution/{execution}/{sequence:06}")).unwrap()
}

/// Puts other bytes in the place of an entry, or nothing.
async fn replace(
    world: &Everything,
    execution: &ExecutionId,
    sequence: u64,
    change: impl FnOnce(String) -> Option<String>,
) {
    let store = &world.stores[&west()];
    let key = key(execution, sequence);
    let text = String::from_utf8(store.get(&key).await.unwrap().to_vec()).unwrap();
    store.delete(&key).await.unwrap();
    if let Some(text) = change(text) {
        store.create(&key, text.into()).await.unwrap();
    }
}

/// Changes an entry, and gives it the hash of what it is then, as whoever may write to the store can.
fn forged(text: &str, change: impl FnOnce(&str) -> String) -> String {
    let json = record::verified(text.as_bytes()).unwrap();
    let json = change(std::str::from_utf8(json).unwrap());
    let bytes = record::with_hash(json.into_bytes(), "blake3 ");
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Resuming is refused, and neither changes anything nor writes.
async fn is_refused(world: &Everything, execution: &ExecutionId, why: &str) {
    let before = (world.journals().await, world.state().effects.clone());
    let site = Arc::new(world.site("desk"));
    let error = resume(site, execution, "it died", vec![], &Silent)
        .await
        .unwrap_err();
    let text = dr_provider::error::chain(&error);
    assert!(matches!(error, Error::Journal { .. }), "{text}");
    assert!(text.contains(why), "{text}");
    assert!(error.hint().unwrap().contains("do not go on with it"));
    assert_eq!(
        (world.journals().await, world.state().effects.clone()),
        before
    );
    // It is named where executions are listed and where a new one is planned, and hides no other.
    let clock: Arc<dyn Clock> = world.clock.clone();
    let (found, unseen) = executions::list(&world.stores, &clock).await;
    assert_eq!(found, []);
    assert!(unseen[0].contains(execution.as_str()), "{unseen:?}");
    let seen = observe(&world.site("desk"), &west()).await;
    assert!(seen.unfinished.is_empty());
    assert!(seen.unseen[0].why.contains(why), "{:?}", seen.unseen);
}

#[tokio::test(start_paused = true)]
async fn every_entry_is_what_it_was() {
    for last in 2..8 {
        for changed in 1..=last {
            // Somebody else is said to have written it.
            let other = |text: &str| text.replacen("\"laptop\"", "\"elsewhere\"", 1);
            let (world, id) = left_behind(last).await;
            replace(&world, &id, changed, |text| Some(other(&text))).await;
            is_refused(&world, &id, "its hash does not match").await;
            if changed < last {
                let (world, id) = left_behind(last).await;
                replace(&world, &id, changed, |text| Some(forged(&text, other))).await;
                is_refused(&world, &id, "changed or exchanged").await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_entry_is_missing() {
    for missing in 2..6 {
        let (world, id) = left_behind(6).await;
        replace(&world, &id, missing, |_| None).await;
        is_refused(&world, &id, "it is missing, and entry").await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_entries_are_not_exchanged() {
    let (world, id) = left_behind(6).await;
    let store = &world.stores[&west()];
    let third = store.get(&key(&id, 3)).await.unwrap();
    let third = String::from_utf8(third.to_vec()).unwrap();
    let as_second = forged(&third, |json| {
        json.replacen("\"sequence\": 3", "\"sequence\": 2", 1)
    });
    replace(&world, &id, 2, |_| Some(as_second)).await;
    is_refused(&world, &id, "changed or exchanged").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_entry_is_not_passed_over() {
    for garbage in ["", "{", "{}", "[]"] {
        let (world, id) = left_behind(4).await;
        replace(&world, &id, 4, |_| Some(garbage.to_owned())).await;
        is_refused(&world, &id, "entry 4 of execution").await;
    }
}

/// The one entry of an execution that has just begun has no next one: its plan has a hash.
#[tokio::test(start_paused = true)]
async fn the_plan_is_the_one_that_was_shown() {
    let (world, id) = left_behind(1).await;
    let other = |text: &str| {
        assert!(text.contains("promote-standby in us-west-2"));
        text.replace(
            "promote-standby in us-west-2",
            "promote another in us-west-2",
        )
    };
    replace(&world, &id, 1, |text| Some(forged(&text, other))).await;
    is_refused(&world, &id, "not the one that its hash is of").await;
}

/// A damaged journal does not keep a workload in a lost region for ever: a new move takes the next epoch.
#[tokio::test(start_paused = true)]
async fn a_new_move_can_be_begun() {
    let (world, id) = left_behind(2).await;
    replace(&world, &id, 1, |text| Some(format!("{text} "))).await;
    let report = super::runs::failover(&world, &Request::new(west())).await;
    assert_eq!(report.state, State::Completed);
    assert_ne!(report.execution, id);
}

/// Nobody can tell how far it came; what the register says and what is seen of the servers can.
#[tokio::test(start_paused = true)]
async fn a_move_with_a_damaged_journal_is_taken_back_by_name() {
    let (mut idle, mut back, mut promoted) = (0, 0, 0);
    for last in 2.. {
        let world = Everything::new().await;
        world.state().left_running = true;
        let plan = planned_by(&world, &shipped_planned(), &Request::new(west())).await;
        if !die_in(&world, plan, last, true).await {
            break;
        }
        let clock: Arc<dyn Clock> = world.clock.clone();
        let (found, _) = executions::list(&world.stores, &clock).await;
        let id = found[0].execution.clone();
        let other = |text: String| Some(text.replacen("\"laptop\"", "\"elsewhere\"", 1));
        replace(&world, &id, 1, other).await;
        let site = Arc::new(world.site("desk"));
        match take_back(site, &id, "both copies are whole", &shipped_undo(), &Silent).await {
            Err(Error::NotTakenBack { .. }) => {
                idle += 1;
                assert!(world.state().effects.is_empty());
            }
            Err(Error::Undo { .. }) => {
                promoted += 1;
                assert!(world.state().primary_here.is_some());
            }
            Ok(report) => {
                back += 1;
                assert_eq!(report.state, State::Completed, "{report:#?}");
                assert_eq!(world.state().primary_here, None);
                assert!(world.state().left_running);
                let head = world.register().read().await.unwrap().unwrap();
                assert_eq!(head.primary, east());
                let reason = head.override_reason.as_deref();
                assert_eq!(reason, Some("both copies are whole"));
                assert_eq!(head.clusters.values().next().unwrap().timeline.0, 1);
            }
            Err(error) => panic!("death {last}: {error}"),
        }
    }
    assert!(
        idle > 0 && back > 0 && promoted > 0,
        "{idle} {back} {promoted}"
    );
}

/// Nobody can tell how far it came, and the region that was left is gone: who goes on with what only the register says is told what to
/// do, and in place somebody has to take it upon themselves.
#[tokio::test(start_paused = true)]
async fn a_primary_that_only_the_register_knows_of_is_no_way_out() {
    let (mut refused, mut promoted) = (0, 0);
    for last in 3.. {
        let world = Everything::new().await;
        if !die(&world, &Request::new(west()), last, true).await {
            break;
        }
        let clock: Arc<dyn Clock> = world.clock.clone();
        let (found, _) = executions::list(&world.stores, &clock).await;
        let id = found[0].execution.clone();
        let head = world.register().read().await.unwrap().unwrap();
        if head.execution.as_ref() != Some(&id) || found[0].state.is_final() {
            continue;
        }
        replace(&world, &id, 1, |text| Some(format!("{text} "))).await;
        let seen = observe(&world.site("desk"), &west()).await;
        let mut request = Request::new(west());
        if world.state().primary_here.is_some() {
            promoted += 1;
            let refusal = plan(&shipped(), &seen, &request).unwrap_err();
            let has = "us-west-2 has the primary of `orders` already; the newest epoch is 2";
            assert_eq!(refusal.to_string(), has);
            plan(&shipped_recover(), &seen, &request).unwrap();
            continue;
        }
        refused += 1;
        for runbook in [shipped(), shipped_recover()] {
            let refusal = plan(&runbook, &seen, &request).unwrap_err();
            let (why, hint) = (refusal.to_string(), refusal.hint().unwrap());
            assert!(why.contains("no primary is seen there"), "{why}");
            assert!(
                why.contains(id.as_str()) && why.contains("damaged"),
                "{why}"
            );
            assert!(
                hint.contains(&format!("dr execution abort {id} --override")),
                "{hint}"
            );
            assert!(hint.contains("recover-component orders"), "{hint}");
        }
        request.statements = vec![Statement::Override("Ada: the east is gone".to_owned())];
        let elsewhere = plan(&shipped(), &seen, &request).unwrap_err();
        assert!(
            matches!(elsewhere, Refusal::Unreadable { .. }),
            "{elsewhere}"
        );
        let overridden = plan(&shipped_recover(), &seen, &request);
        assert!(!matches!(overridden, Err(Refusal::Unreadable { .. })));
    }
    assert!(refused > 2 && promoted > 0, "{refused} {promoted}");
}
