//! A slot that would fill the primary's disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dr_model::Lsn;
use dr_provider::decorate::{Fault, Faulty, Operation, Rule};
use dr_provider::driver::{Backup as _, Frontier};
use dr_provider::error::chain;
use dr_provider::{ErrorKind, ObjectStore};
use rstest::rstest;

use crate::apart::{is_apart, mount_disk};
use crate::server::{PATIENCE, Version, run};
use crate::shipping::{Shipping, copy, lost_since, restore, restored_is_whole};
use crate::site::{EAST, Site, WEST, driver, new_directory, region};

/// Returns how much of the primary's disk is free, in percent.
fn free_percent(site: &Site) -> u64 {
    let found = rustix::fs::statvfs(&site.primary.data).unwrap();
    found.f_bavail * 100 / found.f_blocks
}

/// Log that a region does not take fills the primary's disk, whether its receiver is away or its store takes nothing: the slot is
/// dropped before, the primary goes on, and what the region lacks is recorded.
#[rstest]
#[case::away(false)]
#[case::store_takes_nothing(true)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_is_dropped_before_it_fills_the_disk(#[case] streams: bool) {
    const DISK_MEBIBYTES: u32 = 200;
    let case = if streams {
        "case_2_store_takes_nothing"
    } else {
        "case_1_away"
    };
    if !is_apart(&format!(
        "full_disk::a_slot_is_dropped_before_it_fills_the_disk::{case}"
    )) {
        return;
    }
    let directory = new_directory();
    mount_disk(&directory.path().join("primary"), DISK_MEBIBYTES);
    let few = ["min_wal_size=2MB", "max_wal_size=4MB"];
    let site = Site::start_in(directory, Version::System, 1, &few).await;
    let west = Arc::new(Faulty::scripted(site.store(WEST), Vec::new()));
    let store: Arc<dyn ObjectStore> = west.clone();
    let stores = BTreeMap::from([(region(EAST), site.store(EAST)), (region(WEST), store)]);
    let driver = driver(site.directory.path(), stores);

    let mut beside = Shipping::start_in(&driver, EAST);
    let mut away = Shipping::start_in(&driver, WEST);
    site.commit(3).await;
    beside.until_durable(&site).await;
    away.until_durable(&site).await;
    driver.take(&region(EAST)).await.unwrap();
    away.until_durable(&site).await;
    copy(&site).await;
    let mut streaming = Some(away);
    if streams {
        let never = Fault::Before(ErrorKind::Unavailable);
        west.set_rules(vec![Rule::on(Operation::Create, "postgres/*", never)]);
    } else if let Some(away) = streaming.take() {
        away.kill(&site).await;
    }
    let dropped = |frontier: &Frontier| {
        let said = |line: &String| line.starts_with("slot `dr_us_west_2` was dropped at ");
        frontier.alarms.iter().any(said)
    };
    let pressed = async {
        while !dropped(&beside.frontier.borrow()) {
            // As full as it may become, and no fuller: the log of everybody else goes on.
            if free_percent(&site) >= 5 {
                site.commit(5).await;
                site.primary.sql("select pg_switch_wal()").await;
            } else {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    if tokio::time::timeout(PATIENCE, pressed).await.is_err() {
        panic!("{}: {:?}", free_percent(&site), beside.frontier.borrow());
    }
    site.commit(5).await;
    let roomy = async {
        while free_percent(&site) < 20 {
            site.primary.sql("checkpoint").await;
        }
    };
    tokio::time::timeout(PATIENCE, roomy).await.unwrap();
    assert!(
        !site.primary.log().contains("PANIC"),
        "{}",
        site.primary.log()
    );
    beside.until_durable(&site).await;

    west.set_rules(Vec::new());
    let mut away = streaming.unwrap_or_else(|| Shipping::start_in(&driver, WEST));
    site.commit(3).await;
    away.until_durable(&site).await;
    assert_eq!(lost_since(&site, WEST, Lsn::INVALID).await.len(), 1);
    beside.until(|frontier| !dropped(frontier)).await;
    let refused = restore(&site, "refused").await.unwrap_err();
    assert!(
        chain(&refused).contains("is missing from"),
        "{}",
        chain(&refused)
    );
    driver.take(&region(EAST)).await.unwrap();
    site.commit(3).await;
    away.until_durable(&site).await;
    copy(&site).await;
    restored_is_whole(&site).await;
    away.stop().await;
    beside.stop().await;
    let mut unmount = std::process::Command::new("umount");
    run(unmount.arg("--lazy").arg(&site.primary.data));
}
