//! Restoring, judged by the ledger.

use std::fs;
use std::path::Path;
use std::time::Duration;

use dr_model::{Epoch, Lsn, TimelineId};
use dr_provider::driver::{
    Action, Backup as _, Fence, Proof, RecoveryPoint, Restore, RestoreReport, RestoreRequest,
    RestoreTarget, TargetAction, TargetTimeline, Undo,
};
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind, ResourceDriver};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::server::{PATIENCE, Server};
use crate::site::{EAST, Site, WEST, region};

async fn restore(
    site: &Site,
    from: &str,
    target: RestoreTarget,
    into: &Path,
) -> Result<RestoreReport, Error> {
    let request = RestoreRequest::new(region(from), target, into.to_owned());
    Restore::restore(&site.driver, &request).await
}

/// Restores, starts, and returns the server once it accepts writes.
async fn recover(site: &Site, from: &str, target: RestoreTarget, name: &str) -> Server {
    let place = site.place(name);
    let report = restore(site, from, target, &place).await.unwrap();
    assert_eq!(report.proof, Proof::Hashed);
    let server = Server::start(&place, &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    server
}

/// A site with a recovery point and a ledger of which every entry is in both stores.
async fn protected(segment_mebibytes: u32) -> (Site, RecoveryPoint) {
    let site = Site::start(segment_mebibytes).await;
    site.commit(50).await;
    let point = site.back_up().await;
    site.driver
        .copy(&region(EAST), &region(WEST))
        .await
        .unwrap();
    site.commit(300).await;
    site.switch().await;
    site.push(EAST).await;
    site.push(WEST).await;
    (site, point)
}

#[tokio::test]
async fn the_latest_state_comes_back_where_the_segments_are_of_the_usual_size() {
    let (site, _) = protected(16).await;
    let expected = Site::ledger(&site.primary).await;
    let server = recover(&site, WEST, RestoreTarget::Latest, "recovered").await;
    assert_eq!(Site::ledger(&server).await, expected);
    assert_eq!(server.sql("show archive_mode").await, "off");
}

#[tokio::test]
async fn a_time_is_reached_to_the_commit() {
    let (site, point) = protected(1).await;
    let expected = Site::ledger(&site.primary).await;
    let (_, at) = expected[expected.len() - 100];
    assert!(at > point.stopped_at);
    let server = recover(&site, WEST, RestoreTarget::Time(at), "recovered").await;
    let until = |at: Timestamp| {
        expected
            .iter()
            .filter(|(_, time)| *time <= at)
            .copied()
            .collect::<Vec<_>>()
    };
    assert_eq!(Site::ledger(&server).await, until(at));

    // After the last commit: all of it, and no error because no later commit was found.
    let (_, last) = *expected.last().unwrap();
    let server = recover(&site, EAST, RestoreTarget::Time(last), "all").await;
    assert_eq!(Site::ledger(&server).await, expected);
}

#[tokio::test]
async fn a_position_is_reached_to_the_byte() {
    let (site, _) = protected(1).await;
    site.commit(10).await;
    let at = site.primary.lsn().await;
    let expected = Site::ledger(&site.primary).await;
    site.commit(10).await;
    site.switch().await;
    site.push(WEST).await;
    let server = recover(&site, WEST, RestoreTarget::Lsn(at), "recovered").await;
    assert_eq!(Site::ledger(&server).await, expected);
    assert_eq!(server.reached(), "recovery stopping after WAL location");
    // Its end is where no record begins any more.
    let end = site.stored_end(WEST).await;
    let server = recover(&site, WEST, RestoreTarget::Lsn(end), "all").await;
    assert_eq!(
        Site::ledger(&server).await,
        Site::ledger(&site.primary).await
    );
}

/// Commits an entry and returns the number of its transaction.
async fn transaction(site: &Site) -> u64 {
    let sql = "insert into ledger (filler) values ('x') returning pg_current_xact_id()::text";
    site.primary.sql(sql).await.parse().unwrap()
}

#[tokio::test]
async fn a_transaction_is_reached_with_it_or_without_it() {
    let (site, _) = protected(1).await;
    let without = Site::ledger(&site.primary).await;
    let number = transaction(&site).await;
    let with = Site::ledger(&site.primary).await;
    site.commit(50).await;
    // A second recovery point: the target is in the log before it.
    site.back_up().await;
    site.commit(10).await;
    site.switch().await;
    site.push(EAST).await;
    let target = RestoreTarget::Transaction(number);
    let server = recover(&site, EAST, target.clone(), "with").await;
    assert_eq!(Site::ledger(&server).await, with);
    let place = site.place("without");
    let request = RestoreRequest {
        exclusive: true,
        ..RestoreRequest::new(region(EAST), target, place.clone())
    };
    Restore::restore(&site.driver, &request).await.unwrap();
    let server = Server::start(&place, &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    assert_eq!(Site::ledger(&server).await, without);
}

#[tokio::test]
async fn a_restore_point_is_reached_by_its_name() {
    let (site, _) = protected(1).await;
    site.primary
        .sql("select pg_create_restore_point('before the change')")
        .await;
    let expected = Site::ledger(&site.primary).await;
    site.commit(30).await;
    site.switch().await;
    site.push(WEST).await;
    let target = RestoreTarget::Name("before the change".to_owned());
    let server = recover(&site, WEST, target, "recovered").await;
    assert_eq!(Site::ledger(&server).await, expected);
    assert_eq!(
        server.reached(),
        "recovery stopping at restore point \"before the change\""
    );
}

#[tokio::test]
async fn consistency_is_where_an_immediate_recovery_ends() {
    let (site, point) = protected(1).await;
    let server = recover(&site, WEST, RestoreTarget::Immediate, "recovered").await;
    let ledger = Site::ledger(&server).await;
    let all = Site::ledger(&site.primary).await;
    assert!(ledger.len() >= 50 && ledger.len() + 300 <= all.len());
    assert_eq!(ledger, all[..ledger.len()]);
    assert_eq!(
        server.reached(),
        "recovery stopping after reaching consistency"
    );
    assert!(ledger.last().unwrap().1 <= point.stopped_at);
}

#[tokio::test]
async fn a_server_waits_or_stops_at_the_end_if_it_is_told_to() {
    let (site, _) = protected(1).await;
    let expected = Site::ledger(&site.primary).await;
    let request = |action, name: &str| RestoreRequest {
        action,
        ..RestoreRequest::new(region(WEST), RestoreTarget::Latest, site.place(name))
    };
    let paused = request(TargetAction::Pause, "paused");
    Restore::restore(&site.driver, &paused).await.unwrap();
    let server = Server::start(&paused.directory, &["track_commit_timestamp=on"]).await;
    let state = "select pg_get_wal_replay_pause_state()";
    let pausing = async {
        while server.sql(state).await != "paused" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, pausing).await.unwrap();
    assert_eq!(Site::ledger(&server).await, expected);

    let stopped = request(TargetAction::Shutdown, "stopped");
    Restore::restore(&site.driver, &stopped).await.unwrap();
    let log = Server::spawn(&stopped.directory, &[""; 0]).ended().await;
    assert!(log.contains("shutdown at recovery target"), "{log}");
}

#[tokio::test]
async fn a_plan_says_everything_and_writes_nothing() {
    let (site, point) = protected(1).await;
    let (_, last) = *Site::ledger(&site.primary).await.last().unwrap();
    let place = site.place("recovered");
    let request = RestoreRequest::new(region(WEST), RestoreTarget::Time(last), place.clone());
    let plan = Restore::plan(&site.driver, &request).await.unwrap();
    assert_eq!(plan.recovery_point, point);
    let [log] = plan.log.as_slice() else {
        panic!("{plan:?}")
    };
    assert_eq!((log.timeline, log.to), (TimelineId(1), plan.log_end));
    assert!(log.from <= point.start && point.stop < log.to);
    assert_eq!(plan.log_bytes, log.to.0 - log.from.0);
    assert_eq!(plan.log_segments, plan.log_bytes >> 20);
    assert!(plan.end_proven && plan.end.contains("no later commit"));
    assert!(!place.exists());
}

#[tokio::test]
async fn a_target_on_an_abandoned_timeline_is_reached_by_its_number() {
    let (mut site, _) = protected(1).await;
    // What is committed on timeline 1 after the fork is abandoned by timeline 2.
    let fork = site.primary.lsn().await;
    let place = site.place("copy");
    let target = RestoreTarget::Lsn(fork);
    let copy = recover(&site, WEST, target, "copy").await;
    drop(copy);
    site.commit(20).await;
    site.switch().await;
    site.push(WEST).await;
    let abandoned = Site::ledger(&site.primary).await;
    site.take_over(&place).await;
    site.open_epoch(2, 2).await;
    site.commit(5).await;
    site.switch().await;
    site.push_history(WEST, 2).await;
    site.push(WEST).await;
    let followed = Site::ledger(&site.primary).await;
    assert_ne!(followed, abandoned);

    let server = recover(&site, WEST, RestoreTarget::Latest, "latest").await;
    assert_eq!(Site::ledger(&server).await, followed);
    let request = |timeline, name: &str| RestoreRequest {
        timeline,
        ..RestoreRequest::new(region(WEST), RestoreTarget::Latest, site.place(name))
    };
    for (timeline, name) in [
        (TargetTimeline::Number(TimelineId(1)), "number"),
        (TargetTimeline::Current, "current"),
    ] {
        let request = request(timeline, name);
        Restore::restore(&site.driver, &request).await.unwrap();
        let server = Server::start(&request.directory, &["track_commit_timestamp=on"]).await;
        server.wait_until_promoted().await;
        assert_eq!(Site::ledger(&server).await, abandoned);
    }
    let unknown = request(TargetTimeline::Number(TimelineId(9)), "unknown");
    let error = Restore::plan(&site.driver, &unknown).await.unwrap_err();
    assert!(chain(&error).contains("timeline 9"), "{}", chain(&error));
}

#[tokio::test]
async fn a_target_outside_the_log_is_refused_before_anything_is_written() {
    let (site, point) = protected(1).await;
    let place = site.place("recovered");
    let after = site.primary.now().await + SignedDuration::from_hours(1);
    let cases = [
        (RestoreTarget::Time(after), "is later"),
        (
            RestoreTarget::Time(point.started_at),
            "it was complete only at",
        ),
        (
            RestoreTarget::Lsn(point.stop.advance(1 << 30)),
            "the log ends at",
        ),
        (
            RestoreTarget::Lsn(point.start),
            "it is consistent only from",
        ),
        (
            RestoreTarget::Transaction(4_000_000_000),
            "transaction 4000000000 is not in the log from",
        ),
        (
            RestoreTarget::Name("never".to_owned()),
            "restore point `never` is not in the log from",
        ),
    ];
    let earliest = [
        format!(
            "the earliest moment that can be restored is {}",
            point.stopped_at
        ),
        format!(
            "the earliest position that can be restored is {}",
            point.stop
        ),
        "the newest moment is".to_owned(),
        "the newest position is".to_owned(),
    ];
    let mut hints = Vec::new();
    for (target, expected) in cases {
        let error = restore(&site, WEST, target, &place).await.unwrap_err();
        assert!(chain(&error).contains(expected), "{}", chain(&error));
        hints.extend(error.hint().map(str::to_owned));
        assert!(!place.exists());
    }
    for expected in earliest {
        assert!(
            hints.iter().any(|hint| hint.contains(&expected)),
            "{hints:?}"
        );
    }
}

#[tokio::test]
async fn a_hole_is_named_before_anything_is_written() {
    let (site, point) = protected(1).await;
    // What follows says that all before it was there once.
    for _ in 0..2 {
        site.commit(10).await;
        site.switch().await;
        site.primary
            .sql("select pg_create_restore_point('behind it')")
            .await;
    }
    site.switch().await;
    site.push(WEST).await;
    site.push(EAST).await;
    let size = 1 << 20;
    // Not the segment behind the recovery point, but the next.
    let first = point.stop.0.next_multiple_of(size) + size;
    let links: Vec<_> = walk(&site.place(WEST))
        .into_iter()
        .filter(|path| path.ends_with(&format!("/{first:016X}")))
        .collect();
    let [link] = links.as_slice() else {
        panic!("{links:?}")
    };
    fs::remove_file(link).unwrap();
    let place = site.place("recovered");
    let now = site.primary.now().await;
    let later = Lsn(first + size + 1);
    for target in [
        RestoreTarget::Latest,
        RestoreTarget::Time(now),
        RestoreTarget::Lsn(Lsn(first + 1)),
        RestoreTarget::Lsn(later),
        RestoreTarget::Name("behind it".to_owned()),
    ] {
        let error = restore(&site, WEST, target, &place).await.unwrap_err();
        let named = format!("is missing from {} to ", Lsn(first));
        assert!(chain(&error).contains(&named), "{}", chain(&error));
        assert!(!place.exists(), "{}", chain(&error));
    }
    // Everything before the hole can be had.
    let ledger = Site::ledger(&site.primary).await;
    let before = RestoreTarget::Lsn(Lsn(first - 1));
    let server = recover(&site, WEST, before, "before").await;
    let found = Site::ledger(&server).await;
    assert!(found.len() > 300 && found.len() < ledger.len());
    assert_eq!(found, ledger[..found.len()]);
    let (_, last) = found[found.len() - 2];
    let server = recover(&site, WEST, RestoreTarget::Time(last), "time").await;
    assert_eq!(Site::ledger(&server).await, found[..found.len() - 1]);
    // The other region's store is whole.
    recover(&site, EAST, RestoreTarget::Latest, "whole").await;
}

fn walk(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path.to_str().unwrap().to_owned());
        }
    }
    found
}

