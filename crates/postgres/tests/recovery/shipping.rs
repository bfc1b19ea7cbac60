//! A receiver of the west that comes and goes, and what its store holds then.

use std::time::Duration;

use dr_coordination::Patience;
use dr_coordination::chain::find_tail;
use dr_coordination::register::EpochRecord;
use dr_model::Lsn;
use dr_postgres::{PostgresDriver, Slot};
use dr_provider::driver::{
    Backup as _, Frontier, LogStream as _, Restore, RestoreRequest, RestoreTarget,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::server::{PATIENCE, Server};
use crate::site::{EAST, Site, WEST, region};

/// The slot of the west.
pub(crate) const SLOT: &str = "dr_us_west_2";

/// A receiver that runs until it is dropped or stopped.
pub(crate) struct Shipping {
    pub(crate) frontier: watch::Receiver<Frontier>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Shipping {
    /// Starts that of the west.
    pub(crate) fn start(site: &Site) -> Self {
        Self::start_in(&site.driver, WEST)
    }

    pub(crate) fn start_in(driver: &PostgresDriver, name: &str) -> Self {
        let (sender, frontier) = watch::channel(Frontier::default());
        let (stop, stopped) = watch::channel(false);
        let (driver, region) = (driver.clone(), region(name));
        let task = tokio::spawn(async move {
            driver.ship(&region, sender, stopped).await.unwrap();
        });
        Self {
            frontier,
            stop,
            task,
        }
    }

    pub(crate) async fn until(&mut self, wanted: impl FnMut(&Frontier) -> bool) -> Frontier {
        let seen = self.frontier.clone();
        let waiting = self.frontier.wait_for(wanted);
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!("{:?}", seen.borrow()),
        }
    }

    pub(crate) async fn until_durable(&mut self, site: &Site) {
        let end = site.primary.lsn().await;
        self.until(|frontier| frontier.durable >= end).await;
    }

    /// Leaves as if killed, and waits until the server has noticed.
    pub(crate) async fn kill(self, site: &Site) {
        drop(self);
        let gone = async {
            let streams = |slot: &Slot| slot.active && slot.name == SLOT;
            while site.driver.slots().await.unwrap().iter().any(streams) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.unwrap();
    }

    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        (&mut self.task).await.unwrap();
    }
}

impl Drop for Shipping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a site whose log the west has.
pub(crate) async fn begin() -> (Site, Shipping) {
    let site = Site::start(1).await;
    let mut shipping = Shipping::start(&site);
    site.commit(3).await;
    shipping.until_durable(&site).await;
    (site, shipping)
}

/// Restores the newest moment that the west has, which has to be all that the primary has.
pub(crate) async fn restored_is_whole(site: &Site) {
    restore(site, "recovered").await.unwrap();
    let mut server = Server::start(&site.place("recovered"), &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    assert_eq!(
        Site::ledger(&server).await,
        Site::ledger(&site.primary).await
    );
    server.stop();
}

/// Returns where the log in the west's store ends.
pub(crate) async fn stored_tail(site: &Site) -> Lsn {
    let newest: EpochRecord = site.register().read().await.unwrap().unwrap();
    let chain = newest.chain(&"database".parse().unwrap());
    let tail = find_tail(&*site.store(WEST), &chain.unwrap(), Patience::default()).await;
    tail.unwrap().unwrap().end
}

pub(crate) async fn lost_since(site: &Site, name: &str, since: Lsn) -> Vec<String> {
    site.driver.lost_since(&region(name), since).await.unwrap()
}

/// Restores the newest moment that the west has.
pub(crate) async fn restore(site: &Site, name: &str) -> Result<(), dr_provider::Error> {
    let request = RestoreRequest::new(region(WEST), RestoreTarget::Latest, site.place(name));
    Restore::restore(&site.driver, &request).await.map(drop)
}

/// Copies the recovery points of the east into the west.
pub(crate) async fn copy(site: &Site) {
    let copied = site.driver.copy(&region(EAST), &region(WEST), None).await;
    copied.unwrap();
}

/// Writes log, of which nobody waits for anything, until the slot is invalidated.
pub(crate) async fn lose_slot(site: &Site) {
    site.primary
        .sql("alter system set max_slot_wal_keep_size = '2MB'")
        .await;
    site.primary.sql("select pg_reload_conf()").await;
    let lost = async {
        loop {
            let mut connection = site.primary.connect().await;
            for sql in [
                "set synchronous_commit = local",
                "insert into ledger (filler) values ('lost')",
                "select pg_switch_wal()",
                "checkpoint",
            ] {
                connection.query(sql).await.unwrap();
            }
            let slots = site.driver.slots().await.unwrap();
            let alarm = slots[0].alarm();
            if alarm.is_some_and(|alarm| alarm.contains("was invalidated")) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, lost).await.unwrap();
}
