//! A receiver whose slot is gone, and log with it (R19).

use std::time::Duration;

use dr_model::{Clock as _, Lsn, SegmentSize, SystemClock, TimelineId};
use dr_pgwire::{Connection, StandbyStatus};
use dr_postgres::SyncWish;
use dr_provider::ErrorKind;
use dr_provider::driver::{LogStream as _, Restore, RestoreRequest, RestoreTarget};
use dr_provider::error::chain;

use crate::server::{PATIENCE, Server};
use crate::shipping::{
    SLOT, Shipping, begin, copy, lose_slot, lost_since, restore, restored_is_whole, stored_tail,
};
use crate::site::{EAST, Site, WEST, region};

/// The slot is invalidated while the receiver is away: the loss is recorded and an alarm, a new backup is due, nothing is
/// restored across it, and the log goes on behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_with_a_slot_is_recorded_and_the_log_goes_on() {
    let (site, mut shipping) = begin().await;
    let slots = site.driver.slots().await.unwrap();
    let [slot] = slots.as_slice() else {
        panic!("{slots:?}");
    };
    assert_eq!(slot.region, Some(region(WEST)));
    assert!(slot.active && slot.free_bytes.is_some(), "{slot:?}");
    assert_eq!(slot.alarm(), None);
    let busy = site.driver.drop_slot(SLOT).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Conflict);
    let first = site.back_up_quietly().await;
    shipping.until_durable(&site).await;
    copy(&site).await;
    shipping.kill(&site).await;
    let held = stored_tail(&site).await;
    lose_slot(&site).await;

    let mut shipping = Shipping::start(&site);
    site.commit(3).await;
    shipping.until_durable(&site).await;
    let missing = format!("is missing from {held} to ");
    let said = |line: &String| line.contains(&missing) && line.contains("it was invalidated");
    let seen = shipping
        .until(|frontier| frontier.alarms.iter().any(said))
        .await;
    assert_eq!(seen.problem, None);
    let [slot] = site.driver.slots().await.unwrap().try_into().unwrap();
    assert_eq!(slot.wal_status.as_deref(), Some("reserved"));
    // A snapshot is due, also by who takes it: the daemon beside the primary.
    for name in [EAST, WEST] {
        let lost = lost_since(&site, name, first.start).await;
        assert!(lost.len() == 1 && said(&lost[0]), "{name}: {lost:?}");
    }
    let refused = restore(&site, "refused").await.unwrap_err();
    assert!(
        chain(&refused).contains(&format!("is missing from {held}")),
        "{}",
        chain(&refused)
    );
    assert!(!site.place("refused").exists());

    let second = site.back_up_quietly().await;
    site.commit(3).await;
    shipping.until_durable(&site).await;
    copy(&site).await;
    for name in [EAST, WEST] {
        let lost = lost_since(&site, name, second.start).await;
        assert_eq!(lost, Vec::<String>::new());
    }
    restored_is_whole(&site).await;

    shipping.stop().await;
    site.driver.drop_slot(SLOT).await.unwrap();
    assert_eq!(site.driver.slots().await.unwrap(), vec![]);
    let missing = site.driver.drop_slot(SLOT).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

/// As where a checkpoint comes between the look for the first segment and the first status of its receiver.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_claims_what_was_removed_is_made_anew() {
    let (site, mut shipping) = begin().await;
    shipping.until_durable(&site).await;
    shipping.kill(&site).await;
    let held = stored_tail(&site).await;
    lose_slot(&site).await;
    site.driver.drop_slot(SLOT).await.unwrap();
    let reset = "alter system reset max_slot_wal_keep_size";
    site.primary.sql(reset).await;
    site.primary.sql("select pg_reload_conf()").await;
    let make = format!("select pg_create_physical_replication_slot('{SLOT}', true)");
    site.primary.sql(&make).await;
    let status = StandbyStatus {
        write: held,
        flush: held,
        apply: Lsn::INVALID,
        sent_at: SystemClock::new().now(),
        reply_requested: false,
    };
    let claims = || async {
        let [slot] = site.driver.slots().await.unwrap().try_into().unwrap();
        slot.restart_lsn == Some(held) && slot.wal_status.as_deref() == Some("reserved")
    };
    // The server may say that the log is gone before it has read the status.
    while !claims().await {
        let mut config = site.primary.config();
        config.replication = true;
        let connection = Connection::connect(&config).await.unwrap();
        let segment = SegmentSize::try_from(1 << 20).unwrap().start_of(held);
        let started = connection.start_physical_replication(Some(SLOT), segment, TimelineId(1));
        if let Ok(mut stream) = started.await {
            let _closed = stream.send_status(&status).await;
            while stream.next().await.is_ok() {}
        }
    }

    let mut shipping = Shipping::start(&site);
    site.commit(3).await;
    shipping.until_durable(&site).await;
    let missing = format!("is missing from {held} to ");
    let said = |line: &String| line.contains(&missing) && line.contains("has removed what");
    let seen = shipping
        .until(|frontier| frontier.alarms.iter().any(said))
        .await;
    assert_eq!(seen.problem, None);
    shipping.stop().await;
}