#[tokio::test]
async fn a_directory_with_anything_in_it_is_left_alone() {
    let (site, _) = protected(1).await;
    let place = site.place("recovered");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("mine"), "mine").unwrap();
    let error = restore(&site, WEST, RestoreTarget::Latest, &place)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
}

#[tokio::test]
async fn a_flipped_byte_in_a_pack_is_named_and_leaves_nothing_that_starts() {
    let (site, _) = protected(1).await;
    let packs: Vec<String> = walk(&site.place(WEST))
        .into_iter()
        .filter(|path| path.contains("/packs/"))
        .collect();
    let pack = &packs[0];
    let mut content = fs::read(pack).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(pack, content).unwrap();
    let place = site.place("recovered");
    let error = restore(&site, WEST, RestoreTarget::Latest, &place)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let name = pack.split("/packs/").nth(1).unwrap();
    assert!(
        chain(&error).contains(&format!("packs/{name}")),
        "{}",
        chain(&error)
    );
    assert!(!place.join("global/pg_control").exists());
}

#[tokio::test]
async fn an_older_point_is_taken_where_the_newest_is_damaged() {
    let (site, older) = protected(1).await;
    let newer = site.back_up().await;
    let manifests: Vec<String> = walk(&site.place(EAST))
        .into_iter()
        .filter(|path| path.ends_with(&format!("{}/manifest", newer.label)))
        .collect();
    let mut content = fs::read(&manifests[0]).unwrap();
    content[40] ^= 1;
    fs::write(&manifests[0], content).unwrap();
    let listed = site.driver.list(&site.store(EAST)).await.unwrap();
    assert_eq!(listed.complete, std::slice::from_ref(&older));
    assert!(
        listed.damaged[0].starts_with(&newer.label),
        "{:?}",
        listed.damaged
    );
    let place = site.place("recovered");
    let report = restore(&site, EAST, RestoreTarget::Latest, &place)
        .await
        .unwrap();
    assert_eq!(report.plan.recovery_point, older);
    let [passed_over] = report.plan.passed_over.as_slice() else {
        panic!("{report:?}")
    };
    assert!(passed_over.starts_with(&newer.label));
}

