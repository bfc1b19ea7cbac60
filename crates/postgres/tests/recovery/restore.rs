//! Restoring, judged by the ledger.

use std::fs;
use std::path::Path;
use std::time::Duration;

use dr_model::{Epoch, Lsn};
use dr_provider::driver::{
    Action, Backup as _, Fence, Proof, RecoveryPoint, Restore, RestoreReport, RestoreRequest,
    RestoreTarget, Undo,
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
    let directory = into.to_owned();
    let request = RestoreRequest {
        region: region(from),
        target,
        directory,
    };
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
    ];
    for (target, expected) in cases {
        let error = restore(&site, WEST, target, &place).await.unwrap_err();
        assert!(chain(&error).contains(expected), "{}", chain(&error));
        assert!(!place.exists());
    }
}

#[tokio::test]
async fn a_hole_is_named_before_anything_is_written() {
    let (site, point) = protected(1).await;
    // What follows says that all before it was there once.
    for _ in 0..2 {
        site.commit(10).await;
        site.switch().await;
        site.push(WEST).await;
        site.push(EAST).await;
    }
    let size = 1 << 20;
    let first = point.stop.0.next_multiple_of(size);
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
    for target in [RestoreTarget::Latest, RestoreTarget::Time(now)] {
        let error = restore(&site, WEST, target, &place).await.unwrap_err();
        let named = format!("is missing from {} to ", Lsn(first));
        assert!(chain(&error).contains(&named), "{}", chain(&error));
        assert!(!place.exists(), "{}", chain(&error));
    }
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
    assert_eq!(report.recovery_point, older);
    let [passed_over] = report.passed_over.as_slice() else {
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
