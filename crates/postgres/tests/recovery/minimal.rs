//! A primary that ran at `wal_level = minimal` while nobody received its log (R8).

use dr_coordination::Patience;
use dr_coordination::chain::open_gaps;
use dr_model::Lsn;
use dr_provider::driver::{Restore, RestoreRequest, RestoreTarget};
use dr_provider::error::chain;

use crate::server::Server;
use crate::shipping::{SLOT, Shipping, begin, copy, lost_since, restore, restored_is_whole};
use crate::site::{EAST, Site, WEST, region};

/// Log that was written at `wal_level = minimal` is there as bytes and nothing can be recovered past it: whoever takes it, the receiver or the
/// archiver, leaves it out, and nothing closes that hole but a backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_at_wal_level_minimal_is_left_out() {
    let (mut site, mut shipping) = begin().await;
    let first = site.back_up_quietly().await;
    site.commit(5).await;
    let (before, then) = (site.primary.lsn().await, Site::ledger(&site.primary).await);
    site.commit(1).await;
    shipping.until_durable(&site).await;
    copy(&site).await;
    shipping.kill(&site).await;
    site.driver.drop_slot(SLOT).await.unwrap();
    site.switch().await;
    site.push(EAST).await;
    let mut at = site.primary.lsn().await;

    // Before it is stopped: a checkpoint removes log then.
    site.primary
        .sql("alter system set wal_keep_size = '64MB'")
        .await;
    site.primary.sql("select pg_reload_conf()").await;
    let minimal = ["wal_level=minimal", "max_wal_senders=0", "archive_mode=off"];
    for _ in 0..2 {
        site.restart_with(&minimal).await;
        site.commit(3).await;
        site.primary.sql("select pg_switch_wal()").await;
        site.commit(3).await;
        site.restart_with(&[]).await;
        site.commit(3).await;
    }

    let mut shipping = Shipping::start(&site);
    shipping.until_durable(&site).await;
    let said = |line: &String| line.contains("is missing from") && line.contains("wal_level");
    shipping
        .until(|frontier| frontier.problem.is_none() && frontier.alarms.iter().any(said))
        .await;
    let holes = lost_since(&site, WEST, first.start).await;
    assert!(holes.len() == 2 && holes.iter().all(said), "{holes:?}");

    // The archiver comes with it afterwards where the receiver has been, and in the east it comes first.
    site.primary.sql("select pg_switch_wal()").await;
    let end = site.primary.lsn().await;
    shipping.until_durable(&site).await;
    const SEGMENT: u64 = 1 << 20;
    at = Lsn(at.0 / SEGMENT * SEGMENT);
    while at.advance(SEGMENT) <= end {
        let sql = format!("select pg_walfile_name('{}'::pg_lsn + 1)", at);
        let name = site.primary.sql(&sql).await;
        let path = site.primary.data.join("pg_wal").join(name);
        for name in [EAST, WEST] {
            let pushed = site.driver.push_wal(&region(name), &path).await;
            pushed.unwrap_or_else(|error| panic!("{name}, {at}: {}", chain(&error)));
        }
        at = at.advance(SEGMENT);
    }
    assert_eq!(site.stored_end(EAST).await, at);
    for name in [EAST, WEST] {
        let store = site.store(name);
        let cluster = site.primary.system_identifier().await;
        let holes = open_gaps(&*store, cluster, Patience::default())
            .await
            .unwrap();
        assert_eq!(holes.len(), 2, "{name}: {holes:?}");
    }
    let refused = restore(&site, "refused").await.unwrap_err();
    assert!(
        chain(&refused).contains("is missing from"),
        "{}",
        chain(&refused)
    );
    assert!(!site.place("refused").exists());
    let target = RestoreTarget::Lsn(before);
    let request = RestoreRequest::new(region(WEST), target, site.place("before"));
    Restore::restore(&site.driver, &request).await.unwrap();
    let server = Server::start(&site.place("before"), &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    assert_eq!(Site::ledger(&server).await, then);
    drop(server);

    let second = site.back_up_quietly().await;
    site.commit(3).await;
    shipping.until_durable(&site).await;
    copy(&site).await;
    let none: Vec<String> = Vec::new();
    assert_eq!(lost_since(&site, WEST, second.start).await, none);
    restored_is_whole(&site).await;
    shipping.stop().await;
}
