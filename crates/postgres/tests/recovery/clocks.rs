//! Clocks that differ by an hour: the daemon's and the server's. It is said, and nothing is lost, deleted or called covered for it.

use std::sync::Arc;
use std::time::Duration;

use dr_model::{Clock, Retention, SystemClock};
use dr_provider::driver::{
    Backup as _, Expire, ExpireRequest, Frontier, LogStream as _, RestoreTarget,
};
use jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use tokio::sync::watch;

use crate::restore::recover;
use crate::server::PATIENCE;
use crate::site::{EAST, Site, WEST, region};

/// The machine's clock, set wrong.
#[derive(Debug)]
struct Wrong(SystemClock, SignedDuration);

impl Clock for Wrong {
    fn now(&self) -> Timestamp {
        self.0.now() + self.1
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[rstest]
#[case::behind(-1, "ahead of")]
#[case::ahead(1, "behind")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_between_clocks_costs_nothing(#[case] hours: i64, #[case] how: &str) {
    let mut site = Site::start(1).await;
    let clock = Arc::new(Wrong(SystemClock::new(), SignedDuration::from_hours(hours)));
    site.tell_time_by(clock.clone());
    let (sender, mut frontier) = watch::channel(Frontier::default());
    let (stop, stopped) = watch::channel(false);
    let driver = site.driver.clone();
    let west = region(WEST);
    let shipping = tokio::spawn(async move { driver.ship(&west, sender, stopped).await });
    site.commit(3).await;
    let full = site.back_up_quietly().await;
    site.commit(3).await;
    let incremental = site.back_up_quietly().await;
    assert_eq!(incremental.taken.parent, Some(full.label.clone()));
    site.commit(5).await;
    let then = Site::ledger(&site.primary).await;
    let (_, last) = *then.last().unwrap();
    site.commit(5).await;
    let end = site.primary.lsn().await;
    let said = format!("s {how} this machine's");
    let there = frontier.wait_for(|frontier| {
        let alarmed = frontier.alarms.iter().any(|alarm| alarm.contains(&said));
        frontier.durable >= end && frontier.covered_at.is_some() && alarmed
    });
    let there = tokio::time::timeout(PATIENCE, there)
        .await
        .unwrap()
        .unwrap()
        .clone();
    // A primary that goes silent now is not taken for covered until its clock is caught up with.
    assert!(there.covered_at.unwrap() <= clock.now(), "{there:?}");
    let facts = site.driver.list(&site.store(EAST)).await.unwrap();
    assert_eq!(facts.complete.len(), 2);
    stop.send_replace(true);
    shipping.await.unwrap().unwrap();
    let copied = site.driver.copy(&region(EAST), &region(WEST), None).await;
    copied.unwrap();

    for name in [EAST, WEST] {
        let request = ExpireRequest {
            region: region(name),
            retention: Retention {
                within: Some(Duration::from_secs(30 * 60)),
                ..Retention::NOTHING
            },
            labels: Vec::new().into_iter().collect(),
        };
        let report = Expire::expire(&site.driver, &request).await.unwrap();
        assert_eq!(report.plan.blocked, Vec::<String>::new());
        assert!(
            !report.plan.given_up.contains(&incremental.label),
            "{report:?}"
        );
    }
    site.switch().await;
    site.push(WEST).await;
    let all = Site::ledger(&site.primary).await;
    let server = recover(&site, WEST, RestoreTarget::Time(last), "then").await;
    assert_eq!(Site::ledger(&server).await, then);
    drop(server);
    let server = recover(&site, WEST, RestoreTarget::Latest, "latest").await;
    assert_eq!(Site::ledger(&server).await, all);
}
