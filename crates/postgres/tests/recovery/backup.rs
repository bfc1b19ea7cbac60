//! Taking, listing and copying.

use std::time::Duration;

use dr_provider::driver::Backup as _;
use dr_provider::error::chain;
use dr_provider::store::list_all;

use crate::server::PATIENCE;
use crate::site::{EAST, Site, WEST, region};

#[tokio::test]
async fn a_backup_is_listed_and_copied_once_its_log_is_there() {
    let site = Site::start(1).await;
    let point = site.back_up().await;
    assert!(point.start < point.stop && point.database_bytes > 20 << 20);
    assert!(point.started_at < point.stopped_at && point.stopped_at <= site.primary.now().await);
    assert_eq!(
        site.driver.list(&site.store(EAST)).await.unwrap().complete,
        std::slice::from_ref(&point)
    );
    assert_eq!(
        site.driver.list(&site.store(WEST)).await.unwrap().complete,
        []
    );

    let copied = site
        .driver
        .copy(&region(EAST), &region(WEST), None)
        .await
        .unwrap();
    assert_eq!(copied.copied, [point.label.as_str()]);
    assert_eq!(copied.copied_bytes, point.stored_bytes);
    assert_eq!(
        site.driver.list(&site.store(WEST)).await.unwrap().complete,
        std::slice::from_ref(&point)
    );
    let again = site
        .driver
        .copy(&region(EAST), &region(WEST), None)
        .await
        .unwrap();
    assert_eq!((again.present, again.copied_bytes), (vec![point.label], 0));
}

/// A recovery point is there when everything is that it needs (R2, R38).
#[tokio::test]
async fn a_point_without_its_log_is_not_copied() {
    let site = Site::start(1).await;
    let point = {
        let east = region(EAST);
        let take = site.driver.take(&east);
        let ship = async {
            loop {
                site.push(EAST).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            report = take => report.unwrap().recovery_point,
            () = ship => unreachable!(),
        }
    };
    let copied = site
        .driver
        .copy(&region(EAST), &region(WEST), None)
        .await
        .unwrap();
    assert!(copied.copied.is_empty());
    let [why] = copied.unusable.as_slice() else {
        panic!("{copied:?}")
    };
    assert!(
        why.starts_with(&point.label) && why.contains("has none of it"),
        "{why}"
    );
}

/// Nothing is listed before its log is in the store (R2).
#[tokio::test]
async fn a_backup_that_is_cut_off_stays_invisible() {
    let site = Site::start(16).await;
    // More than a pack for each of several workers, also compressed.
    site.primary
        .sql(
            "create table noise as select n, \
             (select string_agg(md5(n::text || i), '') from generate_series(1, 60) i) \
             from generate_series(1, 60000) n",
        )
        .await;
    let east = region(EAST);
    let store = site.store(EAST);
    let pack = async {
        loop {
            let objects = list_all(&*store, "postgres/").await.unwrap();
            if objects
                .iter()
                .any(|object| object.key.as_str().contains("/packs/"))
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Without its log it is not committed.
    tokio::select! {
        report = site.driver.take(&east) => panic!("{report:?}"),
        packed = tokio::time::timeout(PATIENCE, pack) => packed.unwrap(),
    }
    assert_eq!(
        site.driver.list(&site.store(EAST)).await.unwrap().complete,
        []
    );
    site.back_up().await;
    assert_eq!(
        site.driver
            .list(&site.store(EAST))
            .await
            .unwrap()
            .complete
            .len(),
        1
    );
}

#[tokio::test]
async fn only_the_primary_of_the_epoch_is_backed_up() {
    let site = Site::start(1).await;
    let error = site.driver.take(&region(WEST)).await.unwrap_err();
    assert!(
        chain(&error).contains("has its primary in us-east-1"),
        "{}",
        chain(&error)
    );
    site.open_epoch(2, 2).await;
    let error = site.driver.take(&region(EAST)).await.unwrap_err();
    assert!(
        chain(&error).contains("epoch 2 claims timeline 2"),
        "{}",
        chain(&error)
    );
}
