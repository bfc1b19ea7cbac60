//! Judging facts made by hand.

use std::collections::BTreeMap;

use dr_coordination::Actor;
use dr_coordination::register::FORMAT_VERSION;
use dr_model::{Epoch, Lsn, SystemIdentifier, TimelineId};
use dr_provider::driver::RecoveryPoint;
use rstest::rstest;
use serde_json::Value;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn record() -> EpochRecord {
    EpochRecord {
        version: FORMAT_VERSION,
        epoch: Epoch(2),
        workload: "orders".parse().unwrap(),
        primary: "east".parse().unwrap(),
        register: "west".parse().unwrap(),
        clusters: BTreeMap::new(),
        sync: BTreeMap::new(),
        created_at: at(0),
        created_by: Actor::new("ada", "host", 1),
        reason: "test".to_owned(),
        sync_lost: std::collections::BTreeMap::new(),
        guards: std::collections::BTreeMap::new(),
        execution: None,
        override_reason: None,
    }
}

fn log() -> LogFacts {
    LogFacts {
        epoch: Epoch(2),
        timeline: TimelineId(1),
        start: Lsn(100),
        end: Lsn(900),
        missing: Vec::new(),
        sealed: false,
        primary_end: Lsn(900),
        received_at: Some(at(990)),
        shipped_at: Some(at(990)),
        last_commit_at: None,
        commits_per_second: None,
        covered_at: Some(at(995)),
        promise: None,
        recovery_points: vec![RecoveryPoint {
            label: "20261121T093005Z-0001".to_owned(),
            system_identifier: SystemIdentifier(7),
            timeline: TimelineId(1),
            start: Lsn(200),
            stop: Lsn(300),
            started_at: at(500),
            stopped_at: at(510),
            database_bytes: 0,
            stored_bytes: 0,
            taken: Default::default(),
            failure: None,
        }],
        unusable: Vec::new(),
        earlier: None,
    }
}

/// Facts of regions, by their names.
fn facts<const N: usize>(observed_at: Timestamp, regions: [(&str, RegionFacts); N]) -> Facts {
    let regions = regions.map(|(region, seen)| (region.parse().unwrap(), seen));
    Facts {
        observed_at,
        system_identifier: None,
        claim: None,
        regions: BTreeMap::from(regions),
    }
}

/// What is seen of a region without a server.
fn absent(log: Result<Option<LogFacts>, String>) -> RegionFacts {
    RegionFacts {
        instance: Instance::Absent,
        log,
        detail: Value::Null,
        late: Vec::new(),
    }
}

fn judged(log: Result<Option<LogFacts>, String>) -> Judgement {
    let seen = absent(log);
    let facts = facts(at(1000), [("west", seen)]);
    let west = ["west".parse().unwrap()];
    protection(
        &"database".parse().unwrap(),
        &record(),
        &west,
        &facts,
        Duration::from_secs(60),
    )
}

/// What another region's daemon wrote a moment ago is now at the earliest, whatever this machine's clock says.
#[test]
fn a_clock_that_is_behind_is_seen_and_hides_nothing() {
    let seen = |received: i64| {
        absent(Ok(Some(LogFacts {
            received_at: Some(at(received)),
            ..log()
        })))
    };
    let facts = facts(at(0), [("west", seen(990)), ("east", seen(1016))]);
    assert_eq!(super::newest(&facts), Some(at(1016)));
    assert_eq!(
        clock(std::iter::once(&facts), at(1000)).verdict,
        Verdict::Ok
    );
    let behind = clock(std::iter::once(&facts), at(900));
    assert_eq!(behind.verdict, Verdict::Unknown);
    assert!(behind.reasons[0].contains("116 s behind"), "{behind:?}");
}

#[test]
fn a_log_that_arrives_behind_a_recovery_point_protects() {
    let judgement = judged(Ok(Some(log())));
    assert_eq!(
        (judgement.verdict, judgement.exposure_seconds),
        (Verdict::Ok, Some(5.0))
    );
}