/// Before a gap everything can be had; in it nothing, and behind it only what a backup behind it begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_is_reached_on_either_side_of_a_gap_and_refused_in_it() {
    let (site, mut shipping) = begin().await;
    site.back_up_quietly().await;
    site.commit(5).await;
    let (before, then) = (site.primary.lsn().await, Site::ledger(&site.primary).await);
    site.commit(5).await;
    shipping.until_durable(&site).await;
    copy(&site).await;
    shipping.kill(&site).await;
    let held = stored_tail(&site).await;
    lose_slot(&site).await;
    let mut shipping = Shipping::start(&site);
    site.commit(3).await;
    shipping.until_durable(&site).await;
    let behind = site.primary.lsn().await;
    let inside = held.advance(1 << 20);
    let refused = async |target: RestoreTarget| {
        let place = site.place("refused");
        let request = RestoreRequest::new(region(WEST), target, place.clone());
        let error = Restore::restore(&site.driver, &request).await.unwrap_err();
        let hole = format!("is missing from {held}");
        assert!(chain(&error).contains(&hole), "{}", chain(&error));
        assert!(!place.exists());
    };
    let reached = async |target: Lsn, name: &str| {
        let target = RestoreTarget::Lsn(target);
        let place = site.place(name);
        let request = RestoreRequest::new(region(WEST), target, place.clone());
        Restore::restore(&site.driver, &request).await.unwrap();
        let server = Server::start(&place, &["track_commit_timestamp=on"]).await;
        server.wait_until_promoted().await;
        Site::ledger(&server).await
    };
    for target in [
        RestoreTarget::Lsn(inside),
        RestoreTarget::Lsn(behind),
        RestoreTarget::Latest,
        RestoreTarget::Time(site.primary.now().await),
    ] {
        refused(target).await;
    }
    assert_eq!(reached(before, "before").await, then);

    site.back_up_quietly().await;
    site.commit(3).await;
    let (after, now) = (site.primary.lsn().await, Site::ledger(&site.primary).await);
    site.commit(1).await;
    shipping.until_durable(&site).await;
    copy(&site).await;
    refused(RestoreTarget::Lsn(inside)).await;
    refused(RestoreTarget::Lsn(behind)).await;
    assert_eq!(reached(after, "after").await, now);
    assert_eq!(reached(before, "again").await, then);
    shipping.stop().await;
}

/// The archiver still has what the slot has lost: pushed, it closes the hole, and what needed it can be restored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_archived_closes_the_hole() {
    let (site, mut shipping) = begin().await;
    let first = site.back_up_quietly().await;
    shipping.until_durable(&site).await;
    copy(&site).await;
    shipping.kill(&site).await;
    lose_slot(&site).await;
    let mut shipping = Shipping::start(&site);
    site.commit(3).await;
    shipping.until_durable(&site).await;
    assert_eq!(lost_since(&site, WEST, first.start).await.len(), 1);
    restore(&site, "refused").await.unwrap_err();

    site.switch().await;
    shipping.until_durable(&site).await;
    site.push(WEST).await;
    let none: Vec<String> = Vec::new();
    assert_eq!(lost_since(&site, WEST, Lsn::INVALID).await, none);
    restored_is_whole(&site).await;
    let compacted = site.driver.compact(&region(WEST)).await.unwrap();
    assert_eq!(compacted.missing, none);
    shipping.stop().await;
}

/// A slot that somebody dropped costs nothing as long as the primary has the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_was_dropped_in_time_loses_nothing() {
    let (site, shipping) = begin().await;
    shipping.kill(&site).await;
    site.commit(3).await;
    site.primary
        .sql("alter system set wal_keep_size = '64MB'")
        .await;
    site.primary.sql("select pg_reload_conf()").await;
    site.driver.drop_slot(SLOT).await.unwrap();
    site.switch().await;
    site.primary.sql("checkpoint").await;
    site.commit(3).await;

    let mut shipping = Shipping::start(&site);
    shipping.until_durable(&site).await;
    assert_eq!(
        lost_since(&site, WEST, Lsn::INVALID).await,
        Vec::<String>::new()
    );
    shipping.stop().await;
}

/// Commits wait for the west, and log between them is lost: they are not told that the west has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_wait_are_not_released_by_passing_over_what_is_lost() {
    const LIMIT: Duration = Duration::from_secs(30);
    let (site, shipping) = begin().await;
    let wish = SyncWish::Exactly(vec![region(WEST)]);
    let change = site.driver.change_synchronous(&wish, "test", LIMIT).await;
    change.unwrap();
    site.commit(3).await;
    shipping.kill(&site).await;
    let held = stored_tail(&site).await;
    let mut waits = site.primary.connect().await;
    let waiting = tokio::spawn(async move {
        let sql = "insert into ledger (filler) values ('waits')";
        waits.query(sql).await.unwrap();
    });
    let begun = async {
        let sql = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
        while site.primary.sql(sql).await != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    lose_slot(&site).await;

    let mut shipping = Shipping::start(&site);
    let refusal = "commits wait for the store of us-west-2";
    shipping
        .until(|frontier| frontier.problem.iter().any(|why| why.contains(refusal)))
        .await;
    assert!(!waiting.is_finished());
    assert_eq!(stored_tail(&site).await, held);
    assert_eq!(lost_since(&site, WEST, held).await.len(), 1);

    let wish = SyncWish::Exactly(Vec::new());
    let change = site.driver.change_synchronous(&wish, "test", LIMIT).await;
    change.unwrap();
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap()
        .unwrap();
    shipping.until_durable(&site).await;
    shipping.stop().await;
}
