//! A primary that ran at `wal_level = minimal` while nobody received its log (R8).

use std::fs;

use dr_coordination::Patience;
use dr_coordination::chain::{Section, available, open_gaps};
use dr_model::{Lsn, TimelineId};
use dr_provider::ErrorKind;
use dr_provider::driver::{Restore, RestoreRequest, RestoreTarget};
use dr_provider::error::chain;
use dr_provider::store::list_all;

use crate::server::Server;
use crate::shipping::{SLOT, Shipping, begin, copy, lost_since, restore, restored_is_whole};
use crate::site::{EAST, Site, WEST, region};

const SEGMENT: u64 = 1 << 20;

/// Of the segments in which the first time ends and in which the second one lies all that is neither is in the store, is put there again if it
/// gets lost, and is what a file is compared with.
async fn what_is_around_it_is_kept(site: &Site) {
    let cluster = site.primary.system_identifier().await;
    let holes = async |name| {
        let holes = open_gaps(&*site.store(name), cluster, Patience::default()).await;
        let holes = holes.unwrap().into_iter();
        let holes: Vec<(Lsn, Lsn)> = holes.map(|gap| (gap.from, gap.to.unwrap())).collect();
        holes
    };
    let known = holes(WEST).await;
    let [(_, first_end), (from, to)] = known[..] else {
        panic!("{known:?}");
    };
    // A server that archives leaves its segment when it is stopped.
    let first = Lsn(first_end.0 / SEGMENT * SEGMENT);
    let start = first.advance(SEGMENT);
    let end = start.advance(SEGMENT);
    assert!(first < first_end && start < from && to < end, "{known:?}");
    let sql = format!("select pg_walfile_name('{start}'::pg_lsn + 1)");
    let file = site.primary.sql(&sql).await;
    let path = site.primary.data.join("pg_wal").join(&file);
    let held = async |name| {
        let (store, timeline) = (site.store(name), TimelineId(1));
        let held = available(
            &*store,
            Section::new(cluster, timeline, first, end),
            Patience::default(),
        )
        .await;
        let held = held.unwrap().into_iter();
        let held: Vec<(Lsn, Lsn)> = held.map(|part| (part.from, part.to)).collect();
        held
    };
    // The receiver has seen where the first time began. The archiver has the segment alone.
    assert_eq!(held(WEST).await, [(first_end, from), (to, end)]);
    assert_eq!(held(EAST).await, [(first, from), (to, end)]);

    let east = site.store(EAST);
    let prefix = format!("postgres/{cluster}/wal/");
    let chunks = list_all(&*east, &prefix).await.unwrap();
    let name = start.to_key().to_string();
    let mut chunks = chunks
        .into_iter()
        .filter(|chunk| chunk.key.file_name().contains(&name));
    east.delete(&chunks.next().unwrap().key).await.unwrap();
    assert_eq!(held(EAST).await, [(first, start), (to, end)]);
    let said = site.driver.push_wal(&region(EAST), &path).await.unwrap();
    assert!(said.contains("as a whole"), "{said}");
    assert_eq!(held(EAST).await, [(first, from), (to, end)]);

    // Where no record is, behind both.
    let other = site.place(&file);
    let mut content = fs::read(&path).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::write(&other, content).unwrap();
    let error = site
        .driver
        .push_wal(&region(WEST), &other)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", chain(&error));
    assert_eq!(holes(WEST).await, known);
}

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
    for switches in [true, false] {
        site.restart_with(&minimal).await;
        site.commit(3).await;
        if switches {
            site.primary.sql("select pg_switch_wal()").await;
        }
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
    what_is_around_it_is_kept(&site).await;
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
