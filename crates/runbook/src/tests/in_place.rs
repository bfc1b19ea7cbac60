//! Recovery in the primary's own region: the old primary is started again only while nobody else is the primary.

use std::sync::Arc;

use dr_model::loss::Bound;
use dr_model::{Epoch, TimelineId};
use dr_provider::decorate::{self, Faulty};
use dr_provider::driver::{Instance, RestoreTarget};
use dr_provider::{ErrorKind, ObjectStore};
use jiff::SignedDuration;
use rstest::rstest;

use super::runs::planned_by;
use super::world::{
    Everything, Fault, database, east, runbook, shipped, shipped_planned, shipped_recover,
    shipped_restore, shipped_undo, west,
};
use crate::events::{Event, Monitor, Silent};
use crate::outcome::State;
use crate::plan::{Class, is_behind};
use crate::request::{Request, Statement};
use crate::{Disruption, Error, Refusal, Report, abort, execute, observe, plan, resume};

/// Lets something happen elsewhere just before a step begins.
pub(crate) struct Meanwhile<A> {
    pub(crate) at: &'static str,
    pub(crate) happens: A,
}

impl<A: Fn() + Send + Sync> Monitor for Meanwhile<A> {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::StepBegan { step, .. } if step.id.0 == self.at => (self.happens)(),
            _ => {}
        }
    }
}

async fn recover(world: &Everything, monitor: &dyn Monitor) -> Report {
    let plan = planned_by(world, &shipped_recover(), &Request::new(east())).await;
    let site = Arc::new(world.site("laptop"));
    execute(site, plan, monitor).await.unwrap()
}

/// The executor slept, and somebody has moved the workload away by then.
#[tokio::test(start_paused = true)]
async fn what_was_moved_away_meanwhile_is_not_started() {
    let world = Everything::new().await;
    let moved = || {
        let register = world.register();
        // On a thread of its own, because a monitor does not wait; the world stands still meanwhile.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut next = register.read().await.unwrap().unwrap();
                next.epoch = Epoch(3);
                next.primary = west();
                for claim in next.clusters.values_mut() {
                    (claim.timeline, claim.log_epoch) = (TimelineId(2), None);
                }
                next.execution = None;
                next.reason = "it was thought to be lost".to_owned();
                register.create(&next).await.unwrap();
            });
        });
        thread.join().unwrap();
    };
    let happens = Meanwhile {
        at: "database",
        happens: moved,
    };
    let report = recover(&world, &happens).await;
    assert_eq!(report.state, State::Superseded, "{report:#?}");
    let reason = report.reason.unwrap();
    assert!(reason.contains("it was thought to be lost"), "{reason}");
    assert_eq!(world.count("resume"), 0);
    assert!(!world.state().left_running);
}

#[tokio::test(start_paused = true)]
async fn while_nobody_can_tell_who_is_the_primary_nothing_is_started() {
    let mut world = Everything::new().await;
    let faulty = Arc::new(Faulty::scripted(
        Arc::clone(&world.stores[&west()]),
        Vec::new(),
    ));
    world
        .stores
        .insert(west(), Arc::clone(&faulty) as Arc<dyn ObjectStore>);
    let silent = || {
        let fault = decorate::Fault::Before(ErrorKind::Unavailable);
        faulty.set_rules(vec![decorate::Rule::all("*", fault)]);
    };
    let happens = Meanwhile {
        at: "database",
        happens: silent,
    };
    let report = recover(&world, &happens).await;
    assert_eq!(report.state, State::Stuck, "{report:#?}");
    let stuck = report.stuck.unwrap();
    assert!(
        stuck.why.contains("another region has become the primary"),
        "{}",
        stuck.why
    );
    assert_eq!(world.count("resume"), 0);

    faulty.set_rules(Vec::new());
    let desk = Arc::new(world.site("desk"));
    let again = resume(desk, &report.execution, "it answers", vec![], &Silent).await;
    assert_eq!(again.unwrap().state, State::Completed);
    assert_eq!(world.count("resume"), 1);
}

/// A server that was started again has all that it acknowledged, unless it is set up so that it need not.
#[tokio::test(start_paused = true)]
async fn what_a_server_may_not_have_kept_is_said() {
    let world = Everything::new().await;
    let report = recover(&world, &Silent).await;
    assert_eq!(report.state, State::Completed);
    assert_eq!(report.loss.bound, Bound::Zero);

    let world = Everything::new().await;
    world.state().doubts = vec!["`fsync` is off".to_owned()];
    let report = recover(&world, &Silent).await;
    assert_eq!(report.state, State::Completed);
    assert_eq!(report.loss.bound, Bound::Growing { since: None });
    assert_eq!(report.resources[&database()].doubts, ["`fsync` is off"]);
}