/// The log of the other region protects; what the primary's own store lacks is gone from the way back and from its restores.
#[test]
fn a_hole_in_any_store_is_named_with_its_region() {
    let hole = "the log of timeline 1 is missing from 0/6B00000 to 0/12000000".to_owned();
    let seen = |missing: &[String]| {
        absent(Ok(Some(LogFacts {
            missing: missing.to_vec(),
            ..log()
        })))
    };
    let facts = facts(
        at(1000),
        [
            ("east", seen(std::slice::from_ref(&hole))),
            ("west", seen(&[])),
        ],
    );
    let judged = holes(&"database".parse().unwrap(), &facts);
    assert_eq!(judged.verdict, Verdict::Breach);
    assert_eq!(judged.reasons, [format!("database in east: {hole}")]);
}

#[test]
fn what_cannot_be_brought_up_to_the_end_does_not_protect() {
    let mut before = log();
    before.recovery_points[0].start = Lsn(50);
    let mut other_timeline = log();
    other_timeline.recovery_points[0].timeline = TimelineId(2);
    let none = LogFacts {
        recovery_points: Vec::new(),
        ..log()
    };
    let sealed = LogFacts {
        sealed: true,
        ..log()
    };
    let old = LogFacts {
        epoch: Epoch(1),
        ..log()
    };
    let late = LogFacts {
        covered_at: Some(at(900)),
        ..log()
    };
    for log in [before, other_timeline, none, sealed, old, late] {
        let judgement = judged(Ok(Some(log)));
        assert_eq!(judgement.verdict, Verdict::Breach, "{judgement:?}");
    }
    assert_eq!(judged(Ok(None)).verdict, Verdict::Breach);
}

#[test]
fn what_cannot_be_seen_is_unknown() {
    assert_eq!(judged(Err("gone".to_owned())).verdict, Verdict::Unknown);
    let uncovered = LogFacts {
        covered_at: None,
        ..log()
    };
    assert_eq!(judged(Ok(Some(uncovered))).verdict, Verdict::Unknown);
}

/// Also that of the primary, which protects nobody now, and one of several regions to recover in. It is said once.
#[test]
fn a_store_that_cannot_be_seen_is_unknown() {
    let seen = |log: Result<Option<LogFacts>, String>| absent(log);
    let judged = |silent: &str| {
        let log = |region: &str| match region == silent {
            true => Err("permission denied".to_owned()),
            false => Ok(Some(log())),
        };
        let regions =
            ["east", "west", "south"].map(|name| (name.parse().unwrap(), seen(log(name))));
        let facts = Facts {
            observed_at: at(1000),
            system_identifier: None,
            claim: None,
            regions: BTreeMap::from(regions),
        };
        let name = "database".parse().unwrap();
        let recovery = ["west".parse().unwrap()];
        let rpo = Duration::from_secs(60);
        both(
            protection(&name, &record(), &recovery, &facts, rpo),
            stores(&name, &facts),
        )
    };
    assert_eq!(judged("none").verdict, Verdict::Ok);
    for silent in ["east", "west", "south"] {
        let judgement = judged(silent);
        assert_eq!(judgement.verdict, Verdict::Unknown, "{judgement:?}");
        let said = format!("database in {silent}: its store cannot be seen");
        assert_eq!(judgement.reasons, [said]);
    }
}

#[test]
fn two_primaries_are_a_breach() {
    let running = |role| RegionFacts {
        instance: Instance::Running {
            role,
            timeline: TimelineId(1),
            position: Lsn(1),
            replayed: None,
        },
        log: Ok(None),
        detail: Value::Null,
        late: Vec::new(),
    };
    let judged = |west| {
        let regions = BTreeMap::from([
            ("east".parse().unwrap(), running(Role::Primary)),
            ("west".parse().unwrap(), west),
        ]);
        let facts = Facts {
            observed_at: at(0),
            system_identifier: None,
            claim: None,
            regions,
        };
        let none = BTreeSet::new();
        let name: ResourceName = "database".parse().unwrap();
        let verdict = instances(&name, &record(), &facts, &none).verdict;
        (verdict, two_primaries(&BTreeMap::from([(name, facts)])))
    };
    assert_eq!(judged(running(Role::Standby)), (Verdict::Ok, false));
    assert_eq!(judged(running(Role::Primary)), (Verdict::Breach, true));
}

