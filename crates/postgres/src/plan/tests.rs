use std::collections::BTreeMap;
use std::sync::Arc;

use dr_coordination::Actor;
use dr_coordination::register::Register;
use dr_model::{Lsn, ManualClock, SystemIdentifier, TimelineId};
use dr_provider::driver::RestoreTarget;
use dr_provider::store::MemoryStore;
use dr_provider::{ObjectStore, Secret, SecretSource};
use dr_repository::Keys;
use jiff::Timestamp;
use rstest::rstest;

use super::*;
use crate::driver::Parts;
use crate::options::tests::{options, region};

mod planned_move;

#[derive(Debug)]
struct NoSecrets;

impl SecretSource for NoSecrets {
    fn resolve(&self, text: &str) -> Result<Secret> {
        Ok(Secret::new(text))
    }
}

fn driver() -> PostgresDriver {
    let store = |name: &str| Arc::new(MemoryStore::new(name)) as Arc<dyn ObjectStore>;
    let stores: BTreeMap<_, _> = ["us-east-1", "us-west-2"]
        .map(|name| (region(name), store(name)))
        .into();
    PostgresDriver::new(Parts {
        resource: "orders/database".parse().unwrap(),
        options: options(),
        stores: stores.clone(),
        hosts: BTreeMap::new(),
        register: Register::new("orders".parse().unwrap(), stores, region("us-west-2")),
        actor: Actor::new("test", "here", 1),
        secrets: Arc::new(NoSecrets),
        keys: Keys::default(),
        clock: Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH)),
        program: vec!["dr".to_owned()],
        environment: Vec::new(),
        binaries: "/usr/bin".into(),
    })
}

fn point(label: &str, start: u64, stop: u64, timeline: u32) -> RecoveryPoint {
    RecoveryPoint {
        label: label.to_owned(),
        system_identifier: SystemIdentifier(7),
        timeline: TimelineId(timeline),
        start: Lsn(start),
        stop: Lsn(stop),
        started_at: Timestamp::UNIX_EPOCH,
        stopped_at: Timestamp::UNIX_EPOCH,
        database_bytes: 5 << 20,
        stored_bytes: 1 << 20,
        taken: Default::default(),
        failure: None,
    }
}

fn facts(instance: Instance, points: Vec<RecoveryPoint>) -> Facts {
    let log = LogFacts {
        epoch: Epoch(1),
        timeline: TimelineId(1),
        start: Lsn(100),
        end: Lsn(1000),
        missing: Vec::new(),
        sealed: false,
        primary_end: Lsn(1000),
        received_at: None,
        shipped_at: None,
        last_commit_at: None,
        commits_per_second: None,
        covered_at: None,
        promise: None,
        recovery_points: points,
        unusable: Vec::new(),
        earlier: None,
    };
    let seen = RegionFacts {
        instance,
        log: Ok(Some(log)),
        detail: serde_json::Value::Null,
        late: Vec::new(),
    };
    Facts {
        observed_at: Timestamp::UNIX_EPOCH,
        system_identifier: Some(SystemIdentifier(7)),
        claim: None,
        regions: BTreeMap::from([(region("us-west-2"), seen)]),
    }
}

fn standby(timeline: u32) -> Instance {
    Instance::Running {
        role: Role::Standby,
        timeline: TimelineId(timeline),
        position: Lsn(900),
        replayed: Some(Lsn(900)),
    }
}

fn names(actions: &[Action]) -> Vec<&str> {
    actions.iter().map(|action| action.name.as_str()).collect()
}

fn west() -> RegionName {
    region("us-west-2")
}

#[test]
fn a_standby_is_detached_archived_and_then_sealed() {
    let goal = Goal::Seal {
        region: west(),
        ended: Epoch(1),
        gather: Vec::new(),
    };
    let actions = driver()
        .plan_goal(&goal, &facts(standby(1), Vec::new()))
        .unwrap();
    assert_eq!(
        names(&actions),
        ["detach-standby", "archive-surplus", "seal-log"]
    );
    let without = driver()
        .plan_goal(&goal, &facts(Instance::Absent, Vec::new()))
        .unwrap();
    assert_eq!(names(&without), ["seal-log"]);
}

