//! A workload with two databases, two services and two records: all of them move, each once, and what is lost is what the worst of
//! them loses.

use std::sync::Arc;
use std::time::Duration;

use dr_model::Clock;
use dr_model::loss::Bound;
use tokio::time::timeout;

use super::crash::mortal;
use super::pauses::paused_at;
use super::world::{Everything, Fault, archive, database, shipped, west};
use crate::events::Silent;
use crate::outcome::State;
use crate::request::{Request, Rung};
use crate::{Plan, execute, executions, observe, plan, resume};

/// What each member has once, whatever happens in between.
const EFFECTS: [&str; 5] = [
    "seal-chain",
    "promote-standby",
    "start-service",
    "switch-traffic",
    "keep-slots",
];

/// Makes the worlds of both members; the second has lost more.
async fn worlds() -> [Everything; 2] {
    let world = Everything::of(&[database(), archive()]).await;
    let other = world.beside().await;
    other.state().delay_seconds = Some(2.5);
    [world, other]
}

async fn planned([world, other]: &[Everything; 2]) -> Plan {
    let seen = observe(&world.site_with("laptop", other), &west()).await;
    plan(&shipped(), &seen, &Request::new(west())).unwrap()
}

fn assert_moved_once(worlds: &[Everything; 2], at: &str) {
    for (number, world) in worlds.iter().enumerate() {
        for effect in EFFECTS {
            assert_eq!(world.count(effect), 1, "{at}: {effect} of member {number}");
        }
        assert_eq!(world.state().traffic.region, Some(west()), "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn both_are_moved_and_the_worst_is_what_is_lost() {
    let worlds = worlds().await;
    let plan = planned(&worlds).await;
    let estimate = plan.loss.estimate.as_ref().unwrap();
    assert!((estimate.delay_seconds - 2.5).abs() < f64::EPSILON);
    for step in ["fence", "seal", "promote", "serve", "switch", "rearm"] {
        let step = plan.steps.iter().find(|s| s.id.0 == step).unwrap();
        assert_eq!(step.lanes.len(), 2, "{}", step.id);
    }
    let site = worlds[0].site_with("laptop", &worlds[1]);
    let report = execute(Arc::new(site), plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Completed, "{report:#?}");
    assert_eq!(report.rung, Rung::Promote);
    assert_moved_once(&worlds, "undisturbed");
    let resources: Vec<_> = report.resources.keys().cloned().collect();
    assert_eq!(resources, [archive(), database()]);
    let head = worlds[0].register().read().await.unwrap().unwrap();
    assert_eq!(head.clusters.len(), 2, "{head:?}");
}

/// The lowest rung that any of them took is what is reported, and the worst bound.
#[tokio::test(start_paused = true)]
async fn one_that_has_no_standby_is_restored_beside_one_that_is_promoted() {
    let worlds = worlds().await;
    worlds[1].state().standby = false;
    let plan = planned(&worlds).await;
    let site = worlds[0].site_with("laptop", &worlds[1]);
    let report = execute(Arc::new(site), plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Completed, "{report:#?}");
    assert_eq!(report.rung, Rung::Restore);
    assert_eq!(report.resources[&database()].rung, Rung::Promote);
    assert_eq!(report.resources[&archive()].rung, Rung::Restore);
    assert_eq!(worlds[0].count("promote-standby"), 1);
    assert_eq!(worlds[1].count("restore-instance"), 1);
    let bound = |name| report.resources[&name].loss.bound.clone();
    let seconds = |bound: &Bound| match bound {
        Bound::Seconds { seconds, .. } => *seconds,
        other => panic!("{other:?}"),
    };
    let worst = seconds(&bound(database())).max(seconds(&bound(archive())));
    assert!((seconds(&report.loss.bound) - worst).abs() < f64::EPSILON);
}

/// One cannot be brought up: it is stuck there, the other stays as it is, and going on does nothing twice.
#[tokio::test(start_paused = true)]
async fn one_that_is_stuck_takes_nothing_back_from_the_other() {
    let worlds = worlds().await;
    worlds[1].state().recovery_point = false;
    let plan = planned(&worlds).await;
    worlds[1].script("promote-standby", [Fault::Definite]);
    let site = worlds[0].site_with("laptop", &worlds[1]);
    let report = execute(Arc::new(site), plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Stuck, "{report:#?}");
    let stuck = report.stuck.unwrap();
    assert_eq!(stuck.step.0, "promote");
    // Nobody is led to a workload of which a part is missing.
    assert_eq!(worlds.each_ref().map(|w| w.count("switch-traffic")), [0, 0]);
    let site = worlds[0].site_with("desk", &worlds[1]);
    let site = Arc::new(site);
    let report = resume(site, &report.execution, "again", vec![], &Silent).await;
    assert_eq!(report.unwrap().state, State::Completed);
    assert_moved_once(&worlds, "resumed");
}

/// Looks at several things at once end as one alone does: somebody waits for whoever paused it.
#[tokio::test(start_paused = true)]
async fn a_pause_ends_looks_that_go_on_side_by_side() {
    let worlds = worlds().await;
    for world in &worlds {
        world.state().healthy = false;
    }
    let plan = planned(&worlds).await;
    let checks = plan.steps.iter().find(|step| step.uses == "check-health");
    let checks = checks.unwrap();
    assert_eq!(checks.lanes.len(), 2);
    let limit = Duration::from_secs_f64(checks.timeout_seconds);
    let [site, desk] = ["laptop", "desk"].map(|machine| worlds[0].site_with(machine, &worlds[1]));
    let paused = timeout(limit / 2, paused_at(site, plan, desk, "probe"));
    let report = paused.await.unwrap();
    assert_eq!(report.state, State::Paused, "{report:#?}");
    assert_eq!(worlds.each_ref().map(|w| w.count("switch-traffic")), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn whoever_dies_anywhere_between_them_is_followed_to_the_same_end() {
    let mut deaths = 0;
    for lands in [false, true] {
        for last in 2.. {
            let worlds = worlds().await;
            let plan = planned(&worlds).await;
            let site = worlds[0].site_with("laptop", &worlds[1]);
            let site = mortal(site, &west(), last, lands);
            if execute(Arc::new(site), plan, &Silent).await.is_ok() {
                break;
            }
            deaths += 1;
            let at = format!("death {last}, landed: {lands}");
            let clock: Arc<dyn Clock> = worlds[0].clock.clone();
            let (found, _) = executions::list(&worlds[0].stores, &clock).await;
            if !found[0].state.is_final() {
                let site = Arc::new(worlds[0].site_with("desk", &worlds[1]));
                let resumed = resume(site, &found[0].execution, "it died", vec![], &Silent).await;
                let report = resumed.unwrap();
                assert_eq!(report.state, State::Completed, "{at}: {report:#?}");
            }
            assert_moved_once(&worlds, &at);
        }
    }
    assert!(deaths > 30, "{deaths}");
}
