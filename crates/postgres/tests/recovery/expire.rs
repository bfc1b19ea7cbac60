//! Retention: what is given up and deleted, judged by what still comes back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dr_coordination::Patience;
use dr_coordination::chain::{ChainId, Floor, log_start};
use dr_model::{Clock as _, Epoch, Lsn, Retention, SegmentSize, SystemClock, TimelineId};
use dr_postgres::BackupOptions;
use dr_provider::driver::{
    Backup as _, Expire, ExpireRequest, ExpiryReport, HoldNote, LogStream as _, RecoveryPoint,
    Restore, RestoreRequest, RestoreTarget, Verify, VerifyHow, VerifyRequest,
};
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind};
use jiff::Timestamp;

use crate::restore::{recover, restore, walk};
use crate::server::Server;
use crate::site::{EAST, Site, region};

const NEWEST: Retention = Retention {
    last: 1,
    ..Retention::NOTHING
};

async fn expire(site: &Site, labels: &[&str]) -> Result<ExpiryReport, Error> {
    let request = ExpireRequest {
        region: region(EAST),
        retention: NEWEST,
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
    };
    let planned = Expire::plan_expiry(&site.driver, &request).await?;
    let report = Expire::expire(&site.driver, &request).await?;
    assert_eq!(planned, report.plan, "what is shown is what is done");
    Ok(report)
}

async fn listed(site: &Site) -> Vec<String> {
    let points = site.driver.list(&site.store(EAST)).await.unwrap();
    points
        .complete
        .into_iter()
        .map(|point| point.label)
        .collect()
}

/// Returns the directory of the cluster in the eastern store.
async fn place(site: &Site) -> PathBuf {
    let cluster = site.primary.system_identifier().await;
    site.place(EAST).join(format!("postgres/{cluster}"))
}

/// Makes all tombstones older than the grace.
pub(crate) async fn let_the_grace_pass(site: &Site) {
    for entry in fs::read_dir(place(site).await.join("tomb")).unwrap() {
        fs::write(
            entry.unwrap().path(),
            r#"{"marked_at":"2026-01-01T00:00:00Z"}"#,
        )
        .unwrap();
    }
}

/// Compacts, and removes the chunks before the last segment as compaction does once they are old.
async fn compact(site: &Site) -> Lsn {
    let report = site.driver.compact(&region(EAST)).await.unwrap();
    assert_eq!(report.missing, Vec::<String>::new());
    let part = place(site).await.join("wal/00000001/part/00000001");
    let links = |part: &Path| {
        let mut links: Vec<Lsn> = fs::read_dir(part)
            .unwrap()
            .filter_map(|entry| Lsn::from_key(entry.unwrap().file_name().to_str().unwrap()))
            .collect();
        links.sort_unstable();
        links
    };
    let all = links(&part);
    let floor = *all.last().unwrap();
    let chain = ChainId {
        system_identifier: site.primary.system_identifier().await,
        timeline: TimelineId(1),
        epoch: Epoch(1),
    };
    let record = Floor {
        version: 1,
        system_identifier: chain.system_identifier,
        timeline: chain.timeline,
        epoch: chain.epoch,
        lsn: floor,
        created_at: Timestamp::UNIX_EPOCH,
        writer: "test".to_owned(),
    };
    let store = site.store(EAST);
    store
        .create(&Floor::key(&chain, floor), record.to_bytes())
        .await
        .unwrap();
    for link in all.iter().filter(|link| **link < floor) {
        fs::remove_file(part.join(link.to_key())).unwrap();
    }
    floor
}

