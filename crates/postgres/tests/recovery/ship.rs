//! The receiver, where its chain ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dr_coordination::chain::{ChainId, ChainReader, SealRequest, Section, find_tail, seal};
use dr_coordination::{Actor, Patience};
use dr_model::{Epoch, Lsn, TimelineId};
use dr_provider::decorate::{Fault, Faulty, Operation, Rule};
use dr_provider::driver::{Frontier, LogStream as _};
use dr_provider::{ErrorKind, ObjectStore};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::server::PATIENCE;
use crate::shipping::{SLOT, Shipping, begin};
use crate::site::{EAST, Site, WEST, driver, region};

#[tokio::test]
async fn a_receiver_that_meets_a_seal_is_superseded() {
    let site = Site::start(1).await;
    let (sender, mut frontier) = watch::channel(Frontier::default());
    let (_keep, stop) = watch::channel(false);
    let west = region(WEST);
    let shipping = site.driver.ship(&west, sender, stop);
    let meanwhile = async {
        site.commit(3).await;
        let end = site.primary.lsn().await;
        let there = frontier.wait_for(|frontier| frontier.durable >= end);
        tokio::time::timeout(PATIENCE, there)
            .await
            .unwrap()
            .unwrap();
        let chain = ChainId {
            system_identifier: site.primary.system_identifier().await,
            timeline: TimelineId(1),
            epoch: Epoch(1),
        };
        let request = SealRequest {
            successor: Epoch(2),
            execution: None,
            actor: Actor::new("mira", "laptop", 1),
            at: Timestamp::UNIX_EPOCH,
            origin_if_empty: Lsn::INVALID,
        };
        let sealed = seal(&*site.store(WEST), &chain, &request, Patience::default())
            .await
            .unwrap();
        // What comes after the seal is met when it is to be stored.
        loop {
            site.commit(1).await;
            assert!(frontier.borrow().durable <= sealed.lsn);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = tokio::select! {
        ended = tokio::time::timeout(PATIENCE, shipping) => ended.unwrap(),
        () = meanwhile => unreachable!(),
    };
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Superseded);
}

/// Waits until a receiver says that.
async fn says(shipping: &mut Shipping, what: &str) {
    let said = |frontier: &Frontier| {
        let problem = frontier.problem.as_ref();
        problem.is_some_and(|problem| problem.contains(what))
    };
    shipping.until(said).await;
}

/// As of a second daemon of the region, with a state directory of its own: one streams, and the other says who is in the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_receiver_names_the_slot_and_goes_on_when_the_first_has_gone() {
    let (site, first) = begin().await;
    let driver = site.same_driver(site.directory.path());
    let mut second = Shipping::start_in(&driver, WEST);
    let said = format!("another receiver of {WEST} streams from slot `{SLOT}`");
    says(&mut second, &said).await;
    first.stop().await;
    site.commit(3).await;
    second.until_durable(&site).await;
    second.stop().await;
}

/// What was demoted may be promoted again at any moment, with another log (R23).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_the_primary_of_the_epoch_is_not_streamed_from() {
    let (mut site, shipping) = begin().await;
    shipping.stop().await;
    site.restart_as_standby().await;
    let mut shipping = Shipping::start(&site);
    let said = "epoch 1 names it as primary, but it is a standby";
    says(&mut shipping, said).await;
    site.primary.sql("select pg_promote()").await;
    let said = "it runs on timeline 2, epoch 1 claims timeline 1";
    says(&mut shipping, said).await;
    assert_eq!(site.timelines(WEST).await, [1]);
}

/// Slow answers, and a connection that is cut in the middle of each segment: what is stored is what was archived (R20).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_store_and_lost_connections_leave_no_hole() {
    const SEGMENT: u64 = 1 << 20;
    let site = Site::start(1).await;
    let slow = Rule::on(
        Operation::Create,
        "postgres/*",
        Fault::Delay(Duration::from_millis(150)),
    );
    let slow: Arc<dyn ObjectStore> = Arc::new(Faulty::scripted(site.store(WEST), vec![slow]));
    let stores = BTreeMap::from([(region(EAST), site.store(EAST)), (region(WEST), slow)]);
    let driver = driver(site.directory.path(), stores);
    let (sender, mut frontier) = watch::channel(Frontier::default());
    let (stop, stopped) = watch::channel(false);
    let shipping = tokio::spawn(async move { driver.ship(&region(WEST), sender, stopped).await });
    for _ in 0..5 {
        let before = frontier.borrow().durable;
        site.commit(20).await;
        let moved = frontier.wait_for(|frontier| frontier.durable > before);
        tokio::time::timeout(PATIENCE, moved)
            .await
            .unwrap()
            .unwrap();
        site.commit(20).await;
        site.primary
            .sql("select count(pg_terminate_backend(pid)) from pg_stat_replication")
            .await;
        site.switch().await;
    }
    site.commit(1).await;
    let end = site.primary.lsn().await;
    let there = frontier.wait_for(|frontier| frontier.durable >= end);
    tokio::time::timeout(PATIENCE, there)
        .await
        .unwrap()
        .unwrap();
    stop.send_replace(true);
    shipping.await.unwrap().unwrap();

    let store = site.store(WEST);
    let system_identifier = site.primary.system_identifier().await;
    let chain = ChainId {
        system_identifier,
        timeline: TimelineId(1),
        epoch: Epoch(1),
    };
    let tail = find_tail(&*store, &chain, Patience::default()).await;
    let origin = tail.unwrap().unwrap().origin.start_lsn;
    let mut compared = 0;
    for name in site.segments() {
        let number =
            |digits: std::ops::Range<usize>| u64::from_str_radix(&name[digits], 16).unwrap();
        let start = Lsn((number(8..16) * 4096 + number(16..24)) * SEGMENT);
        if start < origin {
            continue;
        }
        let to = start.advance(SEGMENT);
        let open = ChainReader::open(
            Arc::clone(&store),
            Section::new(system_identifier, TimelineId(1), start, to),
            Patience::default(),
        );
        let mut reader = open.await.unwrap();
        let mut stored = Vec::new();
        while let Some((_, log)) = reader.next().await.unwrap() {
            stored.extend_from_slice(&log);
        }
        let archived = std::fs::read(site.archive().join(&name)).unwrap();
        assert!(stored == archived, "{name} differs");
        compared += 1;
    }
    assert!(compared >= 5, "{compared}");
}