#[tokio::test]
async fn the_log_is_followed_into_a_new_timeline() {
    let (mut site, _) = protected(1).await;
    site.restart_promoted().await;
    site.open_epoch(2, 2).await;
    site.commit(40).await;
    site.switch().await;
    site.push_history(WEST, 2).await;
    site.push(WEST).await;
    let expected = Site::ledger(&site.primary).await;
    let server = recover(&site, WEST, RestoreTarget::Latest, "recovered").await;
    assert_eq!(Site::ledger(&server).await, expected);
    assert_eq!(
        server
            .sql("select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)")
            .await,
        "00000003"
    );
}

#[tokio::test]
async fn a_store_that_goes_away_stops_a_recovery_and_does_not_end_it() {
    let (site, _) = protected(1).await;
    let place = site.place("recovered");
    restore(&site, WEST, RestoreTarget::Latest, &place)
        .await
        .unwrap();
    fs::rename(site.place(WEST), site.place("away")).unwrap();
    let log = Server::spawn(&place, &[""; 0]).ended().await;
    assert!(!log.contains("archive recovery complete"), "{log}");
    // Back again, nothing is lost.
    fs::rename(site.place("away"), site.place(WEST)).unwrap();
    let server = Server::start(&place, &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    assert_eq!(
        Site::ledger(&server).await,
        Site::ledger(&site.primary).await
    );
}

#[tokio::test]
async fn a_failover_restores_a_standby_that_waits_for_its_promotion() {
    let (site, point) = protected(1).await;
    let action = Action {
        name: "restore-base".to_owned(),
        summary: "test".to_owned(),
        current: None,
        intended: None,
        dependencies: Vec::new(),
        undo: Undo::ReadOnly,
        parameters: json!({
            "kind": "restore-base",
            "region": WEST,
            "log": {
                "system_identifier": point.system_identifier,
                "timeline": 1,
                "epoch": 1,
            },
            "label": point.label,
        }),
    };
    let fence = Fence {
        workload: "orders".parse().unwrap(),
        epoch: Epoch(2),
        execution: "test".parse().unwrap(),
    };
    ResourceDriver::apply(&site.driver, &action, &fence)
        .await
        .unwrap();
    let server = Server::start(&site.place("recovered"), &["track_commit_timestamp=on"]).await;
    let expected = Site::ledger(&site.primary).await;
    let replayed = async {
        while Site::ledger(&server).await.len() < expected.len() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, replayed).await.unwrap();
    assert_eq!(server.sql("select pg_is_in_recovery()").await, "t");
    // What comes later is followed as well.
    site.commit(5).await;
    site.switch().await;
    site.push(WEST).await;
    let expected = Site::ledger(&site.primary).await;
    let followed = async {
        while Site::ledger(&server).await != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, followed).await.unwrap();
    server.sql("select pg_promote()").await;
    let timeline = server
        .sql("select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)")
        .await;
    assert_eq!(timeline, "00000002");
}

#[tokio::test]
async fn a_copy_does_nothing_to_the_cluster_it_is_of() {
    let (mut site, _) = protected(1).await;
    let conninfo = "alter system set primary_conninfo = 'host=elsewhere'";
    for sql in [
        conninfo,
        "alter system set synchronous_standby_names = 'FIRST 1 (dr_us_west_2)'",
        "alter system set archive_command = 'touch %f'",
    ] {
        site.primary.sql(sql).await;
    }
    site.restart_with("synchronous_standby_names=").await;
    site.back_up().await;
    let place = site.place("recovered");
    let request = RestoreRequest {
        port: 5999,
        ..RestoreRequest::new(region(EAST), RestoreTarget::Immediate, place.clone())
    };
    Restore::restore(&site.driver, &request).await.unwrap();
    // The port of the command line is the only setting that is not its own.
    let server = Server::start(&place, &[""; 0]).await;
    server.wait_until_promoted().await;
    for (setting, value) in [
        ("archive_mode", "off"),
        ("archive_command", "(disabled)"),
        ("primary_conninfo", ""),
        ("primary_slot_name", ""),
        ("synchronous_standby_names", ""),
        ("max_logical_replication_workers", "0"),
    ] {
        assert_eq!(
            server.sql(&format!("show {setting}")).await,
            value,
            "{setting}"
        );
    }
    let slots = "select count(*)::text from pg_replication_slots";
    assert_eq!(server.sql(slots).await, "0");
    let own = fs::read_to_string(place.join("postgresql.auto.conf")).unwrap();
    let port = own.lines().rfind(|line| line.starts_with("port ="));
    assert_eq!(port, Some("port = '5999'"));
}

#[tokio::test]
async fn what_starts_needs_no_configuration_file_of_the_backup() {
    let (mut site, _) = protected(1).await;
    // The log says so; a server that allows fewer stops in the middle of recovery.
    site.restart_with("max_connections=177").await;
    site.commit(10).await;
    let files = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];
    for name in files {
        let away = site.place(name);
        fs::rename(site.primary.data.join(name), away).unwrap();
    }
    site.back_up().await;
    site.commit(30).await;
    let expected = Site::ledger(&site.primary).await;
    site.switch().await;
    site.push(EAST).await;
    let place = site.place("recovered");
    let request = RestoreRequest::new(region(EAST), RestoreTarget::Latest, place.clone());
    let report = Restore::restore(&site.driver, &request).await.unwrap();
    let [note] = report.plan.notes.as_slice() else {
        panic!("{report:?}")
    };
    for name in files {
        assert!(note.contains(name), "{note}");
    }
    // Whoever has no role of its own name is let in by nobody.
    fs::write(place.join("pg_hba.conf"), "local all all trust\n").unwrap();
    let server = Server::start(&place, &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    assert_eq!(server.sql("show max_connections").await, "177");
    assert_eq!(Site::ledger(&server).await, expected);
}