#[test]
fn only_fencing_depends_on_the_region_being_left() {
    let driver = driver();
    let facts = facts(standby(1), Vec::new());
    for goal in [
        Goal::Seal {
            region: west(),
            ended: Epoch(1),
            gather: Vec::new(),
        },
        Goal::Promote {
            region: west(),
            ended: Epoch(1),
        },
        Goal::Rearm { region: west() },
    ] {
        for action in driver.plan_goal(&goal, &facts).unwrap() {
            assert!(!action.dependencies.is_empty(), "{}", action.name);
            assert!(
                action
                    .dependencies
                    .iter()
                    .all(|needed| needed.region == west())
            );
        }
    }
    let actions = driver
        .plan_goal(&fence(), &left(Instance::Stopped, 7, 1, "in production"))
        .unwrap();
    assert_eq!(names(&actions), ["stop-old-primary"]);
    assert_eq!(actions[0].dependencies[0].region, region("us-east-1"));
}

fn fence() -> Goal {
    Goal::Fence {
        region: region("us-east-1"),
    }
}

/// The region being left, with what its data directory says, in an epoch on timeline 1 of cluster 7.
fn left(instance: Instance, cluster: u64, timeline: u32, state: &str) -> Facts {
    let mut all = facts(standby(1), Vec::new());
    let detail = serde_json::json!({
        "host": "local",
        "data_directory": "/data/east",
        "directory": { "Ok": {
            "path": "/data/east",
            "system_identifier": SystemIdentifier(cluster),
            "timeline": timeline,
            "state": state,
            "fenced": null,
        } },
        "claimed": { "system_identifier": SystemIdentifier(7), "timeline": 1 },
    });
    let seen = RegionFacts {
        instance,
        log: Err("no route to host".to_owned()),
        detail,
        late: Vec::new(),
    };
    all.regions.insert(region("us-east-1"), seen);
    all
}

#[test]
fn what_ran_out_of_time_is_said_of_what_is_not_known() {
    let driver = driver();
    let east = region("us-east-1");
    let mut facts = left(Instance::Stopped, 7, 1, "shut down");
    facts.regions.get_mut(&east).unwrap().detail = serde_json::Value::Null;
    let why = |facts: &Facts| {
        let error = driver.plan_goal(&fence(), facts).unwrap_err();
        dr_provider::error::chain(&error)
    };
    assert!(!why(&facts).contains("out of time"));
    let late = "the register: no answer within 2.4 s".to_owned();
    facts.regions.get_mut(&east).unwrap().late.push(late);
    let said = why(&facts);
    let expected = "the look ran out of time (the register: no answer within 2.4 s)";
    assert!(said.ends_with(expected), "{said}");
}

fn primary(timeline: u32) -> Instance {
    Instance::Running {
        role: Role::Primary,
        timeline: TimelineId(timeline),
        position: Lsn(1000),
        replayed: None,
    }
}

#[rstest]
#[case::running(left(primary(1), 7, 1, "in production"), None)]
#[case::crashed(left(Instance::Stopped, 7, 1, "in production"), None)]
#[case::shut_down(left(Instance::Stopped, 7, 1, "shut down"), None)]
#[case::absent(
    left(Instance::Absent, 7, 1, "shut down"),
    Some("data directory is empty")
)]
#[case::other_cluster(left(Instance::Stopped, 8, 1, "shut down"), Some("another cluster"))]
#[case::its_directory_is_elsewhere(left(primary(1), 8, 1, "shut down"), Some("another cluster"))]
#[case::a_standby(left(standby(1), 7, 1, "in archive recovery"), Some("of a standby"))]
#[case::an_old_copy(left(Instance::Stopped, 7, 3, "shut down"), Some("on timeline 3"))]
#[case::a_later_primary(left(primary(2), 7, 1, "in production"), Some("on timeline 2"))]
fn a_fence_is_planned_where_the_old_primary_was_seen(
    #[case] facts: Facts,
    #[case] refused: Option<&str>,
) {
    match (driver().plan_goal(&fence(), &facts), refused) {
        (Ok(actions), None) => assert_eq!(names(&actions), ["stop-old-primary"]),
        (Err(error), Some(expected)) => {
            let text = dr_provider::error::chain(&error);
            assert!(text.contains(expected), "{text}");
        }
        (other, _) => panic!("{other:?}"),
    }
}