/// Both are stopped; started, one follows the primary, and the other accepts writes beside it.
#[test]
fn an_old_primary_that_nobody_fenced_is_no_stopped_standby() {
    let judged = |signal: Option<bool>, fenced: Option<u32>, warm: &[&str]| {
        let west = RegionFacts {
            instance: Instance::Stopped,
            log: Ok(None),
            detail: serde_json::json!({
                "host": "west",
                "data_directory": "/db",
                "directory": { "Ok": {
                    "path": "/db",
                    "system_identifier": SystemIdentifier(7),
                    "timeline": 1,
                    "state": "in production",
                    "fenced": fenced,
                    "signal": signal,
                } },
                "claimed": null,
            }),
            late: Vec::new(),
        };
        let facts = facts(at(0), [("west", west)]);
        let warm = warm.iter().map(|region| region.parse().unwrap()).collect();
        let name = "database".parse().unwrap();
        instances(&name, &record(), &facts, &warm)
            .reasons
            .join("; ")
    };
    for warm in [&["west"][..], &[]] {
        let said = judged(Some(false), None, warm);
        assert!(
            said.contains("not fenced") && said.contains("do not start it"),
            "{said}"
        );
    }
    for signal in [Some(true), None] {
        let said = judged(signal, None, &["west"]);
        assert!(said.contains("; start it, or build it anew"), "{said}");
    }
    // One that was fenced answers nobody, whoever starts it.
    let said = judged(Some(true), Some(1), &["west"]);
    assert!(
        said.contains("is quarantined") && !said.contains("start it"),
        "{said}"
    );
}

#[test]
fn a_standby_that_is_configured_has_to_be_usable() {
    let standby = |timeline| Instance::Running {
        role: Role::Standby,
        timeline: TimelineId(timeline),
        position: Lsn(1),
        replayed: None,
    };
    let judged = |instance, warm: &[&str]| {
        let west = RegionFacts {
            instance,
            log: Ok(None),
            detail: Value::Null,
            late: Vec::new(),
        };
        let facts = facts(at(0), [("west", west)]);
        let claim = dr_coordination::register::ClusterClaim {
            system_identifier: SystemIdentifier(7),
            timeline: TimelineId(2),
            start_lsn: None,
            log_epoch: None,
        };
        let name = "database".parse().unwrap();
        let record = EpochRecord {
            clusters: BTreeMap::from([("database".parse().unwrap(), claim)]),
            ..record()
        };
        let warm = warm.iter().map(|region| region.parse().unwrap()).collect();
        instances(&name, &record, &facts, &warm).verdict
    };
    let unseen = Instance::Unreachable {
        why: "gone".to_owned(),
        runs: false,
        on_host: false,
        hint: None,
    };
    assert_eq!(judged(standby(2), &["west"]), Verdict::Ok);
    assert_eq!(judged(standby(1), &["west"]), Verdict::Breach);
    assert_eq!(judged(Instance::Stopped, &["west"]), Verdict::Breach);
    assert_eq!(judged(Instance::Absent, &["west"]), Verdict::Breach);
    assert_eq!(judged(unseen, &["west"]), Verdict::Unknown);
    assert_eq!(judged(Instance::Stopped, &[]), Verdict::Ok);
}

#[test]
fn a_register_beside_its_primary_is_objected_to() {
    let judged = |register: &str| {
        let record = EpochRecord {
            register: register.parse().unwrap(),
            ..record()
        };
        let view = RegisterView {
            region: Some(record.register.clone()),
            proven: true,
            damaged: false,
            problem: None,
        };
        let regions = ["east", "west"].map(|name| name.parse().unwrap());
        let (facts, warm, rpo) = (BTreeMap::new(), Warm::new(), Duration::ZERO);
        let judged = workload(&regions, Some(&record), &view, &facts, &[], &warm, rpo);
        judged.rest.verdict
    };
    assert_eq!(judged("west"), Verdict::Ok);
    assert_eq!(judged("east"), Verdict::Breach);
}

/// A register that does not answer is unknown; one with records missing is objected to, whatever else is well.
#[test]
fn a_damaged_register_is_a_breach() {
    let judged = |record: Option<&EpochRecord>, damaged| {
        let view = RegisterView {
            region: None,
            proven: false,
            damaged,
            problem: Some("record 2 is missing".to_owned()),
        };
        let regions = ["east", "west"].map(|name| name.parse().unwrap());
        let (facts, warm, rpo) = (BTreeMap::new(), Warm::new(), Duration::ZERO);
        let judged = workload(&regions, record, &view, &facts, &[], &warm, rpo);
        both(judged.protection, judged.rest).verdict
    };
    let newest = record();
    assert_eq!(judged(Some(&newest), true), Verdict::Breach);
    assert_eq!(judged(Some(&newest), false), Verdict::Unknown);
    assert_eq!(judged(None, true), Verdict::Breach);
}