/// Whoever names a moment does not get the end of the log instead.
#[tokio::test(start_paused = true)]
async fn a_moment_is_not_passed_over() {
    let world = Everything::new().await;
    for runs in [false, true] {
        world.state().left_running = runs;
        let seen = observe(&world.site("laptop"), &east()).await;
        let of = |component: &str| Request {
            component: Some(component.to_owned()),
            ..moment()
        };
        // A service has no moment, whatever the runbook does with databases.
        for (runbook, request) in [
            (shipped_recover(), moment()),
            (shipped_recover(), of("database")),
            (shipped_recover(), of("ledger")),
            (shipped_restore(), of("ledger")),
        ] {
            let refusal = plan(&runbook, &seen, &request).unwrap_err();
            let text = refusal.to_string();
            assert!(text.contains("an earlier moment was named"), "{text}");
            assert_eq!(refusal.class(), Class::Asked);
            assert!(refusal.hint().unwrap().contains("--at"));
        }
    }
    assert!(world.state().effects.is_empty());
}

fn moment() -> Request {
    Request {
        target: Some(RestoreTarget::Name("before".to_owned())),
        ..Request::new(east())
    }
}

/// Puts the database in the east back to a moment, of which the west learns nothing.
async fn put_back(world: &Everything) -> Report {
    world.state().left_running = true;
    let plan = planned_by(world, &shipped_restore(), &moment()).await;
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Completed, "{report:#?}");
    world.see_claim().await;
    let mut state = world.state();
    (state.sealed, state.left_running) = (false, false);
    drop(state);
    report
}

/// The standby in the west has all that it was ever told of, and is what the restore took back.
#[rstest]
#[case::promote(true, "a standby on timeline 1")]
#[case::restore(false, "there is only the log of epoch 1 on timeline 1")]
#[tokio::test(start_paused = true)]
async fn what_was_taken_back_does_not_come_back_unasked(#[case] standby: bool, #[case] has: &str) {
    let world = Everything::new().await;
    let report = put_back(&world).await;
    world.state().standby = standby;
    let seen = observe(&world.site("laptop"), &west()).await;
    let mut request = Request::new(west());
    for runbook in [shipped(), shipped_planned()] {
        let refusal = plan(&runbook, &seen, &request).unwrap_err();
        let text = refusal.to_string();
        assert!(matches!(refusal, Refusal::Behind { .. }), "{text}");
        assert_eq!(refusal.class(), Class::Safety);
        let moment = "restore-database in us-east-1 to the restore point `before`";
        let execution = report.execution.to_string();
        for said in [moment, execution.as_str(), "writes timeline 2", has] {
            assert!(text.contains(said), "{text}");
        }
        assert!(refusal.hint().unwrap().contains("--override"));
    }

    request.statements = vec![Statement::Override("the east burnt down".to_owned())];
    let overridden = plan(&shipped(), &seen, &request).unwrap();
    let warned = overridden
        .warnings
        .iter()
        .filter(|warning| warning.contains("comes back"));
    assert_eq!(warned.count(), 1, "{:?}", overridden.warnings);

    // What a daemon saw last is of the timeline before: how much is lost nobody can tell, and it is within no objective.
    assert!(is_behind(&seen, &west()));
    let at = seen.observed_at;
    request.disruption = Some(Disruption {
        not_before: at - SignedDuration::from_secs(1),
        not_after: at,
        detected_at: Some(at),
        seen_from: Some(west()),
        by_heartbeat: true,
    });
    let overridden = plan(&shipped(), &seen, &request).unwrap();
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, overridden, &Silent).await.unwrap();
    assert!(report.rta_seconds.is_some(), "{report:#?}");
    assert_eq!(report.loss.bound, Bound::Growing { since: None });
    assert_eq!(
        (
            report.rpa_seconds,
            report.rpa_at_least_seconds,
            report.rpa_at_most_seconds
        ),
        (None, None, None)
    );
}

/// As soon as something of the new log is there, a move is measured by that.
#[tokio::test(start_paused = true)]
async fn what_follows_the_new_timeline_may_be_promoted() {
    let world = Everything::new().await;
    put_back(&world).await;
    let mut seen = observe(&world.site("laptop"), &west()).await;
    let resource = seen.resources.values_mut().next().unwrap();
    let west_seen = resource.facts.regions.get_mut(&west()).unwrap();
    if let Instance::Running { timeline, .. } = &mut west_seen.instance {
        *timeline = TimelineId(2);
    }
    plan(&shipped(), &seen, &Request::new(west())).unwrap();
}

