//! The receiver, where its chain ends.

use std::time::Duration;

use dr_coordination::chain::{ChainId, SealRequest, seal};
use dr_coordination::{Actor, Patience};
use dr_model::{Epoch, Lsn, TimelineId};
use dr_provider::ErrorKind;
use dr_provider::driver::{Frontier, LogStream as _};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::server::PATIENCE;
use crate::site::{Site, WEST, region};

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