#[test]
fn a_daemon_is_well_only_if_it_says_so_or_is_seen_at_work() {
    let judged = |status: Option<&str>, took_log: Option<i64>, died: Option<u32>| {
        let view = DaemonView {
            region: "west".parse().unwrap(),
            status: status.map(str::to_owned),
            uptime_seconds: None,
            took_log_at: took_log.map(at),
            died,
            problems: vec!["ship orders/database: no space left".to_owned()],
        };
        daemons([&view], at(1000)).verdict
    };
    for (status, took_log, died, expected) in [
        (Some("unhealthy"), Some(1000), None, Verdict::Breach),
        (Some("unknown"), Some(1000), None, Verdict::Unknown),
        (Some("healthy"), None, None, Verdict::Ok),
        // Of another machine: its store says that it works, or nothing does.
        (None, Some(970), None, Verdict::Ok),
        (None, Some(969), None, Verdict::Unknown),
        (None, None, None, Verdict::Unknown),
        // Of this machine, and killed: what it wrote before does not count.
        (None, Some(1000), Some(4711), Verdict::Unknown),
    ] {
        assert_eq!(
            judged(status, took_log, died),
            expected,
            "{status:?} {took_log:?} {died:?}"
        );
    }
    assert_eq!(daemons([], at(1000)).verdict, Verdict::Ok);
}

#[test]
fn a_failed_recovery_point_is_a_breach_and_protects_only_beside_another() {
    let mut failed = log();
    failed.recovery_points[0].failure = Some("a pack is damaged".to_owned());
    let judgement = judged(Ok(Some(failed.clone())));
    assert_eq!(judgement.verdict, Verdict::Breach);
    assert!(
        judgement.reasons[0].contains("a pack is damaged"),
        "{judgement:?}"
    );

    let mut beside = failed;
    beside.recovery_points.extend(log().recovery_points);
    assert_eq!(judged(Ok(Some(beside.clone()))).verdict, Verdict::Ok);
    assert_eq!(newest(beside).verdict, Verdict::Breach);

    // One that cannot be restored is not among the others any more.
    let mut passed_over = log();
    assert_eq!(newest(passed_over.clone()).verdict, Verdict::Ok);
    passed_over.unusable = vec!["20261120T093005Z-0001: no key".to_owned()];
    assert_eq!(newest(passed_over.clone()).verdict, Verdict::Ok);
    // Of one second, so that nobody can tell.
    passed_over.unusable = vec!["20261121T093005Z-0000: no key".to_owned()];
    assert_eq!(newest(passed_over.clone()).verdict, Verdict::Breach);
    passed_over.unusable = vec!["20261122T093005Z-0001: no key".to_owned()];
    let judgement = newest(passed_over);
    assert_eq!(judgement.verdict, Verdict::Breach);
    assert!(judgement.reasons[0].contains("no key"), "{judgement:?}");
}

#[test]
fn that_no_recovery_point_can_be_restored_is_not_that_there_is_none() {
    let mut none = log();
    none.recovery_points.clear();
    let judgement = judged(Ok(Some(none.clone())));
    assert!(judgement.reasons[0].contains("there is no recovery point"));
    none.unusable = vec!["20261120T093005Z-0001: no key".to_owned()];
    let judgement = judged(Ok(Some(none)));
    assert_eq!(judgement.verdict, Verdict::Breach);
    assert!(judgement.reasons[0].ends_with("can be restored: 20261120T093005Z-0001: no key"));
}

/// Judges the newest recovery point of a store that holds this.
fn newest(log: LogFacts) -> Judgement {
    let seen = absent(Ok(Some(log)));
    let facts = facts(at(1000), [("west", seen)]);
    newest_points(&"database".parse().unwrap(), &facts)
}

