//! Where a restore ends, and on which timeline.

use std::fs;
use std::time::Duration;

use dr_model::TimelineId;
use dr_provider::ErrorKind;
use dr_provider::driver::{Restore, RestoreRequest, RestoreTarget, TargetAction, TargetTimeline};
use dr_provider::error::chain;
use jiff::Timestamp;

use super::{protected, recover, walk};
use crate::server::{PATIENCE, Server, Version};
use crate::site::{EAST, Site, WEST, region};

#[tokio::test]
async fn the_latest_state_comes_back_where_the_segments_are_of_the_usual_size() {
    let (site, _) = protected(16).await;
    let expected = Site::ledger(&site.primary).await;
    let server = recover(&site, WEST, RestoreTarget::Latest, "recovered").await;
    assert_eq!(Site::ledger(&server).await, expected);
    assert_eq!(server.sql("show archive_mode").await, "off");
}

/// A time has a zone, and a commit is on one side of it (R29).
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

/// A prepared transaction is ended by a record of nobody, which names it: `recovery_target_xid` is compared with that.
#[tokio::test]
async fn a_prepared_transaction_is_reached_from_the_recovery_point_before_it() {
    let site = Site::start_as(Version::System, 1, &["max_prepared_transactions=5"]).await;
    let before = site.back_up().await;
    let prepare = async |name: &str, end: &str| -> u64 {
        let insert =
            "insert into ledger (filler) values ('x') returning pg_current_xact_id()::text";
        let mut connection = site.primary.connect().await;
        connection.query("begin").await.unwrap();
        let rows = connection.query(insert).await.unwrap();
        let number: String = rows.first().unwrap().get(0).unwrap();
        let prepare = format!("prepare transaction '{name}'");
        connection.query(&prepare).await.unwrap();
        // It ends behind others that began later.
        site.commit(3).await;
        let end = format!("{end} prepared '{name}'");
        connection.query(&end).await.unwrap();
        number.parse().unwrap()
    };
    let number = prepare("one", "commit").await;
    let with = Site::ledger(&site.primary).await;
    let rolled_back = prepare("two", "rollback").await;
    site.back_up().await;
    site.commit(5).await;
    site.switch().await;
    site.push(EAST).await;

    let target = RestoreTarget::Transaction(number);
    let request = RestoreRequest::new(region(EAST), target, site.place("with"));
    Restore::restore(&site.driver, &request).await.unwrap();
    let settings = ["track_commit_timestamp=on", "max_prepared_transactions=5"];
    let server = Server::start(&request.directory, &settings).await;
    server.wait_until_promoted().await;
    assert_eq!(Site::ledger(&server).await, with);
    let plan = async |number| {
        let target = RestoreTarget::Transaction(number);
        let request = RestoreRequest::new(region(EAST), target, site.place("planned"));
        Restore::plan(&site.driver, &request).await
    };
    let planned = plan(rolled_back).await.unwrap();
    assert_eq!(planned.recovery_point.label, before.label);
    assert!(planned.end_proven && planned.notes[0].contains("rolled back"));
    // That others ended prepared is no reason to believe in one that is nowhere.
    for absent in [3, number + 1_000_000] {
        let error = plan(absent).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed, "{}", chain(&error));
    }
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

/// The end of an immediate recovery is on the timeline of its backup (R28).
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

/// A timeline counts from where it forks (R28).
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
async fn the_log_is_followed_into_a_new_timeline() {
    let (mut site, _) = protected(1).await;
    site.go_on_promoted(WEST).await;
    let expected = Site::ledger(&site.primary).await;
    let server = recover(&site, WEST, RestoreTarget::Latest, "recovered").await;
    assert_eq!(Site::ledger(&server).await, expected);
    assert_eq!(
        server
            .sql("select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)")
            .await,
        "00000003"
    );

    // A server that follows the newest timeline would end on the one before if this were missing.
    let stored = walk(&site.place(WEST)).into_iter();
    let mut stored = stored.filter(|path| path.ends_with("/00000002/history"));
    let (stored, fetched) = (stored.next().unwrap(), site.place("fetched"));
    let whole = fs::read(&stored).unwrap();
    let west = region(WEST);
    let fetch = async |name: &str| site.driver.fetch_wal(&west, name, &fetched, None).await;
    for damaged in [None, Some(&b""[..]), Some(b"garbage\n")] {
        match damaged {
            None => fs::remove_file(&stored).unwrap(),
            Some(content) => fs::write(&stored, content).unwrap(),
        }
        let error = fetch("00000002.history").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", chain(&error));
        assert!(!fetched.exists());
    }
    fs::write(&stored, whole).unwrap();
    assert!(fetch("00000002.history").await.unwrap());
    assert!(!fetch("00000003.history").await.unwrap());
}