#[rstest]
#[case::absent(Instance::Absent)]
#[case::stopped(Instance::Stopped)]
#[case::unseen(Instance::Unreachable { why: "no route to host".to_owned(), runs: false, on_host: false, hint: None })]
#[case::other_timeline(standby(2))]
fn nothing_but_a_running_standby_of_the_timeline_is_promoted(#[case] instance: Instance) {
    let goal = Goal::Promote {
        region: west(),
        ended: Epoch(1),
    };
    let error = driver()
        .plan_goal(&goal, &facts(instance, Vec::new()))
        .unwrap_err();
    assert!(error.is_definite(), "a fallback may be taken");
}

#[test]
fn a_restore_takes_the_newest_point_that_the_log_completes() {
    let goal = Goal::Restore {
        region: west(),
        ended: Epoch(1),
    };
    let points = vec![
        point("stops-after-the-log", 700, 1100, 1),
        point("other-timeline", 700, 800, 2),
        point("good", 500, 600, 1),
        point("older", 200, 300, 1),
        point("starts-before-the-log", 50, 90, 1),
    ];
    let actions = driver()
        .plan_goal(&goal, &facts(Instance::Absent, points))
        .unwrap();
    assert_eq!(
        names(&actions),
        [
            "restore-base",
            "start-restored",
            "replay-tail",
            "promote-standby"
        ]
    );
    assert!(
        actions[0].summary.contains("good"),
        "{}",
        actions[0].summary
    );
    assert!(matches!(actions[3].undo, Undo::Irreversible(_)));
}

/// What was found not to be restorable is named, whether or not something else is.
#[test]
fn what_is_passed_over_is_named() {
    let plan = |points: Vec<RecoveryPoint>| {
        let mut facts = facts(Instance::Absent, points);
        let seen = facts.regions.get_mut(&west()).unwrap();
        let Ok(Some(held)) = &mut seen.log else {
            panic!("there is a log");
        };
        held.unusable = vec!["newer: its body does not match its hash".to_owned()];
        let (region, ended) = (west(), Epoch(1));
        driver().plan_goal(&Goal::Restore { region, ended }, &facts)
    };
    let actions = plan(vec![point("good", 500, 600, 1)]).unwrap();
    let summary = &actions[0].summary;
    assert!(summary.contains("recovery point good"), "{summary}");
    assert!(
        summary.contains("passing over newer: its body"),
        "{summary}"
    );
    let error = plan(Vec::new()).unwrap_err();
    let said = dr_provider::error::chain(&error);
    assert!(said.contains("newer: its body does not match"), "{said}");
}

#[rstest]
#[case::stopped(Instance::Stopped)]
#[case::running(standby(1))]
#[case::unseen(Instance::Unreachable { why: "no route to host".to_owned(), runs: false, on_host: false, hint: None })]
fn a_restore_never_overwrites(#[case] instance: Instance) {
    let goal = Goal::Restore {
        region: west(),
        ended: Epoch(1),
    };
    let points = vec![point("good", 500, 600, 1)];
    let stopped = instance == Instance::Stopped;
    let unseen = matches!(instance, Instance::Unreachable { .. });
    let refused = driver().plan_goal(&goal, &facts(instance, points));
    let error = refused.unwrap_err();
    let hint = error.hint().unwrap().to_owned();
    assert_eq!(hint.contains("start it"), stopped, "{hint}");
    assert_eq!(hint.contains("move the directory away"), !unseen, "{hint}");
    // A rule forbids it where something is known to be there; what cannot be seen may be nothing.
    assert_eq!(error.kind() == ErrorKind::AlreadyExists, !unseen, "{error}");
}