/// While nobody receives for the store that they wait for, commits hang, whatever was true when that was last looked at.
#[test]
fn commits_that_hang_are_a_breach() {
    let name: ResourceName = "database".parse().unwrap();
    let waits = |regions: &[&str]| {
        let regions = regions.iter().map(|region| region.parse().unwrap());
        EpochRecord {
            sync: BTreeMap::from([(name.clone(), regions.collect())]),
            ..record()
        }
    };
    let slots = |active, silent_seconds, commit_waits_seconds| {
        let slot = Slot {
            name: "dr_west".to_owned(),
            region: Some("west".parse().unwrap()),
            active,
            wal_status: None,
            restart_lsn: None,
            kept_bytes: None,
            safe_bytes: None,
            free_bytes: None,
            disk_bytes: None,
            silent_seconds,
            commit_waits_seconds,
        };
        BTreeMap::from([(name.clone(), vec![slot])])
    };
    let judged = |regions: &[&str], active| {
        let record = waits(regions);
        commits(Some(&record), &slots(active, None, None)).verdict
    };
    // One that stands still goes on to be shown as streaming; one that has nothing to confirm holds nobody up.
    let silent = |silent, waits_for| {
        let slots = slots(true, Some(silent), waits_for);
        commits(Some(&waits(&["west"])), &slots).verdict
    };
    assert_eq!(silent(11.0, Some(11.0)), Verdict::Breach);
    assert_eq!(silent(11.0, None), Verdict::Ok);
    assert_eq!(silent(1.0, Some(11.0)), Verdict::Ok);
    assert_eq!(judged(&[], false), Verdict::Ok);
    assert_eq!(judged(&["west"], true), Verdict::Ok);
    assert_eq!(judged(&["west"], false), Verdict::Breach);
    assert_eq!(judged(&["west", "north"], true), Verdict::Breach);
    // A primary that was not asked says nothing.
    assert_eq!(commits(Some(&waits(&["west"])), &BTreeMap::new()), fine());
}

/// What nobody has seen, or not for a while, is not known to hold.
#[rstest]
#[case::held(Some((2, true, 995)), Verdict::Ok)]
#[case::broken(Some((2, false, 995)), Verdict::Breach)]
#[case::last_seen_long_ago(Some((2, true, 970)), Verdict::Unknown)]
#[case::of_an_epoch_before(Some((1, true, 995)), Verdict::Unknown)]
#[case::never_seen(None, Verdict::Unknown)]
fn conditions_that_are_not_known_are_not_healthy(
    #[case] seen: Option<(u64, bool, i64)>,
    #[case] expected: Verdict,
) {
    let name: ResourceName = "database".parse().unwrap();
    let record = EpochRecord {
        sync: BTreeMap::from([(name.clone(), vec!["west".parse().unwrap()])]),
        ..record()
    };
    let promise = seen.map(|(epoch, held, checked_at)| PromiseFacts {
        held,
        checked_at: at(checked_at),
        reasons: Vec::new(),
        epoch: Epoch(epoch),
        from: None,
    });
    let seen = absent(Ok(Some(LogFacts { promise, ..log() })));
    let facts = facts(at(1000), [("west", seen)]);
    assert_eq!(promises(&name, &record, &facts).verdict, expected);
}

/// A secondary that was left behind leads clients to a region that may be gone.
#[test]
fn name_servers_that_lag_or_are_silent_are_named() {
    let mut seen = TrafficView {
        name: "rfc2136 orders.acme.example".to_owned(),
        region: Some("east".parse().unwrap()),
        answer: Some("10.0.2.20".to_owned()),
        epoch: Some(Epoch(2)),
        ttl_seconds: Some(5),
        problem: None,
        elsewhere: BTreeMap::new(),
        silent: BTreeMap::new(),
    };
    assert_eq!(leads(&record(), &seen).verdict, Verdict::Ok);
    let silent = ("server 192.0.2.53:53".to_owned(), "no answer".to_owned());
    seen.silent.extend([silent]);
    let judged = leads(&record(), &seen);
    assert_eq!(judged.verdict, Verdict::Unknown);
    assert!(judged.reasons[0].contains("server 192.0.2.53:53: no answer"));
    let lagging = ("server 192.0.2.54:53".to_owned(), "10.8.2.20".to_owned());
    seen.elsewhere.extend([lagging]);
    let judged = leads(&record(), &seen);
    assert_eq!(judged.verdict, Verdict::Breach);
    let said = judged.reasons.join("; ");
    assert!(
        said.contains("server 192.0.2.54:53 still answers"),
        "{said}"
    );
}