#[rstest]
#[case::database("{ id: replace, uses: replace-database }", "`fence` stops `database`")]
#[case::service("{ id: serve, uses: start-service }", "`quiet` stops `ledger`")]
#[tokio::test(start_paused = true)]
async fn what_is_stopped_is_brought_up_again(#[case] without: &str, #[case] says: &str) {
    let text = include_str!("../../../../runbooks/restore-database.yaml");
    let step = format!("  - {without}\n");
    assert!(text.contains(&step));
    // What makes it a runbook in place stays in it, and is left out on the day.
    let other = match without.contains("replace") {
        true => "  - { id: replace, uses: replace-database, if: standby-runs }\n",
        false => "",
    };
    let world = Everything::new().await;
    world.state().left_running = true;
    world.state().left_serving = true;
    let seen = observe(&world.site("laptop"), &east()).await;
    let written = runbook(&text.replace(&step, other)).unwrap();
    let refusal = plan(&written, &seen, &moment()).unwrap_err();
    assert!(matches!(refusal, Refusal::LeftDown { .. }), "{refusal}");
    assert!(refusal.to_string().contains(says), "{refusal}");
    plan(&shipped_restore(), &seen, &moment()).unwrap();
}

/// Brings the service in the east back, which it does not, after the database has died as well.
async fn stuck_in_place(world: &Everything) -> Report {
    let request = Request {
        component: Some("ledger".to_owned()),
        ..Request::new(east())
    };
    let plan = planned_by(world, &shipped_recover(), &request).await;
    world.script("start-left", [Fault::Definite]);
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Stuck, "{report:#?}");
    report
}

#[tokio::test(start_paused = true)]
async fn what_is_stuck_in_place_is_ended_as_it_stands() {
    let world = Everything::new().await;
    let stuck = stuck_in_place(&world).await;
    let desk = Arc::new(world.site("desk"));
    let aborted = abort(desk, &stuck.execution, "enough", &shipped_undo(), &Silent).await;
    let aborted = aborted.unwrap();
    assert_eq!(aborted.report.unwrap().state, State::Aborted);
    assert_eq!(aborted.undone_by, None);
    assert!(aborted.stays[0].contains("epoch 2"), "{:?}", aborted.stays);
    let head = world.register().read().await.unwrap().unwrap();
    assert_eq!((head.epoch, head.primary), (Epoch(2), east()));

    // The database can be recovered afterwards.
    let report = recover(&world, &Silent).await;
    assert_eq!(report.state, State::Completed, "{report:#?}");
}

/// What the register says of a database that is down has to come true first.
#[tokio::test(start_paused = true)]
async fn what_took_a_database_down_is_not_ended_there() {
    let world = Everything::new().await;
    world.state().left_running = true;
    let plan = planned_by(&world, &shipped_restore(), &moment()).await;
    world.script("replace", [Fault::Definite]);
    let site = Arc::new(world.site("laptop"));
    let report = execute(site, plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Stuck, "{report:#?}");
    let desk = Arc::new(world.site("desk"));
    let id = &report.execution;
    let refused = abort(Arc::clone(&desk), id, "enough", &shipped_undo(), &Silent).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, Error::HasEffects { .. }), "{refused}");
    let hint = refused.hint().unwrap();
    assert!(hint.contains("a failover out of it"), "{hint}");

    // Up again, it may.
    world.script("start-left", [Fault::Definite]);
    let report = resume(Arc::clone(&desk), id, "again", vec![], &Silent).await;
    assert_eq!(report.unwrap().state, State::Stuck);
    assert!(world.state().replaced);
    let aborted = abort(desk, id, "enough", &shipped_undo(), &Silent).await;
    assert_eq!(aborted.unwrap().report.unwrap().state, State::Aborted);
}

/// Losing the region is worse than a recovery in it that does not come to its end.
#[tokio::test(start_paused = true)]
async fn a_move_out_of_the_region_does_not_wait_for_a_recovery_in_it() {
    let world = Everything::new().await;
    let stuck = stuck_in_place(&world).await;
    let mut seen = observe(&world.site("desk"), &west()).await;
    let planned = plan(&shipped(), &seen, &Request::new(west())).unwrap();
    let id = stuck.execution.to_string();
    assert!(planned.warnings[0].contains(&id), "{:?}", planned.warnings);
    // In its own region it stands in the way, as long as it has not ended.
    let refusal = plan(&shipped_recover(), &seen, &Request::new(east())).unwrap_err();
    assert!(matches!(refusal, Refusal::Unfinished(_)), "{refusal}");

    // One that may run is overridden by name only.
    seen.unfinished[0].state = State::Running;
    let mut request = Request::new(west());
    let refusal = plan(&shipped(), &seen, &request).unwrap_err();
    assert!(matches!(refusal, Refusal::Unfinished(_)), "{refusal}");
    assert!(refusal.hint().unwrap().contains("--override"));
    request.statements = vec![Statement::Override("its host is gone".to_owned())];
    plan(&shipped(), &seen, &request).unwrap();

    let site = Arc::new(world.site("desk"));
    let report = execute(Arc::clone(&site), planned, &Silent).await.unwrap();
    assert_eq!(
        (report.state, report.epoch),
        (State::Completed, Epoch(3)),
        "{report:#?}"
    );
    let late = resume(site, &stuck.execution, "again", vec![], &Silent).await;
    assert_eq!(late.unwrap().state, State::Superseded);
}