/// Whoever was turned away is told what to look at, and not to move a directory with a server in it away.
#[test]
fn a_login_that_was_refused_keeps_its_own_hint() {
    let denied = Instance::Unreachable {
        why: "permission denied".to_owned(),
        runs: true,
        on_host: false,
        hint: Some("check the role and its password".to_owned()),
    };
    let (region, ended) = (west(), Epoch(1));
    let promote = Goal::Promote { region, ended };
    let (region, ended) = (west(), Epoch(1));
    let restore = Goal::Restore { region, ended };
    for goal in [promote, restore] {
        let refused = driver().plan_goal(&goal, &facts(denied.clone(), Vec::new()));
        let hint = refused.unwrap_err().hint().map(str::to_owned);
        assert_eq!(hint.as_deref(), Some("check the role and its password"));
    }
}

#[test]
fn without_a_recovery_point_there_is_nothing_to_restore() {
    let goal = Goal::Restore {
        region: west(),
        ended: Epoch(1),
    };
    let error = driver()
        .plan_goal(&goal, &facts(Instance::Absent, Vec::new()))
        .unwrap_err();
    assert!(error.hint().is_some());
}

/// Only whoever goes back to it by override asks for this.
#[test]
fn a_restore_without_log_of_the_epoch_takes_the_chain_that_is_there() {
    let mut facts = facts(Instance::Absent, vec![point("good", 500, 600, 1)]);
    facts.claim = Some(dr_provider::driver::ClaimFacts {
        epoch: Epoch(2),
        proven: true,
        log_epoch: Epoch(2),
        timeline: TimelineId(2),
        sync: Vec::new(),
        sync_lost: None,
    });
    let (region, ended) = (west(), Epoch(2));
    let actions = driver().plan_goal(&Goal::Restore { region, ended }, &facts);
    let actions = actions.unwrap();
    assert!(
        actions[0].summary.contains("good"),
        "{}",
        actions[0].summary
    );
    let (region, ended) = (west(), Epoch(2));
    let seal = driver().plan_goal(
        &Goal::Seal {
            region,
            ended,
            gather: Vec::new(),
        },
        &facts,
    );
    let seal = seal.unwrap().pop().unwrap();
    assert_eq!(
        seal.summary,
        "seal timeline 1 of epoch 1 in the store of us-west-2"
    );
}

/// Looked at again right before anything is changed: what would be promoted, or restored, may have gone meanwhile.
#[test]
fn what_has_gone_since_does_not_hold() {
    let driver = driver();
    let (region, ended) = (west(), Epoch(1));
    let promote = driver.plan_goal(&Goal::Promote { region, ended }, &facts(standby(1), vec![]));
    let promote = promote.unwrap();
    let points = vec![point("good", 500, 600, 1)];
    let there = facts(Instance::Absent, points);
    let (region, ended) = (west(), Epoch(1));
    let restore = driver.plan_goal(&Goal::Restore { region, ended }, &there);
    let restore = restore.unwrap();
    let unseen = || Instance::Unreachable {
        why: "no route to host".to_owned(),
        runs: false,
        on_host: false,
        hint: None,
    };
    let holds = |actions: &[Action], facts: Facts| {
        let held = driver.is_still_possible(actions, &facts);
        held.map_err(|error| error.kind())
    };
    assert_eq!(holds(&promote, facts(standby(1), vec![])), Ok(()));
    for gone in [standby(2), Instance::Stopped, Instance::Absent] {
        let held = holds(&promote, facts(gone, vec![]));
        assert_eq!(held, Err(ErrorKind::Failed));
    }
    let held = holds(&promote, facts(unseen(), vec![]));
    assert_eq!(held, Err(ErrorKind::Unavailable));
    assert_eq!(holds(&restore, there), Ok(()));
    // Another one would do, and is not what people have approved.
    let other = facts(Instance::Absent, vec![point("newer", 700, 800, 1)]);
    assert_eq!(holds(&restore, other), Err(ErrorKind::Failed));
    let started = facts(Instance::Stopped, vec![point("good", 500, 600, 1)]);
    assert_eq!(holds(&restore, started), Err(ErrorKind::AlreadyExists));
}

