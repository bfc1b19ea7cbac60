//! What is not restored, and what a restore does not touch.

use std::fs;
use std::path::Path;

use dr_model::Lsn;
use dr_provider::ErrorKind;
use dr_provider::driver::{Backup as _, Existing, Restore, RestoreRequest, RestoreTarget};
use dr_provider::error::chain;
use jiff::SignedDuration;

use super::{protected, recover, restore, walk};
use crate::server::Server;
use crate::site::{EAST, Site, WEST, region};

/// What cannot be reached is refused first (R27, R29).
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

/// A hole is found before the server would find it (R27).
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

/// Nothing is restored over anything unasked (R30).
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

/// Nobody has looked at it before: it is found out by the restore itself.
#[tokio::test]
async fn an_older_point_is_taken_where_a_pack_of_the_newest_is_short() {
    let (site, older) = protected(1).await;
    let newer = site.back_up().await;
    let packs = format!("{}/packs/", newer.label);
    let pack = walk(&site.place(EAST))
        .into_iter()
        .find(|path| path.contains(&packs));
    fs::write(pack.unwrap(), "short").unwrap();
    let place = site.place("recovered");
    let request = RestoreRequest::new(region(EAST), RestoreTarget::Latest, place.clone());
    let plan = Restore::plan(&site.driver, &request).await.unwrap();
    assert_eq!(plan.recovery_point, older);
    let report = restore(&site, EAST, RestoreTarget::Latest, &place)
        .await
        .unwrap();
    assert_eq!(report.plan.recovery_point, older);
    assert_eq!(report.plan.passed_over, plan.passed_over);
    let [passed_over] = plan.passed_over.as_slice() else {
        panic!("{plan:?}")
    };
    assert!(passed_over.starts_with(&newer.label), "{passed_over}");
    assert!(
        passed_over.contains("it has 5 bytes instead of"),
        "{passed_over}"
    );

    // Whoever names it gets to hear what is wrong with it.
    let named = RestoreRequest {
        recovery_point: Some(newer.label),
        ..RestoreRequest::new(region(EAST), RestoreTarget::Latest, site.place("named"))
    };
    let error = Restore::restore(&site.driver, &named).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(!site.place("named").exists());
}

/// Its list of files is read before anything is written, and nobody has looked at it before.
#[tokio::test]
async fn an_older_point_is_taken_where_the_list_of_files_of_the_newest_is_gone() {
    let (site, older) = protected(1).await;
    let newer = site.back_up().await;
    let tree = format!("{}/tree/", newer.label);
    let parts = walk(&site.place(EAST));
    for path in parts.into_iter().filter(|path| path.contains(&tree)) {
        fs::remove_file(path).unwrap();
    }
    let place = site.place("recovered");
    let request = RestoreRequest::new(region(EAST), RestoreTarget::Latest, place.clone());
    let plan = Restore::plan(&site.driver, &request).await.unwrap();
    assert_eq!(plan.recovery_point, older);
    let [passed_over] = plan.passed_over.as_slice() else {
        panic!("{plan:?}")
    };
    assert!(passed_over.starts_with(&newer.label), "{passed_over}");
    let report = restore(&site, EAST, RestoreTarget::Latest, &place).await;
    assert_eq!(report.unwrap().plan.recovery_point, older);
    // Whoever names it gets to hear what can be done.
    let named = RestoreRequest {
        recovery_point: Some(newer.label),
        ..RestoreRequest::new(region(EAST), RestoreTarget::Latest, site.place("named"))
    };
    let planned = Restore::plan(&site.driver, &named).await.unwrap_err();
    let restored = Restore::restore(&site.driver, &named).await.unwrap_err();
    for error in [planned, restored] {
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.hint().unwrap().contains("--recovery-point"));
    }
    assert!(!site.place("named").exists());
}

#[tokio::test]
async fn a_copy_goes_into_nothing_that_a_server_works_in() {
    let (site, _) = protected(1).await;
    let space = site.place("fast");
    fs::create_dir(&space).unwrap();
    crate::server::give_to_postgres(&space);
    let create = format!("create tablespace fast location '{}'", space.display());
    site.primary.sql(&create).await;
    for place in [space.join("copy"), site.primary.data.join("copy")] {
        for existing in [Existing::Nothing, Existing::SameCluster] {
            let request = RestoreRequest {
                existing,
                ..RestoreRequest::new(region(WEST), RestoreTarget::Latest, place.clone())
            };
            let planned = Restore::plan(&site.driver, &request).await.unwrap_err();
            let restored = Restore::restore(&site.driver, &request).await.unwrap_err();
            for error in [planned, restored] {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{}", chain(&error));
            }
        }
        assert!(!place.exists());
    }
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

/// Each file below a directory with its content.
fn content(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut paths = walk(directory);
    paths.sort();
    let content = paths
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()));
    content.collect()
}

#[tokio::test]
async fn a_pack_that_is_gone_or_short_is_named_before_anything_is_written() {
    let (site, _) = protected(1).await;
    let there = site.place("there");
    restore(&site, WEST, RestoreTarget::Latest, &there)
        .await
        .unwrap();
    let before = content(&there);
    let pack = walk(&site.place(WEST))
        .into_iter()
        .find(|path| path.contains("/packs/"));
    let pack = pack.unwrap();
    let whole = fs::read(&pack).unwrap();
    let name = &pack[pack.find("/packs/").unwrap()..];
    let new = site.place("new");
    for (length, why) in [
        (None, "it does not exist"),
        (Some(9), "it has 9 bytes instead of"),
    ] {
        match length {
            None => fs::remove_file(&pack).unwrap(),
            Some(length) => fs::write(&pack, &whole[..length]).unwrap(),
        }
        for (into, existing) in [(&new, Existing::Nothing), (&there, Existing::SameCluster)] {
            let request = RestoreRequest {
                existing,
                ..RestoreRequest::new(region(WEST), RestoreTarget::Latest, into.clone())
            };
            let planned = Restore::plan(&site.driver, &request).await.unwrap_err();
            let restored = Restore::restore(&site.driver, &request).await.unwrap_err();
            for error in [planned, restored] {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                let text = chain(&error);
                assert!(text.contains(name) && text.contains(why), "{text}");
                assert!(error.hint().unwrap().contains("--recovery-point"));
            }
        }
        assert!(!new.exists());
        assert_eq!(content(&there), before);
        fs::write(&pack, &whole).unwrap();
    }
    restore(&site, WEST, RestoreTarget::Latest, &new)
        .await
        .unwrap();
}
