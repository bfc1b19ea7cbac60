//! A cluster that `pg_upgrade` has carried into another major version, in the stores of the one before: each comes back with its own
//! version (R10, R35).

use dr_postgres::BackupOptions;
use dr_provider::ErrorKind;
use dr_provider::driver::{Backup as _, Restore, RestoreRequest, RestoreTarget};
use dr_provider::error::chain;
use rstest::rstest;

use crate::restore::recover;
use crate::server::{Server, Version};
use crate::site::{EAST, Site, region};

/// What of the ledger is the same before and after an upgrade: the times of commits stay behind.
async fn entries(server: &Server) -> String {
    let sql =
        "select count(*) || ' ' || md5(string_agg(id || filler, ',' order by id)) from ledger";
    server.sql(sql).await
}

#[rstest]
#[case::from_15_to_16(Version::System, 16)]
#[case::from_16_to_18(Version::Brought(16), 18)]
#[tokio::test]
async fn an_upgraded_cluster_and_the_one_before_come_back(#[case] from: Version, #[case] to: u32) {
    let mut site = Site::start_as(from, 1, &[]).await;
    site.commit(30).await;
    let before = site.back_up().await;
    site.commit(20).await;
    site.switch().await;
    site.push(EAST).await;
    let old_ledger = Site::ledger(&site.primary).await;
    let old_cluster = site.primary.system_identifier().await;

    site.upgrade_primary(Version::Brought(to)).await;
    site.back_up_of(&site.primary.data.clone(), BackupOptions::default());
    let cluster = site.primary.system_identifier().await;
    assert_ne!(
        cluster, old_cluster,
        "pg_upgrade makes another cluster of it"
    );
    let said = format!("it is cluster {cluster}, epoch 1 is about cluster {old_cluster}");
    let error = site.driver.take(&region(EAST)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(chain(&error).contains(&said), "{}", chain(&error));
    site.commit(1).await;
    site.switch().await;
    let segment = site.archive().join(site.segments().pop().unwrap());
    // As in the server's own directory, whose control file says which cluster it is of.
    let in_place = site
        .primary
        .data
        .join("pg_wal")
        .join(segment.file_name().unwrap());
    let error = site.driver.push_wal(&region(EAST), &in_place).await;
    let said = format!("it is of cluster {cluster}, epoch 1 is about {old_cluster}");
    let error = error.unwrap_err();
    assert!(chain(&error).contains(&said), "{}", chain(&error));

    site.open_epoch(2, 1).await;
    site.commit(20).await;
    let after = site.back_up().await;
    site.commit(20).await;
    site.switch().await;
    site.push(EAST).await;
    let listed = site.driver.list(&site.store(EAST)).await.unwrap().complete;
    let labels: Vec<&String> = listed.iter().map(|point| &point.label).collect();
    assert_eq!(labels, [&after.label], "{listed:?}");
    let server = recover(&site, EAST, RestoreTarget::Latest, "new-again").await;
    assert_eq!(entries(&server).await, entries(&site.primary).await);
    drop(server);

    // The one before is named, and starts with the programs that it was written by.
    let request = RestoreRequest {
        recovery_point: Some(before.label.clone()),
        ..RestoreRequest::new(region(EAST), RestoreTarget::Latest, site.place("old-again"))
    };
    let report = Restore::restore(&site.driver, &request).await.unwrap();
    assert_eq!(report.plan.recovery_point.label, before.label);
    let data = site.place("old-again");
    assert_eq!(Version::of(&data), from);
    let server = Server::start(&data, &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    assert_eq!(server.system_identifier().await, old_cluster);
    assert_eq!(Site::ledger(&server).await, old_ledger);
}