/// Backs up, and waits until the next one gets a label of another second: those of one are in no order.
async fn back_up(site: &Site) -> RecoveryPoint {
    let point = site.back_up().await;
    let clock = SystemClock::new();
    let second = |at: Timestamp| at.as_second();
    let begun = second(point.started_at);
    while second(clock.now()) <= begun {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    point
}

async fn commit_and_push(site: &Site, entries: u32) {
    site.commit(entries).await;
    site.switch().await;
    site.push(EAST).await;
}

#[tokio::test]
async fn what_is_not_kept_goes_with_its_log_and_the_rest_comes_back() {
    let mut site = Site::start(1).await;
    site.back_up_by(BackupOptions::default());
    commit_and_push(&site, 100).await;
    let mut points: Vec<RecoveryPoint> = Vec::new();
    for _ in 0..3 {
        points.push(back_up(&site).await);
        commit_and_push(&site, 50).await;
    }
    commit_and_push(&site, 50).await;
    let [first, second, third] = points.as_slice() else {
        panic!("three");
    };
    assert!(third.taken.parent.is_some(), "{:?}", third.taken);
    let expected = Site::ledger(&site.primary).await;
    let note = HoldNote {
        by: "ann".to_owned(),
        reason: "audit".to_owned(),
        since: Timestamp::UNIX_EPOCH,
    };
    let store = site.store(EAST);
    site.driver
        .hold(&store, &second.label, &note)
        .await
        .unwrap();

    let report = expire(&site, &[]).await.unwrap();
    assert_eq!(report.plan.given_up, std::slice::from_ref(&first.label));
    assert_eq!(
        listed(&site).await,
        [third.label.clone(), second.label.clone()]
    );
    // Nothing goes within the grace, and not below what is still in chunks.
    assert_eq!((report.deleted_objects, report.deleted_pieces), (0, 0));
    assert_eq!(
        expire(&site, &[]).await.unwrap().plan.waiting[0].label,
        first.label
    );
    // Whoever names it hears that it is there, and what brings it back.
    let named = RestoreRequest {
        recovery_point: Some(first.label.clone()),
        ..RestoreRequest::new(region(EAST), RestoreTarget::Latest, site.place("given-up"))
    };
    let restored = Restore::restore(&site.driver, &named).await.unwrap_err();
    let look = VerifyRequest {
        region: region(EAST),
        recovery_point: Some(first.label.clone()),
        how: VerifyHow::Hash { again: false },
    };
    let verified = Verify::verify(&site.driver, &look).await.unwrap_err();
    for error in [restored, verified] {
        assert!(chain(&error).contains("was given up in"), "{error}");
        let hint = error.hint().unwrap();
        assert!(
            hint.contains(&format!("hold orders/database {}", first.label)),
            "{hint}"
        );
        assert!(
            hint.contains("expire orders/database --in us-east-1"),
            "{hint}"
        );
    }
    // Until then somebody may want it after all.
    let later = HoldNote {
        since: SystemClock::new().now(),
        ..note.clone()
    };
    let held = site.driver.hold(&store, &first.label, &later).await;
    held.unwrap();
    let report = expire(&site, &[]).await.unwrap();
    assert_eq!(report.plan.taken_back, std::slice::from_ref(&first.label));
    assert_eq!(listed(&site).await.len(), 3);
    let released = site.driver.release(&store, &first.label).await;
    released.unwrap();
    let report = expire(&site, &[]).await.unwrap();
    assert_eq!(report.plan.given_up, std::slice::from_ref(&first.label));

    let_the_grace_pass(&site).await;
    // The held one needs its log only up to where it is consistent: what is between goes.
    let floor = compact(&site).await;
    assert!(third.start < floor);
    let report = expire(&site, &[]).await.unwrap();
    assert_eq!(report.plan.swept[0].label, first.label);
    assert!(report.plan.swept[0].shared_packs > 0, "{report:?}");
    assert!(
        report.deleted_objects > 0 && report.deleted_pieces > 0,
        "{report:?}"
    );
    let backup = place(&site).await.join("backup").join(&first.label);
    assert!(!backup.join("manifest").exists() && backup.join("packs").exists());
    assert!(!place(&site).await.join("tomb").join(&first.label).exists());

    // What is left is all that was promised: compaction misses nothing, and both come back.
    let report = site.driver.compact(&region(EAST)).await.unwrap();
    assert_eq!(report.missing, Vec::<String>::new());
    let server = recover(&site, EAST, RestoreTarget::Latest, "latest").await;
    assert_eq!(Site::ledger(&server).await, expected);
    let held = dr_provider::driver::RestoreRequest {
        recovery_point: Some(second.label.clone()),
        ..dr_provider::driver::RestoreRequest::new(
            region(EAST),
            RestoreTarget::Immediate,
            site.place("held"),
        )
    };
    dr_provider::driver::Restore::restore(&site.driver, &held)
        .await
        .unwrap();
    let server = Server::start(&held.directory, &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    let entries = Site::ledger(&server).await;
    assert_eq!(entries, expected[..entries.len()]);

    // What was given up is refused, never taken for the end of the log.
    let cluster = site.primary.system_identifier().await;
    let start = log_start(&*store, cluster, TimelineId(1), Patience::default())
        .await
        .unwrap();
    assert!(start > Lsn::INVALID && start <= third.start);
    let size = SegmentSize::try_from(1 << 20).unwrap();
    let gone = size.file_name(TimelineId(1), size.start_of(first.start));
    let fetched = site
        .driver
        .fetch_wal(&region(EAST), &gone, &site.place("f"), None)
        .await;
    assert!(fetched.is_err(), "{fetched:?}");
    let early = site.place("e");
    let too_early = restore(&site, EAST, RestoreTarget::Time(first.stopped_at), &early).await;
    assert_eq!(too_early.unwrap_err().kind(), ErrorKind::Failed);
    assert!(!site.place("e").exists());

    site.driver.release(&store, &second.label).await.unwrap();
    let error = site
        .driver
        .release(&store, &second.label)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        expire(&site, &[]).await.unwrap().plan.given_up,
        std::slice::from_ref(&second.label)
    );
}

/// What is kept of the log can be restored: its first recovery point behind a hole stays as long as it does.
#[tokio::test]
async fn log_behind_a_hole_keeps_what_it_is_restored_from() {
    let site = Site::start(1).await;
    commit_and_push(&site, 50).await;
    let first = back_up(&site).await;
    let second = back_up(&site).await;
    for _ in 0..4 {
        commit_and_push(&site, 20).await;
    }
    let request = ExpireRequest {
        region: region(EAST),
        retention: Retention {
            log: Some(Duration::from_secs(31 * 24 * 3600)),
            ..NEWEST
        },
        labels: Vec::new(),
    };
    let third = back_up(&site).await;
    commit_and_push(&site, 20).await;
    let at = site.primary.now().await;
    let moment = Site::ledger(&site.primary).await;
    commit_and_push(&site, 20).await;
    let fourth = back_up(&site).await;
    commit_and_push(&site, 20).await;
    let fifth = back_up(&site).await;
    commit_and_push(&site, 20).await;
    let gone = |points: &[&RecoveryPoint]| {
        let mut labels: Vec<String> = points.iter().map(|point| point.label.clone()).collect();
        labels.sort_unstable();
        labels
    };
    let plan = Expire::plan_expiry(&site.driver, &request).await.unwrap();
    let mut given_up = plan.given_up;
    given_up.sort_unstable();
    assert_eq!(given_up, gone(&[&second, &third, &fourth]));

    // Not the segment behind the second recovery point, but the next.
    let size = 1 << 20;
    let hole = second.stop.0.next_multiple_of(size) + size;
    assert!(hole + size < third.start.0);
    let links = walk(&site.place(EAST)).into_iter();
    let mut links = links.filter(|path| path.ends_with(&format!("/{hole:016X}")));
    fs::remove_file(links.next().unwrap()).unwrap();
    let report = Expire::expire(&site.driver, &request).await.unwrap();
    let mut given_up = report.plan.given_up;
    given_up.sort_unstable();
    assert_eq!(given_up, gone(&[&second, &fourth]));
    let kept = report.plan.kept.iter();
    let why = |point: &RecoveryPoint| {
        let kept = kept.clone().find(|kept| kept.label == point.label);
        kept.unwrap().why.join("; ")
    };
    for point in [&first, &third] {
        assert!(why(point).contains("from it on"), "{}", why(point));
    }
    assert!(why(&fifth).contains("the newest"), "{}", why(&fifth));
    let server = recover(&site, EAST, RestoreTarget::Time(at), "moment").await;
    assert_eq!(Site::ledger(&server).await, moment);
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_stops_everything_until_a_person_gives_it_up() {
    let site = Site::start(1).await;
    commit_and_push(&site, 50).await;
    let mut labels = Vec::new();
    for _ in 0..3 {
        labels.push(back_up(&site).await.label);
        commit_and_push(&site, 20).await;
    }
    let manifest = place(&site)
        .await
        .join("backup")
        .join(&labels[1])
        .join("manifest");
    let mut content = fs::read(&manifest).unwrap();
    content[40] ^= 1;
    fs::write(&manifest, content).unwrap();
    let report = expire(&site, &[]).await.unwrap();
    assert!(
        report.plan.blocked[0].contains(&labels[1]),
        "{:?}",
        report.plan.blocked
    );
    assert_eq!(report.plan.given_up, Vec::<String>::new());
    assert_eq!(listed(&site).await, [labels[2].clone(), labels[0].clone()]);

    let report = expire(&site, &[&labels[1]]).await.unwrap();
    assert!(report.plan.given_up.contains(&labels[1]), "{report:?}");
    // Until it has gone nobody knows what log it needs.
    let report = expire(&site, &[]).await.unwrap();
    assert!(
        report.plan.blocked.is_empty() && report.plan.log.is_empty(),
        "{report:?}"
    );
    let_the_grace_pass(&site).await;
    expire(&site, &[]).await.unwrap();
    assert!(!manifest.exists());
    assert_eq!(listed(&site).await, [labels[2].clone()]);
    let error = expire(&site, &["20200101T000000Z-0000"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    // The newest stays, whoever names it.
    let report = expire(&site, &[&labels[2]]).await.unwrap();
    assert_eq!(report.plan.given_up, Vec::<String>::new());
}

/// Everything below a directory, by path.
fn content(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = walk(directory).into_iter();
    files
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect()
}

/// Positions and timelines begin anew; identities do not (R35).
#[tokio::test]
async fn a_cluster_that_was_made_anew_does_not_expire_the_old_one() {
    let mut site = Site::start(1).await;
    commit_and_push(&site, 50).await;
    let old = back_up(&site).await;
    let (old_place, old_cluster) = (place(&site).await, site.primary.system_identifier().await);
    let before = content(&old_place);
    // As after an upgrade into a new cluster: another identity, timeline 1 and low positions again.
    site.replace_primary().await;
    assert_ne!(site.primary.system_identifier().await, old_cluster);
    site.open_epoch(2, 1).await;
    site.back_up_of(&site.primary.data.clone(), BackupOptions::default());
    commit_and_push(&site, 50).await;
    let mut labels = Vec::new();
    for _ in 0..2 {
        labels.push(back_up(&site).await.label);
        commit_and_push(&site, 20).await;
    }
    let report = expire(&site, &[]).await.unwrap();
    assert_eq!(report.plan.given_up, [labels[0].clone()], "{report:?}");
    let_the_grace_pass(&site).await;
    assert_eq!(expire(&site, &[]).await.unwrap().plan.swept.len(), 1);
    assert_eq!(listed(&site).await, [labels[1].clone()]);
    assert!(
        content(&old_place) == before,
        "the old cluster's objects are as they were"
    );
    let expected = Site::ledger(&site.primary).await;
    let server = recover(&site, EAST, RestoreTarget::Latest, "recovered").await;
    assert_eq!(Site::ledger(&server).await, expected);
    // The old one's recovery points are not taken for the new one's.
    let error = expire(&site, &[&old.label]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