/// Started by hand, one would be a second primary, and the other only has to be started.
#[rstest]
#[case::old_primary(false, "do not start it")]
#[case::standby(true, "without promoting it")]
fn a_stopped_server_is_told_apart_by_its_signal(#[case] signal: bool, #[case] hint: &str) {
    let mut facts = facts(Instance::Stopped, Vec::new());
    let seen = facts.regions.get_mut(&west()).unwrap();
    seen.detail = serde_json::json!({
        "host": "west",
        "data_directory": "/db",
        "directory": { "Ok": {
            "path": "/db",
            "system_identifier": SystemIdentifier(7),
            "timeline": 3,
            "state": "shut down",
            "fenced": null,
            "signal": signal,
        } },
        "claimed": null,
    });
    let timeline = crate::would_accept_writes(seen);
    assert_eq!(timeline, (!signal).then_some(TimelineId(3)));
    let (region, ended) = (west(), Epoch(1));
    let promote = Goal::Promote { region, ended };
    let (region, ended) = (west(), Epoch(1));
    for goal in [promote, Goal::Restore { region, ended }] {
        let refused = driver().plan_goal(&goal, &facts).unwrap_err();
        assert!(refused.hint().unwrap().contains(hint), "{refused:?}");
    }
}

/// A standby that is kept behind would be waited for with the primary stopped.
#[test]
fn a_delay_is_named_and_taken_back() {
    let mut facts = facts(standby(1), Vec::new());
    let goal = Goal::Promote {
        region: west(),
        ended: Epoch(1),
    };
    let replay = |facts: &Facts| driver().plan_goal(&goal, facts).unwrap().remove(0);
    assert_eq!(replay(&facts).current, None);
    facts.regions.get_mut(&west()).unwrap().detail = serde_json::json!({
        "host": "west", "data_directory": "/db", "directory": { "Err": "not looked at" },
        "claimed": null, "delay": "1h",
    });
    let delayed = replay(&facts);
    assert_eq!(delayed.current.as_deref(), Some("kept behind by 1h"));
    assert!(
        delayed
            .summary
            .contains("`recovery_min_apply_delay` is set to 0")
    );
}

/// What cannot be restored is refused by the plan, not after people have said yes to it.
#[rstest]
#[case::before_all(-1, "the earliest moment that can be restored is")]
#[case::in_the_future(1, "name a moment before the damage")]
fn a_moment_out_of_reach_is_refused(#[case] second: i64, #[case] hint: &str) {
    let facts = facts(standby(1), vec![point("good", 500, 600, 1)]);
    let log = facts.regions[&west()].log.clone().unwrap().unwrap();
    let at = |second| RestoreTarget::Time(Timestamp::from_second(second).unwrap());
    let check = |second| driver().refuse_out_of_reach("plan", &at(second), &log, &facts);
    let refused = check(second).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.hint().unwrap().contains(hint), "{refused:?}");
    check(0).unwrap();
}

/// The seal comes after the epoch was opened and the old primary was stopped: what cannot be sealed is refused before.
#[rstest]
#[case::no_room(Some(499), true)]
#[case::just_enough(Some(500), false)]
#[case::a_store_that_does_not_tell(None, false)]
fn log_that_does_not_fit_into_the_store_is_refused(
    #[case] free: Option<u64>,
    #[case] refused: bool,
) {
    let mut facts = facts(standby(1), Vec::new());
    let seen = facts.regions.get_mut(&west()).unwrap();
    let Ok(Some(log)) = &mut seen.log else {
        panic!("{seen:?}");
    };
    log.end = Lsn(400);
    seen.detail = serde_json::json!({
        "host": "west", "data_directory": "/db", "directory": { "Err": "not looked at" },
        "claimed": null, "store_free_bytes": free,
    });
    let (region, ended) = (west(), Epoch(1));
    let planned = driver().plan_goal(
        &Goal::Seal {
            region,
            ended,
            gather: Vec::new(),
        },
        &facts,
    );
    match planned {
        Ok(_) => assert!(!refused),
        Err(error) => {
            assert!(
                refused && error.kind() == ErrorKind::Unavailable,
                "{error:?}"
            );
            assert_eq!(error.hint(), Some("make room in that store"));
        }
    }
}
