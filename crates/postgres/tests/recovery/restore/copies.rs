//! What a restored server is to the cluster that it is a copy of.

use std::fs;
use std::time::Duration;

use dr_model::Epoch;
use dr_provider::ResourceDriver;
use dr_provider::driver::{Action, Fence, Restore, RestoreRequest, RestoreTarget, Undo};
use serde_json::json;

use super::protected;
use crate::server::{PATIENCE, Server};
use crate::site::{EAST, Site, WEST, region};

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
        takeovers: 0,
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

/// What is restored beside the cluster never archives into it (R30).
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
    site.restart_with(&["synchronous_standby_names="]).await;
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
    site.restart_with(&["max_connections=177"]).await;
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
