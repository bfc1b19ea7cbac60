//! A receiver whose slot is gone, and log with it (R19).

use dr_coordination::Patience;
use dr_coordination::chain::find_tail;
use dr_coordination::register::EpochRecord;
use dr_model::Lsn;
use dr_postgres::{PostgresDriver, Slot, StoreLoss, SyncWish};
use dr_provider::decorate::{Fault, Faulty, Operation, Rule};
use dr_provider::driver::{
    Backup as _, Frontier, LogStream as _, Restore, RestoreRequest, RestoreTarget,
};
use dr_provider::error::chain;
use dr_provider::{ErrorKind, ObjectStore};
use rstest::rstest;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::apart::{is_apart, mount_disk};
use crate::server::{PATIENCE, Server, Version, run};
use crate::site::{EAST, Site, WEST, driver_with, new_directory, region};

const SLOT: &str = "dr_us_west_2";

/// A receiver that runs until it is dropped or stopped.
struct Shipping {
    frontier: watch::Receiver<Frontier>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Shipping {
    /// Starts that of the west.
    fn start(site: &Site) -> Self {
        Self::start_in(&site.driver, WEST)
    }

    fn start_in(driver: &PostgresDriver, name: &str) -> Self {
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

    async fn until(&mut self, wanted: impl FnMut(&Frontier) -> bool) -> Frontier {
        let seen = self.frontier.clone();
        let waiting = self.frontier.wait_for(wanted);
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!("{:?}", seen.borrow()),
        }
    }

    async fn until_durable(&mut self, site: &Site) {
        let end = site.primary.lsn().await;
        self.until(|frontier| frontier.durable >= end).await;
    }

    /// Leaves as if killed, and waits until the server has noticed.
    async fn kill(self, site: &Site) {
        drop(self);
        let gone = async {
            let streams = |slot: &Slot| slot.active && slot.name == SLOT;
            while site.driver.slots().await.unwrap().iter().any(streams) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.unwrap();
    }

    async fn stop(mut self) {
        self.stop.send_replace(true);
        (&mut self.task).await.unwrap();
    }
}

impl Drop for Shipping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Writes log, of which nobody waits for anything, until the slot is invalidated.
async fn lose_slot(site: &Site) {
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

async fn newest(site: &Site) -> EpochRecord {
    site.register().read().await.unwrap().unwrap()
}

async fn stored_tail(site: &Site) -> Lsn {
    let chain = newest(site).await.chain(&"database".parse().unwrap());
    let tail = find_tail(&*site.store(WEST), &chain.unwrap(), Patience::default()).await;
    tail.unwrap().unwrap().end
}

async fn lost_since(site: &Site, name: &str, since: Lsn) -> Vec<String> {
    site.driver.lost_since(&region(name), since).await.unwrap()
}

async fn restore(site: &Site, name: &str) -> Result<(), dr_provider::Error> {
    let request = RestoreRequest::new(region(WEST), RestoreTarget::Latest, site.place(name));
    Restore::restore(&site.driver, &request).await.map(drop)
}

async fn copy(site: &Site) {
    let copied = site.driver.copy(&region(EAST), &region(WEST), None).await;
    copied.unwrap();
}

/// The slot is invalidated while the receiver is away: the loss is recorded and an alarm, a new backup is due, nothing is
/// restored across it, and the log goes on behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_with_a_slot_is_recorded_and_the_log_goes_on() {
    let site = Site::start(1).await;
    let mut shipping = Shipping::start(&site);
    site.commit(3).await;
    shipping.until_durable(&site).await;
    let slots = site.driver.slots().await.unwrap();
    let [slot] = slots.as_slice() else {
        panic!("{slots:?}");
    };
    assert_eq!(slot.region, Some(region(WEST)));
    assert!(slot.active && slot.free_bytes.is_some(), "{slot:?}");
    assert_eq!(slot.alarm(), None);
    let busy = site.driver.drop_slot(SLOT).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Conflict);
    let first = site.back_up_quietly().await;
    shipping.until_durable(&site).await;
    copy(&site).await;
    shipping.kill(&site).await;
    let held = stored_tail(&site).await;
    lose_slot(&site).await;

    let mut shipping = Shipping::start(&site);
    site.commit(3).await;
    shipping.until_durable(&site).await;
    let missing = format!("is missing from {held} to ");
    let said = |line: &String| line.contains(&missing) && line.contains("it was invalidated");
    let seen = shipping
        .until(|frontier| frontier.alarms.iter().any(said))
        .await;
    assert_eq!(seen.problem, None);
    let [slot] = site.driver.slots().await.unwrap().try_into().unwrap();
    assert_eq!(slot.wal_status.as_deref(), Some("reserved"));
    // A snapshot is due, also by who takes it: the daemon beside the primary.
    for name in [EAST, WEST] {
        let lost = lost_since(&site, name, first.start).await;
        assert!(lost.len() == 1 && said(&lost[0]), "{name}: {lost:?}");
    }
    let refused = restore(&site, "refused").await.unwrap_err();
    assert!(
        chain(&refused).contains(&format!("is missing from {held}")),
        "{}",
        chain(&refused)
    );
    assert!(!site.place("refused").exists());

    let second = site.back_up_quietly().await;
    site.commit(3).await;
    shipping.until_durable(&site).await;
    copy(&site).await;
    for name in [EAST, WEST] {
        let lost = lost_since(&site, name, second.start).await;
        assert_eq!(lost, Vec::<String>::new());
    }
    restore(&site, "recovered").await.unwrap();
    let place = site.place("recovered");
    let mut server = Server::start(&place, &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    assert_eq!(
        Site::ledger(&server).await,
        Site::ledger(&site.primary).await
    );
    server.stop();

    shipping.stop().await;
    site.driver.drop_slot(SLOT).await.unwrap();
    assert_eq!(site.driver.slots().await.unwrap(), vec![]);
    let missing = site.driver.drop_slot(SLOT).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

/// Before a gap everything can be had; in it nothing, and behind it only what a backup behind it begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_is_reached_on_either_side_of_a_gap_and_refused_in_it() {
    let site = Site::start(1).await;
    let mut shipping = Shipping::start(&site);
    site.commit(3).await;
    shipping.until_durable(&site).await;
    site.back_up_quietly().await;
    site.commit(5).await;
    let (before, then) = (site.primary.lsn().await, Site::ledger(&site.primary).await);
    site.commit(5).await;
    shipping.until_durable(&site).await;
    copy(&site).await;
    shipping.kill(&site).await;
    let held = stored_tail(&site).await;
    lose_slot(&site).await;
    let mut shipping = Shipping::start(&site);
    site.commit(3).await;
    shipping.until_durable(&site).await;
    let behind = site.primary.lsn().await;
    let inside = held.advance(1 << 20);
    let refused = async |target: RestoreTarget| {
        let place = site.place("refused");
        let request = RestoreRequest::new(region(WEST), target, place.clone());
        let error = Restore::restore(&site.driver, &request).await.unwrap_err();
        let hole = format!("is missing from {held}");
        assert!(chain(&error).contains(&hole), "{}", chain(&error));
        assert!(!place.exists());
    };
    let reached = async |target: Lsn, name: &str| {
        let target = RestoreTarget::Lsn(target);
        let place = site.place(name);
        let request = RestoreRequest::new(region(WEST), target, place.clone());
        Restore::restore(&site.driver, &request).await.unwrap();
        let server = Server::start(&place, &["track_commit_timestamp=on"]).await;
        server.wait_until_promoted().await;
        Site::ledger(&server).await
    };
    for target in [
        RestoreTarget::Lsn(inside),
        RestoreTarget::Lsn(behind),
        RestoreTarget::Latest,
        RestoreTarget::Time(site.primary.now().await),
    ] {
        refused(target).await;
    }
    assert_eq!(reached(before, "before").await, then);

    site.back_up_quietly().await;
    site.commit(3).await;
    let (after, now) = (site.primary.lsn().await, Site::ledger(&site.primary).await);
    site.commit(1).await;
    shipping.until_durable(&site).await;
    copy(&site).await;
    refused(RestoreTarget::Lsn(inside)).await;
    refused(RestoreTarget::Lsn(behind)).await;
    assert_eq!(reached(after, "after").await, now);
    assert_eq!(reached(before, "again").await, then);
    shipping.stop().await;
}

/// The archiver still has what the slot has lost: pushed, it closes the hole, and what needed it can be restored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_archived_closes_the_hole() {
    let site = Site::start(1).await;
    let mut shipping = Shipping::start(&site);
    site.commit(3).await;
    shipping.until_durable(&site).await;
    let first = site.back_up_quietly().await;
    shipping.until_durable(&site).await;
    copy(&site).await;
    shipping.kill(&site).await;
    lose_slot(&site).await;
    let mut shipping = Shipping::start(&site);
    site.commit(3).await;
    shipping.until_durable(&site).await;
    assert_eq!(lost_since(&site, WEST, first.start).await.len(), 1);
    restore(&site, "refused").await.unwrap_err();

    site.switch().await;
    shipping.until_durable(&site).await;
    site.push(WEST).await;
    let none: Vec<String> = Vec::new();
    assert_eq!(lost_since(&site, WEST, Lsn::INVALID).await, none);
    restore(&site, "recovered").await.unwrap();
    let place = site.place("recovered");
    let mut server = Server::start(&place, &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    assert_eq!(
        Site::ledger(&server).await,
        Site::ledger(&site.primary).await
    );
    server.stop();
    let compacted = site.driver.compact(&region(WEST)).await.unwrap();
    assert_eq!(compacted.missing, none);
    shipping.stop().await;
}

/// A slot that somebody dropped costs nothing as long as the primary has the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_was_dropped_in_time_loses_nothing() {
    let site = Site::start(1).await;
    let mut shipping = Shipping::start(&site);
    site.commit(3).await;
    shipping.until_durable(&site).await;
    shipping.kill(&site).await;
    site.commit(3).await;
    site.primary
        .sql("alter system set wal_keep_size = '64MB'")
        .await;
    site.primary.sql("select pg_reload_conf()").await;
    site.driver.drop_slot(SLOT).await.unwrap();
    site.switch().await;
    site.primary.sql("checkpoint").await;
    site.commit(3).await;

    let mut shipping = Shipping::start(&site);
    shipping.until_durable(&site).await;
    assert_eq!(
        lost_since(&site, WEST, Lsn::INVALID).await,
        Vec::<String>::new()
    );
    shipping.stop().await;
}

/// Commits wait for the west, and log between them is lost: they are not told that the west has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_wait_are_not_released_by_passing_over_what_is_lost() {
    const LIMIT: Duration = Duration::from_secs(30);
    let site = Site::start(1).await;
    let mut shipping = Shipping::start(&site);
    site.commit(3).await;
    shipping.until_durable(&site).await;
    let wish = SyncWish::Exactly(vec![region(WEST)]);
    let change = site.driver.change_synchronous(&wish, "test", LIMIT).await;
    change.unwrap();
    site.commit(3).await;
    shipping.kill(&site).await;
    let held = stored_tail(&site).await;
    let mut waits = site.primary.connect().await;
    let waiting = tokio::spawn(async move {
        let sql = "insert into ledger (filler) values ('waits')";
        waits.query(sql).await.unwrap();
    });
    let begun = async {
        let sql = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
        while site.primary.sql(sql).await != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    lose_slot(&site).await;

    let mut shipping = Shipping::start(&site);
    let refusal = "commits wait for the store of us-west-2";
    shipping
        .until(|frontier| frontier.problem.iter().any(|why| why.contains(refusal)))
        .await;
    assert!(!waiting.is_finished());
    assert_eq!(stored_tail(&site).await, held);
    assert_eq!(lost_since(&site, WEST, held).await.len(), 1);

    let wish = SyncWish::Exactly(Vec::new());
    let change = site.driver.change_synchronous(&wish, "test", LIMIT).await;
    change.unwrap();
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap()
        .unwrap();
    shipping.until_durable(&site).await;
    shipping.stop().await;
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
    let mut site = Site::start(1).await;
    let mut shipping = Shipping::start(&site);
    site.commit(3).await;
    shipping.until_durable(&site).await;
    let first = site.back_up_quietly().await;
    site.commit(5).await;
    let (before, then) = (site.primary.lsn().await, Site::ledger(&site.primary).await);
    site.commit(1).await;
    shipping.until_durable(&site).await;
    copy(&site).await;
    if leaves_early {
        shipping.kill(&site).await;
        for _ in 0..3 {
            site.commit(3).await;
            site.switch().await;
        }
        site.restart_promoted().await;
    } else {
        // It gets all until the server stops.
        site.restart_promoted().await;
        drop(shipping);
    }
    site.primary.wait_until_promoted().await;
    // Whether anybody ever claims the timeline in between makes no difference.
    if !is_pushed {
        site.open_epoch(2, 2).await;
    }
    for _ in 0..3 {
        site.commit(3).await;
        site.switch().await;
    }
    site.restart_promoted().await;
    site.primary.wait_until_promoted().await;
    site.open_epoch(if is_pushed { 2 } else { 3 }, 3).await;
    site.commit(3).await;

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
        restore(&site, "filled").await.unwrap();
        let place = site.place("filled");
        let mut server = Server::start(&place, &["track_commit_timestamp=on"]).await;
        server.wait_until_promoted().await;
        assert_eq!(
            Site::ledger(&server).await,
            Site::ledger(&site.primary).await
        );
        server.stop();
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
    restore(&site, "recovered").await.unwrap();
    let place = site.place("recovered");
    let mut server = Server::start(&place, &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    assert_eq!(
        Site::ledger(&server).await,
        Site::ledger(&site.primary).await
    );
    server.stop();
    shipping.stop().await;
}

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
        "lost_slot::a_slot_is_dropped_before_it_fills_the_disk::{case}"
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
    let driver = driver_with(site.directory.path(), stores, StoreLoss::Block);

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
    restore(&site, "recovered").await.unwrap();
    let place = site.place("recovered");
    let mut server = Server::start(&place, &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    assert_eq!(
        Site::ledger(&server).await,
        Site::ledger(&site.primary).await
    );
    server.stop();
    away.stop().await;
    beside.stop().await;
    let mut unmount = std::process::Command::new("umount");
    run(unmount.arg("--lazy").arg(&site.primary.data));
}
