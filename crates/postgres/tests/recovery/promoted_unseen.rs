//! A primary that is promoted while nobody receives its log (R22).

use dr_model::Lsn;
use dr_provider::driver::{Restore, RestoreRequest, RestoreTarget};
use dr_provider::error::chain;
use rstest::rstest;

use crate::server::Server;
use crate::shipping::{Shipping, begin, copy, lost_since, restore, restored_is_whole};
use crate::site::{EAST, Site, WEST, region};

async fn fill_segments(site: &Site) {
    for _ in 0..3 {
        site.commit(3).await;
        site.switch().await;
    }
}

/// Lets a primary that was promoted write a timeline, which an epoch claims or not, and promotes it again.
async fn promote_again(site: &mut Site, is_claimed: bool) {
    site.primary.wait_until_promoted().await;
    if is_claimed {
        site.open_epoch(2, 2).await;
    }
    fill_segments(site).await;
    site.restart_promoted().await;
    site.primary.wait_until_promoted().await;
    site.open_epoch(if is_claimed { 3 } else { 2 }, 3).await;
    site.commit(3).await;
}

/// The primary is promoted once and again while its receiver is away: the store gets the whole ancestry, says what it lacks of it, and
/// nothing is restored across that; before it everything can be had, and behind it what a new backup begins. What was archived and is
/// pushed fills it.
#[rstest]
#[case::with_some_of_the_first_timeline_missing(true, false)]
#[case::with_all_of_it(false, false)]
#[case::which_is_filled(true, true)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_promoted_twice_unseen_leaves_a_gap(
    #[case] leaves_early: bool,
    #[case] is_pushed: bool,
) {
    let (mut site, mut shipping) = begin().await;
    let first = site.back_up_quietly().await;
    site.commit(5).await;
    let (before, then) = (site.primary.lsn().await, Site::ledger(&site.primary).await);
    site.commit(1).await;
    shipping.until_durable(&site).await;
    copy(&site).await;
    if leaves_early {
        shipping.kill(&site).await;
        fill_segments(&site).await;
        site.restart_promoted().await;
    } else {
        // It gets all until the server stops.
        site.restart_promoted().await;
        drop(shipping);
    }
    // Whether anybody ever claims the timeline in between makes no difference.
    promote_again(&mut site, !is_pushed).await;

    let mut shipping = Shipping::start(&site);
    shipping.until_durable(&site).await;
    let lost = lost_since(&site, WEST, first.start).await;
    let timelines: &[u32] = if leaves_early { &[1, 2] } else { &[2] };
    assert_eq!(lost.len(), timelines.len(), "{lost:?}");
    for (line, timeline) in lost.iter().zip(timelines) {
        let said = format!("the log of timeline {timeline} is missing from ");
        assert!(line.starts_with(&said), "{line}");
    }
    shipping
        .until(|frontier| frontier.alarms.len() == lost.len())
        .await;
    let refused = restore(&site, "refused").await.unwrap_err();
    let hole = format!("the log of timeline {} is missing from", timelines[0]);
    assert!(chain(&refused).contains(&hole), "{}", chain(&refused));
    assert!(!site.place("refused").exists());
    if is_pushed {
        site.switch().await;
        shipping.until_durable(&site).await;
        // Twice, as after a push of which the server did not hear: of the second nothing is new.
        for _ in 0..2 {
            for name in site.segments() {
                let path = site.archive().join(&name);
                site.driver.push_wal(&region(WEST), &path).await.unwrap();
            }
        }
        let none: Vec<String> = Vec::new();
        assert_eq!(lost_since(&site, WEST, Lsn::INVALID).await, none);
        restored_is_whole(&site).await;
        shipping.stop().await;
        return;
    }
    let place = site.place("before");
    let target = RestoreTarget::Lsn(before);
    let request = RestoreRequest::new(region(WEST), target, place.clone());
    Restore::restore(&site.driver, &request).await.unwrap();
    let mut server = Server::start(&place, &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    assert_eq!(Site::ledger(&server).await, then);
    server.stop();

    site.switch().await;
    site.push_history(EAST, 2).await;
    site.push_history(EAST, 3).await;
    let second = site.back_up_quietly().await;
    site.commit(3).await;
    shipping.until_durable(&site).await;
    copy(&site).await;
    let none: Vec<String> = Vec::new();
    assert_eq!(lost_since(&site, WEST, second.start).await, none);
    restored_is_whole(&site).await;
    shipping.stop().await;
}
